"""Which prior a network's logits carry: what its loss leaves there, times weights by class."""

import functools
import numbers
import warnings

import keras
import numpy as np

from lade_tf import priors

TRAINING, UNIFORM = "training", "uniform"
# Not the classes: one of a user's that inherits from them may compute anything.
CROSS_ENTROPIES = (
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.categorical_crossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.binary_focal_crossentropy,
)
# Nats; weights that a user has rounded are the same weights.
SAME = 0.05


class Unstated(Exception):
    """A loss doesn't say what it leaves in the logits."""


def left_by_loss(loss, training_prior):
    """Returns the prior that training with a loss leaves in the logits, [classes]; None for none.

    Args:
        loss: a loss, or the name of one of Keras'.
        training_prior: [classes], that of the data as drawn.

    Raises:
        Unstated: the loss is none of Keras' cross-entropies and has no `source_prior`.
        ValueError: its `source_prior` isn't one, or of another number of classes.
    """
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    options = {}
    while isinstance(loss, functools.partial):
        loss, options = loss.func, {**loss.keywords, **options}
    if hasattr(loss, "source_prior"):
        name = f"source_prior of {_name(loss)}"
        return _resolved(loss.source_prior, training_prior, name)
    if isinstance(loss, keras.losses.Loss):
        is_plain = all(
            getattr(type(loss), method)
            is getattr(keras.losses.SparseCategoricalCrossentropy, method)
            for method in ("call", "__call__")
        )
        loss, options = (loss.fn, loss.get_config()) if is_plain else (None, {})
    if loss not in CROSS_ENTROPIES:
        raise Unstated
    return _weighted(training_prior, _focal_weights(loss, options, training_prior.size))


def left_by_training(model, training_prior):
    """Returns the prior that a trained Keras model's logits carry, [classes]; None for none.

    That which its compiled loss leaves. A model that isn't compiled is taken to carry the training
    prior, and so is one whose loss doesn't say, with a warning.
    """
    model = _compiled(model)
    if model is None:
        return training_prior
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    if not losses:
        plain = keras.Model
        if type(model).compute_loss is plain.compute_loss and _plain_step(model):
            return training_prior
        _warn(type(model).__name__)
        return training_prior
    left = []
    for loss in losses:
        try:
            left.append(left_by_loss(loss, training_prior))
        except Unstated:
            _warn(_name(loss))
            left.append(training_prior)
    if any(not _same(left[0], other) for other in left[1:]):
        raise ValueError(
            "source_prior must be given for this model: the losses that it is compiled with, "
            f"{', '.join(map(_name, losses))}, leave different priors in its logits"
        )
    return left[0]


def carried_prior(left, training_prior, source_prior=None, class_weight=None, sampled_counts=None):
    """Returns the prior that logits carry, [classes], or None for none.

    Args:
        left: [classes] the prior that the loss leaves there, or None for none.
        training_prior: [classes].
        source_prior: the prior itself, [classes], "training" or "uniform".
        class_weight: weights of the classes in the loss: a dict (a class that is missing weighs 1),
            [classes] or "balanced", N / (C · count).
        sampled_counts: [classes] the samples drawn of each class, where they were over- or
            undersampled.

    Raises:
        ValueError: for more than one of the last three, and bad ones.
    """
    told = {
        "source_prior": source_prior,
        "class_weight": class_weight,
        "sampled_counts": sampled_counts,
    }
    told = [name for name, value in told.items() if value is not None]
    if len(told) > 1:
        raise ValueError(
            "at most one of source_prior, class_weight and sampled_counts must be given, each says "
            f"which prior the logits carry; got {' and '.join(told)}"
        )
    if source_prior is not None:
        return _resolved(source_prior, training_prior, "source_prior")
    return _weighted(left, weights_by_class(training_prior, class_weight, sampled_counts))


def weights_by_class(training_prior, class_weight=None, sampled_counts=None):
    """Returns how often classes count, beside how often they occur: [classes], None for alike."""
    num_classes = training_prior.size
    if sampled_counts is not None:
        return _positive(sampled_counts, "sampled_counts", num_classes) / training_prior
    if getattr(class_weight, "shape", None) == ():
        class_weight = np.asarray(class_weight).item()  # what NumPy has saved of a dict, say
    if class_weight is None:
        return None
    if isinstance(class_weight, str | numbers.Number):
        if class_weight != "balanced":
            raise ValueError(
                'class_weight must be a dict, a list of weights or "balanced"; '
                f"got {class_weight!r}"
            )
        return 1 / training_prior
    if isinstance(class_weight, dict):
        class_weight = _of_dict(class_weight, num_classes)
    return _positive(class_weight, "class_weight", num_classes)


def _positive(values, name, num_classes):
    """Returns weights or drawn counts, [classes]: none is 0, whatever `zero_count` is."""
    values = priors.check_counts(values, name=name, allow_zero=True, num_classes=num_classes)
    if not values.all():
        raise ValueError(
            f"{name} must hold numbers > 0, as a class of 0 isn't trained; "
            f"got 0 at class {int(np.flatnonzero(values == 0)[0])}"
        )
    return values


def check_taken_out_once(loss, source_prior, training_prior, weights=None):
    """Raises a ValueError where a model takes another prior out than its loss leaves in the logits.

    A loss that leaves the training prior may be trained on data of another, by a sampler.

    Args:
        loss: what Keras' `compile` takes as such.
        source_prior: [classes] the prior that the model takes its logits to carry, or None.
        training_prior: [classes].
        weights: [classes] how often classes count, as far as the model was told, or None.
    """
    for one in keras.tree.flatten(loss):
        stated = getattr(one, "source_prior", TRAINING)
        if isinstance(stated, str) and stated == TRAINING:
            continue
        left = left_by_loss(one, training_prior)
        if left is not None and left.size == training_prior.size and _same(left, training_prior):
            continue
        if not _same(_weighted(left, weights), source_prior):
            argument = "" if left is None else ", source_prior=loss.source_prior"
            if weights is not None:
                argument += ", and with class_weight or sampled_counts there,"
            raise ValueError(
                "loss must fit the prior that this model takes out of its logits; "
                f"{_name(one)} leaves another there: lade_tf.AdaptedModel(network, "
                f"class_counts{argument}) is right for it"
            )


def check_class_weight(class_weight, loss, source_prior, training_prior):
    """Raises a ValueError where weights in `fit` give logits another prior than a model takes out.

    Args:
        class_weight: as `carried_prior`.
        loss: what the model is compiled with.
        source_prior: [classes] the prior that the model takes its logits to carry, or None.
        training_prior: [classes].
    """
    weights = weights_by_class(training_prior, class_weight)
    losses = [one for one in keras.tree.flatten(loss) if one is not None]
    try:
        possible = [left_by_loss(one, training_prior) for one in losses] or [training_prior]
        left = possible[0]
    except Unstated:
        left, possible = training_prior, [training_prior, None]
    if any(_same(_weighted(one, weights), source_prior) for one in possible):
        return
    if left is None:
        right = "lade_tf.AdaptedModel(network, class_counts, class_weight=class_weight)"
    elif _same(left, training_prior):
        right = "lade_tf.adapt(network, class_counts, class_weight=class_weight)"
    else:
        right = (
            "lade_tf.AdaptedModel(network, class_counts, source_prior=prior), prior in proportion "
            "to loss.source_prior times the weights,"
        )
    raise ValueError(
        "class_weight changes the prior that the logits carry, and this model takes another one "
        f"out of them: {right} is right for it"
    )


def _resolved(source_prior, training_prior, name):
    if source_prior is None or (isinstance(source_prior, str) and source_prior == UNIFORM):
        return None
    if isinstance(source_prior, str):
        if source_prior != TRAINING:
            raise ValueError(
                f'{name} must be [classes], "{TRAINING}" or "{UNIFORM}"; got {source_prior!r}'
            )
        return training_prior
    return priors.check_prior(source_prior, training_prior.size, allow_zero=False, name=name)


def _weighted(prior, weights):
    if weights is None:
        return prior
    weighted = weights if prior is None else prior * weights
    return weighted / weighted.sum()


def _same(prior, other):
    """Whether two priors, None for uniform, are the same but for rounding."""
    ratio = (1.0 if prior is None else np.asarray(prior)) / (
        1.0 if other is None else np.asarray(other)
    )
    return bool(np.ptp(np.log(ratio)) <= SAME)


def _of_dict(class_weight, num_classes):
    weights = np.ones(num_classes)
    for key, weight in class_weight.items():
        is_class = isinstance(key, numbers.Integral) and not isinstance(key, bool)
        if not is_class or not 0 <= key < num_classes:
            raise ValueError(
                f"class_weight must have classes, 0 to {num_classes - 1}, as keys; got {key!r}"
            )
        if isinstance(weight, bool | str) or not isinstance(weight, numbers.Real):
            raise ValueError(f"class_weight must hold numbers > 0; got {weight!r} for class {key}")
        weights[int(key)] = weight
    return weights


def _focal_weights(function, options, num_classes):
    """Returns the weights of the classes, [classes] or None, that Keras' focal losses have."""
    alpha = options.get("alpha")
    if function is keras.losses.binary_focal_crossentropy:
        if not options.get("apply_class_balancing"):
            return None
        alpha = 0.25 if alpha is None else alpha
        return weights_by_class(np.full(num_classes, 1 / num_classes), [1 - alpha, alpha])
    if alpha is None or np.ndim(alpha) == 0:
        return None
    return weights_by_class(np.full(num_classes, 1 / num_classes), np.asarray(alpha))


def _compiled(model):
    """Returns the compiled model that gives a model's outputs: itself, or one that it ends in.

    The usual way to probabilities is keras.Sequential([trained, keras.layers.Softmax()]).
    """
    while not model.compiled:
        is_sequential = isinstance(model, keras.Sequential)
        operations = model.layers if is_sequential else getattr(model, "operations", [])
        operations = [one for one in operations if getattr(one, "weights", None)]
        if not operations or not isinstance(operations[-1], keras.Model):
            return None
        model = operations[-1]
    return model


def _plain_step(model):
    return type(model).train_step is keras.Model.train_step


def _name(loss):
    return getattr(loss, "__name__", loss if isinstance(loss, str) else type(loss).__name__)


def _warn(name):
    warnings.warn(
        f"{name}, which the model is compiled with, doesn't say which prior it leaves in the "
        "logits: the training prior is taken out of them. Where that is right give "
        f'source_prior="{TRAINING}", where it leaves none source_prior="{UNIFORM}", else the prior '
        "itself; or give the loss an attribute source_prior",
        stacklevel=4,
    )
