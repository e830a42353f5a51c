"""studies.unknown_prior on synthetic runs, and the EM benchmark at a small size."""

import json

import numpy as np
import pytest
import scipy.special
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


def test_the_study_writes_what_every_method_is_worth(tmp_path):
    make_run(tmp_path / "exact")
    flags = ("--runs=exact", "--labelled=200", "--images=100", "--draws=2", "--output=out.json")
    output = run("studies.unknown_prior", *flags, cwd=tmp_path)
    assert "200 labelled, 100 target images" in output and "one×10" in output
    content = json.loads((tmp_path / "out.json").read_text())
    names, methods = content["distributions"]["exact"], content["results"]["exact"]["200"]["100"]
    assert len(names) == 11 + 3 + 3 and "super-classes × 10" not in names
    accuracy = {name: np.array(values["accuracy"]) for name, values in methods.items()}
    assert max(methods["known"]["l1"]) == 0
    uniform = names.index("uniform")
    assert methods["none: uniform"]["l1"][uniform] == pytest.approx(0, abs=1e-4)
    for name in ("hierarchical", "curve"):
        gaps = (accuracy["known"] - accuracy[name])[:11]
        assert gaps.max() < 0.02
        assert (accuracy[name][:11] > accuracy["none: training"][:11] - 0.01).all()
    assert np.mean(methods["hierarchical"]["covered"]) > 0.8
    assert methods["hierarchical"]["exponent_covered"][names.index("Dirichlet(.1)")] is None
    assert methods["hierarchical"]["exponent"][0] > 0 > methods["hierarchical"]["exponent"][10]
    assert np.mean(methods["EM"]["fell_back"]) == 0


def test_drawn_priors():
    counts = np.array([400, 100, 40, 10] * 25)
    rng = np.random.default_rng(0)
    for name in unknown_prior.DISTRIBUTIONS + unknown_prior.OF_SUPERCLASSES:
        prior = unknown_prior.draw_prior(name, counts, rng)
        assert prior.sum() == pytest.approx(1) and prior.min() >= 0
    forward, backward = (
        unknown_prior.draw_prior(f"{d}:10", counts, rng) for d in ("forward", "backward")
    )
    assert forward.max() / forward.min() == pytest.approx(10) and forward[0] == forward.max()
    np.testing.assert_allclose(np.sort(forward), np.sort(backward))
    assert backward[0] == backward.min() * 1
    raised = unknown_prior.draw_prior("super-classes × 10", counts, rng)
    assert np.isclose(
        raised, raised.max()
    ).sum() == 25 and raised.max() / raised.min() == pytest.approx(10)
    absent = unknown_prior.draw_prior("half of the classes absent", counts, rng)
    assert (absent == 0).sum() == 50
    with pytest.raises(ValueError, match="name must be one of"):
        unknown_prior.draw_prior("sideways", counts, rng)


def test_no_class_is_asked_for_more_images_than_there_are():
    available = np.array([50, 50, 50, 50])
    prior = unknown_prior.feasible(np.array([0.8, 0.1, 0.06, 0.04]), 100, available)
    np.testing.assert_allclose(prior, [0.5, 0.25, 0.15, 0.1])
    same = unknown_prior.feasible(np.array([0.4, 0.3, 0.2, 0.1]), 100, available)
    np.testing.assert_allclose(same, [0.4, 0.3, 0.2, 0.1])
    everything = unknown_prior.feasible(np.array([1.0, 0, 0, 0]), 200, available)
    np.testing.assert_allclose(everything, [1, 0, 0, 0])
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), 50)
    rows = unknown_prior.draw_target(labels, prior, 100, rng)
    assert len(set(rows)) == len(rows) and np.bincount(labels[rows]).max() <= 50
    labelled = unknown_prior.draw_labelled(labels, 10, 4, rng)
    assert sorted(np.bincount(labels[labelled])) == [2, 2, 3, 3]
    assert len(unknown_prior.draw_labelled(labels, 1000, 4, rng)) == 200


def test_the_exponent_of_what_lies_on_the_curve():
    training = np.array([0.6, 0.3, 0.1])
    found = unknown_prior.exponent_of(training**-0.5 / (training**-0.5).sum(), training)
    assert found == pytest.approx(-0.5)
    assert np.isnan(unknown_prior.exponent_of(training[[1, 0, 2]], training))
    assert np.isnan(unknown_prior.exponent_of(np.array([1.0, 0, 0]), training))


def test_an_estimator_that_refuses_leaves_the_uniform_prior():
    samples = np.full((6, 3), 1 / 3), np.array([0, 0, 1, 1, 1, 1])
    found = unknown_prior.Sample(*samples, np.array([0.5, 0.3, 0.2])).estimates(samples[0], False)
    assert found["EM"][0] is None and found["BBSE, soft"][0] is None
    assert found["hierarchical"][0].sum() == pytest.approx(1)


@pytest.mark.slow
def test_quapys_estimators_on_exact_posteriors():
    pytest.importorskip("quapy", reason="QuaPy isn't installed (extra bench)")
    from studies import quantification_peers

    rng, target = np.random.default_rng(0), np.array([0.6, 0.3, 0.1])
    labels = np.repeat(np.arange(3), 300)
    truth = rng.choice(3, 2000, p=target)
    source, images = (
        scipy.special.softmax(3 * (rng.normal(size=(len(y), 3)) + 3 * np.eye(3)[y]), axis=1)
        for y in (labels, truth)
    )
    for name, estimated in quantification_peers.estimators(source, labels, images).items():
        np.testing.assert_allclose(estimated(), target, atol=0.05, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--runs=nowhere",), "nowhere must hold a finished run"),
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
