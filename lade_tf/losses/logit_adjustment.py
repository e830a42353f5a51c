"""Logit adjustment (Menon et al., ICLR 2021): Balanced Softmax with a strength τ."""

import keras
import numpy as np

from lade_tf import ops, priors
from lade_tf.checks import check_number
from lade_tf.losses.balanced_softmax import balanced_softmax, check_label_smoothing


@keras.saving.register_keras_serializable("lade_tf")
class LogitAdjustment(keras.losses.Loss):
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
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.tau = check_number(tau, "tau", minimum=0)
        self.log_prior = np.log(priors.class_prior(class_counts, zero_count))
        self.class_counts = priors.plain_counts(class_counts)
        self.zero_count = zero_count
        self.label_smoothing = check_label_smoothing(label_smoothing)

    @property
    def source_prior(self):
        """The prior ∝ π^(1−τ) that the trained logits carry, [classes] float64."""
        power = np.exp((1 - self.tau) * (self.log_prior - self.log_prior.max()))
        return power / power.sum()

    def call(self, y_true, y_pred):
        ops.check_logits(y_pred)
        return balanced_softmax(y_pred, y_true, self.log_prior, self.tau, self.label_smoothing)

    def get_config(self):
        config = {
            "class_counts": self.class_counts,
            "tau": self.tau,
            "zero_count": self.zero_count,
            "label_smoothing": self.label_smoothing,
        }
        return {**super().get_config(), "dtype": self.dtype, **config}
