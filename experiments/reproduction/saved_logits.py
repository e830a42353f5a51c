"""The logits of a test set, from which everything else is measured without the model."""

import dataclasses

import numpy as np
import tensorflow as tf

from lade_tf import priors
from lade_tf.array_checks import check_class_counts, check_class_indices
from reproduction import evaluation
from reproduction.files import replacing

TEST_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class SavedLogits:
    """Raw logits of a balanced test set and what is needed to adapt them.

    Attributes:
        logits: [samples, C] float32.
        labels: [samples] int32.
        counts: [C] training images of every class.
        source_prior: [C] float64, the prior that the logits carry.
        class_names: [C] strings.
    """

    logits: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    source_prior: np.ndarray
    class_names: np.ndarray

    def save(self, path):
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path):
        try:
            with np.load(path) as file:
                arrays = {field.name: file[field.name] for field in dataclasses.fields(cls)}
            if arrays["logits"].dtype == np.float16:  # as some committed results have them
                arrays["logits"] = arrays["logits"].astype(np.float32)
            saved = cls(**arrays)
            saved.check()
        except Exception as error:
            raise ValueError(f"{path} isn't a test_logits.npz of a run: {error}") from error
        return saved

    def told(self, target_prior):
        """Returns the `evaluation.Outcome` of a model that is told a prior, [C]."""
        probabilities = evaluation.adapt(self.logits, self.source_prior, target_prior)
        return evaluation.Outcome(probabilities, self.labels, self.counts)

    def check(self):
        """Raises a ValueError unless the arrays are what they should be."""
        if self.logits.ndim != 2 or len(self.logits) == 0:
            raise ValueError(f"logits must be [samples, classes]; got {list(self.logits.shape)}")
        num_samples, num_classes = self.logits.shape
        bad = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
        if bad.size:
            raise ValueError(f"logits must be finite; {bad.size} samples aren't, first {bad[0]}")
        check_class_indices("labels", self.labels, num_samples, num_classes)
        check_class_counts(self.counts, num_classes)
        priors.check_prior(self.source_prior, num_classes, allow_zero=False, name="source_prior")

    @classmethod
    def of(cls, raw_logits, data, counts, source_prior):
        """Runs `raw_logits`, a function of images, over the test set of an `ImageData`.

        A `source_prior` of None stands for disentangled logits, which carry the uniform one.
        """
        if len(counts) != data.num_classes:
            raise ValueError(
                f"the model must have the {data.num_classes} classes of {data.name}; "
                f"it has {len(counts)}"
            )
        batches = data.test_batches(TEST_BATCH_SIZE)
        return cls(
            logits=np.concatenate([raw_logits(images).numpy() for images, _ in batches]),
            labels=data.test.labels,
            counts=np.asarray(counts),
            source_prior=np.asarray(source_prior or priors.uniform_prior(data.num_classes)),
            class_names=np.asarray(data.class_names),
        )

    @classmethod
    def of_model(cls, model, data):
        """Runs an `AdaptedModel` over the test set of an `ImageData`."""
        raw_logits = tf.function(model.raw_logits, autograph=False)
        return cls.of(raw_logits, data, model.class_counts, model.prior_adapt.source_prior)
