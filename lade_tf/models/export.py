"""Export to a SavedModel that needs TensorFlow alone to be served."""

import json
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from lade_tf.checks import check_class_names
from lade_tf.models.networks import raw_input_shape

CLASS_NAMES_ASSET = "class_names.json"
TRAINING_PRIOR_ASSET = "training_prior.json"


def export_saved_model(model, filepath, class_names=None, input_signature=None):
    """Writes `model` as a SavedModel with two signatures.

    "serving_default" takes `images` and answers at the stored target prior; "serve_with_prior"
    takes `images` and `target_prior`, [classes] or [batch, classes]. Both accept any batch size and
    give `logits` (adapted, float32) and `probabilities`, [batch, classes], and `label`, [batch]
    int64. A prior that isn't one fails with an assertion that says why. The loaded object also has
    `set_target_prior(prior)`, which changes the stored prior in the serving process. The folder
    assets/ holds class_names.json, a list, and training_prior.json, {"prior", "class_counts"}.

    Args:
        model: a built `AdaptedModel` whose network has one input.
        filepath: the folder to write, new, empty or a SavedModel's, which is replaced.
        class_names: C strings in label order, or None for "0" to "C-1".
        input_signature: tf.TensorSpec or keras.InputSpec of the images, alone or in a list; None
            takes that of the network's one input.

    Raises:
        ValueError: for a `filepath` that holds anything else, names that aren't such, a network of
            several inputs, without `input_signature` one whose input isn't known, and for an
            address such as gs://...
    """
    if "://" in str(filepath):
        raise ValueError(
            f"filepath must be a local folder; got {filepath}: export there and copy it"
        )
    # What a link points to is replaced, not the link.
    filepath = pathlib.Path(filepath).resolve()
    _check_replaceable(filepath)
    num_classes = len(model.class_counts)
    if class_names is None:
        class_names = map(str, range(num_classes))
    names = check_class_names(class_names, num_classes)
    training_prior = {"prior": model.training_prior.tolist(), "class_counts": model.class_counts}
    module = _ServedModel(model, image_spec(model.network, input_signature))
    signatures = {"serving_default": module.serve, "serve_with_prior": module.serve_with_prior}
    filepath.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved there whole: a kill never leaves half a model.
    with tempfile.TemporaryDirectory(dir=filepath.parent, prefix="tmp-") as folder:
        module.assets = [
            _write_asset(folder, CLASS_NAMES_ASSET, names),
            _write_asset(folder, TRAINING_PRIOR_ASSET, training_prior),
        ]
        written = pathlib.Path(folder, "saved_model")
        tf.saved_model.save(module, str(written), signatures=signatures)
        if filepath.exists():
            shutil.rmtree(filepath)
        written.rename(filepath)


def _check_replaceable(filepath):
    if not filepath.exists():
        return
    if filepath.is_dir():
        content = {path.name for path in filepath.iterdir()}
        if not content or "saved_model.pb" in content:
            return
    raise ValueError(
        f"filepath must be a new or empty folder, or a SavedModel to replace; {filepath} is neither"
    )


class _ServedModel(tf.Module):
    """The functions and variables that go into the SavedModel."""

    def __init__(self, model, image_spec):
        super().__init__()
        # Keras variables aren't tf.Module's to find; unseen, they would not be saved.
        self.model_variables = [variable.value for variable in model.variables]
        # Nor are the tables of lookup layers.
        self.layers = [layer for layer in model._flatten_layers() if layer is not model]
        prior_spec = tf.TensorSpec(None, tf.float32, name="target_prior")
        stored_spec = tf.TensorSpec([len(model.class_counts)], tf.float32, name="prior")

        @tf.function(input_signature=[image_spec], autograph=False)
        def serve(images):
            return _named_outputs(model(images, training=False))

        @tf.function(input_signature=[image_spec, prior_spec], autograph=False)
        def serve_with_prior(images, target_prior):
            return _named_outputs(model(images, target_prior=target_prior, training=False))

        @tf.function(input_signature=[stored_spec], autograph=False)
        def set_target_prior(prior):
            stored = model.prior_adapt.target_prior
            stored.assign(model.prior_adapt.check_in_graph(prior, batch_size=1)[0])

        self.serve = serve
        self.serve_with_prior = serve_with_prior
        self.set_target_prior = set_target_prior


def _named_outputs(logits):
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        "label": tf.argmax(logits, axis=-1),
    }


def image_spec(network, input_signature=None):
    """Returns the tf.TensorSpec of a network's one input, or the one that was given."""
    if input_signature is not None:
        specs = keras.tree.flatten(input_signature)
        given = [getattr(spec, name, None) for spec in specs for name in ("shape", "dtype")]
        if len(given) != 2 or any(part is None for part in given):
            raise ValueError(
                "input_signature must be one tf.TensorSpec or keras.InputSpec with shape and "
                f"dtype; got {input_signature!r}"
            )
        return tf.TensorSpec(*given, name="images")
    inputs = getattr(network, "inputs", None)
    if not inputs or len(inputs) != 1:
        raise ValueError(
            "network must have exactly one input, and where its shape isn't known input_signature "
            f"gives it; got {len(inputs) if inputs else 'no known'} inputs"
        )
    return tf.TensorSpec((None, *raw_input_shape(network)[1:]), inputs[0].dtype, name="images")


def _write_asset(folder, name, content):
    path = pathlib.Path(folder, name)
    path.write_text(json.dumps(content))
    return tf.saved_model.Asset(str(path))
