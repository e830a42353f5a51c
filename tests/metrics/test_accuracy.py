import numpy as np
import pytest
import sklearn.metrics

from lade_tf import metrics


def random_answers(num_samples=400, num_classes=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_samples)
    wrong = rng.integers(num_classes, size=num_samples)
    return np.where(rng.uniform(size=num_samples) < 0.6, labels, wrong), labels


def test_accuracy_equals_scikit_learn():
    predictions, labels = random_answers()
    weight = np.random.default_rng(1).uniform(size=len(labels))
    for w in (None, weight):
        expected = sklearn.metrics.accuracy_score(labels, predictions, sample_weight=w)
        assert metrics.accuracy(predictions, labels, w) == pytest.approx(expected, rel=1e-12)


def test_all_right_is_exactly_one():
    labels = np.arange(49)
    assert metrics.accuracy(labels, labels) == 1.0


def test_accuracy_with_integer_weights_repeats_samples():
    predictions, labels = random_answers()
    weight = np.random.default_rng(2).integers(4, size=len(labels))
    expected = np.mean(np.repeat(predictions, weight) == np.repeat(labels, weight))
    assert metrics.accuracy(predictions, labels, weight) == pytest.approx(expected, rel=1e-12)


def test_per_class_accuracy_equals_scikit_learn_recall():
    predictions, labels = random_answers()
    expected = sklearn.metrics.recall_score(labels, predictions, average=None)
    np.testing.assert_allclose(metrics.per_class_accuracy(predictions, labels, 6), expected)


def test_class_without_test_sample_is_nan():
    values = metrics.per_class_accuracy([0, 0, 3], [0, 0, 1], num_classes=4)
    np.testing.assert_array_equal(values, [1.0, 0.0, np.nan, np.nan])


def test_class_of_weight_zero_is_nan():
    values = metrics.per_class_accuracy([0, 1, 0], [0, 1, 1], 2, sample_weight=[0, 1, 3])
    np.testing.assert_array_equal(values, [np.nan, 0.25])


def test_shot_groups_at_their_bounds():
    labels = np.arange(4)
    results = []
    for right in range(4):
        predictions = np.where(labels == right, labels, (labels + 1) % 4)
        results.append(metrics.shot_accuracy(predictions, labels, [101, 100, 20, 19]))
    assert results == [
        {"many": 1.0, "medium": 0.0, "few": 0.0},
        {"many": 0.0, "medium": 0.5, "few": 0.0},
        {"many": 0.0, "medium": 0.5, "few": 0.0},
        {"many": 0.0, "medium": 0.0, "few": 1.0},
    ]


def test_shot_accuracy_is_the_mean_of_class_accuracies_not_of_samples():
    labels = np.array([0] * 9 + [1])
    predictions = np.array([0] * 10)
    assert metrics.shot_accuracy(predictions, labels, [500, 400])["many"] == 0.5


def test_empty_and_untested_groups_are_none():
    result = metrics.shot_accuracy([0, 0], [0, 0], class_counts=[500, 50, 400])
    assert result == {"many": 1.0, "medium": None, "few": None}


def test_class_without_training_images_is_few_shot():
    assert metrics.shot_accuracy([0, 1], [0, 1], [500, 0])["few"] == 1.0


def answers(*right_of_size):
    """Returns predictions and labels of classes with (right, size) answers."""
    labels = np.repeat(np.arange(len(right_of_size)), [size for _, size in right_of_size])
    right = np.concatenate([np.arange(size) < right for right, size in right_of_size])
    return np.where(right, labels, (labels + 1) % len(right_of_size)), labels


def test_the_standard_error_is_written_out():
    prior = np.array([0.5, 0.3, 0.2])
    accuracy, error = metrics.expected_accuracy(*answers((3, 4), (1, 3), (12, 20)), prior)
    assert accuracy == pytest.approx(0.5 * 3 / 4 + 0.3 / 3 + 0.2 * 0.6)
    # Σ p²·a·(1 − a) / (n − 1)
    terms = [0.25 * (3 / 16) / 3, 0.09 * (2 / 9) / 2, 0.04 * 0.24 / 19]
    assert error == pytest.approx(np.sqrt(sum(terms)))


def test_a_class_of_prior_zero_adds_no_error():
    several = answers((3, 4), (1, 1), (12, 20))
    error = metrics.expected_accuracy(*several, [0.5, 0.0, 0.5])[1]
    assert error == pytest.approx(np.sqrt(0.25 * (3 / 16) / 3 + 0.25 * 0.24 / 19))


def test_few_samples_that_are_all_right_take_the_pooled_variance():
    predictions, labels = answers((5, 5), (2, 4), (60, 100))
    prior = np.array([0.4, 0.2, 0.4])
    weight = prior[:2] ** 2 / [5, 4]
    pooled = max((0.7, 0.3), tuple(weight @ [[1, 0], [0.5, 0.5]] / weight.sum()), key=np.prod)
    small = max(0.04 * 0.25 / 3, np.prod(pooled) * weight.sum())
    expected = np.sqrt(small + 0.16 * 0.24 / 99)
    assert metrics.expected_accuracy(predictions, labels, prior)[1] == pytest.approx(expected)
    # With ten samples a class's own variance counts, though it be 0.
    many = metrics.expected_accuracy(*answers((10, 10), (2, 4)), [0.5, 0.5])[1]
    assert many == pytest.approx(np.sqrt(0.25 * 0.25 / 3))


def test_their_own_variance_counts_where_it_is_the_larger():
    error = metrics.expected_accuracy(*answers((1, 2), (1, 2), (1, 2), (2, 2)), np.full(4, 0.25))[1]
    assert error == pytest.approx(np.sqrt(3 * 0.25 / 16))


def test_one_sample_a_class_has_the_variance_of_the_mean_accuracy():
    for right in (1, 30, 99):
        error = metrics.expected_accuracy(
            *answers(*[(1, 1)] * right, *[(0, 1)] * (100 - right)), np.full(100, 0.01)
        )[1]
        assert error == pytest.approx(np.sqrt(right * (100 - right) / 100**3))


@pytest.mark.parametrize("right", [0, 1])
def test_no_error_is_zero_where_few_samples_are_all_alike(right):
    accuracy, error = metrics.expected_accuracy(*answers((2 * right, 2), (right, 1)), [0.5, 0.5])
    assert accuracy == right and error == pytest.approx(np.sqrt(0.2 * 0.8 * (1 / 8 + 1 / 4)))


def test_a_prior_on_the_hard_classes_has_their_variance():
    # Nearly all of the prior is on classes half right, most classes are all right.
    prior = np.r_[np.full(4, 0.24), np.full(16, 0.04 / 16)]
    few = answers(*[(2, 2), (0, 2), (0, 2), (2, 2)], *[(2, 2)] * 16)
    assert metrics.expected_accuracy(*few, prior)[1] > 0.95 * np.sqrt(4 * 0.24**2 * 0.25 / 2)


def test_a_column_of_labels_has_the_same_error():
    predictions, labels = answers((3, 4), (1, 3))
    flat = metrics.expected_accuracy(predictions, labels, [0.5, 0.5])
    assert metrics.expected_accuracy(predictions, labels[:, None], [0.5, 0.5]) == flat


def test_macro_f1_of_labels_that_fill_their_type():
    labels, predictions = np.array([0, 255], np.uint8), np.array([0, 254], np.uint8)
    assert metrics.macro_f1(predictions, labels) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy([], []), "labels must have shape .* at least one sample"),
        (lambda: metrics.accuracy([0, 1], [0]), "predictions must hold 1 samples; got 2"),
        (lambda: metrics.accuracy([0.0], [0]), "predictions must be integers"),
        (lambda: metrics.accuracy([-1], [0]), "predictions must be at least 0"),
        (lambda: metrics.accuracy([0], [0], [-1.0]), "sample_weight must be finite and >= 0"),
        (lambda: metrics.accuracy([0], [0], ["1"]), "sample_weight must be numbers.*got text"),
        (lambda: metrics.accuracy([0], [0], np.array(["1"], object)), "sample_weight must be num"),
        (lambda: metrics.accuracy([0], [0], [0.0]), "sample_weight must have a positive entry"),
        (lambda: metrics.per_class_accuracy([0], [2], 2), r"labels must be in 0\.\.1; got"),
        (lambda: metrics.per_class_accuracy([2], [0], 2), r"predictions must be in 0\.\.1; got"),
        (lambda: metrics.per_class_accuracy([0], [0], 0), "num_classes must be an integer >= 1"),
        (lambda: metrics.shot_accuracy([0], [0], [[5]]), "class_counts must have shape"),
        (lambda: metrics.shot_accuracy([0], [0], []), "class_counts must hold at least 2"),
        (
            lambda: metrics.shot_accuracy([0], [0], [2, -1]),
            "class_counts must hold numbers >= 0; got -1",
        ),
        (
            lambda: metrics.shot_accuracy([0], [0], [0.9, 0.1]),
            "class_counts must hold whole.*shares",
        ),
        (lambda: metrics.shot_accuracy([0], [0], ["9", "1"]), "class_counts must be.*got text"),
        (lambda: metrics.shot_accuracy([0], [0], [2, np.nan]), "class_counts must hold finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_may_say_which_samples_count():
    assert metrics.accuracy([0, 1, 1], [0, 0, 1], np.array([True, True, False])) == 0.5


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
