"""Work that takes turns, so that a noisy machine slows all alike."""

import time

import numpy as np


def take_turns(work, turns, warm_up=1):
    """Runs each function once a turn, every other turn in the opposite order.

    Args:
        work: {name: function without arguments}.
        turns: how many are timed.
        warm_up: how many come before and aren't.

    Returns:
        {name: seconds [turns]}.
    """
    seconds = {name: [] for name in work}
    order = list(work)
    for _ in range(warm_up + turns):
        for name in order:
            started = time.perf_counter()
            work[name]()
            seconds[name].append(time.perf_counter() - started)
        order.reverse()
    return {name: np.array(values[warm_up:]) for name, values in seconds.items()}


def ratio(values, name, reference, digits=3):
    """Returns the median of the turns' ratios and its quartiles."""
    low, median, high = np.percentile(values[name] / values[reference], [25, 50, 75])
    quartiles = [round(float(low), digits), round(float(high), digits)]
    return {"median": round(float(median), digits), "quartiles": quartiles}
