"""Samples as they are given: arrays, or what yields batches and perhaps their labels."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from lade_tf.array_checks import check_class_indices

# Where labels that are given beside can be compared with those that are yielded, or with the order.
ORDERED = tf.data.Dataset | keras.utils.PyDataset


class Batches:
    """What yields batches, in one pass: another may have another order. The first is looked at.

    Iterating gives (inputs, labels) of each batch, labels None where there are none.

    Attributes:
        yields_labels: whether there are labels.

    Args:
        name: of the argument, for messages.
        batches: an iterable of what `fit` takes as a batch, at least one.
        sample_shape: of one sample, None where it isn't known.

    Raises:
        ValueError: if there is no batch, a batch has sample weights, or is a sample alone.
    """

    def __init__(self, name, batches, sample_shape=None):
        self._name, batches = name, iter(batches)
        first = next(batches, None)
        if first is None:
            raise ValueError(f"{name} must yield at least one batch")
        inputs, labels = self._unpacked(first)
        _check_batched(name, inputs, sample_shape)
        self.yields_labels = labels is not None
        self._batches = itertools.chain([first], batches)

    def __iter__(self):
        return map(self._unpacked, self._batches)

    def _unpacked(self, batch):
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
        check_unweighted(self._name, weights)
        if keras.tree.is_nested(labels) or np.ndim(_as_numpy(labels)) == 0 and labels is not None:
            raise ValueError(f"{self._name} must yield batches, each with one array of labels")
        return keras.tree.map_structure(_as_numpy, (inputs, labels))


def batches_of(name, inputs, sample_shape=None):
    """Returns the `Batches` of what `predict` takes, None for arrays.

    Raises:
        ValueError: for what has no end and, as `Batches`, for weights, what is empty and a sample
            alone.
    """
    if _is_in_arrays(inputs):
        _check_batched(name, inputs, sample_shape)
        return None
    check_ends(name, inputs)
    if isinstance(inputs, keras.utils.PyDataset):
        return Batches(name, (inputs[i] for i in range(inputs.num_batches)), sample_shape)
    if not hasattr(inputs, "__iter__"):
        raise ValueError(f"{name} must be arrays or yield batches; got {type(inputs).__name__}")
    return Batches(name, inputs, sample_shape)


def unlabelled(name, inputs, sample_shape=None):
    """Returns unlabelled inputs checked as by `batches_of`: as they are where `predict` takes them.

    Others, iterables that aren't a data set, become `Batches`, so that none is lost in the check.
    """
    if not isinstance(inputs, ORDERED):
        return batches_of(name, inputs, sample_shape) or inputs
    check_ends(name, inputs)
    batch = inputs.element_spec if isinstance(inputs, tf.data.Dataset) else inputs[0]
    batch, _, weights = keras.utils.unpack_x_y_sample_weight(batch)
    check_unweighted(name, weights)
    _check_batched(name, batch, sample_shape)
    return inputs


def _check_batched(name, inputs, sample_shape):
    """Raises a ValueError where inputs, or their tf.TensorSpec, have the shape of one sample.

    Of samples of shape [1] that can't be told: Keras takes a batch of numbers, [batch], too.
    """
    shape = getattr(inputs, "shape", None)
    if shape is None or sample_shape in (None, (1,)):
        return
    shape = tf.TensorShape(shape)
    if shape.rank == len(sample_shape) and shape.is_compatible_with(sample_shape):
        raise ValueError(
            f"{name} must hold or yield batches of samples of shape {list(sample_shape)}; got one "
            f"such sample where a batch should be (a tf.data.Dataset's .batch(...) makes them)"
        )


def check_unweighted(name, weights):
    """Raises a ValueError unless `weights` is None."""
    if weights is not None:
        raise ValueError(
            f"{name} must yield inputs and perhaps labels; it yields sample weights too, which "
            "mean nothing here"
        )


def check_ends(name, inputs):
    """Raises a ValueError for a data set that has no end."""
    endless = (
        inputs.cardinality() == tf.data.INFINITE_CARDINALITY
        if isinstance(inputs, tf.data.Dataset)
        else isinstance(inputs, keras.utils.PyDataset) and inputs.num_batches is None
    )
    if endless:
        raise ValueError(f"{name} must have an end; this data set repeats for ever")


def _is_in_arrays(inputs):
    return isinstance(inputs, list | tuple | dict) or hasattr(inputs, "shape")


def _as_numpy(value):
    """Returns a tensor of PyTorch, on whatever device, as an array; all else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def class_indices(name, labels, num_samples, num_classes):
    """Returns labels checked by `check_class_indices`; floats and booleans may be whole numbers.

    Keras' data sets give those of two classes as floats.
    """
    labels = np.asarray(labels)
    if labels.dtype == bool or (labels.dtype.kind == "f" and np.all(labels == np.floor(labels))):
        labels = labels.astype(np.int64)
    return check_class_indices(name, labels, num_samples, num_classes)
