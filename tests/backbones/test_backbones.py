import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from lade_tf.backbones import classifier_head, resnet32, small_cnn
from lade_tf.backbones.resnet32 import conv_bn
from lade_tf.optimizers import SGD, WarmupStepDecay


@pytest.fixture
def policy(request):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(previous)


def with_head(backbone, num_classes):
    return keras.Model(backbone.input, classifier_head(backbone.output, num_classes))


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def random_images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def randomise_batch_norm(network):
    rng = np.random.default_rng(1)
    for variable in network.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, variable.shape))


def test_resnet32_sizes():
    backbone = resnet32()
    assert backbone.output.shape == (None, 128)
    assert count(backbone.trainable_variables) == 537_488
    assert count(backbone.non_trainable_variables) == 2_528
    assert count(with_head(backbone, 100).trainable_variables) == 550_388


# The whole network again, in float64 NumPy.


def conv3x3(images, kernel, stride):
    """A 3x3 convolution whose kernel is centred on pixels 0, stride, 2 * stride, ..."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    rows, columns = range(0, height, stride), range(0, width, stride)
    patches = [[padded[:, r : r + 3, c : c + 3] for c in columns] for r in rows]
    return np.einsum("hwnrci,rcio->nhwo", np.array(patches), kernel, optimize=True)


def oracle_conv_bn(values, x, name, stride=1):
    y = conv3x3(x, values[f"{name}_conv/kernel"], stride)
    mean, variance, gamma, beta = (
        values[f"{name}_bn/{key}"] for key in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    return (y - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def oracle_block(values, x, name, channels, stride):
    y = np.maximum(oracle_conv_bn(values, x, f"{name}_1", stride), 0)
    y = oracle_conv_bn(values, y, f"{name}_2")
    extra = (channels - x.shape[-1]) // 2
    shortcut = np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (extra, extra)))
    return np.maximum(y + shortcut, 0)


def oracle_resnet32(values, images):
    x = np.maximum(oracle_conv_bn(values, images, "stem"), 0)
    for stage, channels, num_blocks in ((1, 16, 5), (2, 32, 5), (3, 64, 4)):
        for block in range(1, num_blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = oracle_block(values, x, f"stage{stage}_block{block}", channels, stride)
    branches = [oracle_block(values, x, name, 64, 1) for name in ("branch1", "branch2")]
    return np.concatenate(branches, axis=-1).mean(axis=(1, 2))


@pytest.mark.parametrize("size", [16, 13])
def test_resnet32_equals_the_numpy_network(size):
    backbone = resnet32((size, size, 3))
    randomise_batch_norm(backbone)
    values = {v.path: v.numpy().astype(np.float64) for v in backbone.variables}
    images = random_images(2, size, size, 3)
    expected = oracle_resnet32(values, images.astype(np.float64))
    actual = backbone(images, training=False).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [8, 7])
def test_stride_two_is_centred_on_even_pixels(size):
    images = keras.Input((size, size, 1))
    network = keras.Model(images, conv_bn(images, 1, stride=2, name="down"))
    centre_only = np.zeros((3, 3, 1, 1))
    centre_only[1, 1] = np.sqrt(1 + 1e-5)  # undoes the fresh batch norm's division
    network.get_layer("down_conv").set_weights([centre_only])
    pixels = random_images(2, size, size, 1)
    actual = network(pixels, training=False).numpy()
    np.testing.assert_allclose(actual, pixels[:, ::2, ::2], rtol=1e-6)


def test_convolutions_start_untruncated_kaiming_normal():
    backbone = resnet32()
    kernels = [v.numpy() for v in backbone.trainable_variables if v.name == "kernel"]
    scaled = [k * np.sqrt(k.shape[0] * k.shape[1] * k.shape[2] / 2) for k in kernels]
    everything = np.concatenate([k.ravel() for k in scaled])
    assert len(kernels) == 33  # the stem, 14 + 2 blocks of two
    assert abs(everything.std() - 1) < 0.01
    assert np.abs(everything).max() > 3.5  # a truncated normal ends at 2 / 0.88
    assert len({k.tobytes() for k in kernels}) == len(kernels)  # no two drawn alike


def test_batch_norm_settings():
    norms = [
        layer for layer in resnet32().layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize(
    "build, shape", [(resnet32, (32, 32, 3)), (small_cnn, (8, 8, 1))], ids=["resnet32", "small_cnn"]
)
def test_save_and_load_gives_equal_logits(tmp_path, policy, build, shape):
    network = with_head(build(), 10)
    randomise_batch_norm(network)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    images = random_images(4, *shape)
    logits = network(images, training=False).numpy()
    assert logits.dtype == np.float32
    assert logits.std() > 0
    np.testing.assert_array_equal(loaded(images, training=False).numpy(), logits)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"], indirect=True)
def test_features_have_the_compute_dtype_and_weights_float32(policy):
    backbone = resnet32()
    compute_dtype = "float32" if policy == "float32" else "bfloat16"
    assert backbone.output.dtype == compute_dtype
    assert {v.dtype for v in backbone.variables} == {"float32"}


def test_head_starts_uniform_within_one_over_root_fan_in():
    features = keras.Input((64,))
    head = keras.Model(features, classifier_head(features, 1000)).get_layer("logits")
    kernel, bias = head.get_weights()
    for values in (kernel, bias):
        assert np.abs(values).max() <= 1 / 8
        assert np.abs(values).max() > 0.98 / 8
        assert abs(values.std() * 8 * np.sqrt(3) - 1) < 0.05  # a uniform's standard deviation
    assert not np.allclose(kernel.ravel()[: bias.size], bias)


def test_small_cnn_learns_digits():
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    # In stored order the last images come from other writers, which is another, harder question.
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images[order].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    labels = labels[order]
    network = with_head(small_cnn(), 10)
    assert network.get_layer("features").output.shape == (None, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = WarmupStepDecay(0.1, 19, milestones=(4,), factor=0.1, warmup_epochs=2)
    network.compile(SGD(schedule, l2=5e-4), loss, metrics=["accuracy"])
    network.fit(images[:1200], labels[:1200], batch_size=64, epochs=5, verbose=0)
    _, accuracy = network.evaluate(images[1200:], labels[1200:], verbose=0)
    assert accuracy >= 0.95


@pytest.mark.parametrize("build", [resnet32, small_cnn])
@pytest.mark.parametrize("input_shape", [(32, 32), 32])
def test_backbones_refuse_a_bad_input_shape(build, input_shape):
    with pytest.raises(ValueError, match=r"input_shape must be \(height, width, channels\)"):
        build(input_shape)


def test_head_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"features must be \[batch, d\]"):
        classifier_head(keras.Input((8, 8, 64)), 10)
    with pytest.raises(ValueError, match="num_classes must be an integer >= 1; got 0"):
        classifier_head(keras.Input((64,)), 0)


def test_a_head_can_start_with_equal_biases():
    features = keras.Input((8,))
    model = keras.Model(features, classifier_head(features, 100, initial_bias=-np.log(99)))
    kernel, bias = model.get_weights()
    probabilities = 1 / (1 + np.exp(-bias))
    np.testing.assert_allclose(probabilities, np.full(100, 0.01), rtol=1e-5)
    assert kernel.std() > 0
