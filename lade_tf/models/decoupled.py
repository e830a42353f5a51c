"""A second stage for a trained network: its features stay, its classifier is made anew.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
section 4: cRT, LWS, τ-normalisation and nearest class mean. All of them take a network that gives
logits through one linear `keras.layers.Dense` and return another that shares its layers; the shared
layers are frozen, in the given network too. The logits are float32 and made to carry no prior.
"""

import keras
import numpy as np
import tensorflow as tf

from lade_tf.array_checks import check_class_indices
from lade_tf.backbones import classifier_head
from lade_tf.checks import check_integer, check_number
from lade_tf.layers import ClassScale, NearestClassMean
from lade_tf.models.preprocessing import has_preprocessor

TAUS = np.linspace(0, 2, 21)


def split(network):
    """Returns what a network consists of: the model that gives its features, and its classifier.

    Args:
        network: a functional or built sequential keras.Model of one input, whose output is that of
            a `keras.layers.Dense` without activation, [batch, classes].

    Returns:
        (feature_model, dense_layer), sharing the network's layers.

    Raises:
        ValueError: for any other network.
    """
    inputs, outputs = (getattr(network, name, None) or () for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "network must be a functional keras.Model of one input and one output; "
            f"got {network!r} with {len(inputs)} inputs and {len(outputs)} outputs"
        )
    if has_preprocessor(network):
        raise ValueError(
            "network must take its inputs as they are: these parts would lose its preprocessor. "
            "Set network.preprocessor = None, and apply it to the data yourself"
        )
    dense = network.layers[-1]
    # The exact type: a subclass may compute something else than a linear function.
    linear = type(dense) is keras.layers.Dense and dense.activation is keras.activations.linear
    if not linear or dense.output is not outputs[0] or len(outputs[0].shape) != 2:
        raise ValueError(
            "network must end in a keras.layers.Dense without activation, which gives its logits "
            f"[batch, classes]; its last layer is {dense!r}"
        )
    return keras.Model(inputs[0], dense.input), dense


def retrain_classifier(network):
    """Classifier re-training (cRT): frozen features, a fresh linear classifier to be trained.

    Kang et al., section 4.1; train it with the "class_balanced" sampler.

    Args:
        network: as `split` takes it; its features are frozen.

    Returns:
        A keras.Model that gives logits [batch, classes].

    Raises:
        ValueError: as `split`.
    """
    feature_model, dense = split(network)
    feature_model.trainable = False
    logits = classifier_head(feature_model.outputs[0], dense.units, name=dense.name)
    return keras.Model(feature_model.inputs[0], logits)


def scale_classifier(network):
    """Learnable weight scaling (LWS): everything is frozen but one scale a class, 1 at first.

    f_c = s_c · (w_c·x + b_c), Kang et al., section 4.1; the bias is scaled too, as in their
    released code. Train it with the "class_balanced" sampler.

    Args:
        network: as `split` takes it; all of it is frozen.

    Returns:
        A keras.Model that gives logits [batch, classes].

    Raises:
        ValueError: as `split`.
    """
    feature_model, dense = split(network)
    feature_model.trainable = dense.trainable = False
    return keras.Model(network.inputs[0], ClassScale(name="class_scale")(dense.output))


def normalize_classifier(network, tau):
    """τ-normalisation: every class' weights are divided by their norm to the power τ, no bias.

    f_c = w_c·x / ‖w_c‖^τ, Kang et al., section 4.1, equation 2. There is nothing to train: all of
    it is frozen. τ = 0 gives the network's logits without the bias, τ = 1 weights of norm 1.

    Args:
        network: as `split` takes it; its features are frozen.
        tau: τ ≥ 0, chosen on images that aren't scored with it, see `cross_fitted_logits`.

    Returns:
        A keras.Model that gives logits [batch, classes].

    Raises:
        ValueError: as `split`, for a τ that is negative or not finite, and weights of norm 0.
    """
    tau = check_number(tau, "tau", minimum=0)
    feature_model, dense = split(network)
    _, norms = bias_and_norms(network)
    feature_model.trainable = False
    normalized = keras.layers.Dense(
        dense.units, use_bias=False, trainable=False, dtype="float32", name=dense.name
    )
    model = keras.Model(feature_model.inputs[0], normalized(feature_model.outputs[0]))
    normalized.kernel.assign(dense.kernel / norms.astype(np.float32) ** tau)
    return model


def bias_and_norms(network):
    """Returns the classifier's bias and the norms of its weights, each [classes] float64.

    Raises:
        ValueError: as `split`, and for weights of norm 0.
    """
    _, dense = split(network)
    kernel = keras.ops.convert_to_numpy(dense.kernel).astype(np.float64)
    bias = keras.ops.convert_to_numpy(dense.bias) if dense.use_bias else np.zeros(dense.units)
    norms = _check_norms(np.linalg.norm(kernel, axis=0), dense.units)
    return bias.astype(np.float64), norms


def tau_normalized_logits(logits, bias, norms, tau):
    """τ-normalisation of saved logits: (f_c − b_c) / ‖w_c‖^τ, as `normalize_classifier` gives.

    Args:
        logits: [samples, classes] of a network with a linear classifier.
        bias: [classes], the classifier's; zeros where it has none.
        norms: [classes], ‖w_c‖, the norms of the columns of its kernel.
        tau: τ ≥ 0.

    Returns:
        [samples, classes] float64.

    Raises:
        ValueError: for a τ that is negative or not finite, another shape, and norms that aren't
            finite and positive.
    """
    tau = check_number(tau, "tau", minimum=0)
    logits, bias, norms = _check_classifier(logits, bias, norms)
    return (logits - bias) / norms**tau


def choose_tau(logits, labels, bias, norms, taus=TAUS):
    """Returns the τ of the highest accuracy, the smallest where several reach it.

    Args:
        logits: [samples, classes] of a network with a linear classifier.
        labels: [samples] integers; balanced, or the accuracy is that of their own distribution.
        bias: [classes], the classifier's; zeros where it has none.
        norms: [classes], the norms of the columns of its kernel.
        taus: candidates, each ≥ 0.

    Raises:
        ValueError: as `tau_normalized_logits`, without candidates, and for labels that aren't one
            class index a sample.
    """
    taus = sorted(check_number(tau, "tau", minimum=0) for tau in taus)
    if not taus:
        raise ValueError("taus must hold at least one candidate; got none")
    logits, bias, norms = _check_classifier(logits, bias, norms)
    labels = check_class_indices("labels", labels, *logits.shape)
    hits = [
        np.sum(tau_normalized_logits(logits, bias, norms, tau).argmax(axis=1) == labels)
        for tau in taus
    ]
    return taus[int(np.argmax(hits))]  # argmax gives the first of equals


def cross_fitted_logits(logits, labels, bias, norms, taus=TAUS, seed=0):
    """τ-normalised logits of which no sample helped to choose the τ that scores it.

    The samples are halved class by class; each half gets the τ that `choose_tau` finds on the
    other.

    Args:
        logits: [samples, classes] of a network with a linear classifier.
        labels: [samples] integers.
        bias: [classes], the classifier's; zeros where it has none.
        norms: [classes], the norms of the columns of its kernel.
        taus: candidates, each ≥ 0.
        seed: non-negative integer; the halves are a function of it and the labels.

    Returns:
        ([samples, classes] float64 logits in the given order, (tau_a, tau_b)): the τ found on the
        first half, which the second half got, and the other way round.

    Raises:
        ValueError: as `choose_tau`, for fewer than two samples and a bad seed.
    """
    logits, bias, norms = _check_classifier(logits, bias, norms)
    labels = check_class_indices("labels", labels, *logits.shape)
    if len(labels) < 2:
        raise ValueError(f"logits must hold at least 2 samples to be halved; got {len(labels)}")
    halves = stratified_halves(labels, seed)
    chosen = tuple(choose_tau(logits[half], labels[half], bias, norms, taus) for half in halves)
    fitted = np.empty_like(logits)
    for half, tau in zip(halves, chosen[::-1], strict=True):
        fitted[half] = tau_normalized_logits(logits[half], bias, norms, tau)
    return fitted, chosen


def stratified_halves(labels, seed):
    """Returns the positions of two random halves that hold each class alike, up to one sample.

    Args:
        labels: [samples] integers.
        seed: non-negative integer.
    """
    rng = np.random.default_rng(check_integer(seed, "seed", minimum=0))
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(np.asarray(labels)[shuffled], kind="stable")]
    return by_class[::2], by_class[1::2]


def nearest_class_mean(network, batches, num_classes):
    """Nearest class mean (NCM): logits −½·‖x − μ_c‖² with the training features' means μ_c.

    Kang et al., section 4.1, with the Euclidean distance. There is nothing to train: all of it is
    frozen.

    Args:
        network: as `split` takes it; its features are frozen.
        batches: an iterable of (images, labels [batch] integers), each training image once and
            without augmentation. Class means are accumulated in float64.
        num_classes: how many classes there are.

    Returns:
        A keras.Model that gives logits [batch, classes].

    Raises:
        ValueError: as `split`, for labels outside 0..num_classes−1, and a class without images.
    """
    means = class_means(network, batches, num_classes)
    feature_model, _ = split(network)
    feature_model.trainable = False
    head = NearestClassMean(num_classes, name="nearest_class_mean")
    model = keras.Model(feature_model.inputs[0], head(feature_model.outputs[0]))
    head.means.assign(means)
    return model


def class_means(network, batches, num_classes):
    """Returns the mean features of each class, [classes, d] float64; arguments as above."""
    feature_model, _ = split(network)
    num_classes = check_integer(num_classes, "num_classes", minimum=1)

    @tf.function(reduce_retracing=True, autograph=False)
    def features_of(images):
        return tf.cast(feature_model(images, training=False), tf.float64)

    sums = np.zeros((num_classes, feature_model.outputs[0].shape[-1]))
    counts = np.zeros(num_classes, np.int64)
    for images, labels in batches:
        labels = check_class_indices("labels", labels, len(images), num_classes)
        np.add.at(sums, labels, features_of(images).numpy())
        counts += np.bincount(labels, minlength=num_classes)
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        more = f" ({missing.size} such classes)" if missing.size > 1 else ""
        raise ValueError(
            f"batches must hold images of every class; class {missing[0]} has none{more}"
        )
    return sums / counts[:, None]


def _check_classifier(logits, bias, norms):
    """Returns float64 logits [samples, classes], bias [classes] and norms [classes]."""
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape [samples, classes]; got shape {logits.shape}")
    num_classes = logits.shape[1]
    bias = np.asarray(bias, np.float64)
    if bias.shape != (num_classes,) or not np.isfinite(bias).all():
        raise ValueError(f"bias must hold {num_classes} finite numbers, one a class; got {bias!r}")
    return logits, bias, _check_norms(norms, num_classes)


def _check_norms(norms, num_classes):
    norms = np.asarray(norms, np.float64)
    if norms.shape != (num_classes,):
        raise ValueError(f"norms must hold {num_classes} numbers; got shape {norms.shape}")
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise ValueError(
            "norms of the classifier's weights must be finite numbers > 0; "
            f"got {norms[bad[0]]:g} at class {bad[0]}"
        )
    return norms
