"""A small convolutional network for small grey images such as scikit-learn's digits."""

import keras
from keras import layers

from lade_tf.backbones.resnet32 import conv_bn, image_input
from lade_tf.checks import check_choice


def small_cnn(input_shape=(8, 8, 1), name="small_cnn", branches=1):
    """Builds three 3x3 convolutions with batch normalisation and average pooling.

    Trains on 8x8 digits in seconds on a CPU.

    Args:
        input_shape: (height, width, channels).
        name: the model's name.
        branches: 1, or 2 for two parallel third convolutions, concatenated (for BBN).

    Returns:
        A `keras.Model` from images [batch, height, width, channels] to features [batch, 64], with
        two branches [batch, 128].

    Raises:
        ValueError: if input_shape does not have three entries, or branches isn't 1 or 2.
    """
    check_choice(branches, (1, 2), "branches")
    images = image_input(input_shape)
    x = layers.ReLU(name="relu1")(conv_bn(images, 32, name="block1"))
    x = layers.ReLU(name="relu2")(conv_bn(x, 64, stride=2, name="block2"))
    if branches == 1:
        x = layers.ReLU(name="relu3")(conv_bn(x, 64, name="block3"))
    else:
        parallel = [conv_bn(x, 64, name=name) for name in ("branch1", "branch2")]
        parallel = [layers.ReLU()(branch) for branch in parallel]
        x = layers.Concatenate(name="concatenate")(parallel)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name=name)
