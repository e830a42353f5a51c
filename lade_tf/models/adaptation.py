"""What an `AdaptedModel` learns from samples after training: temperature, priors, probabilities."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import label_shift, priors
from lade_tf.checks import check_integer
from lade_tf.label_shift.carried_prior import find_contradiction, warn_of_contradiction
from lade_tf.label_shift.confusion import label_shares
from lade_tf.label_shift.estimate import check_options
from lade_tf.models import batches as given
from lade_tf.models.preprocessing import has_preprocessor


def predict_proba(model, inputs, batch_size=256):
    """Returns probabilities at the stored target prior: see `AdaptedModel.predict_proba`."""
    check_integer(batch_size, "batch_size", minimum=1)
    given.check_ends("inputs", inputs)
    return tf.nn.softmax(_predicted(model, model.predict, inputs, batch_size)).numpy()


def calibrate(model, inputs, labels=None, batch_size=256, prior=False):
    """Fits a model's temperature, perhaps its source prior: see `AdaptedModel.calibrate`."""
    logits, labels = labelled_logits(model, "inputs", "labels", inputs, labels, batch_size)
    layer = model.prior_adapt
    if prior:
        taken = model.training_prior, layer.initial_source_prior
        fit = label_shift.fit_carried_prior(logits, labels, *taken)
        layer.set_temperature(fit.temperature)
        layer.set_source_prior(fit.prior)
        return fit.temperature
    temperature = label_shift.fit_temperature(logits, labels, layer.source_prior)
    layer.set_temperature(temperature)
    found = find_contradiction(logits, labels, model.training_prior, layer.source_prior)
    warn_of_contradiction(found, stacklevel=3)
    return temperature


def adapt_to(model, target_inputs, source_inputs, source_labels, method, batch_size, **options):
    """Estimates a prior and makes it a model's target prior: see `AdaptedModel.adapt_to`."""
    check_options(method, options)
    num_classes = len(model.class_counts)
    target_inputs = given.unlabelled("target_inputs", target_inputs, _sample_shape(model))
    source_logits, source_labels = labelled_logits(
        model, "source_inputs", "source_labels", source_inputs, source_labels, batch_size
    )
    prior = priors.uniform_prior(num_classes)
    if method == "em" and not options.get("calibrate", True):
        # Nothing moves these to the sample's own prior, which is where EM starts.
        prior = label_shares(source_labels, num_classes)
    source, target = (
        tf.nn.softmax(model.prior_adapt(logits, target_prior=prior)).numpy()
        for logits in (source_logits, predicted_logits(model, target_inputs, batch_size))
    )
    options = {"bootstrap": 0, "training_prior": model.training_prior, **options}
    estimate = label_shift.estimate(method, source, source_labels, target, **options)
    model.set_target_prior(estimate.prior)
    return estimate


def labelled_logits(model, inputs_name, name, inputs, labels, batch_size):
    """Returns raw logits [samples, classes] and labels [samples] of a labelled sample.

    Inputs that yield their labels are gone through once: another pass may have another order.
    """
    check_integer(batch_size, "batch_size", minimum=1)
    batches = given.batches_of(inputs_name, inputs, _sample_shape(model))
    num_classes = len(model.class_counts)
    if labels is not None:
        if batches and not isinstance(inputs, given.ORDERED):
            its_own = f"is a {type(inputs).__name__}: its order is its own"
            raise ValueError(
                f"{name} must be left out where {inputs_name} {its_own}, and the labels that it "
                "yields are used"
                if batches.yields_labels
                else f"{inputs_name} must yield its labels too, (inputs, labels), where it "
                + its_own
            )
        num_samples = len(inputs) if isinstance(inputs, np.ndarray) else None
        labels = given.class_indices(name, labels, num_samples, num_classes)
    elif not (batches and batches.yields_labels):
        raise ValueError(
            f"{name} must be given, except for a tf.data.Dataset, PyDataset or other iterable "
            "that yields them"
        )
    if not batches:
        return predicted_logits(model, inputs, batch_size), labels
    logits, own = _passed(model, batches)
    if own is None:
        return logits, labels
    own = given.class_indices(name, own, None, num_classes)
    if labels is not None and not np.array_equal(labels, own):
        raise ValueError(
            f"{name} must be those that the inputs yield, in their order; these differ. Where "
            f"they are shuffled leave {name} out"
        )
    return logits, own


def predicted_logits(model, inputs, batch_size):
    """Returns the raw logits [samples, classes] of what `predict` takes, or of `Batches`."""
    if isinstance(inputs, given.Batches):
        return _passed(model, inputs)[0]
    return _predicted(model, raw_predictor(model), inputs, batch_size)


def raw_predictor(model):
    """Returns the `predict` of a model that gives raw logits, always the same."""
    if "_predict_raw" not in vars(model):
        with model.distribute_strategy.scope():
            # Not as an attribute: Keras would find a layer in it that holds this model.
            vars(model)["_predict_raw"] = _RawLogits(model).predict
    return vars(model)["_predict_raw"]


class _RawLogits(keras.Model):
    """Gives a model's raw logits, for `predict`."""

    def __init__(self, model):
        super().__init__(autocast=False, name="raw_logits")
        self.model = model
        self.jit_compile = False

    def call(self, inputs):
        return self.model.raw_logits(inputs)


def _predicted(model, predict, inputs, batch_size):
    """Returns what a `predict` gives, [samples, classes], also of no samples."""
    if isinstance(inputs, np.ndarray) and not len(inputs):
        return np.zeros([0, len(model.class_counts)], np.float32)
    arrays = {} if isinstance(inputs, tf.data.Dataset) else {"batch_size": batch_size}
    return predict(inputs, verbose=0, **arrays)


def _passed(model, batches):
    """Returns raw logits [samples, classes] of `Batches`, and the labels or None."""
    forward = tf.function(model.raw_logits, reduce_retracing=True, autograph=False)
    passed = [(forward(x), y if y is None else np.asarray(y)) for x, y in batches]
    logits = tf.concat([logits for logits, _ in passed], axis=0)
    return logits, np.concatenate([y for _, y in passed]) if batches.yields_labels else None


def _sample_shape(model):
    """Returns the shape of one sample, None where it isn't known."""
    inputs = getattr(model.network, "inputs", None) or []
    is_known = len(inputs) == 1 and not has_preprocessor(model.network)
    return tuple(inputs[0].shape[1:]) if is_known else None
