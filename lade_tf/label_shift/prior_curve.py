"""A family of priors with a number or two, and which of it a target sample points to.

q_β ∝ centre · exp(X·β). With X = log π and no centre this is the curve π^a through the training
prior: a = 1 is π itself, 0 the uniform prior, −1 its reverse. For exponential counts all label
distributions of section 4.3 of the LADE paper lie on it.
"""

import dataclasses

import numpy as np
import scipy.optimize

from lade_tf.label_shift.confusion import grouped_means
from lade_tf.numerics import row_blocks

LARGEST_EXPONENT = 2.0
EXPONENTS = np.linspace(-LARGEST_EXPONENT, LARGEST_EXPONENT, 41)
# Of the classes' attributes, in nats (root mean square over the classes); a weak prior keeps
# coefficients finite where all classes of a kind are absent.
ATTRIBUTE_SCALE = 3.0
# How far a coefficient is corrected, in the same unit: 0.7 of an exponent at a ratio of 100. With
# classes that have no labelled image a correction without a limit was worse than none.
LARGEST_CORRECTION = 0.93
# A training prior whose largest share is closer to its smallest is taken to be uniform: within the
# exponents' bounds hardly a share would change, and what noise there is would make them thousands.
LEAST_RATIO = 1.1


def has_tail(training_prior):
    """Whether a training prior differs enough from the uniform one for its powers to be a curve."""
    return training_prior.max() > LEAST_RATIO * training_prior.min()


@dataclasses.dataclass(frozen=True, eq=False)
class PriorCurve:
    """The family q ∝ exp(log_centre + columns @ β).

    Attributes:
        log_centre: [classes].
        columns: [classes, k] of mean 0; k may be 0.
        has_exponent: Whether the first column is log π.
    """

    log_centre: np.ndarray
    columns: np.ndarray
    has_exponent: bool

    def prior(self, coefficients):
        """Returns q [classes] of the coefficients [k]."""
        scores = self.log_centre + self.columns @ coefficients
        prior = np.exp(scores - scores.max())
        return prior / prior.sum()

    def centred(self, prior):
        """Returns d log q / dβ, [classes, k]."""
        return self.columns - prior @ self.columns


@dataclasses.dataclass(frozen=True, eq=False)
class CurveFit:
    """Where a target sample lies on a curve.

    Attributes:
        prior: [classes].
        coefficients: [k], corrected.
        covariance: [k, k] of them; infinite where the sample doesn't tell.
        uncorrected: [k], where the target's likelihood is highest.
    """

    prior: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    uncorrected: np.ndarray


def make_curve(training_prior, centre=None, class_attributes=None):
    """Returns the PriorCurve of checked arguments: through π, or from a `centre` of its own."""
    columns = []
    has_exponent = centre is None and has_tail(training_prior)
    if has_exponent:
        columns.append(np.log(training_prior)[:, None])
    if class_attributes is not None:
        columns.append(class_attributes)
    num_classes = len(training_prior)
    columns = np.hstack(columns) if columns else np.zeros([num_classes, 0])
    log_centre = np.zeros(num_classes) if centre is None else np.log(centre)
    return PriorCurve(log_centre, columns - columns.mean(axis=0), has_exponent)


def fit_curve(curve, source_posteriors, source_labels, target_posteriors):
    """Fits a curve's coefficients by likelihood, corrected on the labelled sample.

    The likelihood's maximum β̂ is off by what calibration leaves in the posteriors. The labelled
    sample shows by how much (indirect inference; Gouriéroux, Monfort and Renault, 1993): weighted
    to the right β its score at β̂ has the mean that the target's has.

    Args:
        curve: A PriorCurve.
        source_posteriors: [source samples, classes] at the uniform prior.
        source_labels: Integers [source samples].
        target_posteriors: [target samples, classes] at the uniform prior.

    Returns:
        A CurveFit.
    """
    size = curve.columns.shape[1]
    if size == 0:
        none = np.zeros(0)
        return CurveFit(curve.prior(none), none, np.zeros((0, 0)), none)
    highest = _most_likely(curve, target_posteriors)
    prior = curve.prior(highest)
    target_scores = _scores(curve, target_posteriors, prior)
    source_scores = _scores(curve, source_posteriors, prior)
    num_classes = len(prior)
    counts = np.bincount(source_labels, minlength=num_classes)
    of_class = grouped_means(source_scores, source_labels, num_classes).T
    wanted = target_scores.mean(axis=0)

    def weights(coefficients):
        shares = curve.prior(coefficients) * (counts > 0)
        return shares / shares.sum()

    def excess(coefficients):
        return weights(coefficients) @ of_class - wanted

    def slope(coefficients):
        shares = weights(coefficients)
        return (shares[:, None] * of_class).T @ (curve.columns - shares @ curve.columns)

    reach = LARGEST_CORRECTION / np.sqrt(np.mean(curve.columns**2, axis=0))
    solution = scipy.optimize.least_squares(
        excess, highest, slope, bounds=(highest - reach, highest + reach), x_scale=reach, xtol=1e-10
    ).x
    shares = weights(solution)
    of_source = shares[source_labels] / counts[source_labels]
    departure = source_scores - shares @ of_class
    # One target image has no scatter; the source, weighted, has the same.
    both = np.vstack([target_scores - wanted, departure])
    rows = np.r_[np.ones(len(target_scores)), of_source * len(source_scores)]
    noise = (rows[:, None] * both).T @ both / rows.sum() / len(target_scores)
    noise += (of_source[:, None] * departure).T @ (of_source[:, None] * departure)
    return CurveFit(
        curve.prior(solution), solution, _sandwich(slope(solution), noise, reach), highest
    )


def _sandwich(slope, noise, reach):
    """Returns slope⁻¹·noise·slope⁻ᵀ, infinite where the classifier doesn't tell the classes."""
    # A perfect classifier's is about the identity.
    scaled = slope * np.outer(reach, reach)
    if np.linalg.svd(scaled, compute_uv=False)[-1] < 1e-6:
        return np.diag(np.full(len(slope), np.inf))
    inverse = np.linalg.inv(slope)
    return inverse @ noise @ inverse.T


def _most_likely(curve, posteriors):
    """Returns the coefficients under which a target sample is likeliest: a grid, then BFGS."""
    size = curve.columns.shape[1]
    scale = np.sqrt(np.mean(curve.columns**2, axis=0))
    start, bounds = np.zeros(size), [(None, None)] * size
    precision = (ATTRIBUTE_SCALE / scale) ** -2
    if curve.has_exponent:
        precision[0] = 0
        bounds[0] = (-LARGEST_EXPONENT, LARGEST_EXPONENT)
        tried = np.stack([curve.prior(np.eye(size)[0] * exponent) for exponent in EXPONENTS])
        tried = tried.T.astype(posteriors.dtype)
        likelihoods = sum(
            np.log(posteriors[rows] @ tried).sum(axis=0, dtype=np.float64)
            for rows in row_blocks(posteriors)
        )
        start[0] = EXPONENTS[likelihoods.argmax()]

    def objective(values):
        coefficients = values / scale
        prior = curve.prior(coefficients)
        gradient, likelihood = np.zeros(size), 0.0
        for block, total in _weighted_blocks(posteriors, prior):
            likelihood += np.log(total).sum(dtype=np.float64)
            gradient += (1 / total) @ (block @ (prior[:, None] * curve.centred(prior)))
        penalty = precision * coefficients
        return -likelihood + penalty @ coefficients / 2, (penalty - gradient) / scale

    bounds = [tuple(b and b * scale[k] for b in ends) for k, ends in enumerate(bounds)]
    # Far below a standard error, and above the rounding of float32: a line search would look there
    # for what isn't to be found.
    options = {"gtol": 1e-4 * np.sqrt(len(posteriors)), "ftol": 1e-10}
    best = scipy.optimize.minimize(
        objective, start * scale, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x
    return best / scale


def _scores(curve, posteriors, prior):
    """Returns d log p(x) / dβ of every sample at q, [samples, k]."""
    moved = (prior[:, None] * curve.centred(prior)).astype(posteriors.dtype)
    scores = [
        (block @ moved) / total[:, None] for block, total in _weighted_blocks(posteriors, prior)
    ]
    return np.concatenate(scores).astype(np.float64)


def _weighted_blocks(posteriors, prior):
    """Yields (posteriors, their mean under the prior) of blocks of rows."""
    weights = prior.astype(posteriors.dtype)
    for rows in row_blocks(posteriors):
        yield posteriors[rows], posteriors[rows] @ weights
