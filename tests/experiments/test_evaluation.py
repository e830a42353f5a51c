import dataclasses

import numpy as np
import pytest
from reproduction import comparison, evaluation, provenance
from reproduction.saved_logits import SavedLogits

from lade_tf import label_shift, metrics, priors

COUNTS = np.array([101, 29, 10])


def make_saved(per_class=40, source_prior=None):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    logits = rng.normal(size=(len(labels), 3)).astype(np.float32) + 2 * np.eye(3)[labels]
    source_prior = np.full(3, 1 / 3) if source_prior is None else source_prior
    return SavedLogits(
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


def test_what_stands_beside_an_estimate_is_known_in_a_prior_file():
    fields = {field.name for field in dataclasses.fields(label_shift.PriorEstimate)}
    assert fields | set(provenance.gather()) <= priors.FILE_KEYS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unifrom", "a prior must be uniform, train, forward:RATIO"),
        ("0.2", r"a .json file that holds \{.prior.: .a share for each class.\}.*; got '0.2'"),
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
    drawn = SavedLogits(
        np.repeat(saved.logits, repeats, axis=0),
        np.repeat(saved.labels, repeats),
        COUNTS,
        saved.source_prior,
        saved.class_names,
    )
    expected = evaluation.metrics.classification_report(
        evaluation.adapt(drawn.logits, drawn.source_prior, prior), drawn.labels, COUNTS
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


def test_a_test_prior_on_a_class_without_test_images_is_refused():
    with pytest.raises(ValueError, match="must hold every class of the test prior; none of 2"):
        evaluation.class_weights(np.array([0, 1]), np.full(3, 1 / 3))


def test_the_table_reads_well():
    table = evaluation.format_table({"uniform": {"accuracy": 0.5, "few": None, "nll": 1.0}})
    assert table.splitlines() == [
        "prior    accuracy %  few %     nll",
        "uniform       50.00      -  1.0000",
    ]


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
    ("reading", "sizes"),
    [
        ("notebook", (2486, 2956, 3876, 4932, 7166)),
        ("paper", (2506, 2980, 3903, 4959, 7189)),
    ],
)
def test_drawn_test_sets_have_the_published_sizes(reading, sizes):
    saved = cifar_sized()
    for name, size in zip(evaluation.PROTOCOL, (*sizes, 10_000, *sizes[::-1]), strict=True):
        prior = evaluation.resolve_prior(name, saved.counts, 100, reading)
        images = evaluation.draw(saved.labels, prior, seed=3)
        assert len(set(images)) == len(images) == size, name
        counts = np.bincount(saved.labels[images], minlength=100)
        np.testing.assert_allclose(counts / size, prior, atol=1e-12)


def test_the_mean_of_draws_is_the_expectation_and_their_spread_within_its_error():
    saved = cifar_sized()
    prior = evaluation.resolve_prior("backward:50", saved.counts, 100)
    drawn = [evaluation.evaluate(saved, prior, prior, seed) for seed in range(200)]
    accuracies = np.array([result["accuracy_drawn"] for result in drawn])
    error = accuracies.std(ddof=1) / np.sqrt(200)
    assert abs(accuracies.mean() - drawn[0]["accuracy"]) < 3 * error
    assert len({result["accuracy"] for result in drawn}) == 1


def test_the_standard_error_is_that_of_fresh_test_sets():
    prior = np.array([0.7, 0.2, 0.1])
    rng = np.random.default_rng(0)
    right = np.array([0.9, 0.5, 0.2])
    labels = np.repeat(np.arange(3), 50)
    results = []
    for _ in range(2000):
        predictions = np.where(rng.random(150) < right[labels], labels, (labels + 1) % 3)
        results.append(metrics.expected_accuracy(predictions, labels, prior))
    accuracies, errors = np.array(results).T
    assert accuracies.mean() == pytest.approx(prior @ right, abs=0.005)
    assert errors.mean() == pytest.approx(accuracies.std(), rel=0.05)


def test_an_expectation_over_untested_classes_is_refused():
    with pytest.raises(ValueError, match="every class of positive prior; class 1 has no sample"):
        metrics.expected_accuracy([0, 2], [0, 2], [0.5, 0.2, 0.3])
    assert metrics.expected_accuracy([0, 2], [0, 2], [0.5, 0.0, 0.5])[0] == 1


def test_dirichlet_priors_are_a_function_of_their_seed():
    one, again, other = (
        evaluation.resolve_prior(f"dirichlet:0.5:{seed}", COUNTS, 40) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert one.sum() == pytest.approx(1) and not np.allclose(one, other)
    draws = [evaluation.resolve_prior(f"dirichlet:9:{s}", COUNTS, 40) for s in range(300)]
    np.testing.assert_allclose(np.mean(draws, axis=0), 1 / 3, atol=0.02)
    for name in ("dirichlet:0:1", "dirichlet:1:x", "dirichlet:1", "dirichlet:1:-1"):
        with pytest.raises(ValueError, match="dirichlet"):
            evaluation.resolve_prior(name, COUNTS, 40)


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
def test_saved_logits_that_cannot_be_used_are_refused(tmp_path, change, message):
    dataclasses.replace(make_saved(), **change).save(tmp_path / "test_logits.npz")
    with pytest.raises(ValueError, match=message):
        SavedLogits.load(tmp_path / "test_logits.npz")


def test_two_runs_are_compared_under_every_prior():
    saved = cifar_sized()
    worse = dataclasses.replace(saved, logits=saved.logits.copy())
    worse.logits[saved.labels >= 90] = 0  # right in none of the ten rarest classes, but for one
    names = ["forward:10", "uniform", "backward:10"]
    results = comparison.compare(saved, worse, names)
    for name in names:
        prior = evaluation.resolve_prior(name, saved.counts, 100)
        one, other = (evaluation.evaluate(s, prior, prior)["accuracy"] for s in (saved, worse))
        difference = results[name]
        assert difference["difference"] == pytest.approx(one - other)
        assert difference["low"] < difference["difference"] < difference["high"]
    assert results["backward:10"]["low"] > results["forward:10"]["high"] > 0
    same = comparison.compare(saved, saved, names, "train")["uniform"]
    assert same == {"difference": 0, "low": 0, "high": 0}
    assert "forward:10" in comparison.format_comparison(results)
    shuffled = dataclasses.replace(saved, labels=saved.labels[::-1])
    with pytest.raises(ValueError, match="same test images in the same order"):
        comparison.compare(saved, shuffled, names)


def test_a_class_that_does_not_occur_does_not_make_a_drawn_test_set_smaller():
    labels = np.repeat(np.arange(3), [40, 40, 2])
    for prior, sizes in (([0.5, 0.5, 0.0], [40, 40, 0]), ([0.25, 0.75, 0.0], [13, 40, 0])):
        images = evaluation.draw(labels, np.array(prior), seed=0)
        np.testing.assert_array_equal(np.bincount(labels[images], minlength=3), sizes)
    missing = np.repeat(np.arange(2), 40)  # not even tested
    images = evaluation.draw(missing, np.array([0.5, 0.5, 0.0]), seed=0)
    np.testing.assert_array_equal(np.bincount(missing[images]), [40, 40])


@pytest.mark.parametrize("per_class", [1, 2, 9, 10, 50, 100])
def test_a_shift_is_feasible_exactly_where_it_leaves_every_class_an_image(per_class):
    counts = priors.exponential_counts(500, 10, 100)
    for name in evaluation.PROTOCOL:
        try:
            evaluation.resolve_prior(name, counts, per_class)
        except ValueError:
            assert name not in evaluation.feasible(evaluation.PROTOCOL, per_class)
        else:
            assert name in evaluation.feasible(evaluation.PROTOCOL, per_class)


def test_the_training_prior_of_a_class_without_training_images_is_smoothed():
    counts = np.array([101, 0, 10])
    for name in ("train", "uniform", "forward:4"):
        assert evaluation.resolve_prior(name, counts, 40).min() > 0
    np.testing.assert_allclose(
        evaluation.resolve_prior("train", counts, 40), np.array([102, 1, 11]) / 114
    )
