"""Which prior a network's logits carry, as far as its loss tells."""

import keras
import numpy as np

from lade_tf import losses, priors


def losses_that_take_it_out(loss):
    """Returns those of a loss, or of a structure of them, that free logits of the training prior.

    Logit adjustment does so in part, by its τ: what is left is its `source_prior`.
    """
    freeing = losses.LADE | losses.BalancedSoftmax | losses.ClassBalancedFocal
    return [
        one
        for one in keras.tree.flatten(loss)
        if isinstance(one, freeing) or (isinstance(one, losses.LogitAdjustment) and one.tau)
    ]


def check_taken_out_once(loss, source_prior):
    """Raises a ValueError where a model takes another prior out than its loss leaves in the logits.

    Args:
        loss: what Keras' `compile` takes as such.
        source_prior: [classes] the prior that the model takes its logits to carry, or None.
    """
    for one in losses_that_take_it_out(loss):
        left = getattr(one, "source_prior", None)
        left_by_loss, taken_out = (
            priors.uniform_prior(len(one.class_counts)) if prior is None else np.asarray(prior)
            for prior in (left, source_prior)
        )
        if left_by_loss.shape == taken_out.shape and not np.allclose(left_by_loss, taken_out):
            argument = "" if left is None else ", source_prior=loss.source_prior"
            raise ValueError(
                f"loss must fit the prior that this model takes out of its logits; {one.name} "
                f"leaves another there: lade_tf.AdaptedModel(network, class_counts{argument}) is "
                "right for it"
            )
