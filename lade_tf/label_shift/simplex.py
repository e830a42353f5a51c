"""The probability simplex."""

import numpy as np


def project_to_simplex(values):
    """Euclidean projection onto the probability simplex.

    The nearest distribution is max(values - t, 0) with the one t that makes it sum to 1; t follows
    from the sorted values (Held, Wolfe and Crowder, 1974; Duchi et al., ICML 2008).

    Args:
        values: [classes] finite numbers.

    Returns:
        [classes] float64, no entry negative, sums to 1.

    Raises:
        ValueError: `values` isn't a vector of finite numbers.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            "values must be a vector of at least one finite number; "
            f"got shape {values.shape}, {np.count_nonzero(~np.isfinite(values))} not finite"
        )
    descending = np.sort(values)[::-1]
    # thresholds[k-1] is the t under which the k largest entries sum to 1.
    thresholds = (np.cumsum(descending) - 1) / np.arange(1, values.size + 1)
    kept = np.count_nonzero(descending > thresholds)
    return np.maximum(values - thresholds[kept - 1], 0.0)
