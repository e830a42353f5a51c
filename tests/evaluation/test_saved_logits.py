import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

import lade_tf
from lade_tf.evaluation import SavedLogits

COUNTS = np.array([101, 29, 10])


def make_saved(per_class=40, source_prior=None):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    logits = rng.normal(size=(len(labels), 3)).astype(np.float32) + 2 * np.eye(3)[labels]
    return SavedLogits(logits.astype(np.float32), labels, COUNTS, source_prior, ["a", "b", "c"])


def test_what_is_saved_comes_back(tmp_path):
    paths = np.array([f"{index}.jpg" for index in range(120)])
    saved = dataclasses.replace(make_saved(), paths=paths, source_prior=COUNTS / COUNTS.sum())
    saved.save(tmp_path / "logits.npz")
    again = SavedLogits.load(tmp_path / "logits.npz")
    for field in dataclasses.fields(SavedLogits):
        one, other = (getattr(each, field.name) for each in (saved, again))
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_files_of_other_programs_lack_what_has_a_default(tmp_path):
    saved = make_saved()
    arrays = {"logits": saved.logits.astype(np.float16), "labels": saved.labels[:, np.newaxis]}
    np.savez(tmp_path / "logits.npz", counts=COUNTS, **arrays)
    again = SavedLogits.load(tmp_path / "logits.npz")
    assert again.logits.dtype == np.float32 and again.labels.shape == (120,)
    assert again.class_names is None and again.paths is None
    np.testing.assert_allclose(again.source_prior, 1 / 3)
    again.save(tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as file:
        assert set(file) == {"logits", "labels", "counts", "source_prior"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.full((120, 3), np.nan, np.float32)}, "logits must be finite; 120 samples"),
        ({"labels": np.repeat([0, 1, 3], 40)}, r"labels must be in 0\.\.2; got values from 0 to 3"),
        ({"labels": np.repeat([0, 1, 2], 4)}, "labels must hold 120 samples; got 12"),
        ({"counts": np.array([3, 4])}, "class_counts must hold 3 classes; got 2"),
        ({"source_prior": np.array([0.5, 0.5])}, "source_prior must have 3 entries"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make_saved(), **change)
    arrays = {**dataclasses.asdict(make_saved()), **change}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    np.savez(tmp_path / "logits.npz", **arrays)
    with pytest.raises(ValueError, match=f"logits.npz doesn't hold saved logits: .*{message}"):
        SavedLogits.load(tmp_path / "logits.npz")


def test_half_precision_is_refused_where_it_overflows(tmp_path):
    saved = make_saved()
    saved.save(tmp_path / "half.npz", dtype=np.float16)
    with np.load(tmp_path / "half.npz") as file:
        assert file["logits"].dtype == np.float16
    large = dataclasses.replace(saved, logits=saved.logits * 1e5)
    with pytest.raises(ValueError, match="logits must lie within 65504, the largest float16"):
        large.save(tmp_path / "large.npz", dtype=np.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["half.npz"]


def test_files_that_hold_no_logits_are_refused(tmp_path):
    path = tmp_path / "logits.npz"
    for write, reason in (
        (lambda: None, "No such file"),
        (lambda: path.write_text("text"), "it isn't an .npz file"),
        (lambda: np.savez(path, logits=np.zeros((2, 2))), "it lacks labels, counts"),
    ):
        write()
        with pytest.raises(ValueError, match=f"doesn't hold saved logits: .*{reason}"):
            SavedLogits.load(path)


def test_adapted_probabilities_are_equation_4():
    source, target = COUNTS / COUNTS.sum(), np.array([0.2, 0.8, 0.0])
    outcome = make_saved(source_prior=source).adapted_to(target)
    with np.errstate(divide="ignore"):
        shift = np.log(target / source)
    expected = softmax(make_saved().logits.astype(np.float64) + shift, axis=1)
    np.testing.assert_allclose(outcome.probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(outcome.predicted, expected.argmax(axis=1))


def test_a_model_is_run_over_its_test_set():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = lade_tf.adapt(network, COUNTS, from_logits=True)
    model.set_target_prior([0.1, 0.2, 0.7])
    inputs, labels = np.random.default_rng(0).normal(size=(10, 4)), np.arange(10) % 3
    batches = tf.data.Dataset.from_tensor_slices((inputs.astype(np.float32), labels)).batch(4)
    saved = SavedLogits.of_model(model, batches, class_names=list("abc"))
    np.testing.assert_allclose(saved.logits, network(inputs), rtol=1e-5)
    np.testing.assert_array_equal(saved.labels, labels)
    np.testing.assert_allclose(saved.source_prior, COUNTS / COUNTS.sum())
    probabilities = saved.adapted_to([0.1, 0.2, 0.7]).probabilities
    expected = softmax(model.predict(inputs, verbose=0), axis=1)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="batches must yield at least one batch"):
        SavedLogits.of_model(model, [])
