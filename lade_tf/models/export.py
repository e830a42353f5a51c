"""Export to a SavedModel that needs TensorFlow alone to be served."""

import json
import pathlib
import tempfile

import keras
import tensorflow as tf

from lade_tf.checks import check_class_names
from lade_tf.models.preprocessing import raw_input_shape

CLASS_NAMES_ASSET = "class_names.json"
TRAINING_PRIOR_ASSET = "training_prior.json"


def export_saved_model(model, filepath, class_names=None, input_signature=None):
    """Writes `model` as a SavedModel with two signatures.

    "serving_default" takes `images` and answers at the stored target prior; "serve_with_prior"
    takes `images` and `target_prior`, [classes] or [batch, classes]. Both accept any batch size,
    0 too, and give `logits` (adapted, float32) and `probabilities`, [batch, classes], and `label`,
    [batch] int64. An image with a NaN or infinite pixel, and one that the network itself gives NaN
    for, gets NaN logits and probabilities and the label −1.

    Images of another rank, height, width or number of channels than the network's, and a prior
    that isn't one, are tf.errors.InvalidArgumentError, before the network runs, and say why;
    dimensions that the network leaves free stay free. The loaded object also has
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
    check_replaceable(filepath)
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
            filepath.rename(pathlib.Path(folder, "old"))
        written.rename(filepath)


def check_replaceable(filepath):
    """Raises a ValueError unless an export may be written to a path: `export_saved_model`."""
    filepath = pathlib.Path(filepath)
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
            return _answers(model, tf.ensure_shape(images, image_spec.shape))

        @tf.function(input_signature=[image_spec, prior_spec], autograph=False)
        def serve_with_prior(images, target_prior):
            images = tf.ensure_shape(images, image_spec.shape)
            prior = model.prior_adapt.check_in_graph(target_prior, tf.shape(images)[0])
            with tf.control_dependencies([prior]):
                images = tf.identity(images)
            return _answers(model, images, target_prior)

        @tf.function(input_signature=[stored_spec], autograph=False)
        def set_target_prior(prior):
            stored = model.prior_adapt.target_prior
            stored.assign(model.prior_adapt.check_in_graph(prior, batch_size=1)[0])

        self.serve = serve
        self.serve_with_prior = serve_with_prior
        self.set_target_prior = set_target_prior


def _answers(model, images, target_prior=None):
    """Returns what a signature gives for images of the right shape and a prior."""
    batch_size = tf.shape(images)[0]
    raw_logits = model.raw_logits(_at_least_one(images))[:batch_size]
    # The network's own operations may turn NaN into numbers: ReLU does.
    known = _all_finite(images)[:, None] & ~tf.math.is_nan(raw_logits)
    logits = model.prior_adapt(tf.where(known, raw_logits, float("nan")), target_prior)
    probabilities = tf.nn.softmax(logits)
    known = ~tf.reduce_any(tf.math.is_nan(probabilities), axis=-1)
    label = tf.where(known, tf.argmax(logits, axis=-1), -1)
    return {"logits": logits, "probabilities": probabilities, "label": label}


def _at_least_one(images):
    """Returns `images`, and for an empty batch one of zeros: not every kernel can do with none."""
    if images.dtype == tf.string:
        return images  # for a tokenizer, which can
    missing = tf.cast(tf.shape(images)[0] == 0, tf.int32)
    others = tf.zeros([tf.rank(images) - 1, 2], tf.int32)
    padded = tf.pad(images, tf.concat([[[0, missing]], others], axis=0))  # no copy for nothing
    return tf.ensure_shape(padded, images.shape)


def _all_finite(images):
    """Returns [batch], whether each image has finite pixels alone."""
    if not images.dtype.is_floating:
        return tf.ones(tf.shape(images)[:1], tf.bool)
    return tf.reduce_all(tf.math.is_finite(images), axis=tf.range(1, tf.rank(images)))


def image_spec(network, input_signature=None):
    """Returns the tf.TensorSpec of a network's one input, or the one that was given.

    Dimensions that are free in the one that was given and known of the network are the network's.
    """
    inputs = getattr(network, "inputs", None) or []
    shape = None
    if len(inputs) == 1:
        shape = tf.TensorShape((None, *raw_input_shape(network)[1:]))
    if input_signature is not None:
        specs = keras.tree.flatten(input_signature)
        given = [getattr(spec, name, None) for spec in specs for name in ("shape", "dtype")]
        if len(given) != 2 or any(part is None for part in given):
            raise ValueError(
                "input_signature must be one tf.TensorSpec or keras.InputSpec with shape and "
                f"dtype; got {input_signature!r}"
            )
        spec = tf.TensorSpec(*given, name="images")
        if shape is None or spec.shape.rank not in (None, shape.rank):
            return spec
        if not spec.shape.is_compatible_with(shape):
            raise ValueError(
                f"input_signature must fit the network's input, {shape}; got {spec.shape}"
            )
        return tf.TensorSpec(spec.shape.merge_with(shape), spec.dtype, name="images")
    if shape is None:
        raise ValueError(
            "network must have exactly one input, and where its shape isn't known input_signature "
            f"gives it; got {len(inputs) or 'no known'} inputs"
        )
    return tf.TensorSpec(shape, inputs[0].dtype, name="images")


def _write_asset(folder, name, content):
    path = pathlib.Path(folder, name)
    path.write_text(json.dumps(content))
    return tf.saved_model.Asset(str(path))
