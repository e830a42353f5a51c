import evaluation
import numpy as np
import pytest
import runs

from lade_tf import priors

COUNTS = np.array([101, 29, 10])


def make_saved(per_class=40, source_prior=None):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    logits = rng.normal(size=(len(labels), 3)).astype(np.float32) + 2 * np.eye(3)[labels]
    source_prior = np.full(3, 1 / 3) if source_prior is None else source_prior
    return runs.SavedLogits(
        logits.astype(np.float32), labels, COUNTS, source_prior, np.array(["a", "b", "c"])
    )


def test_priors_are_named_as_the_flags_say(tmp_path):
    path = tmp_path / "prior.json"
    path.write_text('{"prior": [0.2, 0.3, 0.5]}')
    expected = {
        "uniform": [1 / 3] * 3,
        "train": COUNTS / COUNTS.sum(),
        "forward:4": np.array([40, 20, 10]) / 70,
        "backward:4": np.array([10, 20, 40]) / 70,
        str(path): [0.2, 0.3, 0.5],
    }
    for name, prior in expected.items():
        np.testing.assert_allclose(evaluation.resolve_prior(name, COUNTS, 40), prior)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unifrom", "a prior must be uniform, train, forward:RATIO"),
        ("forward", "a prior must be uniform"),
        ("forward:", "a prior must be uniform"),
        ("forward:x", "the ratio in 'forward:x' must be a finite number >= 1"),
        ("forward:50", "forward:50 leaves a class without an image: the test set has 40 a class"),
        ("backward:0.5", "the ratio in 'backward:0.5' must be a finite number >= 1"),
        ("missing.json", "missing.json can't be read"),
    ],
)
def test_what_names_no_prior_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        evaluation.resolve_prior(name, COUNTS, 40)


def test_accuracy_is_the_exact_expectation_under_the_test_prior():
    saved = make_saved()
    test = np.array([0.7, 0.2, 0.1])
    target = np.array([0.1, 0.1, 0.8])
    right = (saved.logits + np.log(target)).argmax(axis=1) == saved.labels
    per_class = [right[saved.labels == c].mean() for c in range(3)]
    result = evaluation.evaluate(saved, target, test)
    assert result["accuracy"] == pytest.approx(np.dot(test, per_class))
    assert result["few"] == pytest.approx(per_class[2])


def test_all_metrics_are_those_of_a_drawn_test_set():
    saved = make_saved(per_class=40)
    prior = evaluation.resolve_prior("forward:4", COUNTS, 40)  # 40, 20 and 10 of 40 images
    repeats = np.repeat([4, 2, 1], 40)
    drawn = runs.SavedLogits(
        np.repeat(saved.logits, repeats, axis=0),
        np.repeat(saved.labels, repeats),
        COUNTS,
        saved.source_prior,
        saved.class_names,
    )
    expected = evaluation.metrics.classification_report(
        evaluation.adapt(drawn.logits, drawn.source_prior, prior), drawn.labels, COUNTS
    )
    assert evaluation.evaluate(saved, prior, prior) == pytest.approx(expected, rel=1e-6)


def test_entangled_logits_lose_their_source_prior():
    source = COUNTS / COUNTS.sum()
    entangled = make_saved(source_prior=source)
    shifted = make_saved()
    shifted.logits[:] -= np.log(source).astype(np.float32)
    uniform = priors.uniform_prior(3)
    assert evaluation.evaluate(entangled, uniform, uniform) == pytest.approx(
        evaluation.evaluate(shifted, uniform, uniform), rel=1e-5
    )


def test_a_test_prior_on_a_class_without_test_images_is_refused():
    with pytest.raises(ValueError, match="must hold every class of the test prior; none of 2"):
        evaluation.class_weights(np.array([0, 1]), np.full(3, 1 / 3))


def test_the_table_reads_well():
    table = evaluation.format_table({"uniform": {"accuracy": 0.5, "few": None, "nll": 1.0}})
    assert table.splitlines() == [
        "prior    accuracy %  few %     nll",
        "uniform       50.00      -  1.0000",
    ]
