"""Checks of plain arguments; each returns the value ready to use or raises a ValueError."""

import math
import numbers


def check_choice(value, choices, name):
    """Returns `value`, one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value


def check_number(value, name, minimum=-math.inf, above=-math.inf, maximum=math.inf, below=math.inf):
    """Returns `value` as a finite float: >= minimum, > above, <= maximum and < below.

    Text and booleans aren't numbers here, nor is an integer that no float holds.
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    is_other = isinstance(value, str | bytes | bool) or kind in ("b", "U", "S")
    try:
        number = math.nan if is_other else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    is_inside = minimum <= number <= maximum and above < number < below
    if not (math.isfinite(number) and is_inside):
        if min(maximum, below) < math.inf:
            left = f"[{minimum}" if minimum > -math.inf else f"({above}"
            right = f"{maximum}]" if maximum < math.inf else f"{below})"
            expected = f"a number in {left}, {right}"
        else:
            expected = "a finite number"
            expected += f" >= {minimum}" if minimum > -math.inf else ""
            expected += f" > {above}" if above > -math.inf else ""
        raise ValueError(f"{name} must be {expected}; got {value!r}")
    return number


def check_integer(value, name, minimum):
    """Returns `value` as an int, at least `minimum`; booleans aren't numbers here."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}; got {value!r}")
    return int(value)


def check_class_names(names, num_classes):
    """Returns the names of all classes, in label order, as a list of strings."""
    # A set has no order, a dictionary perhaps another one, and a string is a sequence of strings.
    if isinstance(names, str | bytes | dict | set | frozenset):
        raise ValueError(f"class_names must be a list of strings in label order; got {names!r}")
    names = list(names)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names must be strings; got {names!r}")
    names = list(map(str, names))  # NumPy's strings show as np.str_('ant')
    if len(names) != num_classes:
        raise ValueError(f"class_names must hold {num_classes} names; got {len(names)}")
    if len(set(names)) < num_classes:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"class_names must differ; got {twice!r} twice")
    return names
