"""A small convolutional network for small grey images such as scikit-learn's digits."""

import keras
from keras import layers

from lade_tf.backbones.resnet32 import conv_bn, image_input


def small_cnn(input_shape=(8, 8, 1), name="small_cnn"):
    """Builds three 3x3 convolutions with batch normalisation and average pooling.

    Trains on 8x8 digits in seconds on a CPU.

    Args:
        input_shape: (height, width, channels).
        name: the model's name.

    Returns:
        A `keras.Model` from images [batch, height, width, channels] to features [batch, 64].

    Raises:
        ValueError: if input_shape does not have three entries.
    """
    images = image_input(input_shape)
    x = layers.ReLU(name="relu1")(conv_bn(images, 32, name="block1"))
    x = layers.ReLU(name="relu2")(conv_bn(x, 64, stride=2, name="block2"))
    x = layers.ReLU(name="relu3")(conv_bn(x, 64, name="block3"))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name=name)
