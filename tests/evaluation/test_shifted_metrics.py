import numpy as np
import pytest

from lade_tf import evaluation, metrics, priors
from lade_tf.evaluation import SavedLogits

COUNTS = np.array([101, 29, 10])


def make_saved(per_class=40, source_prior=None):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    logits = rng.normal(size=(len(labels), 3)).astype(np.float32) + 2 * np.eye(3)[labels]
    return SavedLogits(logits.astype(np.float32), labels, COUNTS, source_prior, ["a", "b", "c"])


def cifar_sized(seed=0):
    """Returns logits in CIFAR-100's test sizes, right more often in frequent classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(100), 100)
    logits = rng.normal(size=(10_000, 100)).astype(np.float32)
    logits[np.arange(10_000), labels] += np.linspace(4, 1, 100)[labels]
    counts = priors.exponential_counts(500, 100, 100)
    names = np.array([str(c) for c in range(100)])
    return SavedLogits(logits, labels, counts, priors.class_prior(counts), names)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"class_names": ["b", "c", "a"], "prior": [0.2, 0.3, 0.5]}', [0.5, 0.2, 0.3]),
        ('{"b": 0.2, "c": 0.3, "a": 0.5}', [0.5, 0.2, 0.3]),
        ('{"counts": {"b": 2, "c": 3, "a": 5}}', [0.5, 0.2, 0.3]),
        ('{"b": 0.65, "rest": "training"}', [0.35 * 101 / 111, 0.65, 0.35 * 10 / 111]),
    ],
)
def test_a_prior_file_is_taken_by_the_names_of_the_test_set(tmp_path, content, expected):
    path = tmp_path / "prior.json"
    path.write_text(content)
    prior = evaluation.prior_for(make_saved(40), str(path))
    np.testing.assert_allclose(prior, expected, rtol=1e-14)


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
    prior = evaluation.named_prior("forward:4", COUNTS, 40)  # 40, 20 and 10 of 40 images
    repeats = np.repeat([4, 2, 1], 40)
    drawn = SavedLogits(
        np.repeat(saved.logits, repeats, axis=0),
        np.repeat(saved.labels, repeats),
        COUNTS,
        saved.source_prior,
        saved.class_names,
    )
    expected = metrics.classification_report(
        evaluation.adapted_probabilities(drawn.logits, drawn.source_prior, prior),
        drawn.labels,
        COUNTS,
    )
    result = evaluation.evaluate(saved, prior, prior)
    assert result.pop("accuracy_se") > 0
    assert result == pytest.approx(expected, rel=1e-6)


def test_entangled_logits_lose_their_source_prior():
    source = COUNTS / COUNTS.sum()
    entangled = make_saved(source_prior=source)
    shifted = make_saved()
    shifted.logits[:] -= np.log(source).astype(np.float32)
    uniform = priors.uniform_prior(3)
    assert evaluation.evaluate(entangled, uniform, uniform) == pytest.approx(
        evaluation.evaluate(shifted, uniform, uniform), rel=1e-5
    )


def test_the_mean_of_draws_is_the_expectation_and_their_spread_within_its_error():
    saved = cifar_sized()
    prior = evaluation.named_prior("backward:50", saved.counts, 100)
    drawn = [evaluation.evaluate(saved, prior, prior, seed) for seed in range(200)]
    accuracies = np.array([result["accuracy_drawn"] for result in drawn])
    error = accuracies.std(ddof=1) / np.sqrt(200)
    assert abs(accuracies.mean() - drawn[0]["accuracy"]) < 3 * error
    assert len({result["accuracy"] for result in drawn}) == 1


def test_the_table_reads_well():
    table = evaluation.format_table({"uniform": {"accuracy": 0.5, "few": None, "nll": 1.0}})
    assert table.splitlines() == [
        "prior    accuracy %  few %     nll",
        "uniform       50.00      -  1.0000",
    ]


def test_without_names_all_shifts_that_are_feasible_are_measured():
    found = evaluation.evaluate_shifts(make_saved(per_class=12))
    assert list(found) == [n for n in evaluation.SHIFTS if not n.endswith(("25", "50"))]
    prior = evaluation.named_prior("forward:10", COUNTS, 12)
    assert found["forward:10"] == evaluation.evaluate(make_saved(per_class=12), prior, prior)
    given = evaluation.evaluate_shifts(make_saved(), ["train"], "uniform")["train"]
    uniform = priors.uniform_prior(3)
    assert given == evaluation.evaluate(make_saved(), COUNTS / COUNTS.sum(), uniform)


@pytest.mark.parametrize("bad", [[0.5, 0.5], [0.5, 0.3, 0.1], [0.5, 0.6, -0.1]])
def test_what_is_no_prior_is_refused(bad):
    uniform = priors.uniform_prior(3)
    for name, given in (("target_prior", (bad, uniform)), ("test_prior", (uniform, bad))):
        with pytest.raises(ValueError, match=f"{name} must"):
            evaluation.evaluate(make_saved(), *given)
