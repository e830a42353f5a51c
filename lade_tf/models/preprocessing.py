"""Networks that prepare their inputs outside their layers, as tasks of KerasHub do."""

import keras
import tensorflow as tf


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
