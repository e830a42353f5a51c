"""ResNet-50, ResNet-152 and ResNeXt-50 (32x4d) for photographs."""

import keras
from keras import layers

from lade_tf.backbones.resnet32 import image_input
from lade_tf.checks import check_choice
from lade_tf.layers import BatchNormalization, GroupedConv2D

EXPANSION = 4  # a block's output channels per channel of its stage


def resnet50(input_shape=(224, 224, 3), stride_in="3x3", conv_bias=False, name="resnet50"):
    """Builds ResNet-50 without a classifier: 23.5 million trainable parameters.

    By default it is the network of the reference recipes (PyTorch). With stride_in="1x1" and
    conv_bias=True it computes what keras.applications' ResNet50 does, whose layers have the same
    names, so that weights can be copied by name.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; strides in the
    3x3 after Goyal et al., "Accurate, Large Minibatch SGD", 2017.

    Args:
        input_shape: (height, width, channels); any size, also odd or None.
        stride_in: "3x3" or "1x1", the convolution of a block that has the stride.
        conv_bias: whether convolutions have biases (which batch normalisation cancels) and batch
            norm's epsilon is 1.001e-5 instead of 1e-5.
        name: the model's name.

    Returns:
        A `keras.Model` from images [batch, height, width, channels] to features [batch, 2048].

    Raises:
        ValueError: if input_shape does not have three entries, or for another stride_in or
            conv_bias.
    """
    return _resnet((3, 4, 6, 3), input_shape, stride_in, conv_bias, name=name)


def resnet152(input_shape=(224, 224, 3), stride_in="3x3", conv_bias=False, name="resnet152"):
    """Builds ResNet-152 without a classifier: 58.1 million trainable parameters.

    Arguments, result, errors and sources are those of `resnet50`.
    """
    return _resnet((3, 8, 36, 3), input_shape, stride_in, conv_bias, name=name)


def resnext50(input_shape=(224, 224, 3), name="resnext50"):
    """Builds ResNeXt-50 (32x4d) without a classifier: 23.0 million trainable parameters.

    ResNet-50 whose 3x3 convolutions are twice as wide, in 32 groups, with strides in the 3x3 and
    no biases.

    Source: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.

    Args:
        input_shape: (height, width, channels); any size, also odd or None.
        name: the model's name.

    Returns:
        A `keras.Model` from images [batch, height, width, channels] to features [batch, 2048].

    Raises:
        ValueError: if input_shape does not have three entries.
    """
    return _resnet((3, 4, 6, 3), input_shape, width_factor=2, groups=32, name=name)


def _resnet(
    num_blocks, input_shape, stride_in="3x3", conv_bias=False, width_factor=1, groups=1, *, name
):
    check_choice(stride_in, ("3x3", "1x1"), "stride_in")
    check_choice(conv_bias, (False, True), "conv_bias")
    images = image_input(input_shape)
    x = _conv_bn(images, 64, 7, 2, bias=conv_bias, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    # Padding with zeros is padding with -inf here, because nothing is negative after a ReLU.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    # The stages are called conv2 to conv5, as in the paper.
    for stage, stage_blocks in enumerate(num_blocks, start=2):
        channels = 64 * 2 ** (stage - 2)
        for block in range(1, stage_blocks + 1):
            x = _bottleneck(
                x,
                channels * width_factor,
                channels * EXPANSION,
                stride=2 if stage > 2 and block == 1 else 1,
                stride_in=stride_in,
                groups=groups,
                bias=conv_bias,
                name=f"conv{stage}_block{block}",
            )
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name=name)


def _bottleneck(x, width, channels, stride, stride_in, groups, bias, name):
    """Applies 1x1, 3x3 and 1x1 convolutions beside a shortcut, projected where sizes change."""
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = _conv_bn(x, channels, 1, stride, bias=bias, name=f"{name}_0")
    stride1, stride2 = (stride, 1) if stride_in == "1x1" else (1, stride)
    y = _conv_bn(x, width, 1, stride1, bias=bias, name=f"{name}_1")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = _conv_bn(y, width, 3, stride2, groups=groups, bias=bias, name=f"{name}_2")
    y = layers.ReLU(name=f"{name}_2_relu")(y)
    y = _conv_bn(y, channels, 1, bias=bias, name=f"{name}_3")
    y = layers.Add(name=f"{name}_add")([y, shortcut])
    return layers.ReLU(name=f"{name}_out")(y)


def _conv_bn(x, channels, size, stride=1, groups=1, *, bias, name):
    """Applies a convolution centred on pixels 0, stride, ... and batch normalisation.

    Kernels start as untruncated Kaiming normal (fan-out), biases as zeros.
    """
    if stride > 1 and size > 1:
        # "same" would pad an even-sized input at the bottom and right only: another grid.
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    layer = layers.Conv2D if groups == 1 else GroupedConv2D
    x = layer(
        channels,
        size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        groups=groups,
        use_bias=bias,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=f"{name}_conv",
    )(x)
    epsilon = 1.001e-5 if bias else 1e-5
    return BatchNormalization(momentum=0.9, epsilon=epsilon, name=f"{name}_bn")(x)
