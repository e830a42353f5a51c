import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

from lade_tf import losses

COUNTS = [60, 30, 8, 2]


def make_batch(size=12, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (size, 4)).astype(np.float32)
    return logits, rng.integers(0, 4, size)


@pytest.mark.parametrize("estimator", ["paper", "reference"])
def test_lade_is_equation_20(estimator):
    logits, labels = make_batch()
    loss = losses.LADE(COUNTS, alpha=0.3, remine_lambda=0.2, estimator=estimator)
    expected = oracles.lade(logits, labels, COUNTS, 0.3, 0.2, estimator)
    assert loss(labels, logits).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("estimator", "epsilon"), [("paper", 0.0), ("reference", 1e-9)])
def test_the_released_cross_entropy_adds_1e_9_to_the_prior(estimator, epsilon):
    counts = np.array([10**9, 10, 1])  # the rarest class's prior is 1e-9
    logits, labels = np.float32([[2.0, 0, 1], [0, 1, 30]]), [2, 1]
    prior = counts / counts.sum()
    loss = losses.LADE(counts, alpha=0.0, estimator=estimator)
    expected = oracles.cross_entropy(logits, labels, np.log(prior + epsilon))
    values, _ = loss.local_terms(logits, labels)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(inputs := tf.constant(logits))
        value = loss(labels, inputs)
    joint = np.exp(np.float64(logits)) * (prior + epsilon)
    softmax = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        tape.gradient(value, inputs), (softmax - np.eye(3)[labels]) / 2, rtol=1e-5, atol=1e-12
    )


def test_lade_without_alpha_is_balanced_softmax():
    logits, labels = make_batch()
    lade = losses.LADE(COUNTS, alpha=0.0)(labels, logits)
    np.testing.assert_allclose(lade, losses.BalancedSoftmax(COUNTS)(labels, logits), rtol=1e-6)


def test_a_sample_weight_is_a_number_of_occurrences():
    logits, labels = make_batch()
    weight = np.array([2, 1, 0, 3, 1, 1, 0, 2, 1, 1, 4, 1])
    loss = losses.LADE(COUNTS, alpha=0.5, remine_lambda=0.1)
    repeated = loss(np.repeat(labels, weight), np.repeat(logits, weight, axis=0))
    weighted = loss(labels, logits, sample_weight=weight)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, "alpha must be a finite number >= 0; got -0.1"),
        ({"remine_lambda": np.nan}, "remine_lambda must be a finite number >= 0; got nan"),
        ({"estimator": "mine"}, "estimator must be one of 'paper', 'reference'; got 'mine'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        losses.LADE(COUNTS, **arguments)


def test_plain_loss_in_compile_trains():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 64)
    images = np.eye(4, dtype=np.float32)[labels] + rng.normal(0, 0.1, (64, 4)).astype(np.float32)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(1.0), losses.LADE(COUNTS), metrics=["accuracy"])
    model.fit(images, labels, epochs=30, batch_size=16, verbose=0)
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"] == 1.0
