"""MultiWorkerModel: makes Keras' fit and evaluate run on replicas with unequal shares, and on
several machines."""

import keras
import tensorflow as tf


class MultiWorkerModel(keras.Model):
    """A `keras.Model` that also trains under `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras 3 knows that strategy in its train function, but not in two places, which are mended here;
    in one of them it also fails where the first batch can't be divided evenly by the replicas.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds metrics and optimizer from one replica's part of a batch; Keras adds parts up."""
        if iterator is not None and self._distribute_strategy is not None:
            local = self.distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(lambda v: local(v)[0], next(batches))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Returns what Keras shows of a step."""
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if is_multi_worker(self.distribute_strategy):
            # Keras takes their mean over the workers along an axis, which scalars don't have.
            logs = {name: keras.ops.expand_dims(value, 0) for name, value in logs.items()}
        return logs


def is_multi_worker(strategy):
    """Returns whether the replicas of a tf.distribute strategy are on several machines."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
