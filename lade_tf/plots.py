"""The pictures of the LADE paper, each drawn from plain arrays on Axes that the caller gives.

Every function labels its axes and its artists and leaves the legend to the caller
(`axes.legend()`). What is told apart differs in colour (Okabe and Ito's, which colour-blind people
can tell apart) and in line style, marker or hatch. Where classes are an axis they stand in
descending training count, 1 the most frequent. Needs matplotlib, which `import lade_tf` does not.
"""

import numpy as np

from lade_tf import priors
from lade_tf.array_checks import check_class_counts, check_class_indices, check_probabilities
from lade_tf.checks import check_class_names, check_integer
from lade_tf.metrics import calibration
from lade_tf.metrics.moments import class_logit_moments

try:
    from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter
except ImportError as error:
    raise ImportError('lade_tf.plots needs matplotlib: pip install "lade-tf[plots]"') from error

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#777777", "#000000"
CURVE_STYLES = (
    {"color": GREY, "linestyle": ":", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": SKY, "linestyle": ":", "marker": "v"},
    {"color": GREEN, "linestyle": "--", "marker": "^"},
    {"color": BLUE, "linestyle": "-", "marker": "D"},
    {"color": VERMILION, "linestyle": "-.", "marker": "P"},
    {"color": PURPLE, "linestyle": "-", "marker": "X"},
    {"color": BLACK, "linestyle": "--", "marker": "*"},
)
RATIOS = (50, 25, 10, 5, 2)
MOST_NAMED_CLASSES = 20


def average_probability(axes, probabilities, class_counts, target_prior=None):
    """Draws the mean probability that is predicted for each class (figure 2 of the paper).

    Over a balanced test set, predictions that are free of the training prior follow the target
    prior that they were made for. The y axis is logarithmic.

    Args:
        axes: matplotlib Axes.
        probabilities: predicted probabilities [samples, classes].
        class_counts: training images of every class, [classes].
        target_prior: [classes], what the predictions should follow; None means uniform.

    Raises:
        ValueError: for probabilities that are no distributions, or counts or a prior of another
            number of classes.
    """
    probabilities = check_probabilities(probabilities)
    num_classes = probabilities.shape[1]
    counts = check_class_counts(class_counts, num_classes)
    if target_prior is None:
        target_prior = priors.uniform_prior(num_classes)
    target_prior = priors.check_prior(target_prior, num_classes, name="target_prior")
    order, rank = _ranks(counts)
    mean = probabilities.mean(axis=0, dtype=np.float64)
    source = counts / counts.sum()
    axes.plot(rank, source[order], color=ORANGE, linestyle="--", label="training prior")
    axes.plot(rank, target_prior[order], color=BLACK, linestyle=":", label="target prior")
    style = {"color": BLUE, "linewidth": 1, "marker": "o", "markersize": 2.5}
    axes.plot(rank, mean[order], label="mean prediction", **style)
    axes.set_yscale("log")
    axes.set_ylabel("mean probability")
    _label_ranks(axes, num_classes)


def class_logits(axes, logits, labels, class_counts):
    """Draws each class's logit over its own samples and over the others' (figure 3 of the paper).

    Lines are means, bands reach one standard deviation to either side. The dotted line is log C,
    where disentangled logits of separable classes lie on positive samples (equation 21).

    Args:
        axes: matplotlib Axes.
        logits: raw logits [samples, classes], in nats.
        labels: true classes, integers [samples]; a class without samples leaves a gap.
        class_counts: training images of every class, [classes].

    Raises:
        ValueError: for logits that aren't finite or of another shape, labels that are no classes,
            or counts of another number of classes.
    """
    logits = _check_logits(logits)
    num_classes = logits.shape[1]
    labels = check_class_indices("labels", labels, len(logits), num_classes)
    counts = check_class_counts(class_counts, num_classes)
    draw_class_logits(axes, *class_logit_moments(logits, labels), counts)


def draw_class_logits(axes, positive, negative, class_counts):
    """Draws what `class_logits` does from `metrics.moments.class_logit_moments`, checked arrays."""
    num_classes = len(class_counts)
    order, rank = _ranks(class_counts)
    for moments, name, color, linestyle in (
        (positive, "positive samples", BLUE, "-"),
        (negative, "negative samples", VERMILION, "--"),
    ):
        mean, deviation = moments[order].T
        axes.plot(rank, mean, color=color, linestyle=linestyle, linewidth=1.2, label=name)
        band = {"color": color, "alpha": 0.25, "linewidth": 0}
        axes.fill_between(rank, mean - deviation, mean + deviation, **band)
    axes.axhline(np.log(num_classes), color=BLACK, linestyle=":", label="log C")
    axes.set_ylabel("logit (nats)")
    _label_ranks(axes, num_classes)


def reliability_diagram(
    axes, probabilities, labels, num_bins=calibration.NUM_BINS, sample_weight=None
):
    """Draws accuracy against confidence, with the ECE (figures 4 and 6 of the paper).

    A bar for each bin of `lade_tf.metrics.expected_calibration_error` shows the accuracy in it;
    the hatched piece is the gap to the bin's mean confidence, which lies on the diagonal. The ECE
    is the mean of the gaps over the samples.

    Args:
        axes: matplotlib Axes.
        probabilities, labels, num_bins, sample_weight: as in `expected_calibration_error`.

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    num_bins = check_integer(num_bins, "num_bins", minimum=1)
    samples = calibration.check_scored_samples(probabilities, labels, sample_weight)
    probabilities, labels, weight = samples
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    draw_reliability(axes, confidence, correct, weight, num_bins)


def draw_reliability(axes, confidence, correct, weight, num_bins=calibration.NUM_BINS):
    """Draws what `reliability_diagram` does from checked arrays, [samples] each.

    Args:
        axes: matplotlib Axes.
        confidence: float64 probability of the predicted class.
        correct: whether that is the true one.
        weight: float64, how many times each sample occurs.
        num_bins: as in `expected_calibration_error`.
    """
    error = calibration.binned_gap(confidence, correct, weight, num_bins)
    shown, accuracy, confidence = _reliability(confidence, correct, weight, num_bins)
    left = shown / num_bins
    bars = {"width": 1 / num_bins, "align": "edge", "linewidth": 0.6}
    axes.bar(left, accuracy, color=SKY, edgecolor=BLACK, label="accuracy", **bars)
    gap = {"color": "none", "edgecolor": VERMILION, "hatch": "/////", "label": "gap"}
    axes.bar(left, confidence - accuracy, bottom=accuracy, **gap, **bars)
    axes.plot([0, 1], [0, 1], color=BLACK, linestyle=":", label="calibrated")
    axes.text(0.04, 0.96, f"ECE {error:.4f}", transform=axes.transAxes, va="top")
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(xlabel="confidence", ylabel="accuracy")


def accuracy_curves(axes, curves, ratios=RATIOS):
    """Draws accuracy against the imbalance of the test set (tables 6 and 9 as curves).

    From left to right: forward from the first ratio to the last, uniform, backward from the last
    ratio to the first. Several runs give their mean and a band of one standard deviation to
    either side.

    Args:
        axes: matplotlib Axes.
        curves: {method: accuracies in 0..1, [2 * ratios + 1] or [runs, 2 * ratios + 1]}. The
            place in the dict determines the style; a method with 0 runs keeps its place.
        ratios: imbalance ratios, descending.

    Raises:
        ValueError: for no or too many curves, or one of another shape or outside 0..1.
    """
    if not 0 < len(curves) <= len(CURVE_STYLES):
        raise ValueError(f"curves must hold 1 to {len(CURVE_STYLES)} methods; got {len(curves)}")
    position = np.arange(2 * len(ratios) + 1)
    curves = {
        label: _check_accuracies(values, label, len(position)) for label, values in curves.items()
    }
    for (label, values), style in zip(curves.items(), CURVE_STYLES, strict=False):
        if len(values) == 0:
            continue
        mean = values.mean(axis=0)
        outline = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axes.plot(position, mean, label=label, linewidth=1.4, **outline, **style)
        if len(values) > 1:
            deviation = values.std(axis=0, ddof=1)
            band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
            axes.fill_between(position, mean - deviation, mean + deviation, **band)
    ticks = [f"{ratio:g}" for ratio in (*ratios, 1, *reversed(ratios))]
    axes.set_xticks(position, ticks)
    axes.set_xlabel("forward  ←  imbalance ratio of the test set  →  backward")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("accuracy")


def prior_bars(
    axes, estimate, training_prior, low=None, high=None, true_prior=None, class_names=None
):
    """Draws an estimated prior as bars and the training prior as a stepped line over them.

    Args:
        axes: matplotlib Axes.
        estimate: estimated prior [classes].
        training_prior: [classes].
        low, high: ends of a confidence interval for every class, [classes]; both or neither.
        true_prior: [classes], where it is known.
        class_names: [classes] strings; up to 20 classes are named, more are numbered.

    Raises:
        ValueError: for a prior that is none, an interval or names of another number of classes, or
            an interval that ends below its start.
    """
    training_prior = priors.check_prior(training_prior, name="training_prior")
    num_classes = len(training_prior)
    estimate = priors.check_prior(estimate, num_classes, name="estimate")
    interval = _check_interval(low, high, num_classes)
    if true_prior is not None:
        true_prior = priors.check_prior(true_prior, num_classes, name="true_prior")
    if class_names is not None:
        class_names = check_class_names(class_names, num_classes)
    few = num_classes <= MOST_NAMED_CLASSES
    order, rank = _ranks(training_prior)
    bars = {"facecolor": (SKY, 0.6), "edgecolor": BLUE, "linewidth": 0.5}
    axes.bar(rank, estimate[order], width=0.8, label="estimate", **bars)
    edges = np.arange(num_classes + 1) + 0.5
    steps = {"color": VERMILION, "linestyle": "--", "linewidth": 1.5, "baseline": None}
    axes.stairs(training_prior[order], edges, label="training prior", **steps)
    if interval is not None:
        low, high = interval[0][order], interval[1][order]
        whiskers = {"fmt": "none", "ecolor": BLACK, "elinewidth": 0.9, "capsize": 4 if few else 0}
        # A percentile interval need not contain the estimate: it is drawn from its own middle.
        middle, half = (low + high) / 2, (high - low) / 2
        axes.errorbar(rank, middle, yerr=half, label="confidence interval", **whiskers)
    if true_prior is not None:
        marker = {"color": BLACK, "linestyle": "none", "marker": "D", "markersize": 6 if few else 3}
        axes.plot(rank, true_prior[order], label="true prior", **marker)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("probability")
    _label_ranks(axes, num_classes)
    if class_names is not None and few:
        slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        names = [class_names[c] for c in order]
        axes.set_xticks(rank, names, **(slant if num_classes > 5 else {}))


def _ranks(counts):
    """Returns the classes in descending count, ties in class order, and their places 1..C."""
    return np.argsort(-counts, kind="stable"), np.arange(1, len(counts) + 1)


def _label_ranks(axes, num_classes):
    axes.set_xlim(0.5, num_classes + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if num_classes <= MOST_NAMED_CLASSES:
        axes.xaxis.set_major_locator(FixedLocator(range(1, num_classes + 1)))
    axes.set_xlabel("class, in descending training count")


def _reliability(confidence, correct, weight, num_bins):
    """Returns the bins that have weight, and their accuracy and mean confidence, [bins] each."""
    bins = calibration.bin_index(confidence, num_bins)
    total, right, confident = (
        np.bincount(bins, weights=values, minlength=num_bins)
        for values in (weight, weight * correct, weight * confidence)
    )
    shown = np.flatnonzero(total)
    return shown, right[shown] / total[shown], confident[shown] / total[shown]


def _check_logits(logits):
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(
            f"logits must have shape [samples, classes]; got shape {list(logits.shape)}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite; got NaN or infinity")
    return logits


def _check_accuracies(values, label, num_points):
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if values.ndim != 2 or values.shape[1] != num_points:
        raise ValueError(
            f"the curve of {label!r} must have shape [{num_points}] or [runs, {num_points}]; got "
            f"shape {list(values.shape)}"
        )
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"the curve of {label!r} must hold accuracies in 0..1")
    return values


def _check_interval(low, high, num_classes):
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise ValueError("low and high must be given together; got one of them")
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    for name, ends in (("low", low), ("high", high)):
        if ends.shape != (num_classes,) or not np.isfinite(ends).all():
            raise ValueError(
                f"{name} must hold {num_classes} finite numbers; got shape {list(ends.shape)}"
            )
    if np.any(low > high):
        raise ValueError(f"low must be at most high; not so at class {int(np.argmax(low > high))}")
    return low, high
