"""Calibration on few labels: what all classes share, and a bias of each that is shrunk to it.

A temperature alone leaves the classes' biases, and bias-corrected temperature scaling fits one of
each freely, which takes dozens of images a class. Here the biases are b ~ N(0, σ²), and σ² comes
from the sample itself (empirical Bayes, as in a linear mixed model; Robbins, 1956).

The labels are taken as given: n_c images of class c, whatever that class's share. What they tell of
the biases then has the covariance J⁻¹ − diag(1/n), J the logistic regression's information
(Prentice and Pyke, Biometrika 1979), less than J⁻¹ by half and more. To weigh it rightly against
N(0, σ²) the penalty on b_c is (1 − J_cc/n_c) / σ², of J⁻¹ − diag(1/n) what is on the diagonal.
"""

import dataclasses

import numpy as np

from lade_tf.array_checks import check_source
from lade_tf.label_shift.calibration import _log, _softmax
from lade_tf.label_shift.prior_curve import has_tail
from lade_tf.numerics import row_blocks
from lade_tf.priors import check_prior

# What σ is taken to be, and how many classes' biases that is worth: with five images a class the
# likelihood of σ hardly differs between 0 and 0.3, and 0 would call the calibration exact. Of
# networks trained for 200 epochs on CIFAR-100-LT, 5,000 images tell 0.17 to 0.27 nats.
BIAS_SCALE = 0.25
BIAS_SCALE_WEIGHT = 30
COMMON_SCALE = 10.0  # of slopes and τ: it only keeps them finite where the sample has no error
# The second moments of posteriors take samples · classes² products.
MOST_PRODUCTS = 2e10
MOST_UPDATES, MOST_STEPS = 20, 30
CONVERGED = 0.005  # of the logarithm of σ²

MOST_UNCERTAIN = 0.99  # of J_cc/n_c, so that the penalty keeps b finite
# Newton's steps end where another promises so few nats.
ENOUGH = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class ShrunkCalibration:
    """The map p → softmax((slope + slope_by_prior·x)·log p + τ·x + biases), x ~ log π.

    It gives posteriors at the uniform prior. x is the logarithm of the training prior, of mean 0
    and standard deviation 1 over the classes; all 0 where that prior is (nearly) uniform.

    Attributes:
        slope, slope_by_prior, tau: Floats.
        biases: [classes] float64 in nats.
        bias_scale: σ, in nats.
        covariance: [classes, classes] of the biases, given the sample.
        by_prior: x, [classes].
    """

    slope: float
    slope_by_prior: float
    tau: float
    biases: np.ndarray
    bias_scale: float
    covariance: np.ndarray
    by_prior: np.ndarray

    def calibrated(self, probs):
        """Returns posteriors [samples, classes] at the uniform prior, in the dtype of `probs`."""
        slopes = self.slope + self.slope_by_prior * self.by_prior
        offsets = self.tau * self.by_prior + self.biases
        calibrated = np.empty(probs.shape, np.result_type(probs, np.float32))
        for rows in row_blocks(probs):
            calibrated[rows] = _softmax(slopes * _log(probs[rows]) + offsets)[0]
        return calibrated


def fit_shrunk_calibration(source_probs, source_labels, training_prior):
    """Fits a ShrunkCalibration, for `hierarchical` to be called again and again with.

    Args:
        source_probs: Predicted probabilities of the labelled sample [samples, classes], unseen in
            training; at the uniform prior or any power of the training prior.
        source_labels: Its true classes, integers [samples]; classes may be missing.
        training_prior: [classes] the prior π of the training data, entries > 0.

    Returns:
        A ShrunkCalibration.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range.
    """
    samples = check_source(source_probs, source_labels)
    num_classes = samples[0].shape[1]
    training_prior = check_prior(
        training_prior, num_classes, allow_zero=False, name="training_prior"
    )
    return solve_shrunk_calibration(*samples, training_prior)


def solve_shrunk_calibration(probs, labels, training_prior):
    """Fits a ShrunkCalibration to checked arrays by its penalised likelihood.

    The sample's own label shares ρ are an offset, softmax(z + log ρ), so that it may have any label
    distribution. A class without samples takes no part; its bias stays 0.

    σ² = (|b|² + tr V + ν·0.25²) / (C + ν), V the biases' covariance given the sample: the step of
    expectation maximisation under a scaled inverse χ² prior of ν = 30 degrees of freedom.

    Args:
        probs: Probabilities [samples, classes], at the uniform prior or any power of π.
        labels: Integers [samples].
        training_prior: π, [classes], entries > 0.

    Returns:
        A ShrunkCalibration.
    """
    log_probs = np.empty(probs.shape, np.result_type(probs, np.float32))
    for rows in row_blocks(probs):
        log_probs[rows] = _log(probs[rows])
    sample = ShrunkRegression(log_probs, labels, training_prior)
    parameters, scale, covariance = sample.fit()
    slope, slope_by_prior, tau = map(float, parameters[:3])
    return ShrunkCalibration(
        slope, slope_by_prior, tau, parameters[3:], scale, covariance, sample.by_prior
    )


def row_stride(array):
    """Returns every how manieth row of [samples, classes] second moments can be afforded of."""
    num_samples, num_classes = array.shape
    return int(np.ceil(num_samples * num_classes**2 / MOST_PRODUCTS))


class ShrunkRegression:
    """A labelled sample's log-likelihood in (slope, slope by prior, τ, biases).

    Args:
        log_probs: Log probabilities or logits [samples, classes].
        labels: Integers [samples].
        training_prior: [classes].
        log_carried: [classes] the log prior that is taken out of what log_probs come to, or 0.
        has_slope_by_prior: Whether that parameter is fitted; else it is 0.
    """

    def __init__(self, log_probs, labels, training_prior, log_carried=0, has_slope_by_prior=True):
        self.log_probs, self.labels, self.dtype = log_probs, labels, log_probs.dtype
        self.counts = np.bincount(labels, minlength=log_probs.shape[1])
        with np.errstate(divide="ignore"):  # a missing class gets the probability 0
            self.offsets = np.log(self.counts / len(labels)) - log_carried
        by_prior = np.log(training_prior)
        by_prior = by_prior - by_prior.mean()
        scale = by_prior.std()
        self.fitted = [0]
        self.by_prior, self.prior_scale = np.zeros_like(by_prior), 1.0
        if has_tail(training_prior):
            self.fitted = [0, 1, 2] if has_slope_by_prior else [0, 2]
            self.by_prior, self.prior_scale = by_prior / scale, scale

    def fit(self):
        """Returns (slope, slope by prior, τ, biases), σ, and the covariance of the biases."""
        parameters = np.concatenate([[1.0, 0.0, 0.0], np.zeros(self.log_probs.shape[1])])
        variance, previous = BIAS_SCALE**2, 0.0
        for _ in range(MOST_UPDATES):
            parameters, covariance = self.climb(parameters, variance)
            biases = parameters[3:]
            total = biases @ biases + np.trace(covariance) + BIAS_SCALE_WEIGHT * BIAS_SCALE**2
            change = np.log(total / (len(biases) + BIAS_SCALE_WEIGHT) / variance)
            if abs(change) < CONVERGED:
                break
            # Changes shrink by about the same factor each time: their sum is a geometric series'.
            factor = change / previous if previous else 0.0
            extrapolated = 0 < factor < 0.9
            variance *= np.exp(change / (1 - factor) if extrapolated else change)
            previous = 0.0 if extrapolated else change
        return parameters, float(np.sqrt(variance)), covariance

    def blocks(self, parameters):
        """Yields (log probabilities, labels, posteriors, log normaliser) of blocks of rows."""
        slopes = (parameters[0] + parameters[1] * self.by_prior).astype(self.dtype)
        offsets = (self.offsets + parameters[2] * self.by_prior + parameters[3:]).astype(self.dtype)
        for rows in row_blocks(self.log_probs):
            log_probs = self.log_probs[rows]
            yield log_probs, self.labels[rows], *_softmax(slopes * log_probs + offsets)

    def objective(self, parameters, precision):
        """Returns (negative log-likelihood with its penalty, its gradient).

        `precision` is that of the biases, [classes].
        """
        slopes = parameters[0] + parameters[1] * self.by_prior
        offsets = self.offsets + parameters[2] * self.by_prior + parameters[3:]
        loss, of_slopes, of_offsets = 0.0, *np.zeros((2, len(self.by_prior)))
        for log_probs, labels, posteriors, log_normalizer in self.blocks(parameters):
            true = log_probs[np.arange(len(labels)), labels]
            loss += log_normalizer.sum(dtype=np.float64)
            loss -= (slopes[labels] * true + offsets[labels]).sum()
            of_slopes += np.einsum("nc,nc->c", posteriors, log_probs)
            of_slopes -= np.bincount(labels, true, len(slopes))
            of_offsets += posteriors.sum(axis=0, dtype=np.float64)
            of_offsets -= np.bincount(labels, minlength=len(slopes))
        departure = parameters - np.eye(len(parameters))[0]
        weights = np.concatenate([np.full(3, COMMON_SCALE**-2), precision])
        common = of_slopes.sum(), of_slopes @ self.by_prior, of_offsets @ self.by_prior
        gradient = np.concatenate([common, of_offsets]) + weights * departure
        return loss + weights @ departure**2 / 2, gradient

    def curvature(self, parameters):
        """Returns the information on (common, common), (biases, common) and (biases, biases).

        Of at most so many rows, evenly spread, that it takes 2e10 products.
        """
        num_samples, num_classes = self.log_probs.shape
        every = row_stride(self.log_probs)
        part = object.__new__(ShrunkRegression)
        part.__dict__.update(self.__dict__)
        part.log_probs, part.labels = self.log_probs[::every], self.labels[::every]
        factor = num_samples / len(part.labels)
        common, crossed = np.zeros((3, 3)), np.zeros((num_classes, 3))
        expected, second = np.zeros(num_classes), np.zeros((num_classes, num_classes))
        for log_probs, _, posteriors, _ in part.blocks(parameters):
            expected += posteriors.sum(axis=0, dtype=np.float64)
            second += posteriors.T @ posteriors
            for k, values in enumerate((log_probs, log_probs * self.by_prior.astype(self.dtype))):
                centred = values - (posteriors * values).sum(axis=1, keepdims=True)
                weighted = posteriors * centred
                crossed[:, k] += weighted.sum(axis=0, dtype=np.float64)
                common[0, k] += (weighted * log_probs).sum(dtype=np.float64)
                if k == 1:
                    common[1, 1] += (weighted * values).sum(dtype=np.float64)
        biases = np.diag(expected) - second
        crossed[:, 2] = biases @ self.by_prior
        common[:, 2] = self.by_prior @ crossed
        common = np.triu(common) + np.triu(common, 1).T
        return factor * common, factor * crossed, factor * biases

    def climb(self, parameters, variance):
        """Returns the best parameters under σ² = `variance`, and the biases' covariance there.

        Newton's steps with the curvature of where they start: the optimum doesn't depend on it.
        """
        common, crossed, biases = self.curvature(parameters)
        # 1 − J_cc/n_c: 1 of a class without samples, 0 where the classifier knows nothing.
        free = 1 - np.minimum(np.diag(biases) / np.maximum(self.counts, 1), MOST_UNCERTAIN)
        precision, root = free / variance, np.sqrt(free)
        inverse = np.linalg.inv(biases + np.diag(precision))
        fitted = self.fitted
        crossed = crossed[:, fitted]
        common = common[np.ix_(fitted, fitted)] + np.eye(len(fitted)) / COMMON_SCALE**2
        schur = common - crossed.T @ inverse @ crossed
        loss, gradient = self.objective(parameters, precision)
        for _ in range(MOST_STEPS):
            of_common, of_biases = gradient[fitted], gradient[3:]
            move = np.zeros_like(parameters)
            move[fitted] = np.linalg.solve(schur, of_common - crossed.T @ (inverse @ of_biases))
            move[3:] = inverse @ (of_biases - crossed @ move[fitted])
            decrease = gradient @ move
            if decrease < ENOUGH:
                break
            step = 1.0
            while step > 1e-6:
                tried, of_tried = self.objective(parameters - step * move, precision)
                if tried < loss - 1e-4 * step * decrease:
                    break
                step /= 4
            else:
                break
            parameters, loss, gradient = parameters - step * move, tried, of_tried
        return parameters, root[:, None] * inverse * root
