import numpy as np
import pytest

from lade_tf import evaluation, priors

COUNTS = np.array([101, 29, 10])


def test_priors_have_names(tmp_path):
    path = tmp_path / "prior.json"
    path.write_text('{"prior": [0.2, 0.3, 0.5]}')
    expected = {
        "uniform": [1 / 3] * 3,
        "train": COUNTS / COUNTS.sum(),
        "test": [1 / 3] * 3,
        "forward:4": np.array([40, 20, 10]) / 70,
        "backward:4": np.array([10, 20, 40]) / 70,
        str(path): [0.2, 0.3, 0.5],
    }
    for name, prior in expected.items():
        np.testing.assert_allclose(evaluation.named_prior(name, COUNTS, 40), prior)
    np.testing.assert_allclose(
        evaluation.named_prior("test", COUNTS, [2, 0, 6]), [0.25, 0, 0.75], rtol=1e-15
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unifrom", "a prior must be uniform, train, test, forward:RATIO"),
        ("0.2", r"a .json file that holds \{.prior.: .a share for each class.\}.*; got '0.2'"),
        ("forward", "a prior must be uniform"),
        ("forward:", "a prior must be uniform"),
        ("forward:x", "the ratio in 'forward:x' must be a finite number >= 1"),
        ("backward:0.5", "the ratio in 'backward:0.5' must be a finite number >= 1"),
        ("missing.json", "missing.json can't be read"),
    ],
)
def test_what_names_no_prior_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        evaluation.named_prior(name, COUNTS, 40)


def test_a_test_prior_on_a_class_without_test_images_is_refused():
    with pytest.raises(
        ValueError, match="labels must hold every class of the test prior; there is none of 2"
    ):
        evaluation.class_weights(np.array([0, 1]), np.full(3, 1 / 3))


@pytest.mark.parametrize(
    ("reading", "sizes"),
    [
        ("notebook", (2486, 2956, 3876, 4932, 7166)),
        ("paper", (2506, 2980, 3903, 4959, 7189)),
    ],
)
def test_drawn_test_sets_have_the_published_sizes(reading, sizes):
    labels, counts = np.repeat(np.arange(100), 100), priors.exponential_counts(500, 100, 100)
    for name, size in zip(evaluation.SHIFTS, (*sizes, 10_000, *sizes[::-1]), strict=True):
        prior = evaluation.named_prior(name, counts, 100, reading)
        images = evaluation.draw(labels, prior, seed=3)
        assert len(set(images)) == len(images) == size, name
        drawn = np.bincount(labels[images], minlength=100)
        np.testing.assert_allclose(drawn / size, prior, atol=1e-12)


def test_dirichlet_priors_are_a_function_of_their_seed():
    one, again, other = (
        evaluation.named_prior(f"dirichlet:0.5:{seed}", COUNTS, 40) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert one.sum() == pytest.approx(1) and not np.allclose(one, other)
    draws = [evaluation.named_prior(f"dirichlet:9:{s}", COUNTS, 40) for s in range(300)]
    np.testing.assert_allclose(np.mean(draws, axis=0), 1 / 3, atol=0.02)
    for name in ("dirichlet:0:1", "dirichlet:1:x", "dirichlet:1", "dirichlet:1:-1"):
        with pytest.raises(ValueError, match="dirichlet"):
            evaluation.named_prior(name, COUNTS, 40)


def test_a_class_that_does_not_occur_does_not_make_a_drawn_test_set_smaller():
    labels = np.repeat(np.arange(3), [40, 40, 2])
    for prior, sizes in (([0.5, 0.5, 0.0], [40, 40, 0]), ([0.25, 0.75, 0.0], [13, 40, 0])):
        images = evaluation.draw(labels, np.array(prior), seed=0)
        np.testing.assert_array_equal(np.bincount(labels[images], minlength=3), sizes)
    missing = np.repeat(np.arange(2), 40)  # not even tested
    images = evaluation.draw(missing, np.array([0.5, 0.5, 0.0]), seed=0)
    np.testing.assert_array_equal(np.bincount(missing[images]), [40, 40])


@pytest.mark.parametrize("per_class", [1, 3, 99, (5, 60, 33), (0, 7, 7)])
def test_a_shift_has_its_ratio_whatever_the_test_set(per_class):
    for direction in priors.DIRECTIONS:
        for ratio in (2, 2.5, 50):
            prior = evaluation.named_prior(f"{direction}:{ratio}", COUNTS, per_class)
            assert prior.max() / prior.min() == pytest.approx(ratio, rel=1e-12)
            np.testing.assert_array_equal(
                prior, priors.shifted_prior(COUNTS, ratio, direction, "notebook")
            )


@pytest.mark.parametrize("per_class", [50, 100, 150])
def test_a_shift_of_a_balanced_test_set_that_it_divides_is_the_published_one(per_class):
    counts = priors.exponential_counts(500, 100, 100)
    for reading in priors.READINGS:
        for ratio in (50, 25, 10, 5, 2):
            sizes = priors.shifted_counts(per_class, counts, ratio, "backward", reading)
            for given in (per_class, np.full(100, per_class)):
                prior = evaluation.named_prior(f"backward:{ratio}", counts, given, reading)
                np.testing.assert_array_equal(prior, sizes / sizes.sum())


@pytest.mark.parametrize(
    ("per_class", "message"),
    [
        (0, "per_class must be an integer >= 1; got 0"),
        ([0, 0, 0], "per_class must hold a test image; all are 0"),
        ([4, 4], "per_class must hold 3 classes; got 2"),
        ([4, -1, 4], "per_class must hold"),
        ([4, 1.5, 4], "per_class must hold"),
    ],
)
def test_what_counts_no_test_images_is_refused(per_class, message):
    with pytest.raises(ValueError, match=message):
        evaluation.named_prior("test", COUNTS, per_class)


def test_a_drawn_set_is_the_largest_that_an_imbalanced_test_set_allows():
    labels = np.repeat(np.arange(3), [60, 5, 35])
    for prior, sizes in (
        ([0.6, 0.05, 0.35], [60, 5, 35]),
        ([0.5, 0.25, 0.25], [10, 5, 5]),
        ([0.8, 0.02, 0.18], [60, 1, 13]),
        ([0.5, 0.0, 0.5], [35, 0, 35]),
    ):
        assert evaluation.drawn_counts(np.array(prior), [60, 5, 35]).tolist() == sizes
        images = evaluation.draw(labels, np.array(prior), seed=0)
        np.testing.assert_array_equal(np.bincount(labels[images], minlength=3), sizes)


def test_classes_with_few_test_images_are_named():
    assert evaluation.remarks([5, 900, 7]) == []
    assert evaluation.remarks([4, 0, 5], ["ant", "bee", "fly"]) == [
        "1 class without a test image, left out of every label distribution: bee",
        "1 class with fewer than 5 test images, whose accuracies say little: ant (4)",
    ]
    (remark,) = evaluation.remarks(np.full(8142, 3))
    assert remark.startswith("8,142 classes with fewer than 5")
    assert remark.endswith(": " + ", ".join(f"{c} (3)" for c in range(20)) + " and 8,122 more")


def test_the_training_prior_of_a_class_without_training_images_is_smoothed():
    counts = np.array([101, 0, 10])
    for name in ("train", "uniform", "forward:4"):
        assert evaluation.named_prior(name, counts, 40).min() > 0
    np.testing.assert_allclose(
        evaluation.named_prior("train", counts, 40), np.array([102, 1, 11]) / 114
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 3], [0.5, 0.3, 0.2], 0), r"labels must be in 0\.\.2"),
        (([0, 1], [0.5, 0.4], 0), "test_prior must sum to 1"),
        (([0, 1], [0.5, 0.5], -1), "seed must be an integer >= 0; got -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation.draw(*arguments)
