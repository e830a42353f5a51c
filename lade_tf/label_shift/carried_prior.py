"""The prior that a classifier's logits carry, from labelled data: not everybody knows it.

Logits f of temperature T that carry the prior q are those of p(y|x) ∝ q_y · p(x|y). In a sample
with label shares ρ, p(y|x) = softmax(f / T − log q + log ρ): a logistic regression in 1/T, log q.
"""

import dataclasses
import warnings

import numpy as np
import scipy.optimize
import scipy.stats

from lade_tf import priors
from lade_tf.array_checks import check_class_indices
from lade_tf.label_shift.calibration import _nll_and_gradient, _softmax
from lade_tf.label_shift.confusion import label_shares
from lade_tf.label_shift.shrunk_calibration import MOST_PRODUCTS, ShrunkRegression
from lade_tf.numerics import row_blocks

# From here on a class's own bias is told from chance, and a χ² of all of them is one.
IMAGES_FOR_BIASES = 10
SIGNIFICANCE = 0.005  # of each of the two tests
# Nats, root mean square over the classes: see `find_contradiction`.
CONTRADICTION = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class CarriedPrior:
    """What `fit_carried_prior` found: prior ∝ source_prior · π^tau · exp(biases).

    Attributes:
        prior: [classes] float64, the prior that the logits carry once divided by `temperature`.
        temperature: a positive float.
        tau: the power of the training prior by which the carried prior departs from the
            `source_prior` it was taken to be; 0 where the training prior is uniform.
        biases: [classes] float64 in nats, 0 of a class without samples.
        bias_scale: σ, their standard deviation, in nats.
    """

    prior: np.ndarray
    temperature: float
    tau: float
    biases: np.ndarray
    bias_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Contradiction:
    """Labelled data that speak against the prior that logits are taken to carry.

    Attributes:
        taken: [classes] float64, that prior.
        found: [classes] float64, what the data point to.
        p_value: how probable data are that speak against a right one as much.
    """

    taken: np.ndarray
    found: np.ndarray
    p_value: float

    def __str__(self):
        order = np.argsort(self.found / self.taken)
        extremes = ", ".join(
            f"class {c} {self.taken[c]:.3g} against {self.found[c]:.3g}"
            for c in (order[-1], order[0])
        )
        return (
            "the labelled data contradict the prior that the logits are taken to carry: "
            f"{_shown(self.taken)} is taken, and the data point to {_shown(self.found)} "
            f"({extremes}; p-value {self.p_value:.2g}). Labels in another order than the images "
            "do that too"
        )


def fit_carried_prior(logits, labels, training_prior, source_prior=None):
    """Fits temperature and carried prior of a classifier to a labelled sample by its likelihood.

    The prior is ∝ source_prior · π^τ, two parameters that a sample of a few images a class tells,
    and every class has a bias, b ~ N(0, σ²), σ by empirical Bayes (`ShrunkCalibration` tells how).
    A class without samples keeps the common form. The sample may have any label distribution;
    bias-corrected temperature scaling (Alexandari et al., ICML 2020) is the same without a common
    form to shrink to.

    Args:
        logits: raw logits [samples, classes], unseen in training.
        labels: true classes, integers [samples], of at least two classes.
        training_prior: [classes] the training prior π, entries > 0.
        source_prior: [classes] the prior that the logits are taken to carry, or None for none.

    Returns:
        A `CarriedPrior`.

    Raises:
        ValueError: An argument has a wrong shape or type, isn't finite, or labels are out of range
            or all the same; no temperature is the best, as for some τ the logits make no error on
            the sample, or tell nothing about it.
    """
    sample = _Sample(logits, labels, training_prior, source_prior)
    sample.require_error()
    if sample.fit()[0] <= 0:
        raise ValueError("logits must tell something about the labels; no better than chance here")
    return sample.carried_prior(*sample.fit_shrunk())


def find_contradiction(logits, labels, training_prior, source_prior=None):
    """Returns a `Contradiction` if a labelled sample speaks against a carried prior, else None.

    Two tests, each at a level of 0.005: the likelihood ratio of τ, one degree of freedom at any
    size; and that of the biases of the classes with ten images, at least three, among themselves.
    What they find must also matter: large samples tell any network's departure from its prior, and
    those of well trained ones are below 0.5 nats (root mean square over the classes; 0.47 of
    softmax and 0.34 of LADE after 200 epochs on CIFAR-100-LT).

    Args, Raises: as `fit_carried_prior`, but a sample without an error, or by which the logits are
        no better than chance, says nothing: None.
    """
    sample = _Sample(logits, labels, training_prior, source_prior)
    if sample.is_separable():
        return None
    fitted = sample.fit()
    if fitted[0] <= 0:
        return None
    without = sample.fit(start=[fitted[0], 0.0, *fitted[2:]], with_tau=False)
    ratio = 2 * len(sample.labels) * (sample.loss(without) - sample.loss(fitted))
    p_of_tau = scipy.stats.chi2.sf(max(ratio, 0.0), df=1)
    with_biases = sample.counts >= IMAGES_FOR_BIASES
    p_of_biases, variance = sample.test_biases(with_biases, fitted)
    variance *= p_of_biases < SIGNIFICANCE
    of_tau = (fitted[1] * sample.log_prior[sample.seen].std()) ** 2 * (p_of_tau < SIGNIFICANCE)
    if of_tau + variance < CONTRADICTION**2:
        return None
    if variance:
        fitted = sample.fit(np.sqrt(variance), fitted, with_biases=with_biases)
    found = sample.carried_prior(fitted, 0.0).prior
    return Contradiction(sample.source_prior, found, min(1.0, 2 * min(p_of_tau, p_of_biases)))


def warn_of_contradiction(contradiction, stacklevel=2):
    """Warns of a `Contradiction`, naming both priors; None is none."""
    if contradiction is None:
        return
    warnings.warn(
        f"{contradiction}. If they are in theirs, tell what the network was trained with "
        "(class_weight, sampled_counts or source_prior of adapt and AdaptedModel), or fit the "
        "prior too: calibrate(..., prior=True)",
        stacklevel=stacklevel + 1,
    )


class _Sample:
    """A checked labelled sample, and its likelihood in (1/T, τ, biases)."""

    def __init__(self, logits, labels, training_prior, source_prior):
        self.logits = logits = np.asarray(logits)
        if logits.ndim != 2 or not np.issubdtype(logits.dtype, np.floating):
            raise ValueError(
                f"logits must be floats [samples, classes]; got {logits.dtype} {list(logits.shape)}"
            )
        if not np.isfinite(logits).all():
            raise ValueError("logits must be finite; got NaN or infinity")
        num_samples, self.num_classes = logits.shape
        self.labels = check_class_indices("labels", labels, num_samples, self.num_classes)
        self.shares = label_shares(self.labels, self.num_classes)
        if self.shares.max() == 1:
            raise ValueError(f"labels must be of at least two classes; all are {self.labels[0]}")
        self.counts = np.bincount(self.labels, minlength=self.num_classes)
        self.seen = self.shares > 0
        if source_prior is None:
            source_prior = priors.uniform_prior(self.num_classes)
        self.source_prior, training_prior = (
            priors.check_prior(prior, self.num_classes, allow_zero=False, name=name)
            for name, prior in (("source_prior", source_prior), ("training_prior", training_prior))
        )
        self.given_priors = training_prior, self.source_prior
        log_prior = np.log(training_prior)
        self.log_prior = log_prior - log_prior[self.seen].mean()
        with np.errstate(divide="ignore"):  # a missing class gets the probability 0
            self.offsets = np.log(self.shares) - np.log(self.source_prior)
        # The slope counts in units of the logits' spread: any scale of them is the same problem.
        spread = float(
            np.sqrt(np.mean([b.astype(np.float64).var(1).mean() for b in self.blocks()]))
        )
        self.unit = 1 / spread if spread > 0 else 1.0

    def blocks(self):
        return (self.logits[rows] for rows in row_blocks(self.logits))

    def among(self, classes):
        """Returns the sample of some classes, [classes] bool, alone.

        Its likelihood is that of a label given that it is one of theirs.
        """
        rows = classes[self.labels]
        number = np.cumsum(classes) - 1
        priors_there = (prior[classes] / prior[classes].sum() for prior in self.given_priors)
        return _Sample(self.logits[rows][:, classes], number[self.labels[rows]], *priors_there)

    def loss(self, parameters):
        """Returns the mean negative log-likelihood of (slope, τ, biases)."""
        return self._loss_and_gradient(parameters)[0]

    def _loss_and_gradient(self, parameters):
        slope, tau, biases = parameters[0], parameters[1], parameters[2:]
        scores = self.offsets - tau * self.log_prior - biases
        loss, of_slope, of_score = _nll_and_gradient(self.logits, self.labels, slope, scores)
        return loss, np.concatenate([[of_slope, -of_score @ self.log_prior], -of_score])

    def fit(self, scale=0.0, start=None, with_tau=True, with_biases=True):
        """Returns the best (slope, τ, biases), biases of standard deviation `scale`, 0 for none.

        `with_biases`: the classes, [classes] bool, that may have one.
        """
        num_samples = len(self.labels)
        if start is None:
            start = np.concatenate([[self.unit, 0.0], np.zeros(self.num_classes)])
        # In units in which the curvature is about 1.
        units = np.concatenate(
            [[self.unit, 1 / max(self.log_prior.std(), 1.0)], np.zeros_like(self.shares)]
        )
        if not with_tau:
            units[1] = 0
        strength = 0.0
        if scale > 0:
            strength = 1 / (num_samples * scale**2)
            units[2:] = with_biases / np.sqrt(self.shares + strength)
        free = np.flatnonzero(units)

        def objective(values):
            parameters = np.where(units > 0, 0.0, start)
            parameters[free] = units[free] * values
            loss, gradient = self._loss_and_gradient(parameters)
            biases = parameters[2:]
            loss += strength * (biases @ biases) / 2
            gradient[2:] += strength * biases
            return loss, (units * gradient)[free]

        options = {"maxiter": 500, "maxfun": 1000, "gtol": 1e-7, "ftol": 1e-13}
        start = np.asarray(start, dtype=np.float64)
        first = start[free] / units[free]
        best = scipy.optimize.minimize(
            objective, first, jac=True, method="L-BFGS-B", options=options
        ).x
        parameters = np.where(units > 0, 0.0, start)
        parameters[free] = units[free] * best
        return parameters

    def fit_shrunk(self):
        """Returns (slope, τ, biases) with biases shrunk by empirical Bayes, and their scale."""
        scaled = np.empty_like(self.logits, dtype=np.result_type(self.logits, np.float32))
        for rows in row_blocks(self.logits):
            block = self.logits[rows].astype(np.float64)
            scaled[rows] = self.unit * (block - block.mean(axis=1, keepdims=True))
        regression = ShrunkRegression(
            scaled, self.labels, self.given_priors[0], np.log(self.source_prior), False
        )
        found, scale, _ = regression.fit()
        tau = -found[2] / regression.prior_scale
        return np.concatenate([[self.unit * found[0], tau], -found[3:]]), scale

    def is_separable(self):
        """Whether for some τ the classes' order is right on all samples, at any temperature.

        The likelihood then rises for ever towards temperature 0. A sample is right where
        (f_y − f_c) − t·(log π_y − log π_c) ≥ 0 for all classes c, which bounds t = τ·T.
        """
        lowest, highest = -np.inf, np.inf
        log_prior = self.log_prior[self.seen]
        for rows in row_blocks(self.logits):
            block, labels = self.logits[rows].astype(np.float64), self.labels[rows]
            true = block[np.arange(len(labels)), labels]
            gaps = true[:, None] - block[:, self.seen]
            others = self.log_prior[labels][:, None] - log_prior
            with np.errstate(divide="ignore", invalid="ignore"):
                bounds = gaps / others
            highest = min(highest, bounds.min(initial=np.inf, where=others > 0))
            lowest = max(lowest, bounds.max(initial=-np.inf, where=others < 0))
            if lowest > highest or gaps.min(initial=0, where=others == 0) < 0:
                return False
        return True

    def require_error(self):
        if self.is_separable():
            raise ValueError(
                "logits must be wrong about some of the labels for temperature and prior to be "
                f"fitted; they tell all {len(self.labels):,} without an error: give more samples, "
                "unseen in training"
            )

    def test_biases(self, classes, fitted):
        """Returns (p-value, variance in nats²) of the biases of some classes, [classes] bool.

        They are tested among themselves, at the temperature and τ that are best there; (1, 0) if
        that can't be. `fitted` are those of all.
        """
        num_classes = int(classes.sum())
        if num_classes < 3 or self.counts[classes].sum() * num_classes**2 > MOST_PRODUCTS:
            return 1.0, 0.0
        if classes.all():
            return self.test_all_biases(fitted)
        sample = self.among(classes)
        if sample.is_separable():
            return 1.0, 0.0
        fitted = sample.fit()
        return sample.test_all_biases(fitted) if fitted[0] > 0 else (1.0, 0.0)

    def test_all_biases(self, fitted):
        """Returns (p-value, variance of the biases in nats²) at the best temperature and τ.

        One Newton step gives the biases, and the logistic regression's information J their
        covariance. ρ being the sample's own shares, that is J⁺ − diag(1/n) (Prentice and Pyke,
        1979). A χ² of their whole covariance was seen to reject falsely at thirty images a class
        (10 to 13 % at a level of 5 %); the sum of their squares, a scaled χ² by its first two
        moments (Satterthwaite, 1946), wasn't at ten. The variance is by the method of moments.
        """
        num_classes, counts = self.num_classes, self.counts
        slope, offsets = fitted[0], self.offsets - fitted[1] * self.log_prior
        expected, crossed = np.zeros((2, num_classes))
        second, of_slope = np.zeros((num_classes, num_classes)), 0.0
        for block in self.blocks():
            block = block.astype(np.float64)
            posteriors = _softmax(slope * block + offsets)[0]
            expected += posteriors.sum(axis=0)
            second += posteriors.T @ posteriors
            block -= (posteriors * block).sum(axis=1, keepdims=True)
            crossed += (posteriors * block).sum(axis=0)
            of_slope += (posteriors * block**2).sum()
        # The temperature is fitted: its part is taken out of the information, that of τ below.
        information = np.diag(expected) - second - np.outer(crossed, crossed) / of_slope
        inverse = np.linalg.pinv(information, rcond=1e-10, hermitian=True)
        centre = np.eye(num_classes) - 1 / num_classes  # a constant in all biases means nothing
        step = centre @ inverse @ (expected - counts)
        covariance = centre @ (inverse - np.diag(1 / counts)) @ centre
        tau = centre @ self.log_prior
        if tau.any():
            without_tau = np.eye(num_classes) - np.outer(tau, tau @ information) / (
                tau @ information @ tau
            )
            covariance = centre @ without_tau @ covariance @ without_tau.T @ centre
        total, squares = np.trace(covariance), (covariance**2).sum()
        if total <= 0:
            return 1.0, 0.0
        p_value = scipy.stats.chi2.sf(step @ step * total / squares, total**2 / squares)
        return float(p_value), max(0.0, float(step @ step - total) / num_classes)

    def carried_prior(self, parameters, scale):
        slope, tau, biases = parameters[0], parameters[1], parameters[2:]
        log_carried = np.log(self.source_prior) + tau * self.log_prior + biases
        carried = np.exp(log_carried - log_carried.max())
        return CarriedPrior(carried / carried.sum(), float(1 / slope), float(tau), biases, scale)


def _shown(prior):
    if len(prior) <= 10:
        return "[" + ", ".join(f"{p:.3g}" for p in prior) + "]"
    return f"a prior from {prior.min():.3g} (class {prior.argmin()}) to {prior.max():.3g}"
