"""What there is to say of an estimated prior: as a table, as a bar plot, as JSON."""

import numpy as np

from lade_tf.files import replacing
from lade_tf.text_tables import align

LISTED = 10  # classes


def table(result, training_prior, class_names):
    """Returns the classes of a `PriorEstimate` whose share changes most, from up to down."""
    changes = np.argsort(-np.abs(result.prior - training_prior), kind="stable")[:LISTED]
    order = sorted(changes, key=lambda c: result.prior[c] - training_prior[c], reverse=True)
    shares = [(class_names[c], f"{training_prior[c]:.4f}", f"{result.prior[c]:.4f}") for c in order]
    rows = [("class", "training", "estimate"), *shares]
    if result.low is not None:
        intervals = [f"{result.low[c]:.4f} to {result.high[c]:.4f}" for c in order]
        rows = [(*row, text) for row, text in zip(rows, ["95 % interval", *intervals], strict=True)]
    return "\n".join(align(rows))


def draw(path, result, training_prior, class_names):
    """Writes the bar plot of a `PriorEstimate`."""
    from matplotlib.figure import Figure

    from lade_tf import plots

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    plots.prior_bars(
        axes, result.prior, training_prior, result.low, result.high, class_names=class_names
    )
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def plain(value):
    """Returns what JSON can hold of arrays and numbers, nested in dicts; infinity is None."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not np.isfinite(value) else value
