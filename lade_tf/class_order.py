"""One number a class: values that carry labels of their own are read by them, never by position.

Dicts, pandas Series and xarray's arrays are known by what they offer; none of them is imported.
"""

import numbers
import reprlib

import numpy as np

# What NumPy would turn into a number without a word: "0.5" into 0.5, True into 1, dates into days.
NOT_NUMBERS = {"U": "text", "S": "text", "b": "booleans", "c": "complex numbers"}
NOT_NUMBERS |= dict.fromkeys("mM", "dates")


def labels_of(values):
    """Returns the labels that `values` carry, a list in their order, or None where they have none.

    Args:
        values: a mapping's labels are its keys, those of a Series its index, those of an xarray
            array the coordinates of its one dimension. Lists, arrays and tensors have none.
    """
    dims, coords = getattr(values, "dims", None), getattr(values, "coords", None)
    if isinstance(dims, tuple) and hasattr(coords, "keys"):
        return (
            np.asarray(coords[dims[0]]).tolist() if len(dims) == 1 and dims[0] in coords else None
        )
    index = getattr(values, "index", None)
    if index is not None and not callable(index):
        return list(index)
    keys = getattr(values, "keys", None)
    return list(keys()) if callable(keys) else None


def positions(labels, name, num_classes=None, class_names=None, partial=False):
    """Returns the class, an integer in 0..C−1, that each label stands for.

    Args:
        labels: a list: the classes' numbers or, where `class_names` are known, their names.
        name: of the argument that carries them, for messages.
        num_classes: C; None means one class a label.
        class_names: [C] strings in label order, or None.
        partial: whether classes may be left out.

    Raises:
        ValueError: for a label that stands for no class, a class that has two or (unless
            `partial`) none.
    """
    by_number = all(map(_is_class_number, labels))
    if by_number or class_names is None:
        classes = list(range(len(labels) if num_classes is None else num_classes))
    else:
        classes = list(class_names)
    place = {label: position for position, label in enumerate(classes)}
    expected = "its name" if classes and isinstance(classes[0], str) else f"0 to {len(classes) - 1}"
    found = []
    for label in labels:
        if not isinstance(label, str) and not _is_class_number(label) or label not in place:
            known = by_number or class_names is not None
            way_out = (
                "" if known else "; the classes' names aren't known here: give a list in order"
            )
            raise ValueError(
                f"{name} must label every class by {expected}; {reprlib.repr(label)} is no class"
                f"{way_out}"
            )
        found.append(place[label])
    if len(set(found)) < len(found):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"{name} must label a class once; got {reprlib.repr(twice)} twice")
    if len(found) < len(classes) and not partial:
        missing = sorted(set(classes) - {classes[position] for position in found}, key=place.get)
        more = f" ({len(missing)} such classes)" if len(missing) > 1 else ""
        raise ValueError(
            f"{name} must label every class by {expected}; {missing[0]!r} has no entry{more}"
        )
    return found


def in_class_order(values, name, num_classes=None, class_names=None):
    """Returns `values` in class order, without their labels; as they are if they carry none.

    Arguments and errors are those of `positions`.
    """
    labels = labels_of(values)
    if labels is None:
        return values
    values = unlabelled(values, labels)
    if hasattr(values, "shape") and values.ndim != 1:
        raise ValueError(f"{name} must have shape [classes]; got shape {list(np.shape(values))}")
    order = np.argsort(positions(labels, name, num_classes, class_names))
    return [values[entry] for entry in order]


def unlabelled(values, labels):
    """Returns what the labels of `labels_of` label, in their order."""
    if hasattr(values, "__array__"):
        return np.asarray(values)
    return [values[label] for label in labels]


def as_floats(values, name, expected="a list of numbers, one a class"):
    """Returns unlabelled numbers as a float64 array of any shape.

    Args:
        values: what NumPy makes an array of.
        name: of the argument, for messages.
        expected: what it must be, for messages.

    Raises:
        ValueError: for what isn't numbers, text and booleans included, or what is masked.
    """
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must be {expected}; some are masked")
    try:
        array = np.asarray(values)
        kind = NOT_NUMBERS.get(array.dtype.kind)
        if array.dtype == object:
            kind = next(filter(None, map(_kind, array.flat)), None)
        elif kind is None and isinstance(values, list | tuple):
            # To NumPy a list of numbers with a boolean among them is one of numbers.
            kind = next(filter(None, map(_kind, values)), None)
        if kind is None:
            return array.astype(np.float64)
        reason = f"got {kind}"
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error)
    raise ValueError(f"{name} must be {expected}; {reason}")


def _kind(entry):
    """Returns what an entry is that isn't to be taken as a number, None for all else."""
    if isinstance(entry, str | bytes):
        return "text"
    return "booleans" if isinstance(entry, bool | np.bool_) else None


def _is_class_number(label):
    return isinstance(label, numbers.Integral) and not isinstance(label, bool)
