"""Maximum likelihood of the target prior by expectation maximisation."""

import warnings
from typing import NamedTuple

import numpy as np

from lade_tf.array_checks import check_samples, require_every_class
from lade_tf.checks import check_integer, check_number
from lade_tf.label_shift.calibration import solve_calibration
from lade_tf.label_shift.confusion import label_shares
from lade_tf.numerics import row_blocks

TOLERANCE = 1e-6
MAX_ITERATIONS = 10_000
NEGLIGIBLE_RATIO = 1e-20


class EMFit(NamedTuple):
    """Where EM ended.

    Attributes:
        prior: [classes] float64, sums to 1.
        iterations: Steps taken.
        last_change: L1 distance of the last step; converged where it is under the tolerance.
    """

    prior: np.ndarray
    iterations: int
    last_change: float


def em(
    source_probs,
    source_labels,
    target_probs,
    calibrate=True,
    tolerance=TOLERANCE,
    max_iterations=MAX_ITERATIONS,
    pseudo_count=0.0,
):
    """Target prior by EM on calibrated posteriors.

    The fixed point of Saerens et al. (Neural Computation 2002) maximises the likelihood of the
    target sample; the posteriors are calibrated first by bias-corrected temperature scaling on the
    source sample (Alexandari et al., ICML 2020). EM starts from the source sample's prior.

    Args:
        source_probs: Predicted probabilities of the labelled sample [source samples, classes],
            unseen in training.
        source_labels: Its true classes, integers [source samples]; every class occurs.
        target_probs: Predicted probabilities [target samples, classes] of the same classifier.
        calibrate: False takes `target_probs` for calibrated at the prior of `source_labels`.
        tolerance: EM has converged when a step's L1 change is smaller.
        max_iterations: EM stops there with a warning.
        pseudo_count: How many samples of every class to add to each step's expected counts. With
            few target samples a class the maximum likelihood has classes at 0; this makes it the
            maximum a posteriori under a Dirichlet prior of concentration 1 + pseudo_count.

    Returns:
        The target prior, [classes] float64, sums to 1.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range;
            there is no target sample; a class has no source sample.
    """
    options = calibrate, tolerance, max_iterations, pseudo_count
    return fit_em(source_probs, source_labels, target_probs, *options).prior


def fit_em(
    source_probs,
    source_labels,
    target_probs,
    calibrate=True,
    tolerance=TOLERANCE,
    max_iterations=MAX_ITERATIONS,
    pseudo_count=0.0,
):
    """As `em`, but returns an EMFit: the prior with the iterations and the last change."""
    tolerance = check_number(tolerance, "tolerance", above=0)
    max_iterations = check_integer(max_iterations, "max_iterations", minimum=1)
    pseudo_count = check_number(pseudo_count, "pseudo_count", minimum=0)
    samples = check_samples(source_probs, source_labels, target_probs)
    require_every_class(samples[1], samples[0].shape[1], "EM can't start from the source prior")
    fit = solve_em(*samples, calibrate, tolerance, max_iterations, pseudo_count)
    if fit.last_change >= tolerance:
        warnings.warn(
            f"EM hasn't converged: its last change was {fit.last_change:.2g} after "
            f"{fit.iterations} iterations, tolerance {tolerance:.2g}",
            stacklevel=3,
        )
    return fit


def solve_em(
    source_probs,
    source_labels,
    target_probs,
    calibrate=True,
    tolerance=TOLERANCE,
    max_iterations=MAX_ITERATIONS,
    pseudo_count=0.0,
):
    """EM of checked arrays."""
    source_prior = label_shares(source_labels, source_probs.shape[1])
    if calibrate:
        posteriors = solve_calibration(source_probs, source_labels).calibrated(target_probs)
    else:
        posteriors = target_probs.astype(np.result_type(target_probs, np.float32), copy=False)
    prior, change, iterations = source_prior, np.inf, 0
    while change >= tolerance and iterations < max_iterations:
        updated = len(posteriors) * em_step(posteriors, source_prior, prior) + pseudo_count
        updated /= updated.sum()
        change = float(np.abs(updated - prior).sum())
        prior, iterations = updated, iterations + 1
    return EMFit(prior, iterations, change)


def em_step(posteriors, source_prior, prior):
    """One step: the mean of the posteriors after they are moved from `source_prior` to `prior`.

    Two matrix-vector products on each block of rows, so that memory is read once a step and no
    second [samples, classes] array is formed. Blocks are added up in float64.
    """
    ratio = prior / source_prior
    # A class on its way out would slow the products by subnormal numbers long before it is gone.
    weights = np.where(ratio < NEGLIGIBLE_RATIO, 0, ratio).astype(posteriors.dtype)
    total = np.zeros_like(ratio)
    for rows in row_blocks(posteriors):
        block = posteriors[rows]
        total += (1 / (block @ weights)) @ block
    updated = ratio * total
    return updated / updated.sum()
