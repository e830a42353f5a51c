import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax

from lade_tf.losses import LDAM, ldam_margins

COUNTS = [400, 60, 9, 2]
rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(7, 4)) * 5
LABELS = rng.integers(0, 4, 7)


def oracle(logits, labels, scale=30.0, max_margin=0.5):
    """Equation 13, example by example, in float64."""
    margins = np.power(COUNTS, -0.25)
    margins *= max_margin / margins.max()
    values = []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        row = row.copy()
        row[label] -= scale * margins[label]
        values.append(-log_softmax(row[None])[0, label])
    return np.array(values)


def test_margins_fall_with_the_fourth_root_of_the_counts():
    margins = ldam_margins([16, 1, 81], 0.5)
    np.testing.assert_allclose(margins, [0.25, 0.5, 0.5 / 3])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_value_is_that_of_the_paper(jit_compile):
    loss = LDAM(COUNTS, reduction="none")
    compiled = tf.function(lambda y, f: loss(y, f), jit_compile=jit_compile)
    values = compiled(tf.constant(LABELS), tf.constant(LOGITS, tf.float32))
    np.testing.assert_allclose(values, oracle(LOGITS, LABELS), rtol=1e-5)


def test_gradient_is_that_of_finite_differences():
    logits = tf.Variable(LOGITS, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = LDAM(COUNTS, reduction="sum")(LABELS, logits)
    gradient, step = tape.gradient(value, logits).numpy(), 1e-5
    for index in np.ndindex(LOGITS.shape):
        shift = np.zeros_like(LOGITS)
        shift[index] = step
        ends = (oracle(LOGITS + side * shift, LABELS).sum() for side in (1, -1))
        assert gradient[index] == pytest.approx(np.subtract(*ends) / (2 * step), abs=1e-4)


def test_without_a_margin_it_is_cross_entropy():
    values = LDAM(COUNTS, max_margin=0, reduction="none")(LABELS, LOGITS)
    expected = -log_softmax(LOGITS, axis=1)[range(7), LABELS]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_the_rarest_class_has_the_largest_loss_at_equal_logits():
    values = LDAM(COUNTS, reduction="none")([0, 1, 2, 3], np.zeros((4, 4), np.float32)).numpy()
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_margin": -0.1}, "max_margin must be a finite number >= 0; got -0.1"),
        ({"scale": 0}, "scale must be a finite number > 0; got 0"),
        ({"class_counts": [3, 0]}, "class_counts"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LDAM(**{"class_counts": COUNTS, **arguments})
