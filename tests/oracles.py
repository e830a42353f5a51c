"""The formulas of the paper in plain float64 NumPy: loops and sums, nothing borrowed."""

import numpy as np
from scipy.special import log_softmax, logsumexp


def lader(logits, labels, counts, remine_lambda, estimator):
    """Returns LADER and its closed-form gradient [batch, classes], by loops over the classes."""
    f = np.asarray(logits, dtype=np.float64)
    size, num_classes = f.shape
    prior = np.asarray(counts, dtype=np.float64) / np.sum(counts)
    value, gradient = 0.0, np.zeros_like(f)
    for c in range(num_classes):
        mine = np.asarray(labels) == c
        if estimator == "paper":
            if not mine.any():
                continue
            log_weight = -np.log(num_classes * prior[labels])
            epsilon = 0.0
        else:
            log_weight = np.full(size, np.log(1 / num_classes + 1e-9) - np.log(prior[c] + 1e-9))
            epsilon = 1e-8
        exponent = f[:, c] + log_weight
        t = logsumexp(exponent) - np.log(size)
        value += prior[c] * (-f[mine, c].sum() / (mine.sum() + epsilon) + t + remine_lambda * t**2)
        q = np.exp(exponent - logsumexp(exponent))
        gradient[:, c] = prior[c] * (
            (1 + 2 * remine_lambda * t) * q - mine / (mine.sum() + epsilon)
        )
    return value, gradient


def cross_entropy(logits, labels, log_prior=0.0):
    """Returns CE(softmax(f + log π), y), [batch]."""
    log_probabilities = log_softmax(np.asarray(logits, np.float64) + log_prior, axis=1)
    return -log_probabilities[np.arange(len(labels)), labels]


def lade(logits, labels, counts, alpha, remine_lambda, estimator):
    """Returns equation 20; the released code adds 1e-9 to the prior."""
    epsilon = 1e-9 if estimator == "reference" else 0.0
    log_prior = np.log(np.asarray(counts, np.float64) / np.sum(counts) + epsilon)
    regulariser, _ = lader(logits, labels, counts, remine_lambda, estimator)
    return cross_entropy(logits, labels, log_prior).mean() + alpha * regulariser


def resampled_interval(correct, other, weights, resamples=4000):
    """The 95 % interval of a paired bootstrap over samples, by a loop."""
    rng = np.random.default_rng(7)
    differences = []
    for _ in range(resamples):
        drawn = rng.integers(len(correct), size=len(correct))
        first = np.average(correct[drawn], weights=weights[drawn])
        differences.append(first - np.average(other[drawn], weights=weights[drawn]))
    return np.percentile(differences, [2.5, 97.5])
