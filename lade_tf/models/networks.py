"""What can be told of a network from its layers."""

import keras


def gives_logits(model):
    """True for logits, False for softmax probabilities, None where the layers don't tell."""
    last = last_layer(model)
    if isinstance(last, keras.Model):
        return gives_logits(last)
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax:
        return False
    # A bare linear Activation may follow anything, as in the mixed-precision idiom.
    if activation is keras.activations.linear and hasattr(last, "kernel"):
        return True
    return None


def last_layer(model):
    """Returns the layer that a sequential or functional model ends in, None for others."""
    if isinstance(model, keras.Sequential):
        return model.layers[-1] if model.layers else None
    # Only functional models know their operations.
    return getattr(model, "operations", [None])[-1]


def check_output_shape(shape, num_classes):
    """Raises a ValueError unless a network of this output shape gives [batch, num_classes]."""
    if len(shape) != 2 or shape[-1] != num_classes:
        raise ValueError(
            f"network must give [batch, {num_classes}] logits, one column for each entry of "
            f"class_counts; its output shape is {shape}"
        )
