import numpy as np
import pytest
import sklearn.metrics

from lade_tf import metrics

CALIBRATION_METRICS = [
    metrics.expected_calibration_error,
    metrics.classwise_calibration_error,
    metrics.brier_score,
    metrics.negative_log_likelihood,
]


def random_predictions(num_samples=300, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(num_samples, num_classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, rng.integers(num_classes, size=num_samples)


def loop_gap(confidences, hits, num_bins):
    """Binned calibration error written out: every edge, every sample, one after the other."""
    error = 0.0
    for k in range(num_bins):
        low, high = k / num_bins, (k + 1) / num_bins
        members = [
            i
            for i, p in enumerate(confidences)
            if low <= p < high or (k == num_bins - 1 and p == 1.0)
        ]
        if members:
            accuracy = sum(float(hits[i]) for i in members) / len(members)
            confidence = sum(float(confidences[i]) for i in members) / len(members)
            error += len(members) / len(confidences) * abs(accuracy - confidence)
    return error


def loop_ece(probabilities, labels, num_bins=20):
    return loop_gap(probabilities.max(1), probabilities.argmax(1) == labels, num_bins)


def loop_classwise_ece(probabilities, labels, num_bins=20):
    columns = range(probabilities.shape[1])
    return np.mean([loop_gap(probabilities[:, c], labels == c, num_bins) for c in columns])


def two_class(confidence):
    """One sample of class 0 whose top-label confidence is `confidence`."""
    return np.array([[confidence, 1.0 - confidence]])


@pytest.mark.parametrize("num_bins", [1, 7, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_calibration_errors_equal_written_out_loops(num_bins, seed):
    p, y = random_predictions(seed=seed)
    assert metrics.expected_calibration_error(p, y, num_bins) == pytest.approx(
        loop_ece(p, y, num_bins), rel=1e-12
    )
    assert metrics.classwise_calibration_error(p, y, num_bins) == pytest.approx(
        loop_classwise_ece(p, y, num_bins), rel=1e-12
    )


def test_num_bins_defaults_to_20():
    p, y = random_predictions()
    assert metrics.expected_calibration_error(p, y) == metrics.expected_calibration_error(p, y, 20)
    assert metrics.expected_calibration_error(p, y) != metrics.expected_calibration_error(p, y, 15)


def test_confidence_of_exactly_one_counts():
    one_hot = np.eye(3)[[0, 0, 1]]
    labels = np.array([0, 1, 1])
    # All three confidences share the last bin: accuracy 2/3, confidence 1.
    assert metrics.expected_calibration_error(one_hot, labels) == pytest.approx(1 / 3, rel=1e-15)
    assert metrics.classwise_calibration_error(one_hot, labels) == pytest.approx(
        loop_classwise_ece(one_hot, labels), rel=1e-12
    )


def test_confidence_of_exactly_one_shares_the_bin_below_it():
    # A right answer at 0.95 and a wrong one at 1.0 cancel partly only if they share a bin.
    p = np.concatenate([two_class(0.95), two_class(1.0)])
    expected = abs((1 - 0.95) + (0 - 1.0)) / 2
    assert metrics.expected_calibration_error(p, np.array([0, 1])) == pytest.approx(expected)


@pytest.mark.parametrize("k", range(11, 20))
def test_bins_are_closed_on_the_left_at_every_edge(k):
    # A right answer at the edge and a wrong one above it cancel partly only if they share a bin.
    edge, inside = k / 20, k / 20 + 0.01
    labels = np.array([0, 1])
    p = np.concatenate([two_class(edge), two_class(inside)])
    same_bin = abs((1 - edge) - inside) / 2
    assert metrics.expected_calibration_error(p, labels) == pytest.approx(same_bin, rel=1e-9)
    p = np.concatenate([two_class(np.nextafter(edge, 0)), two_class(inside)])
    two_bins = ((1 - edge) + inside) / 2
    assert metrics.expected_calibration_error(p, labels) == pytest.approx(two_bins, rel=1e-9)


@pytest.mark.parametrize("num_bins", [20, 49])
def test_classwise_bins_at_every_edge_and_just_below(num_bins):
    edges = np.arange(num_bins + 1) / num_bins
    confidences = np.concatenate([edges, np.nextafter(edges[1:], 0)])
    p = np.stack([confidences, 1 - confidences], axis=1)
    y = np.random.default_rng(3).integers(2, size=len(p))
    assert metrics.classwise_calibration_error(p, y, num_bins) == pytest.approx(
        loop_classwise_ece(p, y, num_bins), rel=1e-12
    )


def test_empty_bins_add_nothing():
    p = np.tile([[0.7, 0.2, 0.1]], (10, 1))
    y = np.array([0] * 6 + [1] * 4)
    assert metrics.expected_calibration_error(p, y) == pytest.approx(0.1, rel=1e-12)
    expected = (0.1 + 0.2 + 0.1) / 3
    assert metrics.classwise_calibration_error(p, y) == pytest.approx(expected, rel=1e-12)


def test_perfect_predictions_score_zero():
    y = np.array([0, 1, 2, 1])
    for metric in CALIBRATION_METRICS:
        assert metric(np.eye(3)[y], y) == 0.0


def test_brier_score_is_the_sum_over_classes():
    p, y = random_predictions()
    one_hot = np.eye(p.shape[1])[y]
    expected = ((p - one_hot) ** 2).sum(axis=1).mean()
    assert metrics.brier_score(p, y) == pytest.approx(expected, rel=1e-12)
    assert metrics.brier_score(np.array([[0.0, 1.0]]), np.array([0])) == 2.0


def test_brier_score_is_twice_the_binary_one_of_scikit_learn():
    p, y = random_predictions(num_classes=2)
    binary = sklearn.metrics.brier_score_loss(y, p[:, 1])
    assert metrics.brier_score(p, y) == pytest.approx(2 * binary, rel=1e-12)


def test_negative_log_likelihood_equals_scikit_learn():
    p, y = random_predictions()
    weight = np.random.default_rng(1).uniform(size=len(y))
    expected = sklearn.metrics.log_loss(y, p, sample_weight=weight, labels=np.arange(p.shape[1]))
    assert metrics.negative_log_likelihood(p, y, weight) == pytest.approx(expected, rel=1e-12)


def test_negative_log_likelihood_clips_at_1e_15():
    assert metrics.negative_log_likelihood(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(
        -np.log(1e-15), rel=1e-15
    )
    p = np.array([[1e-12, 1 - 1e-12]])
    assert metrics.negative_log_likelihood(p, np.array([0])) == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize("metric", CALIBRATION_METRICS)
def test_integer_weights_repeat_samples(metric):
    p, y = random_predictions()
    weight = np.random.default_rng(2).integers(4, size=len(y))
    repeated = metric(np.repeat(p, weight, axis=0), np.repeat(y, weight))
    assert metric(p, y, sample_weight=weight) == pytest.approx(repeated, rel=1e-12)
    assert metric(p, y, sample_weight=weight) != pytest.approx(metric(p, y), rel=1e-3)


@pytest.mark.parametrize("metric", CALIBRATION_METRICS)
def test_class_of_weight_zero_is_left_out(metric):
    p, y = random_predictions(num_classes=3)
    class_weight = np.array([2.5, 0.5, 0.0])
    kept = y < 2
    expected = metric(p[kept], y[kept], sample_weight=class_weight[y[kept]])
    assert metric(p, y, sample_weight=class_weight[y]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("metric", CALIBRATION_METRICS)
def test_low_precision_input_is_computed_in_float64(metric, dtype):
    p, y = random_predictions(num_samples=3000)
    p = p.astype(dtype)
    expected = metric(p.astype(np.float64), y)
    assert metric(p, y) == pytest.approx(expected, rel=1e-12)


def test_class_without_test_sample_is_binned_like_the_others():
    p, y = random_predictions()
    y = np.where(y == 3, 2, y)
    expected = loop_classwise_ece(p, y)
    assert metrics.classwise_calibration_error(p, y) == pytest.approx(expected, rel=1e-12)


def test_single_sample_by_hand():
    p, y = np.array([[0.7, 0.2, 0.1]]), np.array([1])
    assert metrics.expected_calibration_error(p, y) == pytest.approx(0.7)
    assert metrics.classwise_calibration_error(p, y) == pytest.approx((0.7 + 0.8 + 0.1) / 3)
    assert metrics.brier_score(p, y) == pytest.approx(0.49 + 0.64 + 0.01)
    assert metrics.negative_log_likelihood(p, y) == pytest.approx(-np.log(0.2))


BAD_INPUT = {
    "probabilities must have shape": (np.ones(3), [0, 0, 0], None),
    "probabilities must have shape .* at least one": (np.ones((0, 3)), np.zeros(0, int), None),
    "probabilities must be numbers; got text": (np.array([["0.5", "0.5"]]), [0], None),
    "probabilities must be finite": (np.array([[np.nan, 1.0]]), [0], None),
    "probabilities must be finite; got NaN or inf": (np.array([[np.inf, 1.0]]), [0], None),
    r"probabilities must lie in \[0, 1\] .* from -1 to 2": (np.array([[2.0, -1.0]]), [0], None),
    "probabilities must sum to 1 .* got 0.7 in row 1": (
        np.array([[0.5, 0.5], [0.5, 0.2]]),
        [0, 0],
        None,
    ),
    "labels must have shape": (np.eye(2), [[0, 1], [1, 0]], None),
    "labels must hold 2 samples; got 3": (np.eye(2), [0, 1, 1], None),
    "labels must be integers": (np.eye(2), [0.0, 1.0], None),
    r"labels must be in 0\.\.1; got values from 0 to 2": (np.eye(2), [0, 2], None),
    r"labels must be in 0\.\.1; got values from -1 to 0": (np.eye(2), [0, -1], None),
    r"sample_weight must have shape \(2,\)": (np.eye(2), [0, 1], [1.0]),
    "sample_weight must be finite and >= 0": (np.eye(2), [0, 1], [1.0, -1.0]),
    "sample_weight must be finite and >= 0 everywhere": (np.eye(2), [0, 1], [1.0, np.nan]),
    "sample_weight must have a positive entry": (np.eye(2), [0, 1], [0.0, 0.0]),
}


@pytest.mark.parametrize("metric", CALIBRATION_METRICS)
@pytest.mark.parametrize("message", BAD_INPUT)
def test_bad_input_is_refused(metric, message):
    probabilities, labels, weight = BAD_INPUT[message]
    with pytest.raises(ValueError, match=message):
        metric(probabilities, labels, sample_weight=weight)


@pytest.mark.parametrize("num_bins", [0, -1, 2.5, True])
@pytest.mark.parametrize("metric", CALIBRATION_METRICS[:2])
def test_bad_num_bins_is_refused(metric, num_bins):
    with pytest.raises(ValueError, match="num_bins must be an integer >= 1"):
        metric(np.eye(2), [0, 1], num_bins=num_bins)
