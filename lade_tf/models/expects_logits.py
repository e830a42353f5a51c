"""What is compiled into a model of logits must expect them: else it would be silently wrong."""

import functools
import inspect

import keras

from lade_tf.metrics.streaming import PredictedClassMetric

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


def check(name, given):
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
