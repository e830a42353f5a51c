"""ResNet-50, ResNet-152 and ResNeXt-50 against keras.applications' and PyTorch's arithmetic."""

import keras
import numpy as np
import pytest

from lade_tf.backbones import classifier_head, resnet50, resnet152, resnext50

LIKE_APPLICATIONS = {"stride_in": "1x1", "conv_bias": True}
SIZES = [(64, 64), (45, 70)]


def random_images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def randomise(network):
    """Gives every variable that starts constant random values."""
    rng = np.random.default_rng(1)
    for variable in network.variables:
        if variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            # Less at the end of a residual branch, or the sum over 50 blocks drowns all offsets.
            scale = 0.2 if "_3_bn/gamma" in variable.path else 1.0
            variable.assign(scale * rng.uniform(0.5, 1.5, variable.shape))


def assert_same_features(actual, expected):
    assert actual.shape == expected.shape
    assert expected.std() > 0.01
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def convolutions(backbone):
    return [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]


@pytest.mark.parametrize(
    "build, arguments, trainable, total",
    [
        (resnet50, {}, 25_557_032, 25_610_152),
        (resnet152, {}, 60_192_808, 60_344_232),
        (resnext50, {}, 25_028_904, 25_097_128),
        (resnet152, LIKE_APPLICATIONS, 60_268_520, 60_419_944),
    ],
    ids=["resnet50", "resnet152", "resnext50", "resnet152 as keras.applications"],
)
def test_sizes_with_1000_classes(build, arguments, trainable, total):
    backbone = build((32, 32, 3), **arguments)
    network = keras.Model(backbone.input, classifier_head(backbone.output, 1000))
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == trainable
    assert network.count_params() == total


@pytest.mark.parametrize("input_shape", [(224, 224, 3), (65, 33, 3), (None, None, 1)], ids=str)
@pytest.mark.parametrize("build", [resnet50, resnext50])
def test_features_are_2048_whatever_the_image(build, input_shape):
    backbone = build(input_shape)
    assert backbone.name == build.__name__
    assert backbone.input_shape == (None, *input_shape)
    assert backbone.output_shape == (None, 2048)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resnet50_equals_keras_applications(size):
    assert_equals_applications(resnet50, keras.applications.ResNet50, size)


@pytest.mark.slow
def test_resnet152_equals_keras_applications():
    assert_equals_applications(resnet152, keras.applications.ResNet152, (33, 32))


def assert_equals_applications(build, build_theirs, size):
    theirs = build_theirs(
        include_top=False, weights=None, pooling="avg", input_shape=(None, None, 3)
    )
    randomise(theirs)
    ours = build((*size, 3), **LIKE_APPLICATIONS)
    for layer in theirs.layers:
        if layer.weights:
            ours.get_layer(layer.name).set_weights(layer.get_weights())
    images = random_images(2, *size, 3)
    expected = theirs(images, training=False).numpy()
    assert_same_features(ours(images, training=False).numpy(), expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "build, num_blocks, arguments, groups",
    [
        (resnet50, (3, 4, 6, 3), {}, 1),
        (resnet50, (3, 4, 6, 3), LIKE_APPLICATIONS, 1),
        (resnet152, (3, 8, 36, 3), {}, 1),
        (resnext50, (3, 4, 6, 3), {}, 32),
    ],
    ids=["resnet50", "resnet50 as keras.applications", "resnet152", "resnext50"],
)
def test_equals_pytorch(build, num_blocks, arguments, groups, size):
    torch = pytest.importorskip("torch", reason="needs PyTorch, which lade_tf itself doesn't")
    backbone = build((*size, 3), **arguments)
    randomise(backbone)
    images = random_images(2, *size, 3)
    with torch.no_grad():
        network = TorchResNet(torch, backbone, num_blocks, groups, **arguments)
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert_same_features(backbone(images, training=False).numpy(), expected)


class TorchResNet:
    """The network again in PyTorch, with the weights of a backbone."""

    def __init__(self, torch, backbone, num_blocks, groups, stride_in="3x3", conv_bias=False):
        self.torch = torch
        self.backbone = backbone
        self.num_blocks = num_blocks
        self.groups = groups
        self.stride_in = stride_in
        self.epsilon = 1.001e-5 if conv_bias else 1e-5

    def __call__(self, x):
        x = self.conv_bn(x, "conv1", 3, 64, 7, stride=2, padding=3).relu()
        x = self.torch.nn.MaxPool2d(3, stride=2, padding=1)(x)
        channels = 64
        for stage, (blocks, planes) in enumerate(
            zip(self.num_blocks, (64, 128, 256, 512), strict=True), start=2
        ):
            for block in range(1, blocks + 1):
                stride = 2 if stage > 2 and block == 1 else 1
                x = self.bottleneck(x, f"conv{stage}_block{block}", channels, planes, stride)
                channels = 4 * planes
        return x.mean(dim=(2, 3))

    def bottleneck(self, x, name, channels, planes, stride):
        # Base width 4: 32 groups of planes / 16 channels each.
        width = planes if self.groups == 1 else 32 * planes // 16
        stride1, stride2 = (stride, 1) if self.stride_in == "1x1" else (1, stride)
        y = self.conv_bn(x, f"{name}_1", channels, width, 1, stride1).relu()
        y = self.conv_bn(y, f"{name}_2", width, width, 3, stride2, 1, self.groups).relu()
        y = self.conv_bn(y, f"{name}_3", width, 4 * planes, 1)
        if name.endswith("block1"):
            x = self.conv_bn(x, f"{name}_0", channels, 4 * planes, 1, stride)
        return (x + y).relu()

    def conv_bn(self, x, name, channels, units, size, stride=1, padding=0, groups=1):
        kernel, *bias = self.weights(f"{name}_conv")
        conv = self.torch.nn.Conv2d(
            channels, units, size, stride, padding, groups=groups, bias=bool(bias)
        )
        conv.weight.copy_(kernel.permute(3, 2, 0, 1))
        if bias:
            conv.bias.copy_(bias[0])
        norm = self.torch.nn.BatchNorm2d(units, eps=self.epsilon).eval()
        gamma, beta, mean, variance = self.weights(f"{name}_bn")
        norm.weight.copy_(gamma)
        norm.bias.copy_(beta)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        return norm(conv(x))

    def weights(self, layer):
        return [self.torch.from_numpy(w) for w in self.backbone.get_layer(layer).get_weights()]


@pytest.mark.parametrize("stride_in, strided", [("3x3", 2), ("1x1", 1)])
def test_stride_in_names_the_convolution_with_the_stride(stride_in, strided):
    backbone = resnet50((32, 32, 3), stride_in)
    found = {layer.name for layer in convolutions(backbone) if layer.strides == (2, 2)}
    names = [f"conv{stage}_block1_{i}_conv" for stage in (3, 4, 5) for i in (0, strided)]
    assert found == {"conv1_conv", *names}


@pytest.mark.parametrize("conv_bias, epsilon", [(False, 1e-5), (True, 1.001e-5)])
def test_batch_norm_settings(conv_bias, epsilon):
    backbone = resnet50((32, 32, 3), conv_bias=conv_bias)
    norms = [
        layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == len(convolutions(backbone)) == 53
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, epsilon)}


@pytest.mark.parametrize(
    "build, arguments", [(resnet50, LIKE_APPLICATIONS), (resnext50, {})], ids=["resnet", "resnext"]
)
def test_convolutions_start_untruncated_kaiming_normal(build, arguments):
    kernels = [layer.get_weights() for layer in convolutions(build((32, 32, 3), **arguments))]
    assert len({kernel.tobytes() for kernel, *_ in kernels}) == 53  # no two drawn alike
    for kernel, *bias in kernels:
        scaled = kernel * np.sqrt(kernel.shape[0] * kernel.shape[1] * kernel.shape[3] / 2)
        assert abs(scaled.std() - 1) < 0.05
        assert np.abs(scaled).max() > 3  # a truncated normal ends at 2 / 0.88
        assert not np.any(bias)


@pytest.mark.slow
def test_resnext50_trains_a_step_predicts_and_saves(tmp_path):
    backbone = resnext50((32, 32, 3))
    network = keras.Model(backbone.input, classifier_head(backbone.output, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.01), loss)
    kernel = backbone.get_layer("conv5_block3_2_conv").kernel
    before = kernel.numpy()
    images = random_images(2, 32, 32, 3)
    assert np.isfinite(network.train_on_batch(images, np.array([0, 2])))
    assert (kernel.numpy() != before).mean() > 0.1
    logits = network(images, training=False).numpy()
    np.testing.assert_allclose(network.predict(images, verbose=0), logits, rtol=1e-4, atol=1e-4)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(images, training=False).numpy(), logits)


def test_refuses_bad_arguments():
    for build in (resnet50, resnet152, resnext50):
        with pytest.raises(ValueError, match=r"input_shape must be \(height, width, channels\)"):
            build((224, 224))
    for build in (resnet50, resnet152):
        with pytest.raises(ValueError, match="stride_in must be one of '3x3', '1x1'; got '2x2'"):
            build(stride_in="2x2")
        with pytest.raises(ValueError, match="conv_bias must be one of False, True; got 'no'"):
            build(conv_bias="no")
