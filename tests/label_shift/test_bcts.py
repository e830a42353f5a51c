import numpy as np
import pytest
import scipy.optimize
from oracles import cross_entropy
from shifted_gaussians import bayes_posteriors, gaussian_sample, long_tail

from lade_tf import numerics
from lade_tf.label_shift import (
    BiasCorrectedTemperature,
    calibration,
    fit_bias_corrected_temperature,
)


def distorted_sample(size=3000, num_classes=4, seed=0, ratio=5):
    """Returns calibrated posteriors at temperature 1/2 with biases added, and labels."""
    prior = long_tail(num_classes, ratio)
    x, labels = gaussian_sample(prior, size, np.random.default_rng(seed), separation=1.5)
    biases = np.linspace(-1, 1, num_classes)
    scores = 2 * (np.log(bayes_posteriors(x, prior, 1.5)) - biases)
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), labels, biases


def test_a_known_distortion_is_undone():
    probs, labels, biases = distorted_sample(size=30_000)
    fit = fit_bias_corrected_temperature(probs, labels)
    assert fit.temperature == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(fit.biases, biases, atol=0.15)


def test_fit_minimises_the_loss_of_another_optimiser():
    probs, labels, _ = distorted_sample(size=300)

    def loss(parameters):
        return cross_entropy(np.log(probs) / parameters[0] + parameters[1:], labels).mean()

    fit = fit_bias_corrected_temperature(probs, labels)
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-13}
    start = [1.0, 0.0, 0.0, 0.0, 0.0]
    best = scipy.optimize.minimize(loss, start, method="Nelder-Mead", options=options).x
    assert fit.temperature == pytest.approx(best[0], rel=1e-3)
    np.testing.assert_allclose(fit.biases, best[1:] - best[1:].mean(), atol=1e-3)
    assert loss([fit.temperature, *fit.biases]) <= loss(best) + 1e-9


def test_calibrated_means_are_the_label_shares():
    probs, labels, _ = distorted_sample(size=500)
    calibrated = fit_bias_corrected_temperature(probs, labels)(probs)
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(calibrated.mean(axis=0), shares, atol=1e-7)


def test_rare_classes_do_not_slow_the_fit(monkeypatch):
    # Without the scale of the biases it takes six times as many steps.
    calls, count = [], calibration._nll_and_gradient
    monkeypatch.setattr(
        calibration, "_nll_and_gradient", lambda *args: calls.append(1) or count(*args)
    )
    probs, labels, _ = distorted_sample(size=1000, num_classes=10, ratio=200)
    fit_bias_corrected_temperature(probs, np.r_[np.arange(10), labels[10:]])
    assert len(calls) < 40


def test_map_is_the_written_out_softmax():
    probs = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    biases = np.array([0.5, -0.5, 0.0])
    scores = np.maximum(probs, 1e-15) ** (1 / 2.5) * np.exp(biases)
    expected = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(BiasCorrectedTemperature(2.5, biases)(probs), expected, rtol=1e-14)


def test_row_blocks_change_nothing(monkeypatch):
    probs, labels, _ = distorted_sample(size=301)
    whole = fit_bias_corrected_temperature(probs, labels)
    monkeypatch.setattr(numerics, "BLOCK_ENTRIES", 4 * 50)
    fit = fit_bias_corrected_temperature(probs, labels)
    assert fit.temperature == pytest.approx(whole.temperature, rel=1e-6)
    np.testing.assert_allclose(fit.biases, whole.biases, atol=1e-6)
    np.testing.assert_allclose(fit(probs), whole(probs), atol=1e-6)


def test_a_perfect_classifier_stays_finite():
    probs = np.tile(np.eye(3) * 0.97 + 0.01, (20, 1))
    fit = fit_bias_corrected_temperature(probs, np.tile(np.arange(3), 20))
    assert fit.temperature > 0 and np.isfinite(fit(probs)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_of_the_result(dtype):
    probs = np.full((3, 2), 0.5, dtype)
    result = BiasCorrectedTemperature(1.0, np.zeros(2))(probs)
    assert result.dtype == np.result_type(dtype, np.float32)


def test_missing_class_is_refused():
    with pytest.raises(ValueError, match="class 2 has no sample, so its bias has no finite"):
        fit_bias_corrected_temperature(np.full((4, 3), 1 / 3), [0, 1, 0, 1])
