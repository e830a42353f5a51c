"""A trained classifier, whatever file it comes from: run folder, .keras file or SavedModel."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lade_tf.evaluation import SavedLogits
from lade_tf.files import read_json
from lade_tf.models import export
from reproduction.run_folder import RunFolder, load_model

BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Classifier:
    """What can be done with a trained classifier without knowing where it came from.

    Attributes:
        raw_logits: function of [batch, ...] images to [batch, C] logits at their temperature.
        source_prior: [C] the prior that these logits carry, or None for the uniform one.
        counts: [C] training images of every class.
        class_names: [C] strings, or None where the file doesn't tell.
        image_shape: (height, width, channels).
    """

    raw_logits: Callable
    source_prior: list | None
    counts: list
    class_names: list | None
    image_shape: tuple

    def logits(self, images):
        """Returns the raw logits [images, C] float32 of any number of images, NumPy."""
        batches = (images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE))
        return np.concatenate([self.raw_logits(tf.cast(b, tf.float32)).numpy() for b in batches])

    def saved_logits(self, data):
        """Returns the `SavedLogits` of the test set of a data set."""
        if len(self.counts) != data.num_classes:
            raise ValueError(
                f"the model must have the {data.num_classes} classes of {data.name}; "
                f"it has {len(self.counts)}"
            )
        batches = data.test_batches(BATCH_SIZE)
        logits = np.concatenate([self.raw_logits(images).numpy() for images, _ in batches])
        names = data.class_names
        return SavedLogits(logits, data.test.labels, self.counts, self.source_prior, names)

    def probabilities(self, images):
        """Returns [images, C] float32 probabilities at the uniform prior."""
        shift = 0.0 if self.source_prior is None else np.log(self.source_prior)
        return tf.nn.softmax(tf.cast(self.logits(images) - shift, tf.float32)).numpy()


def load(run=None, model=None):
    """Returns the `Classifier` of a finished run's folder, or of a model file or folder."""
    if (run is None) == (model is None):
        raise ValueError("give either --run or --model")
    if run is not None:
        folder = RunFolder(run)
        names = folder.test_logits().class_names.tolist()
        return of_model(folder.load_model(), names)
    path = pathlib.Path(model)
    if not path.exists():
        raise ValueError(f"--model={path} doesn't exist")
    return _of_export(path) if path.is_dir() else of_model(load_model(path), None)


def of_model(model, class_names):
    """Returns the `Classifier` that an `AdaptedModel` is."""
    raw_logits = tf.function(model.raw_logits, autograph=False)
    return Classifier(
        lambda images: raw_logits(images) / model.temperature,
        model.prior_adapt.source_prior,
        model.class_counts,
        class_names,
        tuple(model.network.input_shape[1:]),
    )


def _of_export(path):
    assets = path / "assets"
    training_prior = assets / export.TRAINING_PRIOR_ASSET
    if not (path / "saved_model.pb").exists() or not training_prior.exists():
        raise ValueError(f"--model={path} isn't a SavedModel that lade_tf exported")
    serve = tf.saved_model.load(path).signatures["serve_with_prior"]
    counts = read_json(training_prior)["class_counts"]
    names = json.loads((assets / export.CLASS_NAMES_ASSET).read_text())
    uniform = tf.fill([len(counts)], 1 / len(counts))
    return Classifier(
        lambda images: serve(images=images, target_prior=uniform)["logits"],
        None,
        counts,
        # An export that was given no names has the classes' numbers there.
        None if names == [str(c) for c in range(len(names))] else names,
        tuple(serve.structured_input_signature[1]["images"].shape[1:]),
    )
