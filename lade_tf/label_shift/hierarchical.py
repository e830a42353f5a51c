"""A target prior of few numbers, and of more where the target sample speaks for them.

EM fits a free share of every class: with a hundred classes and a thousand images that is mostly
noise, and what is left of miscalibration. How long a tail is, and which way it points, is one
number. Here the prior is q ~ Dirichlet(κ·q_a) around the curve q_a ∝ π^a through the training
prior π; a is fitted, and κ chosen by its evidence: infinite, where the sample gives no reason to
leave the curve.
"""

import dataclasses

import numpy as np
import scipy.special
import scipy.stats

from lade_tf import priors
from lade_tf.array_checks import check_samples
from lade_tf.checks import check_number
from lade_tf.label_shift.prior_curve import LARGEST_EXPONENT, fit_curve, has_tail, make_curve
from lade_tf.label_shift.shrunk_calibration import row_stride, solve_shrunk_calibration
from lade_tf.numerics import row_blocks

# κ of each class, on average.
CONCENTRATIONS = np.array([100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1])
TOLERANCE = 1e-7  # of each step's L1 change, as far as float32 posteriors tell
MOST_STEPS = 500
# A parameter more must bring so many standard errors (Akaike's criterion).
WORTH_A_PARAMETER = np.sqrt(2)
# What a log evidence may fall below the best and still be plausible (half of χ²'s 95 %).
PLAUSIBLE = 1.92
# A class rarer than that means nothing, and the curvature would be singular.
SMALLEST_SHARE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class HierarchicalFit:
    """What `fit_hierarchical` found.

    Attributes:
        prior: [classes] float64, sums to 1.
        low, high: [classes] ends of its intervals.
        chosen: "curve", "hierarchy", "free" (EM with one image of every class more, drawn to no
            curve), or the simpler prior that the sample doesn't tell from the curve's: "uniform" or
            "training"; "centre" for a given centre that it gives no reason to leave.
        reason: A sentence that says what was chosen and why.
        exponent: a, a float; None without a curve through the training prior.
        exponent_low, exponent_high: The ends of its interval, or None.
        attribute_weights: [k] the coefficients of `class_attributes`.
        attribute_errors: [k] their standard errors.
        concentration: κ, infinite on the curve.
        temper: η, what a target image counts in the evidence and the intervals, 0..1: the less, the
            less the calibration is known.
        evidence: {"curve", "hierarchy", "free": log evidence in nats, the curve's being 0}.
        bias_scale: What the calibration leaves unknown of every class, σ in nats.
    """

    prior: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chosen: str
    reason: str
    exponent: float | None
    exponent_low: float | None
    exponent_high: float | None
    attribute_weights: np.ndarray
    attribute_errors: np.ndarray
    concentration: float
    temper: float
    evidence: dict
    bias_scale: float


def hierarchical(
    source_probs,
    source_labels,
    target_probs,
    training_prior=None,
    centre=None,
    class_attributes=None,
    confidence=0.95,
    calibration=None,
):
    """Target prior by a hierarchical model around a curve through the training prior.

    Three steps. The posteriors are calibrated on the source sample, by temperature, the training
    prior's power and biases that are shrunk by empirical Bayes. The exponent a of the curve
    q_a ∝ π^a has the highest likelihood on the target, corrected by what the same classifier shows
    on the source sample. Then q ~ Dirichlet(κ·q_a), κ by Laplace's evidence, q the maximum a
    posteriori. In the evidence every target image counts η ≤ 1, by how much the calibration's
    uncertainty adds to the scatter of its score: else more unlabelled images would take what is
    left of miscalibration for a shift of labels.

    Args:
        source_probs: Predicted probabilities of the labelled sample [source samples, classes],
            unseen in training.
        source_labels: Its true classes, integers [source samples]; classes may be missing.
        target_probs: Predicted probabilities [target samples, classes] of the same classifier.
        training_prior: [classes] the prior π of the training data, entries > 0; None takes the
            shares of `source_labels`, one added to every class.
        centre: [classes] a prior to stay near instead of the curve, last month's say, entries > 0.
        class_attributes: [classes] or [classes, k] numbers g that may explain how often classes
            occur, a habitat or a season: q_a ∝ π^a · exp(g·b), b fitted like a.
        confidence: Of the intervals, between 0 and 1. With two or three classes and a dozen
            labelled images of each they are too narrow: an interval of 95 % holds the truth in 50
            to 90 % of the draws; from ten classes on in more than 95 %.
        calibration: What `fit_shrunk_calibration` found with these source samples and this training
            prior, not to fit it again.

    Returns:
        The target prior, [classes] float64, sums to 1; `fit_hierarchical` tells more. A thousand
        classes take seconds, eight thousand minutes: it solves systems of as many equations.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range;
            there is no target sample.
    """
    options = training_prior, centre, class_attributes, confidence, calibration
    return fit_hierarchical(source_probs, source_labels, target_probs, *options).prior


def fit_hierarchical(
    source_probs,
    source_labels,
    target_probs,
    training_prior=None,
    centre=None,
    class_attributes=None,
    confidence=0.95,
    calibration=None,
):
    """As `hierarchical`, but returns a HierarchicalFit: the prior and what it rests on."""
    confidence = check_number(confidence, "confidence", above=0, below=1)
    source_probs, source_labels, target_probs = check_samples(
        source_probs, source_labels, target_probs
    )
    num_classes = source_probs.shape[1]
    training_prior, curve = _checked_curve(
        source_labels, num_classes, training_prior, centre, class_attributes
    )
    if calibration is None:
        calibration = solve_shrunk_calibration(source_probs, source_labels, training_prior)
    elif len(calibration.biases) != num_classes:
        raise ValueError(
            f"calibration must be of {num_classes} classes, as source_probs; got one of "
            f"{len(calibration.biases)}"
        )
    source, target = calibration.calibrated(source_probs), calibration.calibrated(target_probs)
    on_curve = fit_curve(curve, source, source_labels, target)
    if curve.has_exponent and not on_curve.covariance[0, 0] < LARGEST_EXPONENT**2:
        # Nothing tells where on the curve the target lies: any point but one is a guess.
        on_curve = dataclasses.replace(on_curve, prior=priors.uniform_prior(num_classes))
    model = _Hierarchy(target, on_curve.prior, calibration.covariance)
    candidates = model.candidates()
    width = scipy.stats.norm.ppf((1 + confidence) / 2)
    simpler = None if centre is not None else _simpler(curve, on_curve, training_prior)
    best = _chosen(candidates)
    prior, chosen = best.prior, best.name
    if np.isfinite(best.concentration):
        prior = model.untempered(best)
    if chosen == "curve" and not curve.columns.size:
        chosen = "uniform" if centre is None else "centre"
    if chosen == "curve" and simpler:
        chosen, prior = simpler
    low, high = _interval(model, candidates, curve, on_curve, width)
    errors = np.sqrt(np.diag(on_curve.covariance))
    first = int(curve.has_exponent)
    exponent, exponent_low, exponent_high = None, None, None
    if first:
        exponent = float(on_curve.coefficients[0])
        exponent_low, exponent_high = (float(exponent + s * width * errors[0]) for s in (-1, 1))
    evidence = {"curve": candidates[0].evidence}
    for candidate in candidates[1:]:
        known = evidence.get(candidate.name, -np.inf)
        evidence[candidate.name] = max(known, candidate.evidence)
    fit = HierarchicalFit(
        prior=prior,
        low=np.minimum(low, prior),
        high=np.maximum(high, prior),
        chosen=chosen,
        reason="",
        exponent=exponent,
        exponent_low=exponent_low,
        exponent_high=exponent_high,
        attribute_weights=on_curve.coefficients[first:],
        attribute_errors=errors[first:],
        concentration=best.concentration,
        temper=model.temper,
        evidence={name: float(value - candidates[0].evidence) for name, value in evidence.items()},
        bias_scale=calibration.bias_scale,
    )
    return dataclasses.replace(fit, reason=_reason(fit, len(target), centre is not None))


def _checked_curve(source_labels, num_classes, training_prior, centre, class_attributes):
    """Returns the training prior and the PriorCurve; raises a ValueError for bad arguments."""
    if training_prior is None:
        counts = np.bincount(source_labels, minlength=num_classes)
        training_prior = (counts + 1) / (counts + 1).sum()
    else:
        training_prior = priors.check_prior(
            training_prior, num_classes, allow_zero=False, name="training_prior"
        )
    if centre is not None:
        centre = priors.check_prior(centre, num_classes, allow_zero=False, name="centre")
    if class_attributes is not None:
        class_attributes = np.asarray(class_attributes)
        if class_attributes.ndim == 1:
            class_attributes = class_attributes[:, None]
        is_table = class_attributes.ndim == 2 and len(class_attributes) == num_classes
        if not is_table or class_attributes.dtype.kind not in "biuf":
            raise ValueError(
                f"class_attributes must be numbers [{num_classes} classes, k]; got "
                f"{class_attributes.dtype} {list(class_attributes.shape)}"
            )
        class_attributes = class_attributes.astype(np.float64)
        if not np.isfinite(class_attributes).all():
            raise ValueError("class_attributes must be finite; got NaN or infinity")
        everything = [np.ones(num_classes), *class_attributes.T]
        if centre is None and has_tail(training_prior):
            everything.append(np.log(training_prior))
        if np.linalg.matrix_rank(everything) < len(everything):
            raise ValueError(
                "class_attributes must differ between classes, and from each other and the "
                "logarithm of the training prior; a column is a combination of the others"
            )
    return training_prior, make_curve(training_prior, centre, class_attributes)


def _simpler(curve, on_curve, training_prior):
    """Returns (name, prior) of uniform or training prior, whichever is nearer, or None.

    None where the curve's exponent is told from both; uniform where it isn't told at all.
    """
    if not curve.has_exponent or curve.columns.shape[1] > 1:
        return None
    error = np.sqrt(on_curve.covariance[0, 0])
    distances = {
        "uniform": abs(on_curve.coefficients[0]),
        "training": abs(on_curve.coefficients[0] - 1),
    }
    name = min(distances, key=distances.get) if error < LARGEST_EXPONENT else "uniform"
    if not distances[name] <= WORTH_A_PARAMETER * error:
        return None
    uniform = priors.uniform_prior(len(training_prior))
    return name, {"uniform": uniform, "training": training_prior}[name]


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """A prior with its concentration (infinite on the curve), centre and log evidence."""

    name: str
    prior: np.ndarray
    concentration: float
    centre: np.ndarray
    evidence: float


def _chosen(candidates):
    """Returns the most probable candidate: the curve is as probable as all others together."""
    curve, others = candidates[0], candidates[1:]
    best = max(others, key=lambda candidate: candidate.evidence)
    return best if best.evidence > curve.evidence + np.log(len(others)) else curve


class _Hierarchy:
    """The tempered posterior of q given target posteriors, around a centre.

    In θ = log q the Dirichlet of parameters α = κ·centre has the density ∏ q^α / B(α).
    """

    def __init__(self, posteriors, centre, covariance):
        self.posteriors = posteriors
        self.centre = np.maximum(centre, SMALLEST_SHARE)
        self.centre /= self.centre.sum()
        self.part = posteriors[:: row_stride(posteriors)]
        self.factor = len(posteriors) / len(self.part)
        self.temper = self._temper(covariance)

    def candidates(self):
        """Returns the curve's _Candidate, the hierarchy's for all κ, and that of free EM."""
        num_classes = len(self.centre)
        likelihood = self.temper * self.log_likelihood(self.centre)
        found = [_Candidate("curve", self.centre, np.inf, self.centre, likelihood)]
        for concentration in CONCENTRATIONS * num_classes:
            start = found[-1].prior
            found.append(self._candidate("hierarchy", concentration, self.centre, start))
        uniform = priors.uniform_prior(num_classes)
        start = (found[-1].prior + uniform) / 2
        found.append(self._candidate("free", float(num_classes), uniform, start))
        return found

    def _candidate(self, name, concentration, centre, start):
        """Laplace's evidence, the Dirichlet's normaliser by Laplace too.

        The two errors cancel where a class has no image, which is most of them when κ is small; on
        the way to κ = ∞ the evidence becomes the curve's own.
        """
        alpha = concentration * centre
        prior = self.maximum_a_posteriori(alpha, start)
        fit = self.temper * self.log_likelihood(prior) + alpha @ np.log(prior / centre)
        of_centre = (len(prior) - 1) * np.log(concentration) + np.log(len(prior))
        of_centre += np.log(centre).sum()
        volume = np.linalg.slogdet(self.curvature(prior, alpha))[1]
        return _Candidate(name, prior, concentration, centre, fit + (of_centre - volume) / 2)

    def log_likelihood(self, prior):
        """Returns Σ log Σ_c p_c q_c over the samples."""
        weights = prior.astype(self.posteriors.dtype)
        return sum(
            np.log(self.posteriors[rows] @ weights).sum(dtype=np.float64)
            for rows in row_blocks(self.posteriors)
        )

    def responsibilities(self, prior):
        """Returns the sum over the samples of their posteriors at a prior, [classes]."""
        weights = prior.astype(self.posteriors.dtype)
        total = np.zeros_like(prior)
        for rows in row_blocks(self.posteriors):
            block = self.posteriors[rows]
            total += (1 / (block @ weights)) @ block
        return prior * total

    def maximum_a_posteriori(self, alpha, start):
        """Returns the q to which EM converges: q ∝ η·Σ r + α.

        Two steps and the extrapolation of both (Varadhan and Roland, Scandinavian Journal of
        Statistics 2008) in log q; one that goes too far only costs the next step.
        """

        def step(prior):
            updated = self.temper * self.responsibilities(prior) + alpha
            return updated / updated.sum()

        prior = start
        for _ in range(MOST_STEPS):
            once = step(prior)
            twice = step(once)
            if np.abs(twice - once).sum() < TOLERANCE:
                return twice
            first, second = np.log(once / prior), np.log(twice / once)
            bend = np.linalg.norm(second - first)
            reach = max(1.0, np.linalg.norm(first) / bend) if bend > 0 else 1.0
            scores = np.log(prior) + 2 * min(reach, 16.0) * first
            scores += min(reach, 16.0) ** 2 * (second - first)
            prior = np.exp(scores - scores.max())
            prior /= prior.sum()
        return twice

    def untempered(self, candidate):
        """Returns a candidate's maximum a posteriori where every image counts one.

        The temper guards the decision to leave the centre. That is wrong then, and images that
        count less leave more of it.
        """
        whole = object.__new__(_Hierarchy)
        whole.__dict__.update(self.__dict__, temper=1.0)
        alpha = candidate.concentration * candidate.centre
        return whole.maximum_a_posteriori(alpha, candidate.prior)

    def _moved(self, prior):
        """Yields the posteriors at a prior of blocks of the part's rows."""
        weights = prior.astype(self.part.dtype)
        for rows in row_blocks(self.part):
            block = self.part[rows] * weights
            block /= block.sum(axis=1, keepdims=True)
            yield block

    def second_moments(self, prior):
        """Returns Σ r rᵀ, [classes, classes], and Σ r, [classes], over the samples."""
        second, first = np.zeros((len(prior), len(prior))), np.zeros_like(prior)
        for block in self._moved(prior):
            second += block.T @ block
            first += block.sum(axis=0, dtype=np.float64)
        return self.factor * second, self.factor * first

    def curvature(self, prior, alpha):
        """Returns the negative second derivative by θ, [classes, classes], of full rank.

        It is 0 along a constant, which θ doesn't know; 11ᵀ/C stands there for 1.
        """
        total = self.temper * len(self.posteriors) + alpha.sum()
        curvature = self.temper * self.second_moments(prior)[0]
        curvature += np.diag(alpha) - total * np.outer(prior, prior) + 1 / len(prior)
        return curvature

    def _temper(self, covariance):
        """Returns η = 1 / (1 + mean over the classes of K_cc / I_cc).

        I is the covariance of an image's score r at the centre. Biases b that the calibration got
        wrong move the scores of all N images by J·b, J the mean of diag r − r rᵀ: that adds
        N·J·Cov(b)·J = K to what an image's score would have to scatter by.
        """
        num_samples = len(self.posteriors)
        second, first = self.second_moments(self.centre)
        second, mean = second / num_samples, first / num_samples
        by_bias = np.diag(mean) - second
        spread = np.diag(second) - mean**2
        added = num_samples * np.einsum("ij,ij->i", by_bias @ covariance, by_bias)
        known = spread > 1e-12 * spread.max()
        if not known.any():
            return 1.0
        return float(1 / (1 + np.mean(added[known] / spread[known])))


def _interval(model, candidates, curve, on_curve, width):
    """Returns the ends of the prior's intervals, [classes] each.

    By Laplace at the smallest plausible κ: where the sample is small, the curve may be the best
    guess and the shares still lie off it. The curve's own uncertainty comes on top.

    A class that hardly an image has is skewed, and a normal's ends in log q would reach 1. There
    the upper end is that of a count k, the precision in log q (Garwood, Biometrika 1936).
    """
    best = _chosen(candidates)
    around = [c for c in candidates if c.name != "free" or c is best]
    plausible = [c for c in around if c.evidence >= best.evidence - PLAUSIBLE]
    widest = min(plausible, key=lambda candidate: candidate.concentration)
    prior, variance = widest.prior, np.zeros(len(widest.prior))
    if np.isfinite(widest.concentration):
        alpha = widest.concentration * widest.centre
        inverse = np.linalg.inv(model.curvature(prior, alpha))
        crossed = inverse @ prior
        variance += np.diag(inverse) - 2 * crossed + prior @ crossed
    error = width * np.sqrt(np.maximum(variance, 0))
    of_count = np.full(len(prior), np.inf)
    seen = variance > 0
    count = 1 / variance[seen]
    largest = scipy.special.gammaincinv(count + 1, scipy.stats.norm.cdf(width))
    of_count[seen] = np.log(np.maximum(largest / count, 1))
    lowest, highest = (ends / on_curve.prior for ends in _ends_of_curve(curve, on_curve, width))
    if widest.name == "free":  # its centre is no curve
        lowest, highest = np.ones((2, len(prior)))
    low = prior * (1 - np.hypot(1 - lowest, error))
    high = np.log(prior) + np.hypot(np.log(highest), np.minimum(error, of_count))
    return np.maximum(low, 0), np.exp(np.minimum(high, 0))


def _ends_of_curve(curve, on_curve, width):
    """Returns the lowest and the highest shares on the curve in its coefficients' interval."""
    covariance = np.minimum(on_curve.covariance, LARGEST_EXPONENT**2)
    values, directions = np.linalg.eigh(covariance)
    reached = [on_curve.coefficients]
    for value, direction in zip(values, directions.T, strict=True):
        ends = width * np.sqrt(max(value, 0.0)) * direction
        reached += [on_curve.coefficients + step * ends for step in np.linspace(-1, 1, 9)]
    shares = np.stack([curve.prior(coefficients) for coefficients in reached])
    return shares.min(axis=0), shares.max(axis=0)


def _reason(fit, num_target, has_centre):
    """Returns what was chosen and why, in a sentence."""
    gain = max(fit.evidence["hierarchy"], fit.evidence["free"])
    enough = np.log(len(CONCENTRATIONS) + 1)
    told = f"({num_target:,} images; log evidence {gain:+.1f}, where it takes {enough:+.1f})"
    name = _name_of_curve(fit, has_centre)
    if fit.chosen in ("uniform", "training"):
        if fit.exponent is None:
            why = "training was uniform too"
        elif fit.exponent_high - fit.exponent_low > 2 * LARGEST_EXPONENT and (
            fit.exponent_low < 0 and fit.exponent_high > 1
        ):
            why = "the images don't tell how long the tail is, nor which way it points"
        else:
            why = (
                f"the exponent of the training prior is {fit.exponent:.2f} ({fit.exponent_low:.2f} "
                f"to {fit.exponent_high:.2f}), which isn't told from "
                f"{0 if fit.chosen == 'uniform' else 1}"
            )
        return (
            f"The {fit.chosen} prior is kept: {why}, and too little speaks for other shares {told}."
        )
    if fit.chosen == "centre":
        return f"The given centre is kept: too little speaks for other shares {told}."
    if fit.chosen == "free":
        return f"Free shares are taken: the {name} isn't near, and they are more probable {told}."
    if fit.chosen == "curve":
        return f"The {name} is taken: too little speaks for shares off it {told}."
    return (
        f"Shares around the {name} are taken, which counts as {fit.concentration:.0f} images: they "
        f"are more probable than it itself {told}."
    )


def _name_of_curve(fit, has_centre):
    """Returns what a fit's shares lie on or around, in words."""
    name = "given centre" if has_centre else "uniform prior"
    if fit.exponent is not None:
        name = (
            f"training prior to the power of {fit.exponent:.2f} ({fit.exponent_low:.2f} to "
            f"{fit.exponent_high:.2f}; 1 is as in training, 0 uniform, -1 reversed)"
        )
    return name + ", moved by the class attributes," * bool(fit.attribute_weights.size)
