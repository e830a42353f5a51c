"""What can be told of a network from its layers, and from the loss that it was compiled with."""

import keras
import tensorflow as tf

from lade_tf.models import expects_logits
from lade_tf.models.outputs import is_one_output

BOUNDED = (
    *("sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign"),
    *("relu", "relu6", "softplus", "exponential"),
)
SOFTMAX_FUNCTIONS = (keras.activations.softmax, keras.ops.softmax, tf.nn.softmax)


def gives_logits(model):
    """True for logits, False for probabilities, None where the layers don't tell.

    Probabilities are those of a softmax, or of a sigmoid where it is the one output.
    """
    last = last_layer(model)
    if isinstance(last, keras.Model):
        return gives_logits(last)
    activation = getattr(last, "activation", None)
    # By its name: that of keras.ops.softmax isn't a layer, and has no public class.
    if type(last).__name__ == "Softmax" or activation in SOFTMAX_FUNCTIONS:
        return False
    if _bounded_activation(model) == "sigmoid" and has_one_output(model):
        return False
    if activation is keras.activations.linear and hasattr(last, "kernel"):
        return True
    return None


def has_one_output(model):
    """Returns whether a network is known to give one number an example."""
    shape = output_shape(model)
    if shape is not None:
        return is_one_output(shape)
    last = last_layer(model)  # of a sequential model that isn't built, say
    return has_one_output(last) if isinstance(last, keras.Model) else getattr(last, "units", 0) == 1


def output_shape(model):
    """Returns the shape of a network's output, None where it isn't known yet, or has parts."""
    shape = getattr(model, "output_shape", None) if model.built else None
    is_shape = isinstance(shape, tuple) and not any(map(keras.tree.is_nested, shape))
    return shape if is_shape else None


def find_out_from_logits(model, from_logits=None):
    """Returns whether a trained classifier gives logits, by its layers and its compiled loss.

    Args:
        model: a keras.Model.
        from_logits: what the user says, or None.

    Raises:
        ValueError: where nothing tells, where layers and loss contradict each other, and for a loss
            that doesn't make the outputs a distribution over the classes.
    """
    loss = getattr(model, "loss", None)
    _check_judges_classes(model, loss)
    if from_logits is not None:
        return from_logits
    by_layers, by_loss = gives_logits(model), expects_logits.from_logits_of("loss", loss)
    if by_layers and by_loss is False and has_one_output(model):
        raise ValueError(
            "model must be compiled with a loss that fits its outputs: its last layer has no "
            "activation, and its loss expects probabilities. If it was trained so, its outputs "
            "mean nothing: train it with a loss of from_logits=True. If it was trained otherwise, "
            "give from_logits=True here"
        )
    found = by_loss if by_layers is None else by_layers
    activation = _bounded_activation(model)
    if found is None and activation == "sigmoid":
        raise ValueError(
            "model must give logits, the probabilities of a softmax, or for two classes those of "
            "one sigmoid; sigmoids of several outputs judge each class by itself. Train its last "
            "layer anew without activation, with a categorical cross-entropy of from_logits=True"
        )
    if found is None:
        raise ValueError(
            "from_logits must be given for this model: whether it gives logits or softmax "
            f"probabilities can't be told from its last layer ({last_layer(model)!r})"
        )
    return found


def _check_judges_classes(model, loss):
    """Raises a ValueError for a compiled loss that can't have trained a classifier of this form."""
    one_output = has_one_output(model)
    if output_shape(model) is None and not one_output:
        return
    for one in keras.tree.flatten(loss):
        if one_output and expects_logits.is_categorical(one):
            raise ValueError(
                "model must be trained with a loss for one output, such as "
                f"keras.losses.BinaryCrossentropy; {expects_logits.name_of(one)} is 0 there, "
                "whatever it answers"
            )
        if not one_output and expects_logits.is_binary(one):
            raise ValueError(
                "model must judge the classes against each other, by a categorical cross-entropy, "
                f"or have one output for two classes; {expects_logits.name_of(one)} judges each of "
                "its outputs by itself"
            )


def check_gives_logits(model):
    """Raises a ValueError for a network of which its layers tell that it gives no logits."""
    if gives_logits(model) is False:
        last = "sigmoid" if _bounded_activation(model) else "softmax"
        raise ValueError(
            f"network must give logits; its last layer is a {last}. Leave the {last} out, or "
            "for a trained model use lade_tf.adapt"
        )
    activation = _bounded_activation(model)
    if activation:
        raise ValueError(
            "network must give logits, of any size and sign; its last layer has the activation "
            f"{activation}: leave it out"
        )


def check_gives_probabilities(model):
    """Raises a ValueError for a network of which its layers tell that it gives no probabilities."""
    if gives_logits(model):
        raise ValueError(
            "from_logits must be True for this network: its last layer has no activation"
        )
    activation, one_output = _bounded_activation(model), has_one_output(model)
    if one_output and gives_logits(model) is False and not activation:
        raise ValueError("network must end in a sigmoid: the softmax of one output is always 1")
    if activation and not (one_output and activation == "sigmoid"):
        raise ValueError(
            f"network must give the probabilities of a {'sigmoid' if one_output else 'softmax'}; "
            f"its last layer has the activation {activation}"
        )


def _bounded_activation(model):
    """Returns the name of the activation that a network ends in, if its values are bounded."""
    last = last_layer(model)
    if isinstance(last, keras.Model):
        return _bounded_activation(last)
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


def has_preprocessor(model):
    """Returns whether a network, a task of KerasHub, prepares its inputs outside its layers."""
    prepares = callable(getattr(model, "preprocess_samples", None))
    return prepares and getattr(model, "preprocessor", None) is not None


def check_preprocessor(model):
    """Raises a ValueError for a preprocessor that a saved model couldn't be loaded with."""
    if has_preprocessor(model) and not isinstance(model.preprocessor, keras.layers.Layer):
        raise ValueError(
            "network.preprocessor must be a Keras layer, or it can't be loaded again; it is "
            f"{model.preprocessor!r}. Make it one, such as keras.layers.Rescaling, or set "
            "network.preprocessor = None and apply it to the data yourself"
        )


def preprocessed(model, inputs):
    """Returns the inputs as the network's layers take them: by its preprocessor, if it has one.

    A task of KerasHub applies it in fit, evaluate and predict, not where it is called.
    """
    if not has_preprocessor(model):
        return inputs

    def first_part(inputs):
        return keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(inputs))[0]

    # Eagerly KerasHub computes by other operations than in a data set or a SavedModel: whole
    # numbers are rounded after resizing, for example. As in a data set it has AutoGraph. Traced
    # anew, for it may have been changed.
    return tf.function(first_part)(inputs)


def raw_input_shape(model):
    """Returns the shape of what a network of one input takes, before any preprocessor.

    Height and width of images are free where the preprocessor resizes them.
    """
    shape = tuple(model.inputs[0].shape)
    if not has_preprocessor(model) or len(shape) != 4:
        return shape
    free = shape[0], None, None, shape[3]
    if keras.config.image_data_format() == "channels_first":
        free = shape[0], shape[1], None, None
    prepare = tf.function(lambda images: preprocessed(model, images))
    given = prepare.get_concrete_function(tf.TensorSpec(free, model.inputs[0].dtype))
    return free if None not in given.structured_outputs.shape[1:] else shape
