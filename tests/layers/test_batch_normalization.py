import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf.layers import BatchNormalization


def make_pair(**kwargs):
    layers = BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
    for layer in layers:
        layer.build((None, 3, 3, 4))
        layer.gamma.assign([0.5, 1.0, 1.5, 2.0])
        layer.beta.assign([-1.0, 0.0, 1.0, 2.0])
    return layers


def make_images(size=8):
    return np.random.default_rng(0).normal(2, 3, (size, 3, 3, 4)).astype(np.float32)


def outputs_and_gradients(layer, images):
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(outputs * tf.cast(tf.range(4), outputs.dtype) ** 2 * outputs)
    return [outputs, *tape.gradient(loss, [images, *layer.trainable_variables])]


def test_training_is_keras_own():
    fused, plain = make_pair(momentum=0.9, epsilon=1e-5)
    actual = outputs_and_gradients(fused, make_images())
    for result, expected in zip(actual, outputs_and_gradients(plain, make_images()), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


def test_moving_variance_is_the_unbiased_one():
    fused, plain = make_pair(momentum=0.9, epsilon=1e-5)
    images = make_images()
    fused(images, training=True), plain(images, training=True)
    np.testing.assert_allclose(fused.moving_mean, 0.1 * images.mean(axis=(0, 1, 2)), rtol=1e-5)
    variance = images.var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(fused.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)
    assert np.abs(fused.moving_variance - plain.moving_variance).max() > 1e-3


def test_inference_and_a_frozen_layer_use_the_moving_statistics():
    fused, plain = make_pair()
    np.testing.assert_array_equal(fused(make_images()), plain(make_images()))
    fused.trainable = False
    np.testing.assert_array_equal(fused(make_images(), training=True), plain(make_images()))
    assert np.all(fused.moving_mean.numpy() == 0)


@pytest.mark.parametrize("arguments", [{"axis": 1}, {"scale": False}, {"center": False}])
def test_what_the_kernel_cannot_do_is_left_to_keras(arguments):
    layers = BatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
    outputs = [layer(make_images(), training=True) for layer in layers]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_are_float32_in_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    layer = BatchNormalization(momentum=0.0)
    images = make_images()
    outputs = layer(images, training=True)
    assert outputs.dtype.name == policy.removeprefix("mixed_")
    half = tf.cast(images, outputs.dtype)
    np.testing.assert_allclose(
        layer.moving_mean, tf.reduce_mean(tf.cast(half, tf.float32), (0, 1, 2)), rtol=1e-4
    )
