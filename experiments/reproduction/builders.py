"""From a configuration to what it trains: one function for each method.

Each takes the configuration and the data, a second stage the `RunFolder` of its first one too, and
returns a `Trainee`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import keras
import numpy as np

import lade_tf
from lade_tf import backbones, layers, losses, models
from lade_tf.data import class_probabilities
from lade_tf.data.sets.folder import LARGEST_IN_MEMORY
from lade_tf.evaluation import SavedLogits
from lade_tf.models import decoupled
from reproduction import pretrained

TEST_BATCH_SIZE = 256
BACKBONES = {
    "resnet32": backbones.resnet32,
    "resnet50": backbones.resnet50,
    "resnet152": backbones.resnet152,
    "resnext50": backbones.resnext50,
    "small_cnn": backbones.small_cnn,
}
# BBN's; ResNet-32 ends in two branches as it is.
TWO_BRANCHES = {
    "resnet32": backbones.resnet32,
    "small_cnn": functools.partial(backbones.small_cnn, branches=2),
}


def run_over_test_set(model, data):
    """Returns the `SavedLogits` of an `AdaptedModel` on the test set of a data set."""
    return SavedLogits.of_model(model, data.test_batches(TEST_BATCH_SIZE), data.class_names)


@dataclasses.dataclass(frozen=True)
class Trainee:
    """What a configuration trains.

    Attributes:
        model: the `AdaptedModel`, not compiled yet.
        loss: for `compile`; None where the model owns it or nothing is trained.
        test_logits: (model, data) → `SavedLogits`.
        chosen: {parameter: value} chosen on data, for the result.
    """

    model: lade_tf.AdaptedModel
    loss: keras.losses.Loss | None = None
    test_logits: Callable = run_over_test_set
    chosen: dict = dataclasses.field(default_factory=dict)


def softmax(config, data):
    """Cross-entropy, which is logit adjustment with τ = 0."""
    smoothing = config.label_smoothing
    loss = losses.LogitAdjustment(data.class_counts, tau=0.0, label_smoothing=smoothing)
    return Trainee(_carrying_training_prior(build_network(config, data), config, data), loss)


def logit_adjustment(config, data):
    """Its logits carry the prior ∝ π^(1−τ)."""
    counts, smoothing = data.class_counts, config.label_smoothing
    loss = losses.LogitAdjustment(counts, config.tau, label_smoothing=smoothing)
    network = build_network(config, data)
    return Trainee(lade_tf.AdaptedModel(network, counts, source_prior=loss.source_prior), loss)


def balanced_softmax(config, data):
    """Its logits are disentangled."""
    loss = losses.BalancedSoftmax(data.class_counts, label_smoothing=config.label_smoothing)
    return Trainee(lade_tf.AdaptedModel(build_network(config, data), data.class_counts), loss)


def focal(config, data):
    """On the softmax."""
    model = _carrying_training_prior(build_network(config, data), config, data)
    return Trainee(model, losses.Focal(config.gamma))


def cb_focal(config, data):
    """On sigmoids, class-balanced; its logits are taken to carry no prior."""
    loss = losses.ClassBalancedFocal(data.class_counts, config.beta, config.gamma)
    # As Cui et al. start: every class with probability 1 / C.
    head = functools.partial(
        backbones.classifier_head,
        num_classes=data.num_classes,
        initial_bias=-math.log(data.num_classes - 1),
    )
    network = build_network(config, data, head)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), loss)


def ldam(config, data):
    """With a cosine classifier."""
    network, loss = _ldam(config, data)
    return Trainee(_carrying_training_prior(network, config, data), loss)


def ldam_drw(config, data):
    """Its logits are taken to carry no prior."""
    if not 1 <= config.drw_epoch <= config.epochs:
        raise ValueError(
            f"--drw_epoch must be 1 to --epochs={config.epochs}; got {config.drw_epoch}"
        )
    network, loss = _ldam(config, data)
    start_step = (config.drw_epoch - 1) * data.steps_per_epoch(config.batch_size)
    model = models.DeferredReweightingModel(network, data.class_counts, start_step, config.beta)
    return Trainee(model, loss)


def _ldam(config, data):
    """Returns the network with a cosine classifier, and the loss."""
    classifier = layers.CosineClassifier(data.num_classes, config.scale, name="logits")
    loss = losses.LDAM(data.class_counts, config.max_margin, config.scale)
    return build_network(config, data, classifier), loss


def crt(config, data, first_stage):
    """A new classifier on frozen features."""
    network = decoupled.retrain_classifier(first_stage.load_model().network)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), _cross_entropy())


def lws(config, data, first_stage):
    """A scale for each class on frozen features and classifier."""
    network = decoupled.scale_classifier(first_stage.load_model().network)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), _cross_entropy())


def tau_norm(config, data, first_stage):
    """The classifier's columns normalised.

    Without --tau each half of the test images is scored with the τ that is best on the other. The
    model itself gets the one that is best on all of them: it mustn't be scored on them.
    """
    network = first_stage.load_model().network
    if config.tau is not None:
        normalized = decoupled.normalize_classifier(network, config.tau)
        return Trainee(lade_tf.AdaptedModel(normalized, data.class_counts))
    saved = first_stage.test_logits()
    sample = (saved.logits, saved.labels, *decoupled.bias_and_norms(network))
    tau = decoupled.choose_tau(*sample)
    logits, halves = decoupled.cross_fitted_logits(*sample)
    uniform = np.asarray(lade_tf.priors.uniform_prior(data.num_classes))
    fitted = dataclasses.replace(saved, logits=logits.astype(np.float32), source_prior=uniform)
    model = lade_tf.AdaptedModel(decoupled.normalize_classifier(network, tau), data.class_counts)
    chosen = {"tau": tau, "tau_of_halves": list(halves)}
    return Trainee(model, test_logits=lambda model, data: fitted, chosen=chosen)


def ncm(config, data, first_stage):
    """The class means of the features; its logits are −½ · squared distance."""
    batches = data.plain_batches("train", TEST_BATCH_SIZE)
    network = first_stage.load_model().network
    network = decoupled.nearest_class_mean(network, batches, data.num_classes)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts))


def bbn(config, data):
    """Two branches with a mixing weight that moves from the one to the other."""
    network = build_network(config, data, kinds=TWO_BRANCHES)
    steps = data.steps_per_epoch(config.batch_size)
    return Trainee(models.BBN(network, data.class_counts, config.epochs, steps))


def causal_norm(config, data):
    """A normalised classifier that leaves out the common direction at inference."""
    momentum = None if follows_learning_rate(config) else 0.9
    classifier = layers.CausalNormClassifier(
        data.num_classes, effect=config.effect, momentum=momentum, name="logits"
    )
    network = build_network(config, data, classifier)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), _cross_entropy())


def follows_learning_rate(config):
    """Whether Causal Norm's μ does so: as released, on all data sets but those of small images."""
    return (config.image_size or 0) > LARGEST_IN_MEMORY


def oltr(config, data, first_stage):
    """Modulated attention and a memory of centroids on top of a softmax network."""
    network = first_stage.load_model().network
    batches = data.plain_batches("train", TEST_BATCH_SIZE)
    centroids = decoupled.class_means(network, batches, data.num_classes)
    network = models.oltr_network(network, centroids)
    return Trainee(models.OLTR(network, data.class_counts, config.centroid_weight))


def lade(config, data):
    """Its logits are disentangled, the model owns its loss."""
    parameters = config.alpha, config.remine_lambda, config.estimator
    return Trainee(lade_tf.LADEModel(build_network(config, data), data.class_counts, *parameters))


def _carrying_training_prior(network, config, data):
    """Returns the model of a network whose logits carry the prior that its sampler drew from."""
    prior = class_probabilities(config.sampler, data.class_counts, progress=1.0)
    return lade_tf.AdaptedModel(network, data.class_counts, source_prior=prior)


def _cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _normalisation(data):
    """Returns what raw pixels are multiplied by, and what is added then, for each channel."""
    scale = [1 / (data.pixel_max * std) for std in data.std]
    return scale, [-mean / std for mean, std in zip(data.mean, data.std, strict=True)]


def build_network(config, data, classifier=None, kinds=BACKBONES):
    """Returns raw pixels → logits: normalisation, backbone, classifier (by default linear)."""
    name, weights = config.backbone, config.weights
    if name not in kinds:
        raise ValueError(
            f"--loss={config.loss} needs a --backbone with two branches, {' or '.join(kinds)}; "
            f"got {name}"
        )
    pixels = keras.Input(data.image_shape, name="images")
    scale, offset = pretrained.normalisation(weights) or _normalisation(data)
    normalised = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalise")(pixels)
    backbone = kinds[name](data.image_shape, **pretrained.backbone_arguments(name, weights))
    pretrained.load(name, backbone, weights)
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = config.synchronized_batchnorm
    backbone.trainable = not config.freeze_backbone
    features = backbone(normalised)
    if classifier is None:
        logits = backbones.classifier_head(features, data.num_classes)
    else:
        logits = classifier(features)
    return keras.Model(pixels, logits, name="network")
