"""Grouped convolution on the device's own kernels."""

import functools

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("lade_tf")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that leaves grouped convolutions to TensorFlow where it has kernels.

    Keras compiles every grouped convolution with XLA, whose gradient on a CPU takes 100 times as
    long as oneDNN's. Arguments, weights and results are Keras', and so is the way of computing
    where TensorFlow has no such gradient: on a CPU without oneDNN, or in float64.
    """

    def convolution_op(self, inputs, kernel):
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if self.data_format != "channels_last" or not _has_gradient(dtype):
            return super().convolution_op(inputs, kernel)
        padding, dilations = self.padding.upper(), self.dilation_rate
        return tf.nn.conv2d(inputs, kernel, self.strides, padding, dilations=dilations)


@functools.cache
def _has_gradient(dtype):
    """Returns whether this machine has kernels for the gradient of a grouped convolution."""
    with tf.init_scope():  # a kernel is tried by running it, also while a graph is traced
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 3, 3, 4],
                filter=tf.ones([3, 3, 2, 4], dtype),
                out_backprop=tf.ones([1, 3, 3, 4], dtype),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except tf.errors.OpError:
            return False
    return True
