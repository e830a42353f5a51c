"""Exactly calibrated classifiers: Gaussian classes whose posteriors follow from Bayes' rule."""

import numpy as np


def gaussian_sample(prior, size, rng, separation=3.7):
    """Returns x [size, classes], normal around separation times the label's unit vector; labels."""
    labels = rng.choice(len(prior), size=size, p=prior)
    means = separation * np.eye(len(prior))
    return means[labels] + rng.normal(size=(size, len(prior))), labels


def bayes_posteriors(x, prior, separation=3.7):
    """Returns p(y|x) of unit-width classes at `prior`, [samples, classes]."""
    joint = np.exp(separation * x - 0.5 * separation**2) * prior
    return joint / joint.sum(axis=1, keepdims=True)


def long_tail(num_classes, ratio):
    """Returns a prior that falls exponentially from the first class to the last."""
    prior = ratio ** (-np.arange(num_classes) / (num_classes - 1))
    return prior / prior.sum()


def shifted_samples(source_prior, target_prior, size, seed=0, separation=3.7):
    """Returns source_probs, source_labels, target_probs, target_labels of `size` samples each."""
    rng = np.random.default_rng(seed)
    x, labels = gaussian_sample(source_prior, size, rng, separation)
    target_x, target_labels = gaussian_sample(target_prior, size, rng, separation)
    source_probs, target_probs = (
        bayes_posteriors(features, source_prior, separation) for features in (x, target_x)
    )
    return source_probs, labels, target_probs, target_labels


def l1(prior, other):
    """Returns the L1 distance of two priors."""
    return np.abs(np.asarray(prior) - other).sum()
