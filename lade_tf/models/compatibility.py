"""What a network gives and what a loss or metric expects, logits or probabilities: they must fit.

Otherwise training, or a metric, would be silently wrong.
"""

import functools
import inspect

import keras
import tensorflow as tf

from lade_tf import losses
from lade_tf.layers.prior_adapt import PriorAdaptLayer
from lade_tf.metrics.streaming import PredictedClassMetric
from lade_tf.models.outputs import check_output_shape, is_one_output
from lade_tf.models.preprocessing import check_preprocessor

BOUNDED = (
    *("sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign"),
    *("relu", "relu6", "softplus", "exponential"),
)
SOFTMAX_FUNCTIONS = (keras.activations.softmax, keras.ops.softmax, tf.nn.softmax)
BINARY = (
    *(keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy),
    *(keras.losses.binary_crossentropy, keras.losses.binary_focal_crossentropy),
)
# Of one output: its probability, or its log odds where they have `from_logits`.
BINARY_METRICS = (
    *(keras.metrics.AUC, keras.metrics.BinaryAccuracy, keras.metrics.BinaryCrossentropy),
    *(keras.metrics.Precision, keras.metrics.PrecisionAtRecall, keras.metrics.FBetaScore),
    *(keras.metrics.Recall, keras.metrics.RecallAtPrecision, keras.metrics.BinaryIoU),
    *(keras.metrics.SensitivityAtSpecificity, keras.metrics.SpecificityAtSensitivity),
    *(keras.metrics.TruePositives, keras.metrics.TrueNegatives),
    *(keras.metrics.FalsePositives, keras.metrics.FalseNegatives),
    *(keras.metrics.binary_accuracy, keras.metrics.binary_crossentropy),
)
CATEGORICAL = (
    *(keras.losses.CategoricalCrossentropy, keras.losses.CategoricalFocalCrossentropy),
    *(keras.losses.SparseCategoricalCrossentropy, keras.losses.categorical_crossentropy),
    *(keras.losses.categorical_focal_crossentropy, keras.losses.sparse_categorical_crossentropy),
)

# What they learn of a class's logit isn't its difference to others.
PER_CLASS_LOSSES = losses.LADE | losses.ClassBalancedFocal


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
    by_layers, by_loss = gives_logits(model), from_logits_of("loss", loss)
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
    if found is None and activation:
        raise ValueError(
            "model must give logits, the probabilities of a softmax, or for two classes those of "
            f"one sigmoid; its last layer has the activation {activation}, which gives none. Train "
            "it anew without, with a cross-entropy of from_logits=True"
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
        if one_output and is_categorical(one):
            raise ValueError(
                "model must be trained with a loss for one output, such as "
                f"keras.losses.BinaryCrossentropy; {name_of(one)} is 0 there, "
                "whatever it answers"
            )
        if not one_output and is_binary(one):
            raise ValueError(
                "model must judge the classes against each other, by a categorical cross-entropy, "
                f"or have one output for two classes; {name_of(one)} judges each of "
                "its outputs by itself"
            )


def check_network(network, num_classes, from_logits, one_output_refused):
    """Raises a ValueError for a network that an `AdaptedModel` can't have: arguments as there."""
    if not isinstance(network, keras.Model):
        raise ValueError(f"network must be a keras.Model that gives logits; got {network!r}")
    if any(isinstance(layer, PriorAdaptLayer) for layer in network._flatten_layers()):
        raise ValueError(
            "network must be a plain classifier; this one has a target prior already: set that"
        )
    shape = (None, 1) if has_one_output(network) else output_shape(network)
    if shape is not None:
        check_output_shape(shape, num_classes, one_output_refused)
    (check_gives_logits if from_logits else check_gives_probabilities)(network)
    check_preprocessor(network)


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


def check_expects_logits(name, given):
    """Raises a ValueError for a loss or metric, or any in a structure, that expects probabilities.

    Args:
        name: "loss" or "metrics", for the message.
        given: what Keras' `compile` takes as such.
    """
    for one in keras.tree.flatten(given):
        if _from_logits(name, one) is False:
            raise ValueError(
                f"{name} must expect logits, which is what is given here, for example "
                f"keras.{'losses' if name == 'loss' else 'metrics'}"
                f".SparseCategoricalCrossentropy(from_logits=True); got {one!r}"
            )


def from_logits_of(name, given):
    """Returns Keras' `from_logits` of a loss or metric, or of a structure of them.

    None where none has it, or not all that have it agree.
    """
    found = {_from_logits(name, one) for one in keras.tree.flatten(given)} - {None}
    return found.pop() if len(found) == 1 else None


def _from_logits(name, one):
    """Returns Keras' `from_logits` of a loss or metric, None for what hasn't it."""
    if isinstance(one, str):
        if one.lower() == "ce" or "crossentropy" in one.lower():
            return False
        try:
            one = (keras.losses if name == "loss" else keras.metrics).get(one)
        except ValueError:
            return None  # "accuracy", or no name: Keras says so itself
    if isinstance(one, PredictedClassMetric):
        return None  # it takes both
    if isinstance(one, keras.losses.Loss | keras.metrics.Metric):
        return one.get_config().get("from_logits")
    parameter = inspect.signature(one).parameters.get("from_logits") if callable(one) else None
    return parameter.default if parameter and isinstance(parameter.default, bool) else None


def check_takes_two_logits(metrics):
    """Raises a ValueError for a metric, or any in a structure, that takes one output.

    Keras would broadcast two logits with labels [batch, 1], and show a number.
    """
    for one in keras.tree.flatten(metrics):
        if _is_one_of(one, BINARY_METRICS, keras.metrics.get):
            raise ValueError(
                "metrics must take the logits of both classes, which is what is given here, for "
                f'example "accuracy"; {name_of(one)} takes one output: update it with labels and '
                "keras.ops.softmax(model.predict(inputs))[:, 1]"
            )


def check_fits_outputs(loss, network, num_classes):
    """Returns whether a loss is for one output; raises a ValueError where that can't be."""
    every = keras.tree.flatten(loss)
    names = ", ".join(map(name_of, every))
    kinds = list(map(is_binary, every))
    if any(kinds) and num_classes != 2:
        raise ValueError(
            "loss must judge the classes against each other, for example "
            f"keras.losses.SparseCategoricalCrossentropy(from_logits=True); got {names}, which "
            "judges one output of two classes"
        )
    if any(kinds) and not all(kinds):
        raise ValueError(f"loss must take one output, or two logits, throughout; got {names}")
    for one in every:
        if has_one_output(network) and isinstance(one, PER_CLASS_LOSSES):
            raise ValueError(
                f"loss must compare logits, for the network has one output; {one.name} needs "
                "one of each class: lade_tf.losses.BalancedSoftmax also frees the logits of "
                "the training prior"
            )
    return any(kinds)


def is_binary(loss):
    """Returns whether a loss is a cross-entropy of Keras that judges each output by itself."""
    return _is_one_of(loss, BINARY, keras.losses.get)


def is_categorical(loss):
    """Returns whether a loss is a cross-entropy of Keras over the outputs of a softmax."""
    return _is_one_of(loss, CATEGORICAL, keras.losses.get)


def name_of(loss):
    """Returns the name of a loss or metric, a string, for messages."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", None)
    return name or getattr(loss, "__name__", repr(loss))


def _is_one_of(given, kinds, get):
    if isinstance(given, str):
        try:
            given = get(given)
        except ValueError:
            return False
    while isinstance(given, functools.partial):
        given = given.func
    function = getattr(given, "fn", given)  # Keras wraps it in a loss
    classes = tuple(kind for kind in kinds if inspect.isclass(kind))
    return function in kinds or given in kinds or isinstance(given, classes)
