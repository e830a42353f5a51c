"""What holds for every loss, one of a user's among them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf import losses
from lade_tf.losses.base import ClassCountsLoss, checked

COUNTS = [60, 30, 8, 2]


class Own(ClassCountsLoss):
    """Cross-entropy weighted by 1 − π, as a user would add it."""

    ARGUMENTS = ("class_counts", "zero_count")

    def __init__(self, class_counts, zero_count="error", name="own", reduction="sum", dtype=None):
        super().__init__(class_counts, zero_count, name, reduction, dtype)

    def values(self, logits, labels):
        logits, labels, validity = checked(logits, labels, len(self.class_counts))
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return validity * tf.gather(tf.constant(1 - self.prior, logits.dtype), labels) * entropy


LOSSES = {
    "Focal": lambda **more: losses.Focal(0.5, **more),
    "ClassBalancedFocal": lambda **more: losses.ClassBalancedFocal(COUNTS, 0.9999, 0.5, **more),
    "LogitAdjustment": lambda **more: losses.LogitAdjustment(COUNTS, 2.0, **more),
    "BalancedSoftmax": lambda **more: losses.BalancedSoftmax(COUNTS, **more),
    "LDAM": lambda **more: losses.LDAM(COUNTS, **more),
    "LADE": lambda **more: losses.LADE(COUNTS, **more),
    "Own": lambda **more: Own(COUNTS, **more),
}
of_every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


def make_batch(size=12, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (size, 4)).astype(np.float32)
    return logits, rng.integers(0, 4, size)


@of_every_loss
def test_value_and_gradient_are_finite_for_extreme_logits(make):
    logits = tf.constant([[80.0, -80, 0, 0], [-80, 80, 0, 0], [0, 0, 80, -80]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = make()([0, 0, 2], logits)
    assert np.isfinite(value) and np.isfinite(tape.gradient(value, logits)).all()


@of_every_loss
def test_the_gradient_is_that_of_finite_differences(make):
    (logits, labels), loss, step = make_batch(size=3), make(dtype="float64"), 1e-5
    variable = tf.Variable(logits, dtype=tf.float64)
    with tf.GradientTape() as tape:
        value = loss(labels, variable)
    assert value.dtype == tf.float64
    for index, slope in np.ndenumerate(tape.gradient(value, variable)):
        shift = np.zeros(logits.shape)
        shift[index] = step
        difference = loss(labels, logits + shift) - loss(labels, logits - shift)
        assert slope == pytest.approx(difference.numpy() / (2 * step), abs=1e-9, rel=1e-6)


@of_every_loss
def test_labels_out_of_range_raise_and_are_nan_under_xla(make):
    loss = make()
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"integers in 0\.\.3"):
        loss([0, 4], np.zeros((2, 4), np.float32))
    compiled = tf.function(lambda y, f: loss(y, f), jit_compile=True)
    assert np.isnan(compiled(np.array([0, 4]), np.zeros((2, 4), np.float32)).numpy())


@of_every_loss
def test_labels_may_be_a_column_of_floats(make):
    (logits, labels), loss = make_batch(), make()
    column = labels.astype(np.float32)[:, None]
    np.testing.assert_array_equal(loss(column, logits), loss(labels, logits))


@of_every_loss
def test_probabilities_are_refused(make):
    with pytest.raises(ValueError, match="logits"):
        make()([0, 1], keras.ops.softmax(keras.ops.zeros((2, 4))))


@pytest.mark.parametrize("kind", [losses.LADE, losses.BalancedSoftmax, losses.LDAM, Own])
def test_counts_are_checked(kind):
    logits, labels = make_batch()
    with pytest.raises(ValueError, match='numbers > 0 .zero_count="smooth"'):
        kind([60, 30, 8, 0])
    smooth = kind([60, 30, 8, 0], zero_count="smooth")(labels, logits)
    np.testing.assert_allclose(smooth, kind([61, 31, 9, 1])(labels, logits), rtol=1e-6)
    with pytest.raises(ValueError, match=r"logits must have shape \[batch, 4\]"):
        kind(COUNTS)([0, 1], np.zeros((2, 5), np.float32))


def test_the_config_of_a_users_loss():
    config = Own(np.array(COUNTS), "smooth", name="mine").get_config()
    assert config["class_counts"] == COUNTS and config["zero_count"] == "smooth"
    assert Own.from_config(config).get_config() == config
