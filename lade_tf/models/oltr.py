"""OLTR (Liu et al., CVPR 2019), closed-set: a memory of class centroids, learned in a second stage.

The second stage starts from a trained softmax network and is fed class-balanced batches:

>>> centroids = lade_tf.models.decoupled.class_means(network, training_batches, num_classes)
>>> model = OLTR(oltr_network(network, centroids), class_counts)
>>> model.compile(optimizer="sgd", metrics=["accuracy"])
"""

import keras
import numpy as np
import tensorflow as tf

from lade_tf.checks import check_number
from lade_tf.layers.cosine_norm_classifier import CosineNormClassifier
from lade_tf.layers.meta_embedding import MetaEmbedding, squared_distances
from lade_tf.layers.modulated_attention import ModulatedAttention
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.ops import check_labels, check_sample_weight

REPULSION_WEIGHT = 0.01  # a constant of the released code


@keras.saving.register_keras_serializable("lade_tf")
class OLTR(AdaptedModel):
    """Trains what `oltr_network` built with cross-entropy and the centroids loss.

    `compile` takes an optimizer and metrics, no loss: the model owns it. While it trains, "loss" is
    cross_entropy + centroid_weight · centroids, with both terms beside it (and any losses of the
    network's own). The logits are taken to carry no prior, since class-balanced batches train them.
    A sample weight multiplies an example's cross-entropy, as in Keras; in the centroids loss, a
    statistic of the batch, it is how often the example occurs.

    Reference: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.
    Formulas and constants follow its released code where the two differ: see `centroids_loss` and
    the layers `ModulatedAttention`, `MetaEmbedding` and `CosineNormClassifier`. The released
    network also has a 512-dimensional linear layer with ReLU after the pooling, this one hasn't.
    On several replicas the centroids loss is that of each replica's share of the batch.

    Args:
        network: what `oltr_network` returns, images to logits [batch, classes].
        class_counts: [classes] training samples per class.
        centroid_weight: ≥ 0, the weight of the centroids loss.
        margin: ≥ 0, see `centroids_loss`.
        target_prior: [classes] the prior to adapt to at first, or None for uniform.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Raises:
        ValueError: for a bad argument, and a network without exactly one `MetaEmbedding`.
    """

    OWNS_LOSS = True
    ONE_OUTPUT_REFUSED = "one of each class: end it in two outputs"
    REFUSED = {"class_weight": "class-balanced batches weight the classes"}

    def __init__(
        self,
        network,
        class_counts,
        centroid_weight=0.01,
        margin=10.0,
        target_prior=None,
        zero_count="error",
        **kwargs,
    ):
        super().__init__(
            network, class_counts, target_prior=target_prior, zero_count=zero_count, **kwargs
        )
        self.centroid_weight = check_number(centroid_weight, "centroid_weight", minimum=0)
        self.margin = check_number(margin, "margin", minimum=0)
        self.cross_entropy_tracker = keras.metrics.Mean(name="cross_entropy")
        self.centroids_tracker = keras.metrics.Mean(name="centroids")
        features = _meta_embedding(network).input
        # Kept as a method: as an attribute Keras would save the network's layers a second time.
        self._features_and_logits = keras.Model(network.input, [features, network.output]).__call__

    def batch_loss(self, x, y, sample_weight=None, training=False):
        outputs = self._compiled(self._features_and_logits, training)(x, training=training)
        return self._of_compute_loss(x, y, outputs[1], outputs, sample_weight, training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss per replica, as Keras does; `y_pred` is (features, raw logits)."""
        features, logits = y_pred
        labels, validity = check_labels(y, logits, len(self.class_counts))
        weight, _ = check_sample_weight(sample_weight, labels, tf.float32)
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits) * validity
        cross_entropy *= weight
        batch_size = tf.shape(labels)[0]
        mean = tf.math.divide_no_nan(tf.reduce_sum(cross_entropy), tf.cast(batch_size, tf.float32))
        centroids = centroids_loss(
            features, labels, _meta_embedding(self.network).centroids, self.margin, weight
        )
        # Weighted as Keras weights the loss they make up.
        self.cross_entropy_tracker.update_state(mean, sample_weight=batch_size)
        self.centroids_tracker.update_state(centroids, sample_weight=batch_size)
        loss = mean + self.centroid_weight * centroids + self._regularization()
        return loss / self.distribute_strategy.num_replicas_in_sync

    def get_config(self):
        return {
            **super().get_config(),
            "centroid_weight": self.centroid_weight,
            "margin": self.margin,
        }


def oltr_network(network, centroids=None):
    """Builds OLTR's second-stage network on the layers of a trained first-stage network.

    Modulated attention goes before the pooling, `MetaEmbedding` and `CosineNormClassifier` replace
    the classifier, whose weights become the hallucinator's. At first the features are unchanged.

    >>> network = keras.Model(images, classifier_head(small_cnn()(images), num_classes))

    Args:
        network: a functional keras.Model that ends in GlobalAveragePooling2D (itself, or the
            backbone nested in it) and a linear Dense. Its layers are shared, not copied: training
            the result trains them on.
        centroids: [classes, d] finite numbers, class means of the features, or None to leave them
            standard normal.

    Returns:
        A functional keras.Model, images → float32 logits [batch, classes].

    Raises:
        ValueError: for another network, or centroids of another shape.
    """
    classifier, pooling = _classifier_and_pooling(network)
    attention = ModulatedAttention(name="modulated_attention")
    embedding = MetaEmbedding(classifier.units, name="meta_embedding")
    cosine = CosineNormClassifier(classifier.units, name=classifier.name)

    def rebuild(operation, *args, **kwargs):
        if operation is classifier:
            return cosine(embedding(*args))
        if operation is pooling:
            return pooling(attention(*args), **kwargs)
        return operation(*args, **kwargs)

    # Keras' clone, but of the graph alone: every layer stands for itself.
    rebuilt = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=rebuild, recursive=True
    )
    embedding.hallucinator.kernel.assign(classifier.kernel)
    if classifier.use_bias:
        embedding.hallucinator.bias.assign(classifier.bias)
    if centroids is not None:
        embedding.centroids.assign(_checked_centroids(centroids, embedding.centroids.shape))
    return rebuilt


def centroids_loss(features, labels, centroids, margin, sample_weight=None):
    """Returns the discriminative centroids loss of the released OLTR code, for one batch of N.

    ½ mean_i ‖x_i − M_{y_i}‖² + 0.01 · max(0, margin − (1 / NC) Σ_i Σ_{c ≠ y_i} ‖x_i − M_c‖²)

    As there, the first term moves a centroid by 1 / (1 + N_c) of its gradient, where N_c is how
    many examples of its class the batch has. The paper has one hinge on (unsquared) distances of
    the meta embeddings instead.

    Args:
        features: x, [batch, d] of any floating type.
        labels: y, [batch] integers in 0..C−1.
        centroids: M, [classes, d] float32.
        margin: ≥ 0, a squared distance.
        sample_weight: [batch] numbers ≥ 0, how often each example occurs, or None.

    Returns:
        Float32 scalar; 0.01 · margin for an empty batch.
    """
    features, centroids = tf.cast(features, tf.float32), tf.convert_to_tensor(centroids)
    num_classes = centroids.shape[0]
    occurrences = tf.ones_like(labels, tf.float32)
    if sample_weight is not None:
        occurrences = tf.cast(sample_weight, tf.float32)
    total = tf.reduce_sum(occurrences)

    def mean(values):
        return tf.math.divide_no_nan(tf.reduce_sum(occurrences * values), total)

    class_total = tf.math.unsorted_segment_sum(occurrences, labels, num_classes)
    share = tf.gather(1 / (1 + class_total), labels)[:, None]
    own = tf.gather(centroids, labels)
    own = share * own + tf.stop_gradient((1 - share) * own)
    attraction = mean(tf.reduce_sum((features - own) ** 2, axis=-1)) / 2

    is_other = 1 - tf.one_hot(labels, num_classes)
    distances = is_other * squared_distances(features, centroids)
    repulsion = tf.nn.relu(margin - mean(tf.reduce_mean(distances, axis=-1)))
    return attraction + REPULSION_WEIGHT * repulsion


def _classifier_and_pooling(network):
    """Returns the last two layers of a first-stage network, the pooling perhaps of its backbone."""
    is_functional = isinstance(network, keras.Model) and hasattr(network, "operations")
    last = network.operations[-2:] if is_functional else []
    if len(last) == 2:
        body, classifier = last
        pooling = body.operations[-1] if hasattr(body, "operations") else body
        if (
            isinstance(classifier, keras.layers.Dense)
            and classifier.activation is keras.activations.linear
            and isinstance(pooling, keras.layers.GlobalAveragePooling2D)
            and pooling.data_format == "channels_last"
        ):
            return classifier, pooling
    ending = " -> ".join(operation.name for operation in last) or repr(network)
    raise ValueError(
        "network must be a functional keras.Model that ends in GlobalAveragePooling2D "
        f"(channels last) and a linear Dense; it ends in {ending}"
    )


def _checked_centroids(centroids, shape):
    centroids = np.asarray(centroids, np.float64)
    if centroids.shape != tuple(shape):
        raise ValueError(f"centroids must have shape {tuple(shape)}; got {centroids.shape}")
    if not np.isfinite(centroids).all():
        raise ValueError("centroids must be finite; a class without images has no mean")
    return centroids


def _meta_embedding(network):
    found = [layer for layer in network.layers if isinstance(layer, MetaEmbedding)]
    if len(found) != 1:
        raise ValueError(
            "network must have one MetaEmbedding layer, as oltr_network builds it; "
            f"{network.name} has {len(found)}"
        )
    return found[0]
