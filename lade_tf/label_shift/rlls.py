"""Regularised learning under label shift: BBSE whose weights are pulled towards no shift."""

import numpy as np
import scipy.optimize

from lade_tf.array_checks import check_samples
from lade_tf.checks import check_number
from lade_tf.label_shift.confusion import class_means, label_shares, mean_prediction
from lade_tf.numerics import project_to_simplex

# The bound on the confusion matrix's error holds with this probability of failure.
BOUND_FAILURE = 0.05


def rlls(source_probs, source_labels, target_probs, soft=False, regularization=0.01):
    """Target prior by regularised weights (Azizzadenesheli et al., ICLR 2019).

    The ratio target prior / source prior is 1 + θ, where θ minimises |J·θ - b| + Δ·|θ| (Euclidean
    norms), J is the joint confusion matrix of the source, b the target's mean prediction minus the
    source's, and Δ is `regularization` times a bound on the error of J. The full bound is so wide
    that it mostly answers "no shift"; the default factor is the one of the authors' code. The prior
    is projected back where it leaves the simplex.

    Args:
        source_probs: Predicted probabilities of the labelled sample [source samples, classes],
            unseen in training.
        source_labels: Its true classes, integers [source samples]. A class may be missing; its
            estimate is 0.
        target_probs: Predicted probabilities [target samples, classes] of the same classifier.
        soft: Whether a prediction is the probabilities or, by default, the most probable class.
        regularization: Factor on the bound, >= 0; 0 gives BBSE where that exists.

    Returns:
        The target prior, [classes] float64, sums to 1.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range;
            there is no target sample; `regularization` is negative or not finite.
    """
    regularization = check_number(regularization, "regularization", minimum=0)
    samples = check_samples(source_probs, source_labels, target_probs)
    return solve_rlls(*samples, soft, regularization)


def solve_rlls(source_probs, source_labels, target_probs, soft=False, regularization=0.01):
    """RLLS of checked arrays."""
    num_samples, num_classes = source_probs.shape
    source_prior = label_shares(source_labels, num_classes)
    joint = class_means(source_probs, source_labels, soft) * source_prior
    difference = mean_prediction(target_probs, soft) - joint.sum(axis=1)
    penalty = regularization * confusion_error_bound(num_samples, num_classes)
    prior = source_prior * (1 + regularized_solution(joint, difference, penalty))
    seen = source_prior > 0
    prior[seen] = project_to_simplex(prior[seen])
    return prior


def confusion_error_bound(num_samples, num_classes):
    """Three times the matrix Bernstein bound on a joint confusion matrix's spectral error."""
    log_term = 2 * np.log(2 * num_classes / BOUND_FAILURE) / num_samples
    return 3 * (log_term / 3 + np.sqrt(log_term))


def regularized_solution(matrix, target, penalty):
    """Returns the θ that minimises |matrix·θ - target| + penalty·|θ|, [classes].

    Where neither norm is 0 the gradient vanishes at the ridge solution whose damping d is
    penalty·|residual|/|θ|. In singular vectors, |θ|·d/|residual| is a mean of the singular values
    that grows with d: one root, or an end.
    """
    left, values, right = np.linalg.svd(matrix)
    coefficients = left.T @ target

    def excess(log_damping):
        residual = coefficients / (values**2 + np.exp(log_damping))
        return np.linalg.norm(values * residual) / np.linalg.norm(residual) - penalty

    # Beyond these ends the damping changes nothing that float64 can hold.
    low, high = 2 * np.log(values[0]) + np.log([1e-14, 1e14])
    if not coefficients.any() or excess(high) <= 0:
        return np.zeros_like(target)
    if excess(low) >= 0:
        return np.linalg.pinv(matrix) @ target
    damping = np.exp(scipy.optimize.brentq(excess, low, high))
    return right.T @ (values * coefficients / (values**2 + damping))
