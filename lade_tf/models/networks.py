"""What can be told of a network from its layers."""

import keras
import tensorflow as tf

BOUNDED = (
    *("sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign"),
    *("relu", "relu6", "softplus", "exponential"),
)
SOFTMAX_FUNCTIONS = (keras.activations.softmax, keras.ops.softmax, tf.nn.softmax)


def gives_logits(model):
    """True for logits, False for softmax probabilities, None where the layers don't tell."""
    last = last_layer(model)
    if isinstance(last, keras.Model):
        return gives_logits(last)
    activation = getattr(last, "activation", None)
    # By its name: that of keras.ops.softmax isn't a layer, and has no public class.
    if type(last).__name__ == "Softmax" or activation in SOFTMAX_FUNCTIONS:
        return False
    if activation is keras.activations.linear and hasattr(last, "kernel"):
        return True
    return None


def check_gives_logits(model):
    """Raises a ValueError for a network of which its layers tell that it gives no logits."""
    if gives_logits(model) is False:
        raise ValueError(
            "network must give logits; its last layer is a softmax. Leave the softmax out, or "
            "for a trained model use lade_tf.adapt"
        )
    activation = _bounded_activation(model)
    if activation:
        raise ValueError(
            "network must give logits, of any size and sign; its last layer has the activation "
            f"{activation}: leave it out"
        )


def check_gives_probabilities(model):
    """Raises a ValueError for a network of which its layers tell that it gives no softmax."""
    if gives_logits(model):
        raise ValueError(
            "from_logits must be True for this network: its last layer has no activation"
        )
    activation = _bounded_activation(model)
    if activation:
        raise ValueError(
            "network must give the probabilities of a softmax; its last layer has the activation "
            f"{activation}"
        )


def _bounded_activation(model):
    """Returns the name of the activation that a network ends in, if its values are bounded."""
    last = last_layer(model)
    # An operation of keras.ops has the name of its class alone.
    names = getattr(getattr(last, "activation", None), "__name__", ""), type(last).__name__.lower()
    return next((name for name in names if name in BOUNDED), None)


def last_layer(model):
    """Returns the layer that a sequential or functional model ends in, None for others.

    A bare linear Activation, the cast of the mixed-precision idiom, is looked through.
    """
    # Only sequential and functional models know their operations, and in which order.
    is_sequential = isinstance(model, keras.Sequential)
    operations = model.layers if is_sequential else getattr(model, "operations", [])
    operations = [operation for operation in operations if not _is_identity(operation)]
    return operations[-1] if operations else None


def _is_identity(operation):
    is_activation = isinstance(operation, keras.layers.Activation)
    return is_activation and operation.activation is keras.activations.linear


def check_output_shape(shape, num_classes):
    """Raises a ValueError unless a network of this output shape gives [batch, num_classes]."""
    if len(shape) != 2 or shape[-1] != num_classes:
        raise ValueError(
            f"network must give [batch, {num_classes}] logits, one column for each entry of "
            f"class_counts; its output shape is {shape}"
        )
