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
        "forward:4": np.array([40, 20, 10]) / 70,
        "backward:4": np.array([10, 20, 40]) / 70,
        str(path): [0.2, 0.3, 0.5],
    }
    for name, prior in expected.items():
        np.testing.assert_allclose(evaluation.named_prior(name, COUNTS, 40), prior)


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


@pytest.mark.parametrize("per_class", [1, 2, 9, 10, 50, 100])
def test_a_shift_is_feasible_exactly_where_it_leaves_every_class_an_image(per_class):
    counts = priors.exponential_counts(500, 10, 100)
    for name in evaluation.SHIFTS:
        try:
            evaluation.named_prior(name, counts, per_class)
        except ValueError:
            assert name not in evaluation.feasible(evaluation.SHIFTS, per_class)
        else:
            assert name in evaluation.feasible(evaluation.SHIFTS, per_class)


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
