"""Labelled samples that a data set yields, in the one order of a single pass."""

import itertools

import keras
import tensorflow as tf


def labelled_batches(inputs):
    """Returns an iterator over (inputs, labels) of each batch, None for what yields no labels.

    Args:
        inputs: what Keras' `predict` takes; tf.data.Dataset and PyDataset may yield labels.
    """
    if isinstance(inputs, tf.data.Dataset):
        batches, first = inputs, inputs.element_spec
    elif isinstance(inputs, keras.utils.PyDataset) and len(inputs):
        batches = (inputs[i] for i in range(len(inputs)))
        first = next(batches)
        batches = itertools.chain([first], batches)  # a batch may cost much, and is read once
    else:
        return None
    if keras.utils.unpack_x_y_sample_weight(first)[1] is None:
        return None
    return (keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in batches)
