"""From a configuration to a compiled model: one row for each --loss."""

import keras

import lade_tf
from lade_tf import backbones
from lade_tf.checks import check_integer
from lade_tf.optimizers import SGD, WarmupStepDecay

BACKBONES = {"resnet32": backbones.resnet32, "small_cnn": backbones.small_cnn}
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def softmax(network, counts, config):
    """Cross-entropy; its logits carry the training prior (adapted: PC Softmax)."""
    model = lade_tf.AdaptedModel(network, counts, source_prior=lade_tf.priors.class_prior(counts))
    return model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def balanced_softmax(network, counts, config):
    """Balanced Softmax; its logits are disentangled."""
    return lade_tf.AdaptedModel(network, counts), lade_tf.losses.BalancedSoftmax(counts)


def logit_adjustment(network, counts, config):
    """Logit adjustment; its logits carry the prior ∝ π^(1−τ)."""
    loss = lade_tf.losses.LogitAdjustment(counts, config["tau"])
    return lade_tf.AdaptedModel(network, counts, source_prior=loss.source_prior), loss


def focal(network, counts, config):
    """Focal loss on the softmax; its logits carry the training prior."""
    model = lade_tf.AdaptedModel(network, counts, source_prior=lade_tf.priors.class_prior(counts))
    return model, lade_tf.losses.Focal(config["gamma"])


def cb_focal(network, counts, config):
    """Class-balanced focal loss on sigmoids; its logits are taken to carry no prior."""
    loss = lade_tf.losses.ClassBalancedFocal(counts, config["beta"], config["gamma"])
    return lade_tf.AdaptedModel(network, counts), loss


def lade(network, counts, config):
    """LADE; its logits are disentangled, the model owns its loss."""
    model = lade_tf.LADEModel(
        network, counts, config["alpha"], config["remine_lambda"], config["estimator"]
    )
    return model, None


METHODS = {
    method.__name__: method
    for method in (softmax, balanced_softmax, logit_adjustment, focal, cb_focal, lade)
}


def build_network(config, data):
    """Returns raw pixels → logits: normalisation, backbone, linear classifier."""
    pixels = keras.Input(data.image_shape, name="images")
    scale = [1 / (data.pixel_max * std) for std in data.std]
    offset = [-mean / std for mean, std in zip(data.mean, data.std, strict=True)]
    normalised = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalise")(pixels)
    features = BACKBONES[config["backbone"]](data.image_shape)(normalised)
    logits = backbones.classifier_head(features, data.num_classes)
    return keras.Model(pixels, logits, name="network")


def build_model(config, data):
    """Returns the compiled model of a run, initialised from its seed, optimizer built."""
    keras.config.set_dtype_policy(POLICIES[config["precision"]])
    check_integer(config["seed"], "--seed", minimum=0)
    keras.utils.set_random_seed(config["seed"])
    network = build_network(config, data)
    model, loss = METHODS[config["loss"]](network, data.class_counts, config)
    schedule = WarmupStepDecay(
        config["learning_rate"],
        data.steps_per_epoch(config["batch_size"]),
        milestones=config["milestones"],
        factor=config["factor"],
        warmup_epochs=config["warmup_epochs"],
    )
    optimizer = SGD(schedule, momentum=config["momentum"], l2=config["l2"])
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model
