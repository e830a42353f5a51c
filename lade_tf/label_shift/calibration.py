"""Temperature scaling, and with biases for each class, on a labelled sample."""

import dataclasses

import numpy as np
import scipy.optimize

from lade_tf.array_checks import (
    check_class_indices,
    check_probabilities,
    check_source,
    require_every_class,
)
from lade_tf.label_shift.confusion import label_shares
from lade_tf.metrics.calibration import SMALLEST_PROBABILITY
from lade_tf.numerics import row_blocks
from lade_tf.priors import check_prior

LARGEST_TEMPERATURE = 100.0  # of probabilities; logits may be of any scale
# A derivative this far below 0, in units of the logits' spread, is what rounding leaves of 0.
ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class BiasCorrectedTemperature:
    """The map p -> softmax(log p / temperature + biases) (Alexandari et al., ICML 2020).

    Attributes:
        temperature: A positive float.
        biases: [classes] float64 with mean 0.
    """

    temperature: float
    biases: np.ndarray

    def __call__(self, probs):
        """Returns the calibrated probabilities [samples, classes], in the dtype of `probs`.

        Raises:
            ValueError: `probs` are no probabilities, or of another number of classes.
        """
        probs = check_probabilities(probs)
        if probs.shape[1] != self.biases.size:
            raise ValueError(
                f"probabilities must have {self.biases.size} classes, as the sample that the "
                f"calibration was fitted to; got {probs.shape[1]}"
            )
        return self.calibrated(probs)

    def calibrated(self, probs):
        """What calling it returns, of checked probabilities: a bootstrap checks them once."""
        dtype = np.result_type(probs, np.float32)
        calibrated = np.empty(probs.shape, dtype)
        for rows in row_blocks(probs):
            scores = _log(probs[rows]) / self.temperature + self.biases
            calibrated[rows] = _softmax(scores)[0]
        return calibrated


def fit_bias_corrected_temperature(source_probs, source_labels):
    """Fits temperature and biases to a labelled sample by its negative log-likelihood.

    Afterwards the mean calibrated probability of every class is the class's share in the sample,
    so the calibrated posteriors carry the sample's own prior.

    Args:
        source_probs: Predicted probabilities [samples, classes], unseen in training.
        source_labels: True classes, integers [samples]; every class occurs.

    Returns:
        A BiasCorrectedTemperature.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range;
            a class has no sample.
    """
    source_probs, source_labels = check_source(source_probs, source_labels)
    require_every_class(source_labels, source_probs.shape[1], "its bias has no finite optimum")
    return solve_calibration(source_probs, source_labels)


def solve_calibration(probs, labels):
    """Bias-corrected temperature of checked arrays, by L-BFGS; the problem is convex."""
    num_classes = probs.shape[1]
    shares = label_shares(labels, num_classes)
    log_probs = np.empty(probs.shape, np.result_type(probs, np.float32))
    for rows in row_blocks(probs):
        log_probs[rows] = _log(probs[rows])
    # The curvature along a bias is about the class's share: this scale evens it out.
    scale = 1 / np.sqrt(shares)

    def objective(parameters):
        loss, slope, bias = _nll_and_gradient(log_probs, labels, parameters[0], _biases(parameters))
        return loss, np.concatenate([[slope], scale * bias])

    def _biases(parameters):
        return scale * parameters[1:]

    start = np.concatenate([[1.0], np.zeros(num_classes)])
    bounds = [(1 / LARGEST_TEMPERATURE, None)] + [(None, None)] * num_classes
    options = {"maxiter": 1000, "maxfun": 2000, "gtol": 1e-7, "ftol": 1e-13}
    best = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x
    biases = _biases(best)
    return BiasCorrectedTemperature(float(1 / best[0]), biases - biases.mean())


def fit_temperature(logits, labels, source_prior=None):
    """Fits the temperature of a classifier to a labelled sample by its negative log-likelihood.

    The likelihood is that of the posteriors softmax(logits / T − log source_prior + log shares) at
    the sample's own label distribution, so that this may be any, and classes may be missing (Guo
    et al., ICML 2017, with equation 4 of the LADE paper). A few hundred samples do, of which the
    classifier gets a dozen wrong: its errors are what tells how sure it may be.

    Args:
        logits: Raw logits [samples, classes], unseen in training.
        labels: True classes, integers [samples], of at least two classes.
        source_prior: [classes] the prior that the logits carry, or None if they are disentangled.

    Returns:
        The temperature T, a positive float, for `lade_tf.PriorAdaptLayer`. Logits s times as large
        have the temperature s·T.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range
            or all the same; no temperature is the best, as the logits make no error on the sample
            (the likelihood rises for ever as T falls) or tell nothing about it (it rises as T
            does, the derivative by 1/T isn't negative at 0).
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or not np.issubdtype(logits.dtype, np.floating):
        raise ValueError(
            f"logits must be floats [samples, classes]; got {logits.dtype} {list(logits.shape)}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite; got NaN or infinity")
    num_samples, num_classes = logits.shape
    labels = check_class_indices("labels", labels, num_samples, num_classes)
    shares = label_shares(labels, num_classes)
    if shares.max() == 1:
        raise ValueError(f"labels must be of at least two classes; all are {labels[0]}")
    with np.errstate(divide="ignore"):  # a missing class gets the probability 0
        biases = np.log(shares)
    if source_prior is not None:
        name = "source_prior"
        biases -= np.log(check_prior(source_prior, num_classes, allow_zero=False, name=name))

    spread, all_right = _spread(logits, labels, shares > 0)

    def slope_gradient(slope):  # increases, as the loss is convex
        return _slope_gradient(logits, labels, slope / spread, biases) / spread

    if spread == 0 or slope_gradient(0.0) >= -ROUNDING:
        raise ValueError("logits must tell something about the labels; no better than chance here")
    if all_right:
        raise ValueError(
            "logits must be wrong about some of the labels for a temperature to be fitted; they "
            f"tell all {num_samples:,} without an error: give more samples, unseen in training"
        )
    highest = 1.0
    while slope_gradient(highest) <= 0:
        highest *= 4
    slope = scipy.optimize.brentq(slope_gradient, 0.0, highest, xtol=1e-18, rtol=1e-12)
    return float(spread / slope)


def _spread(logits, labels, present):
    """Returns how far logits lie below their row's highest, and whether the labels' are highest.

    Args:
        logits: [samples, classes].
        labels: [samples].
        present: [classes] which classes the labels hold; the others take no part.

    Returns:
        (root mean square distance, whether no logit of a class that is present is above the
        label's).
    """
    squares, all_right = 0.0, True
    for rows in row_blocks(logits):
        block = logits[rows][:, present].astype(np.float64)
        highest = block.max(axis=1)
        squares += np.square(highest[:, None] - block).sum()
        own = logits[rows][np.arange(len(block)), labels[rows]]
        all_right &= bool(np.all(own == highest))
    return np.sqrt(squares / (len(labels) * np.count_nonzero(present))), all_right


def _slope_gradient(logits, labels, slope, biases):
    """Derivative by the slope of the mean loss of softmax(slope·logits + biases)."""
    gradient = 0.0
    for rows in row_blocks(logits):
        block = logits[rows].astype(np.float64)
        # A common offset would leave the difference of two large sums.
        block -= block[np.arange(len(block)), labels[rows]][:, None]
        posteriors, _ = _softmax(slope * block + biases)
        gradient += np.einsum("nc,nc->", posteriors, block)
    return gradient / len(labels)


def _nll_and_gradient(log_probs, labels, slope, biases):
    """Mean loss of softmax(slope·log_probs + biases) and its gradients by slope and by biases."""
    loss, slope_gradient, bias_gradient = 0.0, 0.0, np.zeros_like(biases)
    for rows in row_blocks(log_probs):
        block, true = log_probs[rows].astype(np.float64), labels[rows]
        index = np.arange(len(true)), true
        scores = slope * block + biases
        true_score = scores[index].sum()
        posteriors, log_normalizer = _softmax(scores)
        loss += log_normalizer.sum() - true_score
        slope_gradient += np.einsum("nc,nc->", posteriors, block) - block[index].sum()
        bias_gradient += posteriors.sum(axis=0) - np.bincount(true, minlength=len(biases))
    return tuple(part / len(labels) for part in (loss, slope_gradient, bias_gradient))


def _softmax(scores):
    """Softmax of float64 scores, written over them, and the log of its normaliser, [samples]."""
    largest = scores.max(axis=1, keepdims=True)
    scores -= largest
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    scores /= total
    return scores, (largest + np.log(total))[:, 0]


def _log(probs):
    return np.log(np.maximum(probs.astype(np.float64), SMALLEST_PROBABILITY))
