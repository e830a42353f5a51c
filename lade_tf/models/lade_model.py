"""LADEModel: any network, trained with LADE; its target prior can be set afterwards."""

import keras
import tensorflow as tf

from lade_tf.losses import LADE
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.models.training import BatchLoss, label_sets, mixed
from lade_tf.ops import check_sample_weight


@keras.saving.register_keras_serializable("lade_tf")
class LADEModel(AdaptedModel):
    """Trains `network` with LADE (equation 20), and serves it for any target prior (equation 17).

    `compile` takes an optimizer and metrics, no loss: the model owns it. While it trains, "loss"
    is LADE and its two terms stand beside it: "cross_entropy" (Balanced Softmax) and "lader".
    The metrics see the logits adapted to the stored target prior, uniform at first. On labels of
    mixup the two terms are means over both sets of labels.

    >>> model = lade_tf.LADEModel(network, class_counts=[900, 90, 10])
    >>> model.compile(optimizer="sgd", metrics=["accuracy"])
    >>> model.fit(images, labels)
    >>> model.set_target_prior([0.2, 0.3, 0.5])

    Args:
        network: any Keras model that gives logits [batch, classes].
        class_counts: [classes] training samples per class.
        alpha: α ≥ 0, the weight of LADER.
        remine_lambda: λ ≥ 0, the weight of T² inside LADER.
        estimator: "paper" (the equations) or "reference" (the authors' released code).
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
    """

    OWNS_LOSS = True
    REFUSED = {
        "class_weight": "LADE already corrects for the training prior. To expect other classes "
        "where the model runs, use set_target_prior"
    }
    ONE_OUTPUT_REFUSED = (
        "one of each class, which LADER regularises: end it in two outputs, or train one with "
        "lade_tf.AdaptedModel and lade_tf.losses.BalancedSoftmax"
    )

    def __init__(
        self,
        network,
        class_counts,
        alpha=0.1,
        remine_lambda=0.01,
        estimator="paper",
        target_prior=None,
        zero_count="error",
        **kwargs,
    ):
        super().__init__(
            network, class_counts, target_prior=target_prior, zero_count=zero_count, **kwargs
        )
        self.lade = LADE(class_counts, alpha, remine_lambda, estimator, zero_count)
        self.cross_entropy_tracker = keras.metrics.Mean(name="cross_entropy")
        self.lader_tracker = keras.metrics.Mean(name="lader")

    def batch_loss(self, x, y, sample_weight=None, training=False):
        def local(x, y, sample_weight):
            logits = self.raw_logits(x, training)
            return logits, [self._local_loss(logits, one, sample_weight) for one in label_sets(y)]

        logits, local_losses = self._compiled(local, training)(x, y, sample_weight)
        of_each = [self._whole_loss(one, sample_weight) for one in local_losses]
        share = of_each[0][1]
        loss = mixed(y, [loss for loss, _ in of_each])
        return BatchLoss(logits, label_sets(y)[0], loss, share)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns LADE on raw logits plus the network's own losses.

        Of several replicas each returns its part: added up they are the loss of the global batch.
        """
        local_loss = self._local_loss(y_pred, y, sample_weight)
        loss, share = self._whole_loss(local_loss, sample_weight)
        return share * loss

    def _local_loss(self, logits, y, sample_weight):
        """Returns what needs no other replica: mean cross-entropy, statistics, batch size, rest."""
        cross_entropy, statistics = self.lade.local_terms(logits, y, sample_weight)
        weight, _ = check_sample_weight(sample_weight, cross_entropy, cross_entropy.dtype)
        mean = tf.math.divide_no_nan(tf.reduce_sum(weight * cross_entropy), tf.reduce_sum(weight))
        return mean, statistics, tf.shape(cross_entropy)[0], self._regularization()

    def _whole_loss(self, local_loss, sample_weight):
        """Returns the loss of this replica's examples and its share, and shows the two terms."""
        cross_entropy, statistics, batch_size, regularization = local_loss
        lader, share = self.lade.lader(statistics)
        # Weighted as Keras weights the loss they make up.
        shown = batch_size, share, sample_weight
        self._show(self.cross_entropy_tracker, cross_entropy, *shown)
        self._show(self.lader_tracker, lader, *shown)
        return cross_entropy + self.lade.alpha * lader + regularization, share

    def _shown_share(self, share, sample_weight):
        # Without weights the share is that of the examples.
        several = self.distribute_strategy.num_replicas_in_sync > 1
        return share if several and sample_weight is not None else None

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Keras' `compile` without a loss."""
        optimizer = keras.optimizers.get(optimizer)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if getattr(inner, "gradient_accumulation_steps", None):
            raise ValueError(
                "gradient_accumulation_steps must not be set on LADEModel's optimizer: LADER would "
                "become a statistic of the micro-batch. Use a larger batch"
            )
        super().compile(optimizer, loss, *args, **kwargs)

    def get_config(self):
        config = super().get_config()
        lade = self.lade.get_config()
        return {**config, **{key: lade[key] for key in ("alpha", "remine_lambda", "estimator")}}
