"""What --loss means: a row of data for each method, and the model that a configuration trains.

To add a method, write its file in lade_tf, and here its function and its row in `METHODS`.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import runs
import tensorflow as tf
from absl import flags

import lade_tf
from lade_tf import backbones, layers, losses, models, optimizers
from lade_tf.checks import check_integer
from lade_tf.models import decoupled

ROOT = pathlib.Path(__file__).parents[1]
BACKBONES = {"resnet32": backbones.resnet32, "small_cnn": backbones.small_cnn}
# BBN's; ResNet-32 ends in two branches as it is.
TWO_BRANCHES = {
    "resnet32": backbones.resnet32,
    "small_cnn": functools.partial(backbones.small_cnn, branches=2),
}
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# The data set's recipe has this parameter, or its flag must be given.
REQUIRED = object()
SAME_AS_FIRST_STAGE = ("dataset", "imbalance_ratio", "data_seed", "backbone", "epochs")


@dataclasses.dataclass(frozen=True)
class Trainee:
    """What a configuration trains.

    Attributes:
        model: the `AdaptedModel`, not compiled yet.
        loss: for `compile`; None where the model owns it or nothing is trained.
        test_logits: (model, data) → `runs.SavedLogits`.
    """

    model: lade_tf.AdaptedModel
    loss: keras.losses.Loss | None = None
    test_logits: Callable = runs.SavedLogits.of_model


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of one or more methods, and the flag of its name.

    Attributes:
        kind: float, int or a tuple of choices.
        text: what it is.
        minimum: the lowest value.
    """

    kind: type | tuple
    text: str
    minimum: float = 0


PARAMETERS = {
    "alpha": Parameter(float, "weight of LADER"),
    "remine_lambda": Parameter(float, "weight of T² in LADER"),
    "estimator": Parameter(lade_tf.ops.ESTIMATORS, "equations or released code"),
    "tau": Parameter(float, "strength"),
    "gamma": Parameter(float, "focusing parameter"),
    "beta": Parameter(float, "of the effective number, in [0, 1)"),
    "label_smoothing": Parameter(float, "share of the uniform label, in [0, 1)"),
    "max_margin": Parameter(float, "margin of the rarest class"),
    "scale": Parameter(float, "what the cosines are multiplied by"),
    "drw_epoch": Parameter(int, "epoch, from 1, in which re-weighting begins", 1),
    "effect": Parameter(float, "α of TDE, how much of the common direction is taken off"),
    "stage2_epochs": Parameter(int, "epochs of the second stage", 1),
    "centroid_weight": Parameter(float, "weight of the discriminative centroids loss"),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Attributes:
        label: its name, the paper's where the paper has it.
        paper: where it was published.
        source: the object of lade_tf that it consists of, None where Keras has it.
        build: function (config, data) → `Trainee`.
        parameters: {flag: value where none is given}. A value may be a function of the
            configuration; `REQUIRED` stands for the data set's.
        recipe: what differs from the data set's recipe.
        sampler: of its training images, one of `lade_tf.data.SAMPLERS`; None for no choice.
        second_stage: whether it starts from a softmax run, --init_from.
        paired: whether a training batch is a pair, the second from the reversed sampler.
    """

    label: str
    paper: str
    source: object
    build: Callable
    parameters: dict = dataclasses.field(default_factory=dict)
    recipe: dict = dataclasses.field(default_factory=dict)
    sampler: str | None = "instance"
    second_stage: bool = False
    paired: bool = False

    @property
    def file(self):
        """The file that it lies in, relative to the repository, or "Keras"."""
        if self.source is None:
            return "Keras"
        return self.source.__module__.replace(".", "/") + ".py"


def softmax(config, data):
    """Cross-entropy, which is logit adjustment with τ = 0; carries the training prior."""
    return logit_adjustment({**config, "tau": 0.0}, data)


def logit_adjustment(config, data):
    """Its logits carry the prior ∝ π^(1−τ)."""
    counts, smoothing = data.class_counts, config["label_smoothing"]
    loss = losses.LogitAdjustment(counts, config["tau"], label_smoothing=smoothing)
    network = build_network(config, data)
    return Trainee(lade_tf.AdaptedModel(network, counts, source_prior=loss.source_prior), loss)


def balanced_softmax(config, data):
    """Its logits are disentangled."""
    loss = losses.BalancedSoftmax(data.class_counts, label_smoothing=config["label_smoothing"])
    return Trainee(lade_tf.AdaptedModel(build_network(config, data), data.class_counts), loss)


def focal(config, data):
    """On the softmax; its logits carry the training prior."""
    model = lade_tf.adapt(build_network(config, data), data.class_counts)
    return Trainee(model, losses.Focal(config["gamma"]))


def cb_focal(config, data):
    """On sigmoids, class-balanced; its logits are taken to carry no prior."""
    loss = losses.ClassBalancedFocal(data.class_counts, config["beta"], config["gamma"])
    # As Cui et al. start: every class with probability 1 / C.
    head = functools.partial(
        backbones.classifier_head,
        num_classes=data.num_classes,
        initial_bias=-math.log(data.num_classes - 1),
    )
    network = build_network(config, data, head)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), loss)


def ldam(config, data):
    """Its logits carry the training prior."""
    network, loss = _ldam(config, data)
    prior = lade_tf.priors.class_prior(data.class_counts)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts, source_prior=prior), loss)


def ldam_drw(config, data):
    """Its logits are taken to carry no prior."""
    if not 1 <= config["drw_epoch"] <= config["epochs"]:
        raise ValueError(
            f"--drw_epoch must be 1 to --epochs={config['epochs']}; got {config['drw_epoch']}"
        )
    network, loss = _ldam(config, data)
    start_step = (config["drw_epoch"] - 1) * data.steps_per_epoch(config["batch_size"])
    model = models.DeferredReweightingModel(network, data.class_counts, start_step, config["beta"])
    return Trainee(model, loss)


def _ldam(config, data):
    """Returns the network with a cosine classifier, and the loss."""
    classifier = layers.CosineClassifier(data.num_classes, config["scale"], name="logits")
    loss = losses.LDAM(data.class_counts, config["max_margin"], config["scale"])
    return build_network(config, data, classifier), loss


def crt(config, data):
    """A new classifier on frozen features."""
    network = decoupled.retrain_classifier(first_stage(config).network)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), _cross_entropy())


def lws(config, data):
    """A scale for each class on frozen features and classifier."""
    network = decoupled.scale_classifier(first_stage(config).network)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), _cross_entropy())


def tau_norm(config, data):
    """The classifier's columns normalised; τ is chosen on images that it isn't scored on."""
    network = first_stage(config).network
    saved = runs.RunFolder(config["init_from"]).test_logits()
    bias, norms = decoupled.bias_and_norms(network)
    tau = config["tau"]
    if tau is not None:
        normalized = decoupled.normalize_classifier(network, tau)
        return Trainee(lade_tf.AdaptedModel(normalized, data.class_counts))
    # The model gets the τ that is best on all test images, the scores each half's from the other.
    tau = decoupled.choose_tau(saved.logits, saved.labels, bias, norms)
    fitted, _ = decoupled.cross_fitted_logits(saved.logits, saved.labels, bias, norms)
    uniform = lade_tf.priors.uniform_prior(data.num_classes)
    fitted = dataclasses.replace(
        saved, logits=fitted.astype(np.float32), source_prior=np.asarray(uniform)
    )
    normalized = decoupled.normalize_classifier(network, tau)
    model = lade_tf.AdaptedModel(normalized, data.class_counts)
    return Trainee(model, test_logits=lambda model, data: fitted)


def ncm(config, data):
    """The class means of the features; its logits are −½ · squared distance."""
    batches = data.plain_batches("train", runs.TEST_BATCH_SIZE)
    network = decoupled.nearest_class_mean(first_stage(config).network, batches, data.num_classes)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts))


def bbn(config, data):
    """Two branches with a mixing weight that moves from the one to the other."""
    network = build_network(config, data, kinds=TWO_BRANCHES)
    steps = data.steps_per_epoch(config["batch_size"])
    return Trainee(models.BBN(network, data.class_counts, config["epochs"], steps))


def causal_norm(config, data):
    """A normalised classifier that leaves out the common direction at inference."""
    classifier = layers.CausalNormClassifier(
        data.num_classes, effect=config["effect"], name="logits"
    )
    network = build_network(config, data, classifier)
    return Trainee(lade_tf.AdaptedModel(network, data.class_counts), _cross_entropy())


def oltr(config, data):
    """Modulated attention and a memory of centroids on top of a softmax network."""
    network = first_stage(config).network
    batches = data.plain_batches("train", runs.TEST_BATCH_SIZE)
    centroids = decoupled.class_means(network, batches, data.num_classes)
    network = models.oltr_network(network, centroids)
    return Trainee(models.OLTR(network, data.class_counts, config["centroid_weight"]))


def lade(config, data):
    """Its logits are disentangled, the model owns its loss."""
    parameters = (config[name] for name in ("alpha", "remine_lambda", "estimator"))
    return Trainee(lade_tf.LADEModel(build_network(config, data), data.class_counts, *parameters))


def _cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# Kang et al. and OLTR have no published recipe for small images: the second stages are short.
SECOND_STAGE = {"schedule": "cosine"}
KANG = "Kang et al., ICLR 2020"

METHODS = {
    "softmax": Method("Softmax", "", losses.LogitAdjustment, softmax, {"label_smoothing": 0.0}),
    "balanced_softmax": Method(
        "Balanced Softmax",
        "Ren et al., NeurIPS 2020",
        losses.BalancedSoftmax,
        balanced_softmax,
        {"label_smoothing": 0.0},
    ),
    "logit_adjustment": Method(
        "Logit Adjustment",
        "Menon et al., ICLR 2021",
        losses.LogitAdjustment,
        logit_adjustment,
        {"tau": 1.0, "label_smoothing": 0.0},
    ),
    "focal": Method("Focal Loss", "Lin et al., ICCV 2017", losses.Focal, focal, {"gamma": 2.0}),
    "cb_focal": Method(
        "CB-Focal",
        "Cui et al., CVPR 2019",
        losses.ClassBalancedFocal,
        cb_focal,
        {"beta": 0.9999, "gamma": 2.0},
    ),
    "ldam": Method(
        "LDAM", "Cao et al., NeurIPS 2019", losses.LDAM, ldam, {"max_margin": 0.5, "scale": 30.0}
    ),
    "ldam_drw": Method(
        "LDAM+DRW",
        "Cao et al., NeurIPS 2019",
        models.DeferredReweightingModel,
        ldam_drw,
        {
            "max_margin": 0.5,
            "scale": 30.0,
            "beta": 0.9999,
            "drw_epoch": lambda config: config["milestones"][-1],
        },
    ),
    "crt": Method(
        "Decouple-cRT",
        KANG,
        decoupled.retrain_classifier,
        crt,
        {"stage2_epochs": 10},
        SECOND_STAGE,
        sampler="class_balanced",
        second_stage=True,
    ),
    "lws": Method(
        "Decouple-LWS",
        KANG,
        decoupled.scale_classifier,
        lws,
        {"stage2_epochs": 10},
        SECOND_STAGE,
        sampler="class_balanced",
        second_stage=True,
    ),
    "tau_norm": Method(
        "Decouple-τ-norm",
        KANG,
        decoupled.normalize_classifier,
        tau_norm,
        {"tau": None},  # chosen by cross-fitting
        sampler=None,
        second_stage=True,
    ),
    "ncm": Method(
        "Decouple-NCM", KANG, decoupled.nearest_class_mean, ncm, sampler=None, second_stage=True
    ),
    "bbn": Method(
        "BBN",
        "Zhou et al., CVPR 2020",
        models.BBN,
        bbn,
        recipe={"batch_size": 128, "learning_rate": 0.1, "l2": 2e-4},
        sampler=None,
        paired=True,
    ),
    "causal_norm": Method(
        "Causal Norm",
        "Tang et al., NeurIPS 2020",
        layers.CausalNormClassifier,
        causal_norm,
        {"effect": 1.5},
    ),
    "oltr": Method(
        "OLTR",
        "Liu et al., CVPR 2019",
        models.OLTR,
        oltr,
        {"centroid_weight": 0.01, "stage2_epochs": 10},
        {**SECOND_STAGE, "learning_rate": 0.05},
        sampler="class_balanced",
        second_stage=True,
    ),
    "lade": Method(
        "LADE",
        "Hong et al., CVPR 2021",
        lade_tf.LADEModel,
        lade,
        {"estimator": "paper", "alpha": REQUIRED, "remine_lambda": REQUIRED},
    ),
}


def define_flags():
    """Defines a flag for every parameter, naming the methods that have it."""
    for name, parameter in PARAMETERS.items():
        users = [loss for loss, method in METHODS.items() if name in method.parameters]
        text = f"{', '.join(users)}: {parameter.text}."
        if parameter.kind is float:
            flags.DEFINE_float(name, None, text, lower_bound=parameter.minimum)
        elif parameter.kind is int:
            flags.DEFINE_integer(name, None, text, lower_bound=parameter.minimum)
        else:
            flags.DEFINE_enum(name, None, parameter.kind, text)


def num_epochs(config):
    """Returns for how many epochs a configuration trains; its first stage isn't counted."""
    if METHODS[config["loss"]].second_stage:
        return config["stage2_epochs"] or 0
    return config["epochs"]


def train_batches(config, data, initial_epoch):
    """Streams the training batches of a configuration from an epoch on."""
    method = METHODS[config["loss"]]
    samplers = ("instance", "reversed") if method.paired else (config["sampler"],)
    streams = [
        data.train_batches(
            config["batch_size"],
            num_epochs(config),
            config["seed"],
            initial_epoch,
            sampler=sampler,
            augment=config["augment"],
            mixup_alpha=config["mixup"],
        )
        for sampler in samplers
    ]
    if not method.paired:
        return streams[0]
    return tf.data.Dataset.zip(*streams).map(lambda one, other: tuple(zip(one, other, strict=True)))


def first_stage(config):
    """Returns the softmax model that a second stage starts from, or refuses another's run."""
    if config.get("init_from") is None:
        raise ValueError(
            f"--loss={config['loss']} starts from a finished softmax run: give --init_from=RUN"
        )
    run = runs.RunFolder(config["init_from"])
    run.test_logits()  # refuses what isn't a finished run
    first = runs.read_json(run.file("config.json"))
    expected = {"loss": "softmax", **{name: config[name] for name in SAME_AS_FIRST_STAGE}}
    differing = [
        f"its {name} is {first.get(name)!r} and not {value!r}"
        for name, value in expected.items()
        if first.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"--init_from={run.path} must be a softmax run on the same data and backbone: "
            f"{'; '.join(differing)}"
        )
    return runs.load_model(run.file("best.keras"))


def build_network(config, data, classifier=None, kinds=BACKBONES):
    """Returns raw pixels → logits: normalisation, backbone, classifier (by default linear)."""
    pixels = keras.Input(data.image_shape, name="images")
    scale = [1 / (data.pixel_max * std) for std in data.std]
    offset = [-mean / std for mean, std in zip(data.mean, data.std, strict=True)]
    normalised = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalise")(pixels)
    features = kinds[config["backbone"]](data.image_shape)(normalised)
    if classifier is None:
        logits = backbones.classifier_head(features, data.num_classes)
    else:
        logits = classifier(features)
    return keras.Model(pixels, logits, name="network")


def build_trainee(config, data):
    """Returns the `Trainee` of a run, initialised from its seed, compiled, optimizer built."""
    keras.config.set_dtype_policy(POLICIES[config["precision"]])
    check_integer(config["seed"], "--seed", minimum=0)
    keras.utils.set_random_seed(config["seed"])
    steps = data.steps_per_epoch(config["batch_size"])
    if num_epochs(config):
        train_batches(config, data, initial_epoch=0)  # refuses what can't be drawn
    trainee = METHODS[config["loss"]].build(config, data)
    optimizer = optimizers.SGD(
        _schedule(config, steps),
        momentum=config["momentum"],
        l2=config["l2"],
        use_ema=config["ema"] is not None,
        ema_momentum=config["ema"] or 0.99,
    )
    trainee.model.compile(optimizer=optimizer, loss=trainee.loss, metrics=["accuracy"])
    trainee.model.optimizer.build(trainee.model.trainable_variables)
    return trainee


def _schedule(config, steps_per_epoch):
    if config["schedule"] == "cosine":
        epochs = max(1, num_epochs(config))
        return optimizers.CosineByEpoch(config["learning_rate"], steps_per_epoch, epochs)
    return optimizers.WarmupStepDecay(
        config["learning_rate"],
        steps_per_epoch,
        milestones=config["milestones"],
        factor=config["factor"],
        warmup_epochs=config["warmup_epochs"],
    )
