"""Calibration of predicted probabilities (appendix 6.5 of the LADE paper).

Everywhere, probabilities are [samples, classes], labels are integers [samples], and a sample weight
w means that the sample occurs w times. Every public function checks its arguments and calls the
function of the same formula below it, which takes checked arrays, computes in float64 and never
forms a second [samples, classes] array.
"""

import numpy as np

from lade_tf.array_checks import (
    check_class_indices,
    check_probabilities,
    check_sample_weight,
)
from lade_tf.checks import check_integer
from lade_tf.numerics import row_blocks

NUM_BINS = 20
# Where the published figures were clipped; Keras' 1e-7 would hide confident mistakes.
SMALLEST_PROBABILITY = 1e-15


def expected_calibration_error(probabilities, labels, num_bins=NUM_BINS, sample_weight=None):
    """Expected calibration error (ECE) of the most probable class.

    Sum over bins of the share of samples in the bin times |accuracy - mean confidence|, with
    equal-width bins [k/num_bins, (k+1)/num_bins), the last one closed (equation 28 of the LADE
    paper, which closes its bins on the right instead; Guo et al., ICML 2017).

    Args:
        probabilities: Predicted probabilities [samples, classes].
        labels: True classes, integers [samples].
        num_bins: Number of equal-width bins.
        sample_weight: How many times each sample occurs, [samples]; None means once.

    Returns:
        A float in 0..1.

    Raises:
        ValueError: An argument has a wrong shape or type; probabilities are not finite or no
            distributions; labels are outside 0..classes-1; weights are negative or all zero.
    """
    num_bins = check_integer(num_bins, "num_bins", minimum=1)
    return ece(*check_scored_samples(probabilities, labels, sample_weight), num_bins)


def classwise_calibration_error(probabilities, labels, num_bins=NUM_BINS, sample_weight=None):
    """Classwise expected calibration error.

    The probability of every class is binned over all samples and compared with the share of that
    class in the bin; the errors of the classes are averaged (Kull et al., NeurIPS 2019). Equation
    29 of the LADE paper reads otherwise, but the magnitude of its tables 10 and 11 shows this.

    Args, Raises: As `expected_calibration_error`.

    Returns:
        A float in 0..1, small by construction: about 0.005 for 100 classes.
    """
    num_bins = check_integer(num_bins, "num_bins", minimum=1)
    return classwise_ece(*check_scored_samples(probabilities, labels, sample_weight), num_bins)


def brier_score(probabilities, labels, sample_weight=None):
    """Squared distance to the one-hot label, summed over classes, averaged over samples.

    Equation 30 of the LADE paper writes a sum over samples; its tables hold averages.

    Args, Raises: As `expected_calibration_error`.

    Returns:
        A float in 0..2 (Brier, 1950).
    """
    return brier(*check_scored_samples(probabilities, labels, sample_weight))


def negative_log_likelihood(probabilities, labels, sample_weight=None):
    """Mean of -log of the true class's probability, in nats, clipped at 1e-15.

    Equation 31 of the LADE paper writes a sum; its tables hold averages, and so does this.

    Args, Raises: As `expected_calibration_error`.

    Returns:
        A float in 0..34.54 (-log 1e-15).
    """
    return nll(*check_scored_samples(probabilities, labels, sample_weight))


def check_scored_samples(probabilities, labels, sample_weight):
    """Returns probabilities [samples, classes], labels [samples], float64 weights [samples]."""
    probabilities = check_probabilities(probabilities)
    num_samples, num_classes = probabilities.shape
    labels = check_class_indices("labels", labels, num_samples, num_classes)
    return probabilities, labels, check_sample_weight(sample_weight, num_samples)


def ece(probabilities, labels, weight, num_bins=NUM_BINS):
    """ECE of checked arrays."""
    predictions = probabilities.argmax(axis=1)
    confidence = _probability_of(predictions, probabilities)
    return binned_gap(confidence, predictions == labels, weight, num_bins)


def classwise_ece(probabilities, labels, weight, num_bins=NUM_BINS):
    """Classwise ECE of checked arrays.

    A row has at most num_bins entries outside the lowest bin, for it sums to 1: only those are
    looked up, and the lowest bin gets what they leave of the sums over all samples.
    """
    num_samples, num_classes = probabilities.shape
    gaps = np.zeros((num_classes, num_bins))
    for rows in row_blocks(probabilities):
        block, block_weight = probabilities[rows], weight[rows]
        gaps[:, 0] -= block_weight @ block.astype(np.float64)
        sample, column = divmod(np.flatnonzero(block >= 1 / num_bins), num_classes)
        confidence = block[sample, column].astype(np.float64)
        amount = block_weight[sample] * confidence
        gaps[:, 0] += np.bincount(column, amount, num_classes)
        gaps -= _sums(column, bin_index(confidence, num_bins), amount, gaps.shape)
    confidence = _probability_of(labels, probabilities)
    gaps += _sums(labels, bin_index(confidence, num_bins), weight, gaps.shape)
    return float(np.abs(gaps).sum() / (num_classes * weight.sum()))


def _sums(rows, columns, values, shape):
    """Returns an array of `shape` with the sums of `values` at (rows, columns)."""
    index = rows.astype(np.int64) * shape[1] + columns
    return np.bincount(index, values, shape[0] * shape[1]).reshape(shape)


def brier(probabilities, labels, weight):
    """Brier score of checked arrays, as sum_c p_c^2 - 2 p_y + 1: no one-hot array."""
    return brier_of(squares(probabilities), _probability_of(labels, probabilities), weight)


def squares(probabilities):
    """Returns sum_c p_c^2 of each row, float64 [samples]."""
    return np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)


def brier_of(squares, likelihood, weight):
    """Brier score from [samples] squares and probabilities of the true class."""
    return float(np.average(squares - 2 * likelihood + 1, weights=weight))


def nll(probabilities, labels, weight):
    """Negative log-likelihood of checked arrays."""
    return nll_of(_probability_of(labels, probabilities), weight)


def nll_of(likelihood, weight):
    """Negative log-likelihood from [samples] probabilities of the true class."""
    losses = -np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1))
    return float(np.average(losses, weights=weight))


def bin_index(confidence, num_bins):
    """Returns the bin of each float64 confidence: [k/num_bins, (k+1)/num_bins), the last closed."""
    # Comparing with the edges is exact; the product confidence * num_bins rounds, and lifts the
    # float just below 0.45 over the edge.
    edges = np.arange(num_bins + 1) / num_bins
    return np.minimum(np.searchsorted(edges, confidence, side="right") - 1, num_bins - 1)


def _probability_of(classes, probabilities):
    return probabilities[np.arange(len(classes)), classes].astype(np.float64)


def binned_gap(confidence, correct, weight, num_bins=NUM_BINS):
    """ECE of checked arrays of [samples] each.

    It is the sum over bins of |sum over the bin of weight * (correct - confidence)| / all weight:
    an empty bin adds 0, and no bin is divided by its size.
    """
    confidence = confidence.astype(np.float64)
    bins = bin_index(confidence, num_bins)
    gaps = np.bincount(bins, weights=weight * (correct - confidence), minlength=num_bins)
    return float(np.abs(gaps).sum() / weight.sum())
