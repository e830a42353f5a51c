"""ResNet-32 for 32x32 images, the variant of BBN (Zhou et al., CVPR 2020)."""

import keras
from keras import layers

from lade_tf.layers import BatchNormalization

STAGES = ((16, 5), (32, 5), (64, 4))  # (channels, basic blocks)


def resnet32(input_shape=(32, 32, 3), name="resnet32"):
    """Builds the BBN variant of ResNet-32 without a classifier.

    A 3x3 stem, stages of 5, 5 and 4 basic blocks with 16, 32 and 64 channels, then two parallel
    64-channel blocks on the same input, concatenated and average-pooled. Shortcuts have no
    parameters (option A of He et al., CVPR 2016). 537,488 trainable parameters for 3 channels.

    Source: the CIFAR-100-LT network of the released LADE code.

    Args:
        input_shape: (height, width, channels).
        name: the model's name.

    Returns:
        A `keras.Model` from images [batch, height, width, channels] to features [batch, 128].

    Raises:
        ValueError: if input_shape does not have three entries.
    """
    images = image_input(input_shape)
    x = layers.ReLU(name="stem_relu")(conv_bn(images, 16, name="stem"))
    for stage, (channels, num_blocks) in enumerate(STAGES, start=1):
        for block in range(1, num_blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, channels, stride, name=f"stage{stage}_block{block}")
    branches = [_basic_block(x, 64, 1, name=f"branch{branch}") for branch in (1, 2)]
    x = layers.Concatenate(name="concatenate")(branches)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name=name)


def image_input(input_shape):
    """Returns the Keras input for images of one shape, (height, width, channels)."""
    if not isinstance(input_shape, (list, tuple)) or len(input_shape) != 3:
        raise ValueError(f"input_shape must be (height, width, channels); got {input_shape!r}")
    return keras.Input(input_shape, name="images")


def conv_bn(x, channels, stride=1, *, name):
    """Applies a 3x3 convolution without bias and batch normalisation, as the recipes set them.

    Kernels start as untruncated Kaiming normal (fan-in). With stride 2 the kernel is centred on
    pixels 0, 2, 4, ...

    Args:
        x: a tensor [batch, height, width, any].
        channels: output channels.
        stride: 1 or 2.
        name: prefix of the layers' names.

    Returns:
        A tensor [batch, ceil(height / stride), ceil(width / stride), channels].
    """
    if stride > 1:
        # "same" would pad an even-sized input at the bottom and right only: another grid.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        channels,
        3,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal"),
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _basic_block(x, channels, stride, name):
    y = layers.ReLU(name=f"{name}_relu1")(conv_bn(x, channels, stride, name=f"{name}_1"))
    y = conv_bn(y, channels, name=f"{name}_2")
    y = layers.Add(name=f"{name}_add")([y, _shortcut(x, channels, stride)])
    return layers.ReLU(name=f"{name}_relu2")(y)


def _shortcut(x, channels, stride):
    if stride == 1:
        return x
    x = x[:, ::stride, ::stride]
    padding = (channels - x.shape[-1]) // 2
    return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [padding, padding]])
