"""Checks of arrays; each returns the argument as an array ready to use or raises a ValueError."""

import numpy as np

from lade_tf.class_order import as_floats
from lade_tf.priors import check_counts

# Half-precision softmax outputs miss a sum of 1 by rounding alone; logits miss it by far more.
ROW_SUM_TOLERANCE = 1e-2


def check_probabilities(probabilities):
    """Returns `probabilities` as a float array [samples, classes] in its own precision.

    Only row reductions are formed, never a second [samples, classes] array of a float input.
    """
    probabilities = np.asarray(probabilities)
    if not np.issubdtype(probabilities.dtype, np.floating):
        probabilities = as_floats(probabilities, "probabilities", "numbers")
    if probabilities.ndim != 2 or probabilities.size == 0:
        raise ValueError(
            "probabilities must have shape [samples, classes] with at least one of each; "
            f"got shape {probabilities.shape}"
        )
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("probabilities must be finite; got NaN or infinity")
    if low < 0 or high > 1 + ROW_SUM_TOLERANCE:
        raise ValueError(
            "probabilities must lie in [0, 1] (apply softmax to logits first); "
            f"got values from {low:g} to {high:g}"
        )
    sums = probabilities.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(
            f"probabilities must sum to 1 in every row; got {sums[worst]:g} in row {worst}"
        )
    return probabilities


def check_class_indices(name, indices, num_samples=None, num_classes=None):
    """Returns `indices` as integers [samples], inside 0..num_classes-1 where that is given.

    A column [samples, 1], as Keras' data sets have it, is taken too.
    """
    indices = np.asarray(indices)
    if indices.ndim == 2 and indices.shape[1] == 1:
        indices = indices[:, 0]
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(
            f"{name} must have shape [samples] with at least one sample; got shape {indices.shape}"
        )
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{name} must be integers; got dtype {indices.dtype}")
    if num_samples is not None and len(indices) != num_samples:
        raise ValueError(f"{name} must hold {num_samples} samples; got {len(indices)}")
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        bound = "at least 0" if num_classes is None else f"in 0..{num_classes - 1}"
        raise ValueError(f"{name} must be {bound}; got values from {low} to {high}")
    return indices


def check_sample_weight(sample_weight, num_samples):
    """Returns `sample_weight` as float64 [samples]; ones where it is None."""
    if sample_weight is None:
        return np.ones(num_samples)
    weight = np.asarray(sample_weight)
    if weight.dtype == bool:  # which samples count
        weight = weight.astype(np.float64)
    weight = as_floats(weight, "sample_weight", "numbers, one a sample")
    if weight.shape != (num_samples,):
        raise ValueError(f"sample_weight must have shape ({num_samples},); got {weight.shape}")
    if not np.isfinite(weight).all() or weight.min() < 0:
        raise ValueError("sample_weight must be finite and >= 0 everywhere")
    if not weight.any():
        raise ValueError("sample_weight must have a positive entry; got only zeros")
    return weight


def check_class_counts(class_counts, num_classes=None):
    """Returns `class_counts`, the training images of each class, as float64 [classes]."""
    return check_counts(class_counts, allow_zero=True, whole=True, num_classes=num_classes)


def check_source(source_probs, source_labels):
    """Returns the labelled source sample as arrays: [samples, classes] and integers [samples]."""
    source_probs = _check_probs("source_probs", source_probs)
    return source_probs, check_class_indices("source_labels", source_labels, *source_probs.shape)


def check_samples(source_probs, source_labels, target_probs):
    """Returns the labelled source sample and the target probabilities as checked arrays."""
    source_probs, source_labels = check_source(source_probs, source_labels)
    target_probs = _check_probs("target_probs", target_probs)
    if target_probs.shape[1] != source_probs.shape[1]:
        raise ValueError(
            f"target_probs must have {source_probs.shape[1]} classes, as source_probs; "
            f"got {target_probs.shape[1]}"
        )
    return source_probs, source_labels, target_probs


def require_every_class(source_labels, num_classes, consequence):
    """Raises a ValueError with the `consequence` where a class has no source sample."""
    missing = np.flatnonzero(np.bincount(source_labels, minlength=num_classes) == 0)
    if missing.size:
        more = f" ({missing.size} such classes)" if missing.size > 1 else ""
        raise ValueError(
            f"source_labels must hold every class; class {missing[0]} has no sample{more}, so "
            f"{consequence}. label_shift.rlls gives a regularised estimate, in which such a class "
            "has probability 0"
        )


def _check_probs(name, probs):
    shape = np.shape(probs)
    if len(shape) > 0 and shape[0] == 0:
        raise ValueError(f"{name} must hold at least one sample; got none")
    try:
        return check_probabilities(probs)
    except ValueError as error:
        raise ValueError(f"{name} {str(error).removeprefix('probabilities ')}") from None
