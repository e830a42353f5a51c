"""The logits of a test set: all that is measured of a classifier is measured from them."""

import dataclasses
import zipfile

import numpy as np

from lade_tf import metrics, priors
from lade_tf.array_checks import check_class_counts, check_class_indices
from lade_tf.checks import check_class_names
from lade_tf.class_order import as_floats
from lade_tf.evaluation.shifts import class_weights
from lade_tf.files import replacing
from lade_tf.numerics import row_blocks


@dataclasses.dataclass(frozen=True, eq=False)
class SavedLogits:
    """Raw logits of a test set, and what is needed to adapt them to a label distribution.

    They may come from any program. Saved, they are an .npz with an array for each argument that
    isn't None.

    >>> saved = lade_tf.evaluation.SavedLogits(logits, labels, class_counts)
    >>> saved.save("test_logits.npz")

    Attributes:
        logits: [samples, classes], finite; float16 becomes float32.
        labels: [samples] integers in 0..C−1, the true classes; a column [samples, 1] is taken too.
        counts: [classes] training images of every class.
        source_prior: [classes], the prior that the logits carry; None means none (disentangled
            logits, as LADE's), and becomes the uniform one, which amounts to the same.
        class_names: [classes] strings that differ, in label order, or None.
        paths: [samples] strings, the files of the samples, or None.

    Raises:
        ValueError: names the argument that isn't what it should be.
    """

    logits: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    source_prior: np.ndarray | None = None
    class_names: np.ndarray | None = None
    paths: np.ndarray | None = None

    def __post_init__(self):
        logits = np.asarray(self.logits)
        if not np.issubdtype(logits.dtype, np.floating):
            logits = as_floats(logits, "logits", "numbers")
        elif logits.dtype.itemsize < 4:
            logits = logits.astype(np.float32)
        if logits.ndim != 2 or logits.size == 0:
            raise ValueError(f"logits must be [samples, classes]; got shape {logits.shape}")
        num_samples, num_classes = logits.shape
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            raise ValueError(f"logits must be finite; {bad.size} samples aren't, first {bad[0]}")
        source_prior = priors.uniform_prior(num_classes)
        if self.source_prior is not None:
            source_prior = priors.check_prior(
                self.source_prior, num_classes, allow_zero=False, name="source_prior"
            )
        check_class_counts(self.counts, num_classes)
        values = {
            "logits": logits,
            "labels": check_class_indices("labels", self.labels, num_samples, num_classes),
            "counts": np.asarray(priors.plain_counts(self.counts)),
            "source_prior": source_prior,
        }
        if self.class_names is not None:
            values["class_names"] = np.array(check_class_names(self.class_names, num_classes))
        if self.paths is not None:
            values["paths"] = np.asarray(self.paths)
            if values["paths"].shape != (num_samples,) or values["paths"].dtype.kind != "U":
                raise ValueError(
                    f"paths must be {num_samples} strings, one for each sample; got "
                    f"{values['paths'].dtype} {values['paths'].shape}"
                )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of_model(cls, model, batches, class_names=None, paths=None):
        """Runs a model over a test set.

        Args:
            model: `lade_tf.AdaptedModel`; its `raw_logits` are taken, without temperature.
            batches: yields (inputs, labels), as `tf.data.Dataset` does; passed through once.
            class_names, paths: as of `SavedLogits`.

        Returns:
            `SavedLogits`.

        Raises:
            ValueError: if there is no batch, or for labels that don't fit the model.
        """
        import tensorflow as tf

        raw_logits = tf.function(model.raw_logits, autograph=False)
        pairs = [(raw_logits(inputs).numpy(), np.asarray(labels)) for inputs, labels in batches]
        if not pairs:
            raise ValueError("batches must yield at least one batch of inputs and labels")
        logits, labels = map(np.concatenate, zip(*pairs, strict=True))
        counts, source_prior = model.class_counts, model.prior_adapt.source_prior
        return cls(logits, labels, counts, source_prior, class_names, paths)

    def save(self, path, dtype=None):
        """Writes an .npz file; one that exists is replaced in one step.

        Args:
            path: of the file, in a folder that exists.
            dtype: of the logits in the file, `numpy.float16` for half the size; None for their own.

        Raises:
            ValueError: for logits that are too large for `dtype`; nothing is written.
        """
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if dtype is not None:
            with np.errstate(over="ignore"):
                arrays["logits"] = self.logits.astype(dtype)
            if not np.isfinite(arrays["logits"]).all():
                largest = np.finfo(dtype).max
                raise ValueError(
                    f"logits must lie within {largest:.0f}, the largest {np.dtype(dtype)}; got "
                    f"{np.abs(self.logits).max():g}"
                )
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{k: v for k, v in arrays.items() if v is not None})

    @classmethod
    def load(cls, path):
        """Reads a file that `save`, or any other program, wrote.

        Args:
            path: an .npz with logits, labels and counts; what else there may be has defaults.

        Returns:
            `SavedLogits`.

        Raises:
            ValueError: if the file is missing, isn't an .npz, lacks an array or holds a bad one.
        """
        try:
            with open(path, "rb") as file:
                if not zipfile.is_zipfile(file):
                    raise ValueError("it isn't an .npz file")
            with np.load(path) as file:
                fields = dataclasses.fields(cls)
                arrays = {field.name: file[field.name] for field in fields if field.name in file}
                lacking = [f.name for f in fields[:3] if f.name not in arrays]
            if lacking:
                raise ValueError(f"it lacks {', '.join(lacking)}")
            return cls(**arrays)
        except Exception as error:
            raise ValueError(f"{path} doesn't hold saved logits: {error}") from error

    def adapted_to(self, target_prior):
        """Returns what the classifier answers where the label distribution is `target_prior`.

        Args:
            target_prior: [classes], sums to 1; a class may have probability 0.

        Returns:
            An `Outcome`.
        """
        target_prior = priors.check_prior(target_prior, len(self.counts), name="target_prior")
        probabilities = adapted_probabilities(self.logits, self.source_prior, target_prior)
        return Outcome(probabilities, self.labels, self.counts)


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What a classifier answers on a test set when it is adapted to a prior.

    Attributes:
        probabilities: [samples, classes], in the precision of the logits.
        labels: [samples] true classes.
        counts: [classes] training images of every class.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    @property
    def predicted(self):
        """The predicted classes, [samples]."""
        return self.probabilities.argmax(axis=1)

    def report(self, test_prior):
        """Returns `lade_tf.metrics.classification_report` where labels are as in `test_prior`."""
        weights = class_weights(self.labels, test_prior)
        return metrics.classification_report(self.probabilities, self.labels, self.counts, weights)


def adapted_probabilities(logits, source_prior, target_prior):
    """Returns softmax(f − log p_s + log p_t), equation 4 of the LADE paper.

    Args:
        logits: [samples, classes], of a floating type.
        source_prior: [classes] p_s, the prior that they carry, positive.
        target_prior: [classes] p_t; a class may have probability 0.

    Returns:
        Probabilities [samples, classes], the type of the logits.
    """
    with np.errstate(divide="ignore"):  # a target prior may be 0
        shift = (np.log(target_prior) - np.log(source_prior)).astype(logits.dtype)
    probabilities = np.empty_like(logits)
    for rows in row_blocks(logits):
        block = logits[rows] + shift
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        np.divide(block, block.sum(axis=1, keepdims=True), out=probabilities[rows])
    return probabilities
