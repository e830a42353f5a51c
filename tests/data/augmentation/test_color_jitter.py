import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from lade_tf.data.augmentation.color_jitter import ORDERS, color_jitter, draw_jitter

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def make_image(seed=0):
    """[columns, 3, rows], with black, white and strong colours, so that every step clips."""
    return np.random.default_rng(seed).choice([0.0, 40.0, 128.0, 210.0, 255.0], (8, 3, 8))


def oracle(image, factors, order):
    def grey(image):
        return 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]

    for name in order:
        if name == "brightness":
            image = factors[0] * image
        elif name == "contrast":
            image = factors[1] * image + (1 - factors[1]) * grey(image).mean()
        else:
            image = factors[2] * image + (1 - factors[2]) * grey(image)
        image = np.clip(image, 0, 255)
    return image


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("factors", [(0.6, 1.4, 1.4), (1.4, 0.6, 0.7), (1.3, 1.3, 0.0)])
def test_every_order_matches_the_oracle(order, factors):
    image = make_image()
    expected = oracle(image, factors, ORDERS[order])
    jittered = color_jitter(
        tf.constant(image, tf.float32), tf.constant(factors), tf.constant(order)
    )
    np.testing.assert_allclose(jittered, expected, atol=1e-3)


def test_orders_are_all_there_and_differ():
    assert len(set(ORDERS)) == 6 and all(len(set(order)) == 3 for order in ORDERS)
    image = make_image()
    results = [oracle(image, (1.4, 0.6, 1.4), order) for order in ORDERS]
    assert min(np.abs(a - b).max() for i, a in enumerate(results) for b in results[:i]) > 1


@pytest.mark.parametrize("order", range(6))
def test_close_to_pillow_which_drops_fractions(order):
    factors = (1.3, 0.8, 1.2)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(pixels)
    for name in ORDERS[order]:
        factor = factors[("brightness", "contrast", "saturation").index(name)]
        image = ENHANCERS[name](image).enhance(factor)
    columns_first = tf.constant(pixels.transpose(1, 2, 0), tf.float32)
    jittered = (
        color_jitter(columns_first, tf.constant(factors), tf.constant(order))
        .numpy()
        .transpose(2, 0, 1)
    )
    np.testing.assert_allclose(jittered, np.asarray(image, float), atol=4)


def test_factors_of_one_change_nothing():
    image = tf.constant(make_image(), tf.float32)
    np.testing.assert_allclose(color_jitter(image, tf.ones([3]), tf.constant(4)), image, atol=1e-4)


def test_draws():
    factors, orders = (draw.numpy() for draw in draw_jitter(6000, [1, 2], 0.4))
    assert factors.shape == (6000, 3) and orders.shape == (6000,)
    assert 0.6 <= factors.min() < 0.601 and 1.399 < factors.max() <= 1.4
    np.testing.assert_allclose(
        np.quantile(factors, [0.25, 0.5, 0.75], axis=0)[:, 1], [0.8, 1, 1.2], atol=0.02
    )
    assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.05
    assert (np.abs(np.bincount(orders, minlength=6) - 1000) < 120).all()
