"""What is compiled into a model of logits must expect them: else it would be silently wrong."""

import inspect

import keras

from lade_tf.metrics.streaming import PredictedClassMetric


def check(name, given):
    """Raises a ValueError for a loss or metric, or any in a structure, that expects probabilities.

    Args:
        name: "loss" or "metrics", for the message.
        given: what Keras' `compile` takes as such.
    """
    for one in keras.tree.flatten(given):
        if not _expects_logits(name, one):
            raise ValueError(
                f"{name} must expect logits, which is what is given here, for example "
                f"keras.{'losses' if name == 'loss' else 'metrics'}"
                f".SparseCategoricalCrossentropy(from_logits=True); got {one!r}"
            )


def _expects_logits(name, one):
    """Returns whether a loss or metric takes logits, as far as Keras' `from_logits` tells."""
    if isinstance(one, str):
        if one.lower() == "ce" or "crossentropy" in one.lower():
            return False
        try:
            one = (keras.losses if name == "loss" else keras.metrics).get(one)
        except ValueError:
            return True  # "accuracy", or no name: Keras says so itself
    if isinstance(one, PredictedClassMetric):
        return True  # it takes both
    if isinstance(one, keras.losses.Loss | keras.metrics.Metric):
        return one.get_config().get("from_logits", True)
    parameter = inspect.signature(one).parameters.get("from_logits") if callable(one) else None
    return parameter is None or parameter.default is not False
