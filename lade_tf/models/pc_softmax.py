"""PC Softmax: a trained Keras classifier becomes one whose target prior can be set."""

from lade_tf import losses, priors
from lade_tf.models.adapted_model import AdaptedModel
from lade_tf.models.carried_prior import losses_that_take_it_out
from lade_tf.models.networks import gives_logits, last_layer


def adapt(model, class_counts, from_logits=None, zero_count="error"):
    """Makes a trained Keras classifier into one whose target prior can be set (PC Softmax).

    For a model trained with ordinary cross-entropy, whose outputs carry the training prior
    (section 3.2, equation 4 of the LADE paper). The model isn't changed or copied.

    >>> adapted = lade_tf.adapt(model, class_counts=[900, 90, 10])
    >>> adapted.set_target_prior([0.2, 0.3, 0.5])

    Args:
        model: a keras.Model giving logits or softmax probabilities [batch, classes].
        class_counts: [classes] the counts it was trained on.
        from_logits: whether it gives logits; None finds out from the last layer's activation.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Returns:
        An `AdaptedModel` with a uniform target prior.

    Raises:
        ValueError: for bad counts, another number of classes, where `from_logits` can't be found
            out, and for a model that has a target prior already or is compiled with a loss of
            `lade_tf` that leaves its logits another prior than that of training.
    """
    _check_carries_training_prior(model)
    if from_logits is None:
        from_logits = gives_logits(model)
    if from_logits is None:
        raise ValueError(
            "from_logits must be given for this model: whether it gives logits or softmax "
            f"probabilities can't be told from its last layer ({last_layer(model)!r})"
        )
    prior = priors.class_prior(class_counts, zero_count)
    return AdaptedModel(
        model, class_counts, source_prior=prior, from_logits=from_logits, zero_count=zero_count
    )


def _check_carries_training_prior(model):
    """Raises a ValueError where the training prior would be taken out a second time."""
    if isinstance(model, AdaptedModel):
        raise ValueError(
            "model must be a plain Keras classifier; the target prior of this "
            f"{type(model).__name__} can be set as it is"
        )
    for loss in losses_that_take_it_out(getattr(model, "loss", None)):
        is_partial = isinstance(loss, losses.LogitAdjustment)
        source_prior = ", source_prior=model.loss.source_prior" if is_partial else ""
        raise ValueError(
            "model must carry the training prior, as ordinary cross-entropy leaves it; this one is "
            f"compiled with {type(loss).__name__}, which takes it out: "
            f"lade_tf.AdaptedModel(model, class_counts{source_prior}) is right for it"
        )
