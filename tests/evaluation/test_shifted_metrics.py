import dataclasses
import json
import pathlib

import numpy as np
import pytest
from saved_examples import cifar_sized

from lade_tf import evaluation, metrics, priors
from lade_tf.evaluation import SavedLogits

COUNTS = np.array([101, 29, 10])
RESULTS = pathlib.Path(__file__).parents[2] / "experiments" / "results"


def make_saved(per_class=40, source_prior=None):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    logits = rng.normal(size=(len(labels), 3)).astype(np.float32) + 2 * np.eye(3)[labels]
    return SavedLogits(logits.astype(np.float32), labels, COUNTS, source_prior, ["a", "b", "c"])


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
    drawn = [evaluation.evaluate(saved, prior, prior, seed) for seed in range(3)]
    right = saved.adapted_to(prior).predicted == saved.labels
    accuracies = [right[evaluation.draw(saved.labels, prior, seed)].mean() for seed in range(200)]
    assert [result["accuracy_drawn"] for result in drawn] == pytest.approx(accuracies[:3])
    error = np.std(accuracies, ddof=1) / np.sqrt(200)
    assert abs(np.mean(accuracies) - drawn[0]["accuracy"]) < 3 * error
    assert len({result["accuracy"] for result in drawn}) == 1


def test_the_table_reads_well():
    table = evaluation.format_table({"uniform": {"accuracy": 0.5, "few": None, "nll": 1.0}})
    assert table.splitlines() == [
        "prior    accuracy %  few %     nll",
        "uniform       50.00      -  1.0000",
    ]


def test_without_names_the_test_set_as_it_is_and_all_shifts_are_measured():
    found = evaluation.evaluate_shifts(make_saved(per_class=12))
    assert list(found) == ["test", *evaluation.SHIFTS] == list(evaluation.STANDARD_PRIORS)
    prior = evaluation.named_prior("forward:10", COUNTS, 12)
    assert found["forward:10"] == evaluation.evaluate(make_saved(per_class=12), prior, prior)
    given = evaluation.evaluate_shifts(make_saved(), ["train"], "uniform")["train"]
    uniform = priors.uniform_prior(3)
    assert given == evaluation.evaluate(make_saved(), COUNTS / COUNTS.sum(), uniform)


def imbalanced(run="cifar100_lt-ib100-lade-paper-200ep-seed1-bfloat16"):
    """Returns logits of 20 classes of CIFAR-100 that a run kept: 5 to 60 test images a class."""
    saved = SavedLogits.load(RESULTS / run / "test_logits.npz")
    classes = np.linspace(0, 99, 20).astype(int)
    sizes = np.random.default_rng(0).permutation(np.linspace(5, 60, 20).astype(int))
    pairs = zip(classes, sizes, strict=True)
    images = np.concatenate([np.flatnonzero(saved.labels == c)[:size] for c, size in pairs])
    source = saved.source_prior[classes] / saved.source_prior[classes].sum()
    labels = np.searchsorted(classes, saved.labels[images])
    return SavedLogits(saved.logits[images][:, classes], labels, saved.counts[classes], source)


def test_an_imbalanced_test_set_stands_for_all_label_distributions():
    saved = imbalanced()
    sizes = np.bincount(saved.labels)
    assert (sizes.min(), sizes.max()) == (5, 60)
    for name in evaluation.STANDARD_PRIORS:
        prior = evaluation.prior_for(saved, name)
        if ":" in name:
            ratio = float(name.split(":")[1])
            assert prior.max() / prior.min() == pytest.approx(ratio, rel=1e-12)
            weights = evaluation.class_weights(saved.labels, prior)
            by_class = np.bincount(saved.labels, weights)
            assert by_class.max() / by_class.min() == pytest.approx(ratio, rel=1e-12)
        with np.errstate(divide="ignore"):
            adapted = saved.logits.astype(np.float64) - np.log(saved.source_prior) + np.log(prior)
        expected = 0.0
        for c in range(20):
            own = adapted[saved.labels == c]
            expected += prior[c] * np.mean(own.argmax(axis=1) == c)
        found = evaluation.evaluate(saved, prior, prior)["accuracy"]
        assert found == pytest.approx(expected, abs=1e-12), name
    as_it_is = evaluation.evaluate_shifts(saved, ["test"])["test"]
    right = saved.adapted_to(sizes / sizes.sum()).predicted == saved.labels
    assert as_it_is["accuracy"] == pytest.approx(right.mean(), abs=1e-12)


def test_the_mean_of_drawn_sets_of_an_imbalanced_test_set_is_the_expectation():
    saved = imbalanced()
    for name in evaluation.SHIFTS:
        prior = evaluation.prior_for(saved, name)
        result = evaluation.evaluate(saved, prior, prior)
        predicted = saved.adapted_to(prior).predicted
        right = predicted == saved.labels
        draws = [right[evaluation.draw(saved.labels, prior, seed)].mean() for seed in range(500)]
        # Whole images have the shares of the prior but for rounding, which a drawn set bears.
        drawn = evaluation.drawn_counts(prior, np.bincount(saved.labels))
        own, _ = metrics.expected_accuracy(predicted, saved.labels, drawn / drawn.sum())
        assert abs(np.mean(draws) - own) < 3 * np.std(draws, ddof=1) / np.sqrt(500), name
        assert abs(np.mean(draws) - result["accuracy"]) < 3 * result["accuracy_se"], name


def test_a_drawn_set_of_under_a_hundred_images_is_not_shown():
    for per_class, is_shown in ((33, False), (34, True)):  # 99 and 102 images
        result = evaluation.evaluate_shifts(make_saved(per_class), ["uniform"], draw_seed=0)
        assert (result["uniform"]["accuracy_drawn"] is not None) == is_shown
        drawn = evaluation.format_table(result).splitlines()[1].split()[3]
        assert (drawn != "-") == is_shown


def test_a_class_without_a_test_image_is_left_out(tmp_path):
    saved = imbalanced()
    kept = saved.labels != 0  # the most frequent class in training
    saved = dataclasses.replace(saved, logits=saved.logits[kept], labels=saved.labels[kept])
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"prior": [0.05] * 20}))
    for name in (*evaluation.STANDARD_PRIORS, "train", "dirichlet:1:0", str(path)):
        prior = evaluation.prior_for(saved, name)
        assert prior[0] == 0 and prior[1:].min() > 0 and prior.sum() == pytest.approx(1)
        result = evaluation.evaluate(saved, prior, prior, draw_seed=0)
        assert all(v is None or np.isfinite(v) for v in result.values())
    np.testing.assert_allclose(evaluation.prior_for(saved, "uniform")[1:], 1 / 19)
    np.testing.assert_allclose(evaluation.prior_for(saved, str(path))[1:], 1 / 19)
    forward = evaluation.prior_for(saved, "forward:2")[1:]
    assert forward.max() / forward.min() == pytest.approx(2, rel=1e-12)
    path.write_text(json.dumps({"prior": [1] + [0] * 19}))
    with pytest.raises(ValueError, match="must give a class with a test image a share"):
        evaluation.prior_for(saved, str(path))


def test_a_test_set_of_one_class_has_one_label_distribution():
    saved = SavedLogits(np.eye(3)[[1, 1, 0]], np.array([1, 1, 1]), COUNTS)
    for name, found in evaluation.evaluate_shifts(saved).items():
        np.testing.assert_array_equal(evaluation.prior_for(saved, name), [0, 1, 0])
        assert found["accuracy"] == 1
    with pytest.raises(ValueError, match="a prior must be uniform"):
        evaluation.prior_for(saved, "unifrom")


@pytest.mark.parametrize("bad", [[0.5, 0.5], [0.5, 0.3, 0.1], [0.5, 0.6, -0.1]])
def test_what_is_no_prior_is_refused(bad):
    uniform = priors.uniform_prior(3)
    for name, given in (("target_prior", (bad, uniform)), ("test_prior", (uniform, bad))):
        with pytest.raises(ValueError, match=f"{name} must"):
            evaluation.evaluate(make_saved(), *given)
