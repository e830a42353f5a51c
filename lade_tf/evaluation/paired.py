"""Two classifiers compared on the same test images."""

import numpy as np

from lade_tf.checks import check_integer
from lade_tf.evaluation.shifted_metrics import prior_for
from lade_tf.evaluation.shifts import STANDARD_PRIORS, class_weights


def check_same_images(saved, other):
    """Raises a ValueError unless two `SavedLogits` are of the same images in the same order.

    Labels are compared, and paths where both have them.
    """
    one, two = (getattr(each, "paths", None) for each in (saved, other))
    same_paths = one is None or two is None or np.array_equal(one, two)
    if not (same_paths and np.array_equal(saved.labels, other.labels)):
        differing = "labels" if same_paths else "paths"
        raise ValueError(
            "two classifiers are compared on the same test images in the same order; their "
            f"{differing} differ"
        )


def correct(saved, target_prior):
    """Returns whether each test image is classified correctly, adapted to `target_prior`.

    Args:
        saved: `SavedLogits`.
        target_prior: [classes], sums to 1.

    Returns:
        [samples] booleans.
    """
    return saved.adapted_to(target_prior).predicted == saved.labels


def compare(saved, other, names=None, test_name=None, reading="notebook"):
    """Compares two classifiers that are adapted to the same label distributions.

    Args:
        saved, other: `SavedLogits` of the same test images.
        names, test_name, reading: as of `evaluate_shifts`.

    Returns:
        {name: {"difference", "low", "high"}}: accuracy of the first less that of the second, in
        −1..1, and the ends of its 95 % interval (`paired_bootstrap`).

    Raises:
        ValueError: for other test images, and as `evaluate_shifts`.
    """
    check_same_images(saved, other)
    names = STANDARD_PRIORS if names is None else names
    gains, weights = [], []
    for name in names:
        target, test = (prior_for(saved, text, reading) for text in (name, test_name or name))
        gains.append(correct(saved, target).astype(np.float64) - correct(other, target))
        weights.append(class_weights(saved.labels, test))
    ends = paired_bootstrap(np.stack(gains, axis=1), np.stack(weights, axis=1))
    keys = ("difference", "low", "high")
    return {
        name: dict(zip(keys, map(float, values), strict=True))
        for name, values in zip(names, np.transpose(ends), strict=True)
    }


def format_comparison(results):
    """Returns what `compare` returned as lines of text.

    Differences are in points, i.e. hundredths; a * marks those whose interval excludes 0.
    """
    lines = []
    for name, values in results.items():
        difference, low, high = (100 * values[key] for key in ("difference", "low", "high"))
        mark = "*" if low > 0 or high < 0 else ""
        lines.append(f"{name:12} {difference:+6.2f}{mark:1}  {low:+.2f} to {high:+.2f}")
    return "\n".join(lines)


def paired_bootstrap(gains, weights, resamples=2000, seed=0):
    """Returns the mean gain of one classifier over another on the same images, and its interval.

    Every resample draws as many images as there are, with replacement over the whole test set, and
    serves both classifiers, so images that are hard for both cancel out (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13). The interval covers the choice of test images,
    not the training seed or the draw of the training subset.

    Args:
        gains: [samples] or [samples, tests]: 1 where only the first is right, −1 where only the
            second is, else 0.
        weights: as `gains`, weights of the images under the test prior.
        resamples: how many resamples.
        seed: of the resamples.

    Returns:
        (difference, low, high), floats or [tests]: the accuracy of the first less that of the
        second, and the ends of its 95 % percentile interval.

    Raises:
        ValueError: for gains or weights that aren't finite numbers of one shape, weights that are
            negative or sum to 0, or fewer than one resample.
    """
    gains, weights = np.asarray(gains, np.float64), np.asarray(weights, np.float64)
    if gains.ndim not in (1, 2) or len(gains) == 0 or not np.isfinite(gains).all():
        raise ValueError(
            f"gains must be finite, [samples] or [samples, tests]; got shape {gains.shape}"
        )
    if weights.shape != gains.shape:
        raise ValueError(
            f"weights must have the shape of gains, {gains.shape}; got {weights.shape}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum(axis=0).all():
        raise ValueError("weights must be finite and >= 0, and positive for some image")
    check_integer(resamples, "resamples", minimum=1)
    rng = np.random.default_rng(seed)
    weighted = weights * gains
    shares = np.full(len(gains), 1 / len(gains))
    differences = []
    for _ in range(resamples):
        occurrences = rng.multinomial(len(gains), shares)
        differences.append((occurrences @ weighted) / (occurrences @ weights))
    low, high = np.percentile(differences, [2.5, 97.5], axis=0)
    return weighted.sum(axis=0) / weights.sum(axis=0), low, high
