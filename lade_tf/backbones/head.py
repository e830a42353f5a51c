"""The linear classifier on top of a backbone's features."""

import math

import keras

from lade_tf.checks import check_integer


def classifier_head(features, num_classes, name="logits", initial_bias=None):
    """Applies a linear layer whose kernel and bias start as U(-1/sqrt(d), 1/sqrt(d)).

    The layer computes in float32 under any dtype policy, because half-precision logits are too
    coarse for prior arithmetic. Source: the released LADE code (PyTorch's default linear layer).

    Args:
        features: a tensor [batch, d], e.g. the output of a backbone.
        num_classes: an integer >= 1.
        name: the layer's name.
        initial_bias: a number that all biases start at instead. Losses on sigmoids want
            -log(num_classes - 1), the logit of 1 / num_classes: otherwise their first steps do
            nothing but push all classes down.

    Returns:
        Float32 logits [batch, num_classes].

    Raises:
        ValueError: if features is not [batch, d] with a known d, or num_classes no integer >= 1.
    """
    if len(features.shape) != 2 or features.shape[1] is None:
        raise ValueError(f"features must be [batch, d] with a known d; got shape {features.shape}")
    check_integer(num_classes, "num_classes", minimum=1)
    limit = 1 / math.sqrt(features.shape[1])
    # Two initializers: one shared instance would draw the bias from the kernel's random numbers.
    bias_initializer = keras.initializers.RandomUniform(-limit, limit)
    if initial_bias is not None:
        bias_initializer = keras.initializers.Constant(initial_bias)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        bias_initializer=bias_initializer,
        dtype="float32",
        name=name,
    )(features)
