"""Deferred re-weighting (DRW, Cao et al., NeurIPS 2019): class-balanced weights, but late."""

import keras
import tensorflow as tf

from lade_tf.checks import check_integer
from lade_tf.losses import effective_number_weights
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.ops import check_labels, check_sample_weight


@keras.saving.register_keras_serializable("lade_tf")
class DeferredReweightingModel(AdaptedModel):
    """Trains with any loss, and from `start_step` on with class-balanced weights.

    The weights are those of the effective number of samples; the loss is then the weighted mean
    over the batch. The step is the optimizer's, so a resumed training re-weights from the same one.
    The trained logits are taken to carry no prior.

    Reference: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019, algorithm 1; weights: Cui et al., CVPR 2019.

    >>> model = DeferredReweightingModel(network, class_counts, start_step=160 * steps_per_epoch)
    >>> model.compile("sgd", lade_tf.losses.LDAM(class_counts))

    Args:
        network: any Keras model that gives logits [batch, classes].
        class_counts: [classes] training samples per class.
        start_step: how many steps are taken before, ≥ 0.
        beta: β in [0, 1) of `lade_tf.losses.effective_number_weights`.
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
    """

    REFUSED = {"class_weight": "it weights the classes itself"}

    def __init__(
        self,
        network,
        class_counts,
        start_step,
        beta=0.9999,
        target_prior=None,
        zero_count="error",
        **kwargs,
    ):
        super().__init__(
            network, class_counts, target_prior=target_prior, zero_count=zero_count, **kwargs
        )
        self.start_step = check_integer(start_step, "start_step", minimum=0)
        self.class_weights = effective_number_weights(class_counts, beta, zero_count)
        self.beta = float(beta)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the compiled loss, in training weighted once `start_step` steps are done."""
        if training:
            labels, validity = check_labels(y, y_pred, len(self.class_counts))
            given, _ = check_sample_weight(sample_weight, labels, tf.float32)
            sample_weight = validity * given * self._weights(labels)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _weights(self, labels):
        """Returns [batch] weights of mean 1, of all replicas: Keras divides by the examples."""
        weights = tf.gather(tf.constant(self.class_weights, tf.float32), labels)
        sums = tf.stack([tf.reduce_sum(weights), tf.reduce_sum(tf.ones_like(weights))])
        if self.distribute_strategy.num_replicas_in_sync > 1:
            sums = tf.distribute.get_replica_context().all_reduce("sum", sums)
        weights *= tf.math.divide_no_nan(sums[1], sums[0])
        return tf.where(self.optimizer.iterations < self.start_step, 1.0, weights)

    def get_config(self):
        return {**super().get_config(), "start_step": self.start_step, "beta": self.beta}
