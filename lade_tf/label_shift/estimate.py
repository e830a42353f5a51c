"""An estimated prior with intervals and diagnostics."""

import dataclasses
import inspect
import warnings

import numpy as np

from lade_tf.array_checks import check_samples
from lade_tf.checks import check_integer, check_number
from lade_tf.label_shift import estimators
from lade_tf.label_shift.confusion import class_means
from lade_tf.label_shift.diagnostics import (
    ENOUGH_TO_JUDGE,
    FEWEST_TO_JUDGE,
    SIGNIFICANCE,
    effective_sample_size,
    matrix_condition,
    run_label_shift_test,
    warn_unless_label_shift,
)
from lade_tf.label_shift.estimators import NUM_SAMPLES, PSEUDO_COUNT, TRAINING_PRIOR
from lade_tf.label_shift.hierarchical import HierarchicalFit
from lade_tf.numerics import resample_source
from lade_tf.priors import check_prior

METHODS = tuple(estimators.ESTIMATORS)
OF_RESAMPLING = (PSEUDO_COUNT, "shrink_to")
# A share is known where its interval's ends are no further apart, by factor.
KNOWN_WITHIN = 2
LARGEST_CONDITION = 300.0
MOST_UNSEEN = 0.1  # share of all images


@dataclasses.dataclass(frozen=True, eq=False)
class PriorEstimate:
    """An estimated target prior and how far to trust it.

    Attributes:
        prior: [classes] float64, sums to 1.
        low, high: [classes] ends of the intervals: the hierarchical model's own, of the other
            methods the bootstrap's percentiles, before any shrinking (None without bootstrap).
            `high` is then at least 1 − ((1 − confidence)/2)^(1/n) of n target samples: of a class
            that rare, none of them may be there.
        shrinkage: Share of `shrink_to` in `prior`, 0..1; 0 where nothing is shrunk.
        condition_number: Of the confusion matrix.
        effective_sample_size: Of the source sample weighted to `prior`.
        iterations, last_change: Where EM ended; None for the other methods.
        residual, p_value: Of the label shift test; None without bootstrap, the p-value also where
            the source is too small to judge by.
        pseudo_count: How many samples of every class the estimate holds that weren't seen.
        verdict: In plain words, line by line: which of the numbers are good, which aren't, and
            what to do.
    """

    prior: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    shrinkage: float
    condition_number: float
    effective_sample_size: float
    iterations: int | None
    last_change: float | None
    residual: float | None
    p_value: float | None
    pseudo_count: float = 0.0
    verdict: str = ""
    fit: HierarchicalFit | None = None


def estimate(
    method="hierarchical",
    source_probs=None,
    source_labels=None,
    target_probs=None,
    bootstrap=200,
    seed=0,
    confidence=0.95,
    shrink_to=None,
    pseudo_count=None,
    training_prior=None,
    **options,
):
    """Estimates a target prior with intervals, diagnostics and a label shift test.

    "hierarchical" has intervals of its own, never leaves a class at 0 and says in `fit` what it
    chose; of the bootstrap it takes only the label shift test. What follows is for the others.

    The bootstrap redraws the source within its classes and the target freely, and repeats the whole
    estimate, calibration included. Its percentile intervals show how far the estimate scatters, not
    its bias: with a dozen images a class fewer of them cover the truth than `confidence` says, and
    far fewer with a `pseudo_count`, which draws every estimate the same way.

    With few target samples a class the plain estimates put classes at exactly 0 that are there, and
    a model that is told so never answers them. So `pseudo_count` is 1 unless given. To "em" it is
    that of `em`. With "bbse" and "rlls" the estimate is mixed with the uniform prior, by what k
    samples of each of C classes weigh beside n target samples: (n·q + k) / (n + k·C).

    Shrinking moves the estimate towards `shrink_to` by min(1, Σ variance / squared distance between
    the two): all the way where the distance is no more than the noise explains.

    Args:
        method: "hierarchical", "em", "rlls" or "bbse".
        source_probs: Predicted probabilities of the labelled sample [source samples, classes],
            unseen in training.
        source_labels: Its true classes, integers [source samples].
        target_probs: Predicted probabilities [target samples, classes] of the same classifier.
        bootstrap: Number of resamples; 0 leaves out intervals and label shift test.
        seed: Of the resampling.
        confidence: Of the intervals, between 0 and 1.
        shrink_to: A prior [classes] to shrink towards, the training prior say; None doesn't shrink.
        pseudo_count: How many samples of every class the estimate is to hold beside what is seen;
            None means 1, 0 is the plain estimate.
        training_prior: The prior [classes] of the training data, for methods that use it.
        **options: What else the method's own function takes.

    Returns:
        A PriorEstimate.

    Raises:
        ValueError: As the method's own function; `shrink_to` isn't a prior of these classes or is
            given without bootstrap; `shrink_to` or `pseudo_count` mean nothing for the method.
    """
    given = {"shrink_to": shrink_to, PSEUDO_COUNT: pseudo_count}
    check_options(method, {**options, **{k: v for k, v in given.items() if v is not None}})
    estimator = estimators.find(method)
    bootstrap = check_integer(bootstrap, "bootstrap", minimum=0)
    rng = np.random.default_rng(check_integer(seed, "seed", minimum=0))
    confidence = check_number(confidence, "confidence", above=0, below=1)
    samples = check_samples(source_probs, source_labels, target_probs)
    num_classes = samples[0].shape[1]
    if shrink_to is not None:
        shrink_to = check_prior(shrink_to, num_classes, name="shrink_to")
        if bootstrap < 2:
            raise ValueError(f"bootstrap must be at least 2 to shrink; got {bootstrap}")
    if TRAINING_PRIOR in estimator.options:
        options[TRAINING_PRIOR] = training_prior
    if estimator.has_intervals:
        fit = estimator.fit(*samples, confidence=confidence, **options)
        found = {"prior": fit.prior, "low": fit.low, "high": fit.high, "fit": fit}
    else:
        pseudo_count = 1.0 if pseudo_count is None else pseudo_count
        pseudo_count = check_number(pseudo_count, PSEUDO_COUNT, minimum=0)
        found = _resampled(
            estimator, samples, options, pseudo_count, bootstrap, rng, confidence, shrink_to
        )
    residual, p_value = None, None
    if bootstrap:
        test = run_label_shift_test(*samples, bootstrap, rng)
        warn_unless_label_shift(test)
        residual, p_value = test.residual, test.p_value
    soft = options.get("soft", estimator.is_soft)
    result = PriorEstimate(
        **{**NOTHING_FOUND, **found},
        condition_number=matrix_condition(class_means(*samples[:2], soft)),
        effective_sample_size=effective_sample_size(found["prior"], samples[1]),
        residual=residual,
        p_value=p_value,
    )
    return dataclasses.replace(result, verdict=verdict(result, samples))


NOTHING_FOUND = {
    "low": None,
    "high": None,
    "shrinkage": 0.0,
    "iterations": None,
    "last_change": None,
}


def _resampled(estimator, samples, options, pseudo_count, bootstrap, rng, confidence, shrink_to):
    """Returns the fields of a PriorEstimate that an estimator and the bootstrap give."""
    fit = _fit(estimator.fit, samples, options, pseudo_count)
    found = {"prior": getattr(fit, "prior", fit), PSEUDO_COUNT: pseudo_count}
    for name in ("iterations", "last_change"):
        found[name] = getattr(fit, name, None)
    if not bootstrap:
        return found
    draws = bootstrap_priors(estimator.name, samples, options, bootstrap, rng, pseudo_count)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    high = np.maximum(high, 1 - ((1 - confidence) / 2) ** (1 / len(samples[2])))
    if shrink_to is not None:
        shrinkage = shrinkage_intensity(found["prior"], shrink_to, draws)
        found["prior"] = (1 - shrinkage) * found["prior"] + shrinkage * shrink_to
        found["shrinkage"] = shrinkage
    return {**found, "low": low, "high": high}


def verdict(result, samples):
    """Returns what a PriorEstimate is worth, in plain words, a line for each point."""
    _, labels, target_probs = samples
    num_classes, num_target = len(result.prior), len(target_probs)
    in_source = np.bincount(labels, minlength=num_classes)
    lines = [result.fit.reason] if result.fit else []
    missing = np.flatnonzero(in_source == 0)
    if missing.size:
        share = "is that of the pseudo-count alone" if result.pseudo_count else "is 0"
        share = "rests on the classifier and the curve alone" if result.fit else share
        lines.append(
            f"{missing.size} of {num_classes} classes have no source image, class {missing[0]} "
            f"first: their share {share}, which says nothing. Give labelled images of them."
        )
        warnings.warn(lines[-1], stacklevel=3)
    if result.low is None:
        lines.append("How far the shares may be off isn't known: a bootstrap gives intervals.")
    # The bootstrap doesn't see what a nearly singular matrix makes of an error; the hierarchical
    # model's intervals hold what isn't known of the calibration.
    elif result.fit is None and result.condition_number > LARGEST_CONDITION:
        lines.append(
            f"Not good: the classifier hardly tells the classes apart (condition number "
            f"{result.condition_number:.3g} of its confusion matrix), and narrow intervals don't "
            "show how far the shares are off."
        )
    else:
        # Images that nobody saw draw every resample alike: the intervals don't show it.
        total = num_target + result.pseudo_count * num_classes
        unseen = result.pseudo_count / total
        low, high = result.low - unseen, result.high - unseen
        seen = (in_source > 0) & (unseen * num_classes <= MOST_UNSEEN)
        known = (low > 0) & (high <= KNOWN_WITHIN * low) & seen
        lines.append(
            f"Good: the shares of {known.sum()} of {num_classes} classes, whose intervals' ends "
            f"are no more than a factor of {KNOWN_WITHIN} apart."
        )
        if not known.all():
            lines.append(
                f"Not good: the other {num_classes - known.sum()}. {num_target:,} target images "
                f"are {num_target / num_classes:.3g} a class, and the source has {in_source.min()} "
                f"to {in_source.max()} a class: more of either narrow the intervals."
            )
    if result.pseudo_count:
        lines.append(
            f"Images that nobody saw, {result.pseudo_count:g} of every class, are counted along, "
            "so that no share is 0: they make "
            f"{result.pseudo_count / (num_target + result.pseudo_count * num_classes):.2g} of each."
        )
    if result.p_value is not None:
        lines.append(
            "It doesn't look like a label shift: classes seem to look different there, and the "
            "shares may be wrong. Compare images of both places."
            if result.p_value < SIGNIFICANCE
            else "The label shift test finds nothing; that doesn't show that only the label "
            "distribution differs."
        )
    elif result.low is not None:
        lines.append(
            "Whether it is a label shift at all wasn't tested: that takes "
            f"{FEWEST_TO_JUDGE} source images of every class, of different confidence, or "
            f"{ENOUGH_TO_JUDGE}."
        )
    return "\n".join(lines)


def check_options(method, options):
    """Raises a ValueError for a method that isn't one, or an option that means nothing for it.

    Args:
        method: The name of an estimator.
        options: {name: value}; those of `estimate` itself are known too.
    """
    estimator = estimators.find(method)
    known = list(estimator.options)
    for name in list(inspect.signature(estimate).parameters)[1 + NUM_SAMPLES : -1]:
        if name not in known and not (estimator.has_intervals and name in OF_RESAMPLING):
            known.append(name)
    for name in options:
        if name not in known:
            raise ValueError(
                f"{name} means nothing for method {method!r}, which takes {', '.join(known)}"
            )


def shrinkage_intensity(prior, shrink_to, draws):
    """The share of `shrink_to` that makes the expected squared error least, [0, 1].

    Args:
        prior: The estimate [classes].
        shrink_to: [classes].
        draws: Bootstrap estimates [resamples, classes], whose variance stands for the estimate's.

    Returns:
        A float.
    """
    variance = draws.var(axis=0, ddof=1).sum()
    distance = ((prior - shrink_to) ** 2).sum()
    return float(variance / distance) if variance < distance else 1.0


def bootstrap_priors(method, samples, options, resamples, rng, pseudo_count=0.0):
    """Returns the estimates of resampled samples, [resamples, classes]."""
    source_probs, labels, target_probs = samples
    solve = estimators.find(method).solve
    draws = np.empty((resamples, source_probs.shape[1]))
    for draw in draws:
        source = resample_source(labels, source_probs.shape[1], rng)
        target = rng.integers(len(target_probs), size=len(target_probs))
        resampled = source_probs[source], labels[source], target_probs[target]
        fit = _fit(solve, resampled, options, pseudo_count)
        draw[:] = getattr(fit, "prior", fit)
    return draws


def _fit(function, samples, options, pseudo_count):
    """Returns what an estimator's function gives, with a count of unseen images of every class."""
    if PSEUDO_COUNT in inspect.signature(function).parameters:
        return function(*samples, pseudo_count=pseudo_count, **options)
    fit = function(*samples, **options)
    if pseudo_count == 0:
        return fit
    prior, num_samples = getattr(fit, "prior", fit), len(samples[2])
    return (num_samples * prior + pseudo_count) / (num_samples + pseudo_count * len(prior))
