"""Black box shift estimation: invert the confusion matrix."""

import numpy as np

from lade_tf.array_checks import check_samples, require_every_class
from lade_tf.label_shift.confusion import class_means, mean_prediction
from lade_tf.numerics import project_to_simplex


class SingularConfusionError(ValueError):
    """The confusion matrix can't be inverted."""


def bbse(source_probs, source_labels, target_probs, soft=False):
    """Target prior by black box shift estimation (Lipton et al., ICML 2018).

    Under label shift the target's mean prediction is the mixture of the class-conditional mean
    predictions, A·q; q solves that system and is projected back where it leaves the simplex. The
    probabilities need no calibration.

    Args:
        source_probs: Predicted probabilities of the labelled sample [source samples, classes],
            unseen in training.
        source_labels: Its true classes, integers [source samples]; every class occurs.
        target_probs: Predicted probabilities [target samples, classes] of the same classifier.
        soft: Whether a prediction is the probabilities or, by default, the most probable class.

    Returns:
        The target prior, [classes] float64, sums to 1.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range;
            there is no target sample.
        SingularConfusionError: the confusion matrix is singular (`rlls` accepts that). It is a
            ValueError.
    """
    samples = check_samples(source_probs, source_labels, target_probs)
    _require_invertible(*samples[:2], soft)
    return solve_bbse(*samples, soft)


def solve_bbse(source_probs, source_labels, target_probs, soft=False):
    """BBSE of checked arrays.

    A singular matrix, which a bootstrap resample may have, gives the solution of least norm.
    """
    matrix = class_means(source_probs, source_labels, soft)
    solution = np.linalg.lstsq(matrix, mean_prediction(target_probs, soft), rcond=None)[0]
    return project_to_simplex(solution)


def _require_invertible(source_probs, source_labels, soft):
    num_classes = source_probs.shape[1]
    require_every_class(source_labels, num_classes, "the confusion matrix of BBSE is singular")
    matrix = class_means(source_probs, source_labels, soft)
    rank = np.linalg.matrix_rank(matrix)
    if rank < num_classes:
        never = np.flatnonzero(~matrix.any(axis=1))
        reason = f"; class {never[0]} is never predicted" if never.size else ""
        raise SingularConfusionError(
            "the confusion matrix of source_probs and source_labels must be invertible for BBSE; "
            f"its rank is {rank} of {num_classes}{reason}. label_shift.rlls gives a regularised "
            "estimate" + ("" if soft else ", soft=True may do too")
        )
