"""studies.unknown_prior on synthetic runs, and the EM benchmark at a small size."""

import json

import numpy as np
import pytest
from binaries import run
from reproduction.config import RunConfig
from studies import unknown_prior

from lade_tf import priors
from lade_tf.evaluation import SavedLogits
from lade_tf.files import write_json


def make_run(folder, per_class=200, num_classes=4, separation=3.0):
    """Writes a finished run whose logits are exact for Gaussian classes, and returns them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), per_class)
    x = rng.normal(size=(len(labels), num_classes)) + separation * np.eye(num_classes)[labels]
    counts = np.array([400, 100, 40, 10])
    prior = priors.class_prior(counts)
    logits = (separation * x + np.log(prior)).astype(np.float32)
    saved = SavedLogits(logits, labels, counts, prior, np.array(list("abcd")))
    folder.mkdir()
    saved.save(folder / "test_logits.npz")
    write_json(
        folder / "result.json", {"config": RunConfig.resolve("digits_lt", "softmax").to_json()}
    )
    return saved


def test_the_known_prior_is_best_and_em_comes_close(tmp_path):
    make_run(tmp_path / "exact")
    flags = ("--runs=exact", "--targets=forward:20,backward:20", "--draws=3", "--output=out.json")
    output = run("studies.unknown_prior", *flags, cwd=tmp_path)
    assert "EM, exact posteriors" in output and "forward:20" in output
    results = json.loads((tmp_path / "out.json").read_text())["results"]["exact"]
    for target in ("forward:20", "backward:20"):
        scores = results[target]
        assert scores["known"]["l1"] == 0 and scores["known"]["estimates"] == 6
        assert scores["EM"]["accuracy"] == pytest.approx(scores["known"]["accuracy"], abs=0.01)
        assert scores["EM"]["l1"] < 0.1 < scores["none"]["l1"]
    backward = results["backward:20"]
    assert backward["none"]["accuracy"] < backward["EM"]["accuracy"]


def test_halves_hold_half_of_every_class_and_share_nothing():
    labels = np.tile(np.arange(5), 20)
    one, other = unknown_prior.split(labels, seed=1)
    assert not set(one) & set(other) and len(one) + len(other) == 100
    np.testing.assert_array_equal(np.bincount(labels[one]), 10)
    assert set(one) != set(unknown_prior.split(labels, seed=2)[0])


def test_exact_posteriors_are_limited_by_the_size_alone(tmp_path):
    saved = make_run(tmp_path / "exact", per_class=500)
    uniform = priors.uniform_prior(4)
    probabilities = unknown_prior.evaluation.adapted_probabilities(
        saved.logits, saved.source_prior, uniform
    )
    target = np.array([0.6, 0.25, 0.1, 0.05])
    arguments = probabilities, saved.labels, probabilities, target
    errors = [
        np.abs(unknown_prior.em_on_exact_posteriors(*arguments, size, 0) - target).sum()
        for size in (50, 20_000)
    ]
    assert errors[1] < 0.03 < errors[0]


def test_a_singular_confusion_matrix_is_left_out(tmp_path):
    make_run(tmp_path / "vague", separation=0.3)  # the rare classes are never predicted
    output = run("studies.unknown_prior", "--runs=vague", "--draws=1", cwd=tmp_path)
    assert "known" in output


def test_the_spread_is_that_of_a_sample():
    several = unknown_prior._mean_and_sd([(0.25, 0.5), (0.75, 0.5), (0.5, 0.5)])
    assert several["l1"] == 0.5 and several["l1_sd"] == pytest.approx(0.25)
    assert several["accuracy_sd"] == 0 and several["estimates"] == 3
    one = unknown_prior._mean_and_sd([(0.25, 0.5)])
    assert one["l1"] == 0.25 and one["l1_sd"] is one["accuracy_sd"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--runs=nowhere",), "nowhere must hold a finished run"),
        (("--runs=exact", "--targets=unifrom"), "a prior must be uniform"),
        (("--runs=exact", "--output=exact/result.json"), "exists already"),
    ],
)
def test_bad_input_is_refused_in_one_message(tmp_path, flags, message):
    make_run(tmp_path / "exact", per_class=10)
    errors = run("studies.unknown_prior", *flags, cwd=tmp_path, fails=True)
    assert message in errors and "Traceback" not in errors


def test_the_em_benchmark_runs_at_a_small_size(tmp_path):
    flags = ("--samples=500", "--classes=10", "--rounds=1", "--output=em.json")
    run("benchmarks.em", *flags, cwd=tmp_path)
    result = json.loads((tmp_path / "em.json").read_text())
    assert result["shape"] == [500, 10] and result["last_change"] < 1e-6
