"""Label distributions: from counts to priors, long-tailed profiles, shifted targets.

NumPy only, float64. Every count and every prior that enters the library is checked here.
"""

import json
import pathlib

import numpy as np

from lade_tf.checks import check_choice, check_integer, check_number

SUM_TOLERANCE = 1e-3
ZERO_COUNT_MODES = ("error", "smooth")
DIRECTIONS = ("forward", "backward")
READINGS = ("notebook", "paper")


def check_counts(counts, zero_count="error", name="class_counts", allow_zero=False):
    """Returns `counts` as a checked float64 array.

    Args:
        counts: [classes] samples per class, finite and not negative.
        zero_count: what a class without samples means: "error" refuses it, "smooth" adds 1 to
            every count.
        name: the argument's name in error messages.
        allow_zero: leaves such a class at 0, for what divides by no count.

    Returns:
        [classes] float64, every entry positive unless `allow_zero`.

    Raises:
        ValueError: for another rank, fewer than two classes, a negative, non-finite or, with
            "error", zero count.
    """
    check_choice(zero_count, ZERO_COUNT_MODES, "zero_count")
    counts = _vector(counts, name)
    if counts.size < 2:
        raise ValueError(f"{name} must hold at least 2 classes; got {counts.size}")
    _refuse_entries(counts, ~np.isfinite(counts), name, "finite numbers")
    _refuse_entries(counts, counts < 0, name, "numbers >= 0")
    if allow_zero:
        return counts
    if zero_count == "smooth":
        return counts + 1.0
    _refuse_entries(
        counts, counts == 0, name, 'numbers > 0 (zero_count="smooth" adds 1 to every count)'
    )
    return counts


def check_prior(prior, num_classes=None, allow_zero=True, name="prior"):
    """Returns `prior` as a checked float64 distribution.

    Args:
        prior: [classes] probabilities; a sum within 1e-3 of 1 is renormalised.
        num_classes: the number of classes expected, or None for any.
        allow_zero: whether a class may have probability exactly 0 (target priors may).
        name: the argument's name in error messages.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: for another rank or length, a negative, non-finite or (without `allow_zero`)
            zero entry, or a sum further than 1e-3 from 1.
    """
    prior = _vector(prior, name)
    if num_classes is not None and prior.size != num_classes:
        raise ValueError(f"{name} must have {num_classes} entries, one a class; got {prior.size}")
    _refuse_entries(prior, ~np.isfinite(prior), name, "finite numbers")
    _refuse_entries(prior, prior < 0, name, "probabilities >= 0")
    if not allow_zero:
        _refuse_entries(prior, prior == 0, name, "probabilities > 0")
    total = prior.sum()
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1 (within {SUM_TOLERANCE}); its sum is {total:.6g}")
    # A sum that is 1 but for rounding is left alone: checking twice changes nothing.
    return prior if abs(total - 1.0) < 1e-12 else prior / total


def class_prior(counts, zero_count="error"):
    """Returns the empirical label distribution π = n / Σn.

    Args:
        counts: [classes] samples per class.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Returns:
        [classes] float64, sums to 1.
    """
    counts = check_counts(counts, zero_count)
    return counts / counts.sum()


def uniform_prior(num_classes):
    """Returns the uniform distribution over `num_classes` classes, [classes] float64."""
    return np.full(num_classes, 1.0 / num_classes)


def exponential_counts(max_count, num_classes, imbalance_ratio):
    """Returns the long-tailed profile int(max_count · (1/ratio)^(c/(C−1))), c = 0..C−1.

    The profile of CIFAR-LT (Cui et al., CVPR 2019), classes in label order.

    Args:
        max_count: samples of the most frequent class.
        num_classes: C, at least 2.
        imbalance_ratio: the largest count over the smallest, at least 1.

    Returns:
        [classes] int64.
    """
    max_count = check_integer(max_count, "max_count", minimum=1)
    num_classes = check_integer(num_classes, "num_classes", minimum=2)
    position = np.arange(num_classes) / (num_classes - 1)
    return _truncated_profile(max_count, imbalance_ratio, position)


def shifted_counts(per_class, train_counts, imbalance_ratio, direction, reading="notebook"):
    """Returns the class sizes of a shifted test set (section 4.3 of the LADE paper).

    Args:
        per_class: M, the images of every class in the balanced test set.
        train_counts: [classes] training counts; their descending order ranks the classes, ties
            in class order.
        imbalance_ratio: largest over smallest class, at least 1.
        direction: "forward" (as in training) or "backward" (ranks reversed).
        reading: "notebook" gives int(M · ratio^(−rank/(C−1))), what the released notebooks
            compute; "paper" gives int(M · ratio^(−rank/C)), the formula as printed.

    Returns:
        [classes] int64.
    """
    check_choice(direction, DIRECTIONS, "direction")
    check_choice(reading, READINGS, "reading")
    per_class = check_integer(per_class, "per_class", minimum=1)
    train_counts = check_counts(train_counts, name="train_counts", allow_zero=True)
    num_classes = train_counts.size
    rank = np.empty(num_classes, dtype=np.int64)
    rank[np.argsort(-train_counts, kind="stable")] = np.arange(num_classes)
    if direction == "backward":
        rank = num_classes - 1 - rank
    steps = num_classes - 1 if reading == "notebook" else num_classes
    return _truncated_profile(per_class, imbalance_ratio, rank / steps)


def load_prior(path, num_classes=None, class_names=None):
    """Reads a prior from a JSON file {"prior": [C floats]}.

    The file may name its classes, {"class_names": [C strings], "prior": [C floats]}.

    Args:
        path: the file.
        num_classes: the number of classes expected, or None for any.
        class_names: [C] strings, the classes in the order that is wanted, or None. A file that
            names its classes is taken by name, one that doesn't as it is.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: if there is no such file, it isn't JSON of that form, not a prior, or that of
            other classes.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise ValueError(f"prior file {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"prior file {path} isn't JSON: {error}") from error
    if not isinstance(content, dict) or "prior" not in content:
        raise ValueError(f'prior file {path} must hold {{"prior": [C floats]}}')
    prior = check_prior(content["prior"], num_classes, name=f"the prior in {path}")
    if class_names is None or content.get("class_names") is None:
        return prior
    return prior[_positions(list(class_names), content["class_names"], len(prior), path)]


def _positions(wanted, there, num_classes, path):
    """Returns where each of the wanted names stands among those there."""
    names = all(isinstance(name, str) for name in there) if isinstance(there, list) else False
    if not names or len(set(there)) != num_classes:
        raise ValueError(
            f"class_names in {path} must be {num_classes} different strings, one for each entry of "
            f"the prior; got {there!r}"
        )
    other = sorted(set(there).symmetric_difference(wanted))
    if other:
        raise ValueError(
            f"the prior in {path} must be that of the model's classes; {other[0]!r} is a class of "
            f"{'that file' if other[0] in there else 'the model'} alone"
        )
    return [there.index(name) for name in wanted]


def _truncated_profile(max_count, imbalance_ratio, position):
    ratio = check_number(imbalance_ratio, "imbalance_ratio", minimum=1)
    # Neither exp of a logarithm nor a product with 1/ratio: the truncation would lose an image
    # where the quotient is a whole number.
    return (max_count / ratio**position).astype(np.int64)


def _vector(values, name):
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a list of numbers, one a class; {error}") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape [classes]; got shape {list(array.shape)}")
    return array


def _refuse_entries(array, bad, name, expected):
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        more = f" ({int(bad.sum())} such entries)" if bad.sum() > 1 else ""
        raise ValueError(
            f"{name} must hold {expected}; got {array[index]:g} at class {index}{more}"
        )
