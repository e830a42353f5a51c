"""PC Softmax: a trained Keras classifier becomes one whose target prior can be set."""

from lade_tf import priors
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.models.carried_prior import carried_prior, left_by_training, weights_by_class
from lade_tf.models.compatibility import find_out_from_logits


def adapt(
    model,
    class_counts,
    from_logits=None,
    zero_count="error",
    source_prior=None,
    class_weight=None,
    sampled_counts=None,
):
    """Makes a trained Keras classifier into one whose target prior can be set.

    Trained with ordinary cross-entropy its outputs carry the training prior, and this is PC Softmax
    (section 3.2, equation 4 of the LADE paper). The loss that the model is compiled with says what
    they carry: cross-entropies of Keras the training prior π, losses of `lade_tf` what their
    `source_prior` is. Weights of the classes multiply it, and so do samplers; neither leaves a
    trace in the model, so tell of them here. The model isn't changed or copied.

    >>> adapted = lade_tf.adapt(model, class_counts=[900, 90, 10])
    >>> adapted.set_target_prior([0.2, 0.3, 0.5])

    A model with one output, a sigmoid or its log odds, becomes one of two classes, in the order
    (negative, positive): class_counts=[900, 100] for 100 positive ones.

    Args:
        model: a keras.Model giving logits or softmax probabilities [batch, classes], or log odds or
            sigmoid probabilities of the second of two classes, [batch, 1] or [batch].
        class_counts: [classes] the counts of its training set.
        from_logits: whether it gives logits; None finds out from the last layer's activation, or
            from the loss that it is compiled with.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
        source_prior: what its outputs carry: [classes], "training", or "uniform" for none; None
            asks its loss.
        class_weight: the weights that `fit` was given: {class: weight}, where a class that is
            missing weighs 1, or [classes]; also "balanced", N / (C · count), as scikit-learn has
            it. So too sample weights, if they are the same for all samples of a class.
        sampled_counts: [classes] the samples that were drawn of each class, where it was over- or
            undersampled.

    Returns:
        An `AdaptedModel` with a uniform target prior.

    Raises:
        ValueError: for bad counts or weights, more than one of the last three arguments, another
            number of classes, where `from_logits` can't be found out, and for a model that has a
            target prior already, or whose loss doesn't fit its outputs.

    Warns:
        UserWarning: where its loss doesn't say what it leaves in the logits: the training prior is
            taken.
    """
    if isinstance(model, AdaptedModel):
        raise ValueError(
            "model must be a plain Keras classifier; the target prior of this "
            f"{type(model).__name__} can be set as it is"
        )
    from_logits = find_out_from_logits(model, from_logits)
    training_prior = priors.class_prior(class_counts, zero_count)
    told = class_weight, sampled_counts
    left = left_by_training(model, training_prior) if source_prior is None else None
    source_prior = carried_prior(left, training_prior, source_prior, *told)
    adapted = AdaptedModel(
        model, class_counts, source_prior, from_logits=from_logits, zero_count=zero_count
    )
    adapted._weights_told = weights_by_class(training_prior, *told)
    return adapted
