"""What a training step makes of a batch: the hook for the loss, and mixup's two sets of labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.models.training import BatchLoss

COUNTS = [40, 20, 8]
rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(12, 5)).astype(np.float32)
LABELS, OTHERS = rng.integers(0, 3, (2, 12)).astype(np.int32)


def make(lade=False):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    if lade:
        model, loss = lade_tf.LADEModel(network, COUNTS), None
    else:
        model = lade_tf.AdaptedModel(network, COUNTS)
        loss = lade_tf.losses.BalancedSoftmax(COUNTS)
    model.compile(lade_tf.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def mixed(share):
    labels = (LABELS, OTHERS, np.full(12, share, np.float32))
    return tf.data.Dataset.from_tensors((IMAGES, labels))


@pytest.mark.parametrize("lade", [False, True])
def test_the_loss_is_that_of_both_labels_by_their_share(lade):
    losses = [make(lade).fit(mixed(share), verbose=0).history["loss"][0] for share in (1, 0, 0.3)]
    assert losses[2] == pytest.approx(0.3 * losses[0] + 0.7 * losses[1], rel=1e-5)
    for loss, labels in zip(losses[:2], (LABELS, OTHERS), strict=True):
        alone = make(lade).train_on_batch(IMAGES, labels, return_dict=True)["loss"]
        assert loss == pytest.approx(alone, rel=1e-6)


def test_the_gradient_is_mixed_too():
    steps = []
    for share in (1, 0, 0.3):
        model = make()
        before = model.network.get_weights()[0]
        model.fit(mixed(share), verbose=0)
        steps.append(model.network.get_weights()[0] - before)
    np.testing.assert_allclose(steps[2], 0.3 * steps[0] + 0.7 * steps[1], atol=1e-6)


def test_accuracy_is_that_of_the_first_labels():
    model = make()
    shown = model.fit(mixed(0.3), verbose=0).history["accuracy"][0]
    expected = (make().predict(IMAGES, verbose=0).argmax(axis=1) == LABELS).mean()
    assert shown == pytest.approx(expected)


def test_mixed_labels_are_not_evaluated():
    with pytest.raises(ValueError, match="are for training: evaluate on plain ones"):
        make().evaluate(mixed(0.3), verbose=0)


class Brier(lade_tf.AdaptedModel):
    """A model from outside, with a loss of its own."""

    OWNS_LOSS = True

    def batch_loss(self, x, y, sample_weight=None, training=False):
        probabilities = tf.nn.softmax(self.raw_logits(x, training))
        errors = tf.reduce_sum((probabilities - tf.one_hot(y, 3)) ** 2, axis=-1)
        return BatchLoss(tf.math.log(probabilities), y, tf.reduce_mean(errors), share=1.0)


def test_a_loss_of_ones_own_takes_one_method():
    model = Brier(keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]), COUNTS)
    with pytest.raises(ValueError, match="loss must not be given to Brier"):
        model.compile("sgd", "mse")
    model.compile(keras.optimizers.SGD(0.2), metrics=["accuracy"])
    kernel, bias = (w.astype(np.float64) for w in model.network.get_weights())
    logits = IMAGES @ kernel + bias
    shown = model.evaluate(IMAGES, LABELS, batch_size=5, verbose=0, return_dict=True)
    model.fit(IMAGES, LABELS, batch_size=12, verbose=0)

    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    errors = p - np.eye(3)[LABELS]
    assert shown["loss"] == pytest.approx((errors**2).sum(axis=1).mean(), rel=1e-5)
    assert shown["accuracy"] == pytest.approx((p.argmax(axis=1) == LABELS).mean())
    gradient = 2 * p * (errors - (errors * p).sum(axis=1, keepdims=True)) / 12
    new_kernel, new_bias = model.network.get_weights()
    np.testing.assert_allclose(new_kernel, kernel - 0.2 * IMAGES.T @ gradient, atol=1e-6)
    np.testing.assert_allclose(new_bias, bias - 0.2 * gradient.sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("lade", [False, True])
def test_batch_loss_and_update_metrics_are_a_step_without_the_optimizer(lade):
    expected = make(lade).evaluate(IMAGES, LABELS, batch_size=12, verbose=0, return_dict=True)
    model = make(lade)
    batch = model.batch_loss(IMAGES, LABELS)
    np.testing.assert_allclose(batch.logits, model.raw_logits(IMAGES), rtol=1e-6)
    assert batch.share == 1
    model.update_metrics(IMAGES, batch)
    shown = {name: float(value) for name, value in model.get_metrics_result().items()}
    assert shown == pytest.approx(expected, rel=1e-5)
