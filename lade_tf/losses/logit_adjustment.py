"""Logit adjustment (Menon et al., ICLR 2021): Balanced Softmax with a strength τ."""

import keras
import numpy as np

from lade_tf.checks import check_number
from lade_tf.losses.balanced_softmax import balanced_softmax, check_label_smoothing
from lade_tf.losses.base import ClassCountsLoss


@keras.saving.register_keras_serializable("lade_tf")
class LogitAdjustment(ClassCountsLoss):
    """Cross-entropy of softmax(f + τ·log π), π the training prior, on integer labels and logits.

    Reference: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10. The
    trained logits carry the prior ∝ π^(1−τ), which `source_prior` gives: none at τ = 1 (Balanced
    Softmax), the training prior at τ = 0 (plain cross-entropy).

    >>> loss = lade_tf.losses.LogitAdjustment([900, 90, 10], tau=1.5)
    >>> model.compile("sgd", loss)

    Args:
        class_counts: [classes] training samples per class.
        tau: τ ≥ 0.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
        label_smoothing: share of the training prior in the target, in [0, 1); not of the uniform
            one, with which the logits would carry another prior.
    """

    ARGUMENTS = ("class_counts", "tau", "zero_count", "label_smoothing")

    def __init__(
        self,
        class_counts,
        tau=1.0,
        zero_count="error",
        label_smoothing=0.0,
        name="logit_adjustment",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(class_counts, zero_count, name, reduction, dtype)
        self.tau = check_number(tau, "tau", minimum=0)
        self.label_smoothing = check_label_smoothing(label_smoothing)

    @property
    def source_prior(self):
        """The prior ∝ π^(1−τ) that the trained logits carry, [classes] float64."""
        power = np.exp((1 - self.tau) * (self.log_prior - self.log_prior.max()))
        return power / power.sum()

    def values(self, logits, labels):
        return balanced_softmax(logits, labels, self.log_prior, self.tau, self.label_smoothing)
