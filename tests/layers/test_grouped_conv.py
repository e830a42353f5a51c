import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf.layers import GroupedConv2D, grouped_conv

# A layer with 2 groups trains and predicts; then, whether TensorFlow's kernels did it.
STEP = """
import numpy as np, keras
from lade_tf.layers import grouped_conv
network = keras.Sequential([keras.Input((5, 5, 4)), grouped_conv.GroupedConv2D(4, 3, groups=2)])
network.compile("sgd", "mse")
network.train_on_batch(np.ones((1, 5, 5, 4)), np.ones((1, 3, 3, 4)))
network.predict(np.ones((1, 5, 5, 4)), verbose=0)
print(grouped_conv._has_gradient("float32"))
"""


def oracle(images, kernel, bias, stride, dilation):
    """A grouped convolution without padding, one group after the other."""
    groups = images.shape[-1] // kernel.shape[2]
    reach = dilation * 2 + 1
    rows, columns = (range(0, size - reach + 1, stride) for size in images.shape[1:3])
    outputs = []
    for x, k in zip(np.split(images, groups, -1), np.split(kernel, groups, -1), strict=True):
        patches = [
            [x[:, r : r + reach : dilation, c : c + reach : dilation] for c in columns]
            for r in rows
        ]
        outputs.append(np.einsum("hwnrci,rcio->nhwo", np.array(patches), k))
    return np.concatenate(outputs, axis=-1) + bias


@pytest.mark.parametrize("own_kernels", [True, False])
@pytest.mark.parametrize("stride, dilation, padding", [(1, 1, 1), (2, 1, 0), (1, 2, 0)])
def test_equals_the_oracle(monkeypatch, own_kernels, stride, dilation, padding):
    if not own_kernels:
        monkeypatch.setattr(grouped_conv, "_has_gradient", lambda dtype: False)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 7, 9, 6))
    kernel, bias = rng.normal(size=(3, 3, 2, 12)), rng.normal(size=12)
    layer = GroupedConv2D(
        12,
        3,
        strides=stride,
        dilation_rate=dilation,
        padding="same" if padding else "valid",
        groups=3,
    )
    layer.build(images.shape)
    layer.set_weights([kernel, bias])
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    expected = oracle(padded, kernel, bias, stride, dilation)
    np.testing.assert_allclose(layer(images.astype(np.float32)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_gradients_are_those_of_keras(dtype):
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(2, 6, 6, 8)), dtype)
    gradients = []
    for kind in (GroupedConv2D, keras.layers.Conv2D):
        layer = kind(8, 3, strides=2, groups=4, dtype=dtype)
        layer.build(images.shape)
        layer.set_weights([np.random.default_rng(1).normal(size=(3, 3, 2, 8)), np.zeros(8)])
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.sin(layer(images)))
        gradients.append(tape.gradient(loss, [images, layer.kernel.value]))
    tolerance = {"bfloat16": 0.1, "float16": 0.02}.get(dtype, 1e-5)
    for actual, expected in zip(*gradients, strict=True):
        actual, expected = (np.asarray(tf.cast(x, "float64")) for x in (actual, expected))
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("onednn", ["1", "0"])
def test_trains_with_and_without_onednn(onednn):
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn}
    result = subprocess.run(
        [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    if platform.machine() == "x86_64" and not tf.config.list_physical_devices("GPU"):
        assert result.stdout.split() == [str(onednn == "1")]


def test_trains_on_replicas(two_replicas):
    with two_replicas.scope():
        network = keras.Sequential([keras.Input((5, 5, 4)), GroupedConv2D(4, 3, groups=2)])
        network.compile("sgd", "mse")
    before = network.get_weights()[0]
    grouped_conv._has_gradient.cache_clear()
    images, targets = np.ones((4, 5, 5, 4)), np.ones((4, 3, 3, 4))
    network.fit(images, targets, batch_size=4, verbose=0)
    assert np.all(network.get_weights()[0] != before)


def test_saves_and_loads(tmp_path):
    network = keras.Sequential([keras.Input((5, 5, 4)), GroupedConv2D(4, 3, groups=2)])
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert type(loaded.layers[0]) is GroupedConv2D
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 4))
    np.testing.assert_array_equal(loaded(images), network(images))
