"""What is kept of test logits tells what they told, and says what it can't tell."""

import dataclasses
import pathlib
import subprocess

import numpy as np
import pytest
import report
from paper import suites
from reproduction import finished_runs, predictions
from reproduction.config import RunConfig
from reproduction.predictions import SavedPredictions

from lade_tf import evaluation, priors
from lade_tf.evaluation import SavedLogits
from lade_tf.files import read_json, write_json

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
COMMITTED = sorted(path.parent for path in RESULTS.rglob("result.json"))
COUNTS = np.array([300, 120, 40, 10])
UNIFORM, TRAIN = np.full(4, 0.25), COUNTS / COUNTS.sum()
KEPT_AT_ALL = ("accuracy", "accuracy_se", "accuracy_drawn", "many", "medium", "few")
CALIBRATION = ("ece", "brier", "nll")


def make_saved(source=TRAIN, per_class=60, seed=0):
    """Returns `SavedLogits` whose test images are in no order of their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(4), per_class)).astype(np.int32)
    logits = rng.normal(size=(len(labels), 4)) + 1.5 * np.eye(4)[labels] + np.log(source)
    names = np.array(list("abcd"))
    return SavedLogits(logits.astype(np.float32), labels, COUNTS, source, names)


CONFIG = RunConfig.resolve("digits_lt", "softmax").to_json()


def write_run(folder, saved, config=None):
    folder.mkdir(parents=True)
    saved.save(folder / "test_logits.npz")
    write_json(folder / "result.json", {"config": config or CONFIG})
    return folder


def reduced(folder, saved, keep_logits=False):
    """Returns a folder as sweep.py leaves it of a run."""
    run = write_run(folder / "run", saved)
    copy = folder / "copy"
    copy.mkdir()
    predictions.reduce(run, copy, keep_logits)
    (copy / "result.json").write_bytes((run / "result.json").read_bytes())
    return copy


@pytest.mark.parametrize("source", [TRAIN, UNIFORM, np.array([0.1, 0.2, 0.3, 0.4])])
def test_predictions_tell_what_the_logits_told(source, tmp_path):
    saved = make_saved(source)
    kept = finished_runs.load_saved(reduced(tmp_path, saved))
    assert isinstance(kept, SavedPredictions)
    for name in ("uniform", "forward:50", "backward:50", "forward:5"):
        test = evaluation.prior_for(saved, name)
        for told in (test, source, UNIFORM):
            expected = evaluation.evaluate(saved, told, test, draw_seed=3)
            found = evaluation.evaluate(kept, told, test, draw_seed=3)
            for metric in KEPT_AT_ALL:
                assert found[metric] == expected[metric], (name, metric)
            scored = told is not test or name == "uniform"
            for metric in CALIBRATION:
                value = pytest.approx(expected[metric], rel=1e-7) if scored else None
                assert found[metric] == value, (name, metric)
            at_uniform = scored and name == "uniform"
            value = pytest.approx(expected["classwise_ece"], rel=1e-12) if at_uniform else None
            assert found["classwise_ece"] == value


def test_predictions_are_those_of_an_oracle_in_their_own_order(tmp_path):
    saved = make_saved()
    kept = predictions.load(reduced(tmp_path, saved))
    assert kept.told_names.tolist()[:2] == ["source", "uniform"] and len(kept.told_names) == 12
    for name, prior, predicted in zip(
        kept.told_names, kept.told_priors, kept.predicted, strict=True
    ):
        told = TRAIN if name == "source" else evaluation.prior_for(saved, name)
        np.testing.assert_array_equal(prior, told)
        scores = saved.logits.astype(np.float64) - np.log(TRAIN) + np.log(told)
        np.testing.assert_array_equal(predicted, scores.argmax(axis=1))
    odds = np.exp(saved.logits.astype(np.float64) - np.log(TRAIN))
    posterior = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kept.adapted_to(UNIFORM).mean_probability, posterior.mean(axis=0))
    np.testing.assert_allclose(
        kept.adapted_to(UNIFORM).confidence, posterior.max(axis=1), rtol=1e-6
    )
    truth = posterior[np.arange(240), saved.labels]
    np.testing.assert_allclose(kept.likelihood[1], truth, rtol=1e-5)
    own = [saved.logits[saved.labels == c, c].astype(np.float64) for c in range(4)]
    others = [saved.logits[saved.labels != c, c].astype(np.float64) for c in range(4)]
    for moments, values in ((kept.positive_logits, own), (kept.negative_logits, others)):
        np.testing.assert_allclose(moments, [(v.mean(), v.std()) for v in values], rtol=1e-6)


def test_of_an_imbalanced_test_set_what_is_predicted_of_it_as_it_is_is_kept(tmp_path):
    saved = make_saved()
    kept = np.flatnonzero((saved.labels != 3) & (np.arange(240) % 5 != saved.labels))[:99]
    saved = dataclasses.replace(saved, logits=saved.logits[kept], labels=saved.labels[kept])
    reduced_to = finished_runs.load_saved(reduced(tmp_path, saved))
    assert reduced_to.told_names.tolist() == ["source", "uniform"] + [
        name for name in (*evaluation.SHIFTS, "test") if name != "uniform"
    ]
    for name in evaluation.STANDARD_PRIORS:
        prior = evaluation.prior_for(saved, name)
        assert reduced_to.keeps(prior) and prior[3] == 0
        for metric in KEPT_AT_ALL[:2]:
            found, expected = (
                evaluation.evaluate(each, prior, prior)[metric] for each in (reduced_to, saved)
            )
            assert found == expected, (name, metric)
    assert not reduced_to.keeps(np.array([0.7, 0.1, 0.1, 0.1]))


def test_of_free_logits_one_row_stands_for_their_own_prior(tmp_path):
    kept = predictions.load(reduced(tmp_path, make_saved(UNIFORM)))
    assert kept.told_names[0] == "uniform" and "source" not in kept.told_names
    assert len(kept.confidence) == 1 and kept.adapted_to(kept.source_prior).index == 0


def test_paired_comparisons_need_no_logits(tmp_path):
    one, other = make_saved(), make_saved(UNIFORM)
    other = dataclasses.replace(other, labels=one.labels)
    kept = [SavedPredictions.of(saved) for saved in (one, other)]
    names = ["forward:10", "uniform", "backward:50"]
    assert evaluation.compare(*kept, names) == evaluation.compare(one, other, names)
    assert evaluation.compare(kept[0], other, names) == evaluation.compare(one, other, names)


def test_what_needs_the_logits_names_their_file(tmp_path):
    folder = reduced(tmp_path, make_saved())
    kept = finished_runs.load_saved(folder)
    path = folder / "test_logits.npz"
    for prior in (np.array([0.7, 0.1, 0.1, 0.1]), np.full(5, 0.2)):
        with pytest.raises(ValueError, match=f"one of source, uniform, forward:50.*{path}.*isn't"):
            evaluation.evaluate(kept, prior, UNIFORM)
    with pytest.raises(ValueError, match=f"{path}, which isn't there"):
        evaluation.evaluate_shifts(kept, ["forward:50"], reading="paper")
    with pytest.raises(ValueError, match=f"{path} isn't there"):
        finished_runs.load_run(folder).saved  # noqa: B018  what studies.temperature and others ask for
    with pytest.raises(ValueError, match=f"{path} isn't there"):
        report.write_report([folder], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    table = evaluation.format_table(evaluation.evaluate_shifts(kept, ["uniform", "forward:50"]))
    uniform, forward = table.splitlines()[1:]
    assert " - " not in uniform and forward.count(" - ") + forward.endswith(" -") == 4


def test_kept_logits_are_float16_and_read_as_float32(tmp_path):
    saved = make_saved()
    folder = reduced(tmp_path, saved, keep_logits=True)
    with np.load(folder / "test_logits.npz") as file:
        assert file["logits"].dtype == np.float16
    for again in (finished_runs.load_saved(folder), finished_runs.load_run(folder).saved):
        assert again.logits.dtype == np.float32
        np.testing.assert_allclose(again.logits, saved.logits, rtol=2**-11, atol=1e-6)
        np.testing.assert_array_equal(again.labels, saved.labels)
    # Tables and figures have the numbers of the float32 logits all the same.
    kept = finished_runs.load_run(folder).predictions
    np.testing.assert_array_equal(kept.confidence, SavedPredictions.of(saved).confidence)


def test_what_cannot_be_reduced_leaves_nothing(tmp_path):
    saved = make_saved()
    large = dataclasses.replace(saved, logits=saved.logits * np.float32(1e5))
    with pytest.raises(ValueError, match="within 65504"):
        reduced(tmp_path / "large", large, keep_logits=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "test_logits.npz").write_text("no zip")
    write_json(tmp_path / "damaged" / "result.json", {"config": {}})
    copy = tmp_path / "copy"
    copy.mkdir()
    with pytest.raises(ValueError, match="doesn't hold saved logits: it isn't an .npz"):
        predictions.reduce(tmp_path / "damaged", copy)
    assert not [*copy.iterdir(), *(tmp_path / "large" / "copy").iterdir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "its version is 2, this code reads 1"),
        ({"labels": np.full(240, 4)}, r"labels must be in 0\.\.3"),
        ({"labels": np.zeros(240)}, "labels must be integers"),
        ({"predicted": np.zeros((12, 9), int)}, r"predicted must have shape \[12, 240\]"),
        ({"predicted": np.full((12, 240), 4)}, r"predicted must be in 0\.\.3"),
        ({"told_priors": np.ones((12, 3))}, r"told_priors must have shape \[12, 4\]"),
        ({"confidence": np.full((2, 240), np.nan)}, r"confidence must lie in \[0, 1\]"),
        ({"likelihood": np.full((2, 240), 1.5)}, r"likelihood must lie in \[0, 1\]"),
        ({"confidence": np.zeros((0, 240))}, "confidence must have 1 to 12 rows; it has 0"),
        ({"source_prior": np.array([1.0, 0, 0, 0])}, "source_prior must hold probabilities > 0"),
        ({"counts": np.array([1, 2, 3])}, "must"),
        ({"classwise_ece": None}, "classwise_ece"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, change, message):
    path = tmp_path / "predictions.npz"
    SavedPredictions.of(make_saved()).save(path)
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=f"predictions.npz of a run: .*{message}"):
        predictions.load(tmp_path)


def test_a_file_is_small_and_the_same_bytes_again(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(100), 100)).astype(np.int32)
    logits = rng.normal(size=(10_000, 100)).astype(np.float32)
    logits[np.arange(10_000), labels] += 3
    counts = priors.exponential_counts(500, 100, 100)
    names = np.array([str(c) for c in range(100)])
    saved = SavedLogits(logits, labels, counts, priors.uniform_prior(100), names)
    kept = SavedPredictions.of(saved)
    for name in ("one.npz", "other.npz"):
        kept.save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    assert (tmp_path / "one.npz").stat().st_size < 150_000
    SavedPredictions.load(tmp_path / "one.npz").save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_predictions_are_those_that_the_result_was_measured_from(folder):
    result, kept = read_json(folder / "result.json"), predictions.load(folder)
    assert (folder / "predictions.npz").exists()
    measured = {
        "metrics": evaluation.evaluate(kept, UNIFORM_100, UNIFORM_100),
        "metrics_unadapted": evaluation.evaluate(kept, kept.source_prior, UNIFORM_100),
    }
    shifted = evaluation.evaluate_shifts(kept, list(result["metrics_shifted"]))
    pairs = [(measured[name], result[name]) for name in measured]
    pairs += [(shifted[name], values) for name, values in result["metrics_shifted"].items()]
    for found, expected in pairs:
        for name, value in expected.items():
            if name != "accuracy_se" and found[name] is not None:
                assert found[name] == pytest.approx(value, rel=1e-5), name


UNIFORM_100 = priors.uniform_prior(100)


def test_committed_logits_are_in_float16_of_the_runs_that_keep_them():
    folders = [path.parent for path in RESULTS.rglob("test_logits.npz")]
    assert {folder.name for folder in folders} <= set(suites.KEPT_LOGITS)
    assert len(folders) >= 6 and len(suites.KEPT_LOGITS) <= 13
    for folder in folders:
        with np.load(folder / "test_logits.npz") as file:
            assert file["logits"].dtype == np.float16
        run = finished_runs.load_run(folder)
        for prior in (UNIFORM_100, evaluation.prior_for(run.saved, "backward:50")):
            outcomes = run.saved.adapted_to(prior), run.predictions.adapted_to(prior)
            same = np.mean(outcomes[0].predicted == outcomes[1].predicted)
            assert same > 0.995, folder.name


def test_a_clone_stays_small():
    """No tracked file over 500 kB but the kept logits, and 40 MB in all."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    large = {path for path, size in sizes.items() if size > 500_000}
    logits = {path for path in large if path.name == "test_logits.npz"}
    assert not large - logits, "reduce results with predictions.reduce, as sweep.py does"
    assert {path.parent.name for path in logits} <= set(suites.KEPT_LOGITS)
    assert len(logits) <= 13 and all(sizes[path] < 2_000_000 for path in logits)
    assert sum(sizes.values()) < 40e6
