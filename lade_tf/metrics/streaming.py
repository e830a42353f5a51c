"""The metrics as streaming Keras metrics, for `compile(metrics=[...])`.

The state is sums over samples and nothing else: the result doesn't depend on how the samples are
split into batches or over replicas, and it is that of the NumPy function of the same name. The sums
are float64, exact for counts up to 2^53; float32 sums (`dtype="float32"`) stop counting at 2^24.
"""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import ops, priors
from lade_tf.array_checks import ROW_SUM_TOLERANCE, check_class_counts
from lade_tf.checks import check_integer
from lade_tf.metrics.accuracy import shot_groups
from lade_tf.metrics.calibration import NUM_BINS, SMALLEST_PROBABILITY


class StreamingMetric(keras.metrics.Metric):
    """A metric made of sums over samples; subclasses say which sums, and what to make of them.

    `result()` is NaN where there is nothing to measure yet, and where a prediction was NaN.

    Args:
        from_logits: whether predictions are logits; if not, probabilities.
        name: what the result is called in Keras' logs.
        dtype: of the sums and of the result.
    """

    num_classes = None  # where the state fixes the number of classes

    def __init__(self, from_logits=False, name=None, dtype="float64"):
        super().__init__(dtype=dtype, name=name)
        self.from_logits = from_logits

    def add_sum(self, name, shape=()):
        """Returns a new state variable; replicas add up their own, and reading it adds those."""
        return self.add_variable(shape, "zeros", dtype=self.dtype, aggregation="sum", name=name)

    def batch_sums(self, probabilities, labels, weight):
        """Returns what a batch adds to each of `variables`, in their order."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: True classes, integers [batch] or [batch, 1].
            y_pred: Probabilities [batch, classes], or logits if `from_logits`.
            sample_weight: How many times each sample occurs, [batch] or [batch, 1]; None means
                once.

        Raises:
            ValueError: A shape doesn't fit or, in eager mode, a label is out of range, a row is no
                distribution, or a weight is negative or not finite (in graph mode
                InvalidArgumentError; under XLA, which drops assertions, the result becomes NaN).
        """
        predictions = _check_predictions(y_pred, self.num_classes)
        labels, validity = ops.check_labels(y_true, predictions, predictions.shape[-1])
        weight, are_weights = ops.check_sample_weight(sample_weight, labels, self.dtype)
        probabilities, are_probabilities = self.check_probabilities(predictions)
        validity = tf.where(are_weights & are_probabilities, validity, float("nan"))
        sums = self.batch_sums(probabilities, labels, weight)
        for variable, batch_sum in zip(self.variables, sums, strict=True):
            variable.assign_add(batch_sum * tf.cast(validity, self.dtype))

    def check_probabilities(self, predictions):
        """Returns probabilities [batch, classes], and whether they are (false if one is NaN)."""
        if self.from_logits:
            predictions = tf.nn.softmax(predictions)
        off = tf.abs(tf.reduce_sum(predictions, axis=1) - 1)
        # NaN is neither: a model that diverged gets NaN as its metric, like its loss.
        is_wrong = tf.reduce_any(predictions < 0) | tf.reduce_any(off > ROW_SUM_TOLERANCE)
        is_right = tf.reduce_all(predictions >= 0) & tf.reduce_all(off <= ROW_SUM_TOLERANCE)
        message = [
            "probabilities must be >= 0 and sum to 1 in every row (from_logits=True takes logits); "
            "got a smallest entry of",
            tf.reduce_min(predictions),
            "and a sum that misses 1 by",
            tf.reduce_max(off),
        ]
        return ops.asserted(predictions, ~is_wrong, message), is_right

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}


@keras.saving.register_keras_serializable("lade_tf")
class ExpectedCalibrationError(StreamingMetric):
    """Streaming `expected_calibration_error` (ECE) of the most probable class.

    >>> model.compile("sgd", metrics=[ExpectedCalibrationError(from_logits=True)])

    Args:
        num_bins: Number of equal-width bins.
        from_logits, name, dtype: As for every `StreamingMetric`.

    Raises:
        ValueError: num_bins is no integer >= 1.
    """

    def __init__(self, num_bins=NUM_BINS, from_logits=False, name="ece", dtype="float64"):
        super().__init__(from_logits, name, dtype)
        self.num_bins = check_integer(num_bins, "num_bins", minimum=1)
        self.gap = self.add_sum("gap", (self.num_bins,))
        self.total = self.add_sum("total")

    def batch_sums(self, probabilities, labels, weight):
        confidence = tf.reduce_max(probabilities, axis=1)
        correct = tf.cast(_most_probable(probabilities) == labels, self.dtype)
        gap = weight * (correct - tf.cast(confidence, self.dtype))
        bins = _bin_of(confidence, self.num_bins)
        gap = tf.math.unsorted_segment_sum(gap, bins, self.num_bins)
        return gap, tf.reduce_sum(weight)

    def result(self):
        return tf.reduce_sum(tf.abs(self.gap)) / self.total

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins}


@keras.saving.register_keras_serializable("lade_tf")
class ClasswiseCalibrationError(StreamingMetric):
    """Streaming `classwise_calibration_error`.

    The first batch tells the number of classes.

    Args:
        num_bins: Number of equal-width bins.
        from_logits, name, dtype: As for every `StreamingMetric`.

    Raises:
        ValueError: num_bins is no integer >= 1.
    """

    def __init__(self, num_bins=NUM_BINS, from_logits=False, name="classwise_ece", dtype="float64"):
        super().__init__(from_logits, name, dtype)
        self.num_bins = check_integer(num_bins, "num_bins", minimum=1)
        self.total = self.add_sum("total")
        self.gap = None

    def batch_sums(self, probabilities, labels, weight):
        if self.gap is None:
            self.num_classes = probabilities.shape[1]
            self.gap = self.add_sum("gap", (self.num_classes, self.num_bins))
        one_hot = tf.one_hot(labels, self.num_classes, dtype=self.dtype)
        gap = weight[:, None] * (one_hot - tf.cast(probabilities, self.dtype))
        bins = _bin_of(probabilities, self.num_bins)
        # One segment for each bin of each class.
        segments = tf.range(self.num_classes) * self.num_bins + bins
        gap = tf.math.unsorted_segment_sum(gap, segments, self.num_classes * self.num_bins)
        return tf.reduce_sum(weight), tf.reshape(gap, self.gap.shape)

    def result(self):
        if self.gap is None:
            return tf.constant(float("nan"), self.dtype)
        return tf.reduce_mean(tf.reduce_sum(tf.abs(self.gap), axis=1)) / self.total

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins}


@keras.saving.register_keras_serializable("lade_tf")
class BrierScore(StreamingMetric):
    """Streaming `brier_score`: the sum over classes, in 0..2.

    Args:
        from_logits, name, dtype: As for every `StreamingMetric`.
    """

    def __init__(self, from_logits=False, name="brier", dtype="float64"):
        super().__init__(from_logits, name, dtype)
        self.distance = self.add_sum("distance")
        self.total = self.add_sum("total")

    def batch_sums(self, probabilities, labels, weight):
        probabilities = tf.cast(probabilities, self.dtype)
        squares = tf.reduce_sum(probabilities**2, axis=1)
        distance = squares - 2 * tf.gather(probabilities, labels, batch_dims=1) + 1
        return tf.reduce_sum(weight * distance), tf.reduce_sum(weight)

    def result(self):
        return self.distance / self.total


@keras.saving.register_keras_serializable("lade_tf")
class NegativeLogLikelihood(StreamingMetric):
    """Streaming `negative_log_likelihood`, in nats, of probabilities clipped at 1e-15.

    Args:
        from_logits, name, dtype: As for every `StreamingMetric`.
    """

    def __init__(self, from_logits=False, name="nll", dtype="float64"):
        super().__init__(from_logits, name, dtype)
        self.loss = self.add_sum("loss")
        self.total = self.add_sum("total")

    def batch_sums(self, probabilities, labels, weight):
        likelihood = tf.cast(tf.gather(probabilities, labels, batch_dims=1), self.dtype)
        loss = -tf.math.log(tf.clip_by_value(likelihood, SMALLEST_PROBABILITY, 1))
        return tf.reduce_sum(weight * loss), tf.reduce_sum(weight)

    def result(self):
        return self.loss / self.total


class PredictedClassMetric(StreamingMetric):
    """A metric of the predicted classes alone, which takes logits with or without `from_logits`.

    Args:
        num_classes: Number of classes C.
        from_logits: Makes no difference here.
        name, dtype: As for every `StreamingMetric`.

    Raises:
        ValueError: num_classes is no integer >= 1.
    """

    def __init__(self, num_classes, from_logits=False, name=None, dtype="float64"):
        super().__init__(from_logits, name, dtype)
        self.num_classes = check_integer(num_classes, "num_classes", minimum=1)

    def check_probabilities(self, predictions):
        """Returns the predictions, whose scale doesn't matter, and whether none of them is NaN."""
        return predictions, ~tf.reduce_any(tf.math.is_nan(predictions))

    def count(self, classes, weight):
        """Returns the weight of every class, [classes]."""
        return tf.math.unsorted_segment_sum(weight, classes, self.num_classes)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("lade_tf")
class PerClassAccuracy(PredictedClassMetric):
    """Streaming `per_class_accuracy`: [classes], NaN for a class without a test sample.

    It is a vector, which `keras.callbacks.TensorBoard` can't write: it is for `evaluate`.

    Args, Raises: As `PredictedClassMetric`.
    """

    def __init__(self, num_classes, from_logits=False, name="per_class_accuracy", dtype="float64"):
        super().__init__(num_classes, from_logits, name, dtype)
        self.hits = self.add_sum("hits", (self.num_classes,))
        self.total = self.add_sum("total", (self.num_classes,))

    def batch_sums(self, probabilities, labels, weight):
        hit = tf.cast(_most_probable(probabilities) == labels, self.dtype)
        return self.count(labels, weight * hit), self.count(labels, weight)

    def result(self):
        return self.hits / self.total


@keras.saving.register_keras_serializable("lade_tf")
class ShotAccuracy(PerClassAccuracy):
    """Streaming `shot_accuracy`: {"many", "medium", "few"}, NaN for a group without tested classes.

    Keras' logs hold the three under these names, so callbacks can monitor "val_few".

    Args:
        class_counts: Training images of each class, [classes].
        from_logits, name, dtype: As `PredictedClassMetric`.

    Raises:
        ValueError: class_counts are negative or not [classes].
    """

    def __init__(self, class_counts, from_logits=False, name="shot_accuracy", dtype="float64"):
        counts = check_class_counts(class_counts)
        super().__init__(len(counts), from_logits, name, dtype)
        self.class_counts = priors.plain_counts(class_counts)

    def result(self):
        accuracy = super().result()
        groups = shot_groups(np.asarray(self.class_counts)).items()
        return {name: self._tested_mean(accuracy, group) for name, group in groups}

    def _tested_mean(self, accuracy, group):
        is_counted = group & (self.total > 0)
        summed = tf.reduce_sum(tf.where(is_counted, accuracy, tf.zeros_like(accuracy)))
        return summed / tf.reduce_sum(tf.cast(is_counted, self.dtype))

    def get_config(self):
        config = super().get_config()
        del config["num_classes"]
        return {**config, "class_counts": list(self.class_counts)}


@keras.saving.register_keras_serializable("lade_tf")
class MacroF1(PredictedClassMetric):
    """Streaming `macro_f1`: the mean F1 of the classes among the labels or the predictions.

    Args, Raises: As `PredictedClassMetric`.
    """

    def __init__(self, num_classes, from_logits=False, name="macro_f1", dtype="float64"):
        super().__init__(num_classes, from_logits, name, dtype)
        self.hits = self.add_sum("hits", (self.num_classes,))
        self.occurrences = self.add_sum("occurrences", (self.num_classes,))

    def batch_sums(self, probabilities, labels, weight):
        predicted = _most_probable(probabilities)
        hits = self.count(labels, weight * tf.cast(predicted == labels, self.dtype))
        return hits, self.count(labels, weight) + self.count(predicted, weight)

    def result(self):
        f1 = tf.math.divide_no_nan(2 * self.hits, self.occurrences)
        num_seen = tf.reduce_sum(tf.cast(self.occurrences > 0, self.dtype))
        return tf.reduce_sum(f1) / num_seen


def _check_predictions(y_pred, num_classes):
    """Returns `y_pred` as float32 or float64 [batch, classes]."""
    predictions = tf.convert_to_tensor(y_pred)
    shape = predictions.shape
    if shape.rank != 2 or shape[1] is None or num_classes not in (None, shape[1]):
        raise ValueError(
            f"y_pred must have shape [batch, {num_classes or 'classes'}]; got shape {shape}"
        )
    return predictions if predictions.dtype == tf.float64 else tf.cast(predictions, tf.float32)


def _most_probable(probabilities):
    return tf.argmax(probabilities, axis=1, output_type=tf.int32)


def _bin_of(confidence, num_bins):
    """Returns k for each confidence in [k/num_bins, (k+1)/num_bins), the last bin closed.

    Compared in float64, like the NumPy functions: the edges aren't float32 numbers.
    """
    edges = tf.constant(np.arange(num_bins + 1) / num_bins)
    values = tf.reshape(tf.cast(confidence, tf.float64), [1, tf.size(confidence)])
    # What tf.searchsorted calls; that itself fails on the empty batch of an idle replica.
    bins = tf.raw_ops.UpperBound(sorted_inputs=edges[None], values=values) - 1
    return tf.reshape(tf.minimum(bins, num_bins - 1), tf.shape(confidence))
