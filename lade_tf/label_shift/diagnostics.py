"""How far an estimated prior can be trusted."""

import warnings
from typing import NamedTuple

import numpy as np
import scipy.optimize

from lade_tf.array_checks import check_class_indices, check_samples, check_source
from lade_tf.checks import check_integer
from lade_tf.label_shift.confusion import class_means, grouped_means
from lade_tf.numerics import draw_rows, resample_source
from lade_tf.priors import check_prior

SIGNIFICANCE = 0.05
CONFIDENCE_BINS = 10
FEWEST_TO_JUDGE = 3  # source samples of every class
ENOUGH_TO_JUDGE = 100  # even where all of them have the same confidence


class LabelShiftTest(NamedTuple):
    """Result of `label_shift_test`.

    Attributes:
        residual: Distance of the target's mean prediction and confidence histogram to the nearest
            mixture of the classes', in standard deviations of one target sample.
        p_value: Share of the reference distribution that is at least as far; None where the source
            is too small to judge by.
        mixture: [classes] float64, the prior of the nearest mixture.
    """

    residual: float
    p_value: float | None
    mixture: np.ndarray


def condition_number(source_probs, source_labels, soft=False):
    """Condition number of the confusion matrix: how much BBSE can amplify sampling noise.

    Args, Raises: As `confusion_matrix`.

    Returns:
        A float >= 1; infinity where the matrix is singular.
    """
    return matrix_condition(class_means(*check_source(source_probs, source_labels), soft))


def matrix_condition(matrix):
    """Condition number, infinite from where float64 can't tell it from a singular matrix's."""
    if np.linalg.matrix_rank(matrix) < len(matrix):
        return float("inf")
    return float(np.linalg.cond(matrix))


def effective_sample_size(prior, source_labels):
    """Kish's effective size of the source sample once weighted to another prior.

    (Σw)²/Σw² over the samples, w = prior / source prior of the sample's class: what the labelled
    sample is still worth under the target, all of it without a shift.

    Args:
        prior: Target prior [classes].
        source_labels: Classes of the labelled sample, integers [source samples].

    Returns:
        A float in 0..source samples; 0 where all of the prior is on classes without samples.

    Raises:
        ValueError: `prior` isn't a distribution; labels are out of range.
    """
    prior = check_prior(prior)
    labels = check_class_indices("source_labels", source_labels, num_classes=len(prior))
    counts = np.bincount(labels, minlength=len(prior))
    seen = counts > 0
    if not prior[seen].any():
        return 0.0
    return float(prior[seen].sum() ** 2 / (prior[seen] ** 2 / counts[seen]).sum())


def label_shift_test(source_probs, source_labels, target_probs, resamples=200, seed=0):
    """Tests whether the target can be a label shift of the source.

    Under label shift every mean over the target is a mixture of the means over the classes. The
    statistic is the distance of the target's mean prediction to the nearest mixture, its reference
    distribution that of source samples redrawn at the mixture's prior. The mean probabilities alone
    are as many numbers as unknowns, so that nearly any target fits them; the histogram of the
    confidence (10 bins) joins them and gives the test its power. Every number counts in units of
    its standard deviation over the target. Redrawn samples of a class are stretched to the variance
    that the class itself has, n / (n − 1) times that of its n samples. A warning is given where the
    p-value is under 0.05.

    A small p-value speaks against label shift. A large one doesn't show it: shifts that look like
    a mixture of the classes, moderate ones among them, pass, the more so the smaller the samples.
    With fewer than 3 source samples of a class, or fewer than 100 that are all as confident as each
    other, the test declines: the p-value is None, and a warning says so.

    Args:
        source_probs: Predicted probabilities of the labelled sample [source samples, classes],
            unseen in training.
        source_labels: Its true classes, integers [source samples].
        target_probs: Predicted probabilities [target samples, classes] of the same classifier.
        resamples: Size of the reference distribution; the smallest p-value is 1/(resamples + 1).
        seed: Of the resampling.

    Returns:
        A LabelShiftTest.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range;
            there is no target sample.
    """
    resamples = check_integer(resamples, "resamples", minimum=1)
    seed = check_integer(seed, "seed", minimum=0)
    samples = check_samples(source_probs, source_labels, target_probs)
    result = run_label_shift_test(*samples, resamples, np.random.default_rng(seed))
    warn_unless_label_shift(result)
    return result


def run_label_shift_test(source_probs, source_labels, target_probs, resamples, rng):
    """Label shift test of checked arrays, without the warning."""
    num_classes = source_probs.shape[1]
    source, target = _with_confidence_bins(source_probs), _with_confidence_bins(target_probs)
    # Noisy entries would hide the precise ones; 1/n keeps an empty bin from counting infinitely.
    scale = np.sqrt(target.var(axis=0, dtype=np.float64) + 1 / len(target)).astype(target.dtype)
    source /= scale
    target /= scale
    mixture, residual = _nearest_prior(source, source_labels, target, num_classes)
    if not _tells_scatter(source[:, num_classes:], source_labels, num_classes):
        return LabelShiftTest(residual, None, mixture)
    source = _unshrunk(source, source_labels, num_classes)
    reference = []
    for _ in range(resamples):
        rows = resample_source(source_labels, num_classes, rng)
        counts = rng.multinomial(len(target), mixture)
        shifted = source[draw_rows(source_labels, counts, rng)]
        reference.append(_nearest_prior(source[rows], source_labels[rows], shifted, num_classes)[1])
    p_value = (1 + np.count_nonzero(np.array(reference) >= residual)) / (1 + resamples)
    return LabelShiftTest(residual, float(p_value), mixture)


def _tells_scatter(bins, labels, num_classes):
    """Whether the source tells how far the confidences of every class scatter.

    A few samples that are all as confident as each other have no scatter at all, while those of the
    target have: nearly every label shift would be rejected.
    """
    counts = np.bincount(labels, minlength=num_classes)
    in_bins = np.zeros((num_classes, bins.shape[1]))
    np.add.at(in_bins, labels, bins > 0)
    varied = in_bins.max(axis=1) < counts
    return bool(np.all((counts >= FEWEST_TO_JUDGE) & (varied | (counts >= ENOUGH_TO_JUDGE))))


def _unshrunk(values, labels, num_classes):
    """Returns the values of each class as far from its mean as those of its distribution are.

    n values lie nearer to their own mean than to the distribution's: what is drawn from them has
    (n − 1) / n of its variance, of three values two thirds.
    """
    counts = np.bincount(labels, minlength=num_classes)
    means = grouped_means(values, labels, num_classes).T[labels]
    stretch = np.sqrt(counts / np.maximum(counts - 1, 1))[labels, np.newaxis]
    return (means + stretch * (values - means)).astype(values.dtype)


def warn_unless_label_shift(result):
    """Warns where a LabelShiftTest speaks against label shift, or couldn't judge."""
    if result.p_value is None:
        warnings.warn(
            "whether the target is a label shift of the source wasn't tested: that takes at least "
            f"{FEWEST_TO_JUDGE} source samples of every class, of different confidence, or "
            f"{ENOUGH_TO_JUDGE}",
            stacklevel=3,
        )
    elif result.p_value < SIGNIFICANCE:
        warnings.warn(
            "the target doesn't look like a label shift of the source (p-value "
            f"{result.p_value:.2g}): inputs of the same class seem to differ, so an estimated "
            "prior may be wrong",
            stacklevel=3,
        )


def _with_confidence_bins(probs):
    """Probabilities and the one-hot bin of the largest one, [samples, classes + bins]."""
    bins = (probs.max(axis=1) * CONFIDENCE_BINS).astype(np.int64)
    one_hot = np.eye(CONFIDENCE_BINS, dtype=np.result_type(probs, np.float32))
    return np.hstack([probs, one_hot[np.minimum(bins, CONFIDENCE_BINS - 1)]])


def _nearest_prior(source, labels, target, num_classes):
    """Returns the prior [classes] whose mixture is nearest to the target, and its distance."""
    means = grouped_means(source, labels, num_classes)
    seen = np.unique(labels)
    prior = np.zeros(num_classes)
    prior[seen], distance = nearest_mixture(means[:, seen], target.mean(axis=0, dtype=np.float64))
    return prior, distance


def nearest_mixture(means, target):
    """Returns the distribution q nearest in |means·q - target|, and that distance.

    With every column's difference from the target as B, the answer is the direction of the x >= 0
    that minimises |Bx|² + (Σx - 1)²: for x = t·q the best t leaves a function growing with |Bq|.
    """
    differences = means - target[:, np.newaxis]
    system = np.vstack([differences, np.ones(means.shape[1])])
    goal = np.append(np.zeros(len(target)), 1.0)
    solution = scipy.optimize.nnls(system, goal, maxiter=30 * means.shape[1])[0]
    weights = solution / solution.sum()
    return weights, float(np.linalg.norm(differences @ weights))
