"""Label distributions: from counts to priors, long-tailed profiles, shifted targets.

NumPy only, float64. Every count and every prior that enters the library is checked here.
"""

import json
import reprlib

import numpy as np

from lade_tf.checks import check_choice, check_class_names, check_integer, check_number
from lade_tf.class_order import as_floats, in_class_order, labels_of, positions, unlabelled

SUM_TOLERANCE = 1e-3
ROUNDED_TOLERANCE = 1e-2 + 1e-9  # a sum this close to 1 is one of rounded shares
LARGEST_COUNT = 2**53  # float64 holds every whole number up to here
ZERO_COUNT_MODES = ("error", "smooth")
DIRECTIONS = ("forward", "backward")
READINGS = ("notebook", "paper")
RESTS = (None, "training")
LARGEST_FILE = 64 << 20
FORMS = (
    '{"prior": [C floats]}, {"counts": [C numbers]} or {name: share} of classes with known names'
)
# What a file may hold: the prior, and what an estimate, an export and a run tell about it.
FILE_KEYS = frozenset(
    ["prior", "counts", "class_names", "rest"]
    + ["low", "high", "shrinkage", "condition_number", "effective_sample_size", "iterations"]
    + [
        "last_change",
        "residual",
        "p_value",
        "pseudo_count",
        "verdict",
        "fit",
        "method",
        "class_counts",
    ]
    + ["command", "environment", "versions", "hardware", "commit"]
)


def check_counts(
    counts, zero_count="error", name="class_counts", allow_zero=False, whole=False, num_classes=None
):
    """Returns `counts` as a checked float64 array, in class order.

    Args:
        counts: [classes] samples per class, finite and not negative. A dict, a Series or whatever
            else carries labels is read by them: they must be the classes' numbers, 0..C−1.
        zero_count: what a class without samples means: "error" refuses it, "smooth" adds 1 to
            every count.
        name: the argument's name in error messages.
        allow_zero: leaves such a class at 0, for what divides by no count.
        whole: whether only whole numbers will do, because their size matters; shares won't then.
            With "smooth" they always must be.
        num_classes: the number of classes expected, or None for any.

    Returns:
        [classes] float64, every entry positive unless `allow_zero`.

    Raises:
        ValueError: for another rank, fewer than two classes, labels that aren't the classes'
            numbers, text, booleans, a negative, non-finite or, with "error", zero count.
    """
    check_choice(zero_count, ZERO_COUNT_MODES, "zero_count")
    counts = _vector(counts, name, num_classes)
    if counts.size < 2:
        raise ValueError(f"{name} must hold at least 2 classes; got {counts.size}")
    if num_classes is not None and counts.size != num_classes:
        raise ValueError(f"{name} must hold {num_classes} classes; got {counts.size}")
    _refuse_entries(counts, ~np.isfinite(counts), name, "finite numbers")
    _refuse_entries(counts, counts < 0, name, "numbers >= 0")
    with np.errstate(over="ignore"):
        if not np.isfinite(counts.sum()):
            raise ValueError(f"{name} must have a finite sum; got {counts.max():g} as the largest")
    if whole or zero_count == "smooth":
        _refuse_entries(counts, counts % 1 != 0, name, "whole numbers (counts, not shares)")
    if allow_zero:
        return counts
    if zero_count == "smooth":
        return counts + 1.0
    _refuse_entries(
        counts, counts == 0, name, 'numbers > 0 (zero_count="smooth" adds 1 to every count)'
    )
    return counts


def plain_counts(class_counts):
    """Returns counts that `check_counts` takes as a list in class order, to be kept in a config."""
    return np.asarray(in_class_order(class_counts, "class_counts")).tolist()


def check_prior(prior, num_classes=None, allow_zero=True, name="prior"):
    """Returns `prior` as a checked float64 distribution, in class order.

    Args:
        prior: [classes] probabilities; a sum within 1e-3 of 1 is renormalised. What carries labels
            is read by them, as in `check_counts`; `as_prior` reads class names too.
        num_classes: the number of classes expected, or None for any.
        allow_zero: whether a class may have probability exactly 0 (target priors may).
        name: the argument's name in error messages.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: for another rank or length, labels that aren't the classes' numbers, text,
            booleans, a negative, non-finite or (without `allow_zero`) zero entry, or a sum further
            than 1e-3 from 1.
    """
    prior = _vector(prior, name, num_classes)
    if num_classes is not None and prior.size != num_classes:
        raise ValueError(f"{name} must have {num_classes} entries, one a class; got {prior.size}")
    _refuse_entries(prior, ~np.isfinite(prior), name, "finite numbers")
    _refuse_entries(prior, prior < 0, name, "probabilities >= 0")
    if not allow_zero:
        _refuse_entries(prior, prior == 0, name, "probabilities > 0")
    total = prior.sum()
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise ValueError(
            f"{name} must sum to 1 (within {SUM_TOLERANCE}); its sum is {total:.6g}"
            f"{_advice(prior, total)}"
        )
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
        max_count: samples of the most frequent class, at most 2**53.
        num_classes: C, at least 2.
        imbalance_ratio: the largest count over the smallest, at least 1.

    Returns:
        [classes] int64.
    """
    max_count = check_integer(max_count, "max_count", minimum=1)
    num_classes = check_integer(num_classes, "num_classes", minimum=2)
    position = np.arange(num_classes) / (num_classes - 1)
    return _truncated_profile(max_count, imbalance_ratio, position, "max_count")


def shifted_counts(per_class, train_counts, imbalance_ratio, direction, reading="notebook"):
    """Returns the class sizes of a shifted test set (section 4.3 of the LADE paper).

    Args:
        per_class: M, the images of every class in the balanced test set, at most 2**53.
        train_counts: [classes] training counts; their descending order ranks the classes, ties
            in class order.
        imbalance_ratio: largest over smallest class, at least 1.
        direction: "forward" (as in training) or "backward" (ranks reversed).
        reading: "notebook" gives int(M · ratio^(−rank/(C−1))), what the released notebooks
            compute; "paper" gives int(M · ratio^(−rank/C)), the formula as printed.

    Returns:
        [classes] int64.
    """
    per_class = check_integer(per_class, "per_class", minimum=1)
    position = _shift_position(train_counts, direction, reading)
    return _truncated_profile(per_class, imbalance_ratio, position, "per_class")


def shifted_prior(train_counts, imbalance_ratio, direction, reading="notebook"):
    """Returns the label distribution of `shifted_counts` in real numbers, for any test set.

    Args:
        train_counts, imbalance_ratio, direction, reading: as of `shifted_counts`.

    Returns:
        [classes] float64, sums to 1. In the reading "notebook" the largest entry is
        `imbalance_ratio` times the smallest.
    """
    position = _shift_position(train_counts, direction, reading)
    profile = check_number(imbalance_ratio, "imbalance_ratio", minimum=1) ** -position
    return profile / profile.sum()


def _shift_position(train_counts, direction, reading):
    """Returns how far each class is from the head of a shifted test set, [classes] in 0..1."""
    check_choice(direction, DIRECTIONS, "direction")
    check_choice(reading, READINGS, "reading")
    train_counts = check_counts(train_counts, name="train_counts", allow_zero=True)
    num_classes = train_counts.size
    rank = np.empty(num_classes, dtype=np.int64)
    rank[np.argsort(-train_counts, kind="stable")] = np.arange(num_classes)
    if direction == "backward":
        rank = num_classes - 1 - rank
    return rank / (num_classes - 1 if reading == "notebook" else num_classes)


def as_prior(values, num_classes=None, class_names=None, rest=None, training_prior=None):
    """Returns a prior in class order, whichever way its classes are labelled.

    >>> as_prior({"bee": 0.2, "ant": 0.8}, class_names=["ant", "bee"])
    array([0.8, 0.2])

    Args:
        values: the classes' probabilities: [classes] in class order, or with labels of their own
            (a dict, a pandas Series, an xarray array): the classes' numbers 0..C−1 or their names.
        num_classes: C, the number of classes expected, or None for any.
        class_names: [C] strings in label order, or None where the classes have no names.
        rest: what becomes of classes that `values` leave out. None refuses them; "training" gives
            them what the others leave of 1, in the proportions of `training_prior`.
        training_prior: [C] probabilities > 0, for `rest` alone.

    Returns:
        [C] float64, sums to 1.

    Raises:
        ValueError: as `check_prior`, for a label that is no class, and a class without an entry.
    """
    return _as_prior(values, "prior", num_classes, class_names, rest, training_prior)


def _as_prior(values, name, num_classes, class_names, rest, training_prior):
    check_choice(rest, RESTS, "rest")
    num_classes, class_names = _checked_names(num_classes, class_names)
    if rest is None:
        values = in_class_order(values, name, num_classes, class_names)
        return check_prior(values, num_classes, name=name)
    labels = labels_of(values)
    if labels is None:
        raise ValueError(f"{name} must label its classes where rest is {rest!r}; it is a bare list")
    if training_prior is None:
        raise ValueError(f"training_prior must be given where rest is {rest!r}")
    prior = check_prior(training_prior, num_classes, allow_zero=False, name="training_prior").copy()
    given = positions(labels, name, len(prior), class_names, partial=True)
    shares = as_floats(unlabelled(values, labels), name)
    left_out = np.setdiff1d(np.arange(len(prior)), given)
    left = 1 - shares.sum()
    # What rounding alone leaves is nothing. A sum above 1 is refused below.
    prior[left_out] *= (left if left > 1e-12 else 0) / max(prior[left_out].sum(), 1e-300)
    prior[given] = shares
    return check_prior(prior, name=name)


def _checked_names(num_classes, class_names):
    """Returns the number of classes and their names, each None where it isn't known."""
    if class_names is None:
        return num_classes, None
    names = check_class_names(class_names, len(class_names) if num_classes is None else num_classes)
    return len(names), names


def load_prior(path, num_classes=None, class_names=None, rest=None, training_prior=None):
    """Reads a prior from a JSON file.

    The file holds {"prior": …}, the classes' probabilities, or {"counts": …}, which are divided by
    their sum: a list [C] or {name: number}. A list is in the order of "class_names", [C strings],
    where the file has them, and else in class order. {name: probability} alone will do. "rest":
    "training" is as the argument. Keys that describe where a prior comes from, those of an
    estimate for example, may stand beside; any other key is refused.

    Args:
        path: the file, UTF-8 with or without a byte order mark, at most 64 MB.
        num_classes: the number of classes expected, or None for any.
        class_names: [C] strings, the classes in the order that is wanted, or None. A file that
            names its classes is taken by name, one that doesn't as it is; without `class_names` a
            list is taken as it is too.
        rest: as in `as_prior`, for classes that the file doesn't name.
        training_prior: [C] probabilities > 0, for `rest` alone.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: if there is no such file, it isn't JSON of that form, not a prior, or that of
            other classes.
    """
    content = _read_json(path)
    num_classes, class_names = _checked_names(num_classes, class_names)
    key, values, rest = _entries(path, content, class_names, rest)
    name = f"the {key} in {path}"
    if key == "prior":
        return _as_prior(values, name, num_classes, class_names, rest, training_prior)
    if rest is not None:
        raise ValueError(f"{name} must be of all classes; rest={rest!r} is for a prior")
    values = in_class_order(values, name, num_classes, class_names)
    counts = check_counts(values, name=name, allow_zero=True, num_classes=num_classes)
    if not counts.any():
        raise ValueError(f"{name} must not all be 0")
    return counts / counts.sum()


def _entries(path, content, class_names, rest):
    """Returns what a file holds ("prior" or "counts"), its values, labelled if it can be, and rest.

    Args:
        path: the file, for messages.
        content: what it holds.
        class_names: [C] strings, or None.
        rest: as in `load_prior`; a file that says so itself needs no argument.
    """
    content = content if isinstance(content, dict) else {}
    if content.get("rest") is not None:
        rest = content["rest"]
        if rest not in RESTS:
            raise ValueError(f'rest in {path} must be "training"; got {reprlib.repr(rest)}')
    keys = [key for key in ("prior", "counts") if key in content]
    if len(keys) > 1:
        raise ValueError(f"prior file {path} must hold a prior or counts; it holds both")
    if not keys:
        values = {key: value for key, value in content.items() if key != "rest"}
        if content and not values:
            raise ValueError(f"prior file {path} must give at least one class a share beside rest")
        strange = [key for key in values if key not in (class_names or values)]
        if strange or class_names is None or not values:
            also = f"; {reprlib.repr(strange[0])} is no class" if strange else ""
            raise ValueError(f"prior file {path} must hold {FORMS}{also}")
        return "prior", values, rest
    if strange := [key for key in content if key not in FILE_KEYS]:
        raise ValueError(
            f"prior file {path} must hold no other keys than prior or counts, class_names and "
            f"rest; got {reprlib.repr(strange[0])}"
        )
    key, values, names = keys[0], content[keys[0]], content.get("class_names")
    if names is None:
        return key, values, rest
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_names or not isinstance(values, list) or len({*names}) != len(values):
        raise ValueError(
            f"class_names in {path} must be different strings, one for each entry of the list "
            f"{key}; got {reprlib.repr(names)}"
        )
    # Names mean something where it is known which class each of them is.
    is_labelled = class_names is not None or rest is not None
    return key, dict(zip(names, values, strict=True)) if is_labelled else values, rest


def _read_json(path):
    """Returns what a JSON file holds; all numbers are floats.

    Raises:
        ValueError: if it can't be read, is too large, isn't JSON or has a key twice.
    """
    twice = []

    def as_dict(pairs):
        keys = [key for key, _ in pairs]
        twice.extend(key for key in keys if len(keys) > len({*keys}) and keys.count(key) > 1)
        return dict(pairs)

    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ValueError(f"prior file {path} must hold at most {LARGEST_FILE >> 20} MB")
        # An integer of any length becomes a float, in the worst case infinity, which isn't a prior.
        text = data.decode("utf-8-sig")
        content = json.loads(text, parse_int=float, object_pairs_hook=as_dict)
    except OSError as error:
        raise ValueError(f"prior file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"prior file {path} isn't UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"prior file {path} isn't JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"prior file {path} isn't a prior: it is nested too deeply") from error
    if twice:
        raise ValueError(
            f"prior file {path} must hold every key once; got {reprlib.repr(twice[0])} twice"
        )
    return content


def _truncated_profile(max_count, imbalance_ratio, position, name):
    ratio = check_number(imbalance_ratio, "imbalance_ratio", minimum=1)
    if max_count > LARGEST_COUNT:
        raise ValueError(f"{name} must be at most 2**53, which float64 can hold; got {max_count}")
    # Neither exp of a logarithm nor a product with 1/ratio: the truncation would lose an image
    # where the quotient is a whole number.
    return (max_count / ratio**position).astype(np.int64)


def _advice(prior, total):
    """Returns what to do about a sum that isn't 1, where the numbers tell what they are."""
    is_rounded, are_counts = abs(total - 1) <= ROUNDED_TOLERANCE, not np.any(prior % 1)
    if not is_rounded and not are_counts:
        return ""
    what = "rounded shares need more digits, or" if is_rounded else "these look like counts:"
    return f': {what} division by their sum (class_prior, or {{"counts": [...]}} in a file)'


def _vector(values, name, num_classes=None):
    array = as_floats(in_class_order(values, name, num_classes), name)
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
