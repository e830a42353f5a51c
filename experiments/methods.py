"""What --loss means: the table of methods, and the training of a configuration.

To add a method, write its file in lade_tf, its function in trainees.py and its row in `METHODS`.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf
import trainees
from absl import flags

import lade_tf
from lade_tf import layers, losses, models, optimizers
from lade_tf.checks import check_integer
from lade_tf.data.sets.folder import LARGEST_IN_MEMORY
from lade_tf.models import decoupled

ROOT = pathlib.Path(__file__).parents[1]
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# The paths of the variables that --backbone_learning_rate is for: all but those of the heads.
BODY = "^(?!logits/|class_scale/|modulated_attention/|meta_embedding/)"
# The data set's recipe has this parameter, or its flag must be given.
REQUIRED = object()


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
    "label_smoothing": Parameter(float, "share of the training prior in the label, in [0, 1)"),
    "max_margin": Parameter(float, "margin of the rarest class"),
    "scale": Parameter(float, "what the cosines are multiplied by"),
    "drw_epoch": Parameter(int, "epoch, from 1, in which re-weighting begins", 1),
    "effect": Parameter(float, "α of TDE, how much of the common direction is taken off"),
    "stage2_epochs": Parameter(int, "epochs of the second stage", 2),
    "centroid_weight": Parameter(float, "weight of the discriminative centroids loss"),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Attributes:
        label: its name, the paper's where the paper has it.
        paper: where it was published.
        source: the object of lade_tf that it consists of.
        build: function (config, data) → `trainees.Trainee`.
        parameters: {flag: value where none is given}. A value may be a function of the
            configuration; `REQUIRED` stands for the data set's.
        recipe: what differs from the data set's recipe; a value may be a function of that.
        samplers: of its training images that fit its loss and what its logits carry, the first
            where none is given; none where there is no choice.
        carries: the prior that its logits carry: "uniform" for none, "training", or a formula.
        second_stage: whether it starts from a softmax run, --init_from.
        paired: whether a training batch is a pair, the second from the reversed sampler.
    """

    label: str
    paper: str
    source: object
    build: Callable
    parameters: dict = dataclasses.field(default_factory=dict)
    recipe: dict = dataclasses.field(default_factory=dict)
    samplers: tuple = ("instance",)
    carries: str = "uniform"
    second_stage: bool = False
    paired: bool = False

    @property
    def file(self):
        """The file that it lies in, relative to the repository."""
        return self.source.__module__.replace(".", "/") + ".py"

    @property
    def is_trained(self):
        """Whether anything is trained, after the first stage if there is one."""
        return not self.second_stage or "stage2_epochs" in self.parameters


def _effect(config):
    """Returns α of TDE as published: 1.5 on CIFAR, 3 on the large sets."""
    return 3.0 if (config.get("image_size") or 0) > LARGEST_IN_MEMORY else 1.5


# Kang et al. and OLTR have no published recipe for small images: the second stages are short.
SECOND_STAGE = {"schedule": "cosine"}
KANG = "Kang et al., ICLR 2020"


METHODS = {
    "softmax": Method(
        "Softmax",
        "",
        losses.LogitAdjustment,
        trainees.softmax,
        {"label_smoothing": 0.0},
        carries="training",
        samplers=lade_tf.data.SAMPLERS,
    ),
    "balanced_softmax": Method(
        "Balanced Softmax",
        "Ren et al., NeurIPS 2020",
        losses.BalancedSoftmax,
        trainees.balanced_softmax,
        {"label_smoothing": 0.0},
    ),
    "logit_adjustment": Method(
        "Logit Adjustment",
        "Menon et al., ICLR 2021",
        losses.LogitAdjustment,
        trainees.logit_adjustment,
        {"tau": 1.0, "label_smoothing": 0.0},
        carries="∝ π^(1−τ)",
    ),
    "focal": Method(
        "Focal Loss",
        "Lin et al., ICCV 2017",
        losses.Focal,
        trainees.focal,
        {"gamma": 2.0},
        carries="training",
        samplers=lade_tf.data.SAMPLERS,
    ),
    "cb_focal": Method(
        "CB-Focal",
        "Cui et al., CVPR 2019",
        losses.ClassBalancedFocal,
        trainees.cb_focal,
        {"beta": 0.9999, "gamma": 2.0},
    ),
    "ldam": Method(
        "LDAM",
        "Cao et al., NeurIPS 2019",
        losses.LDAM,
        trainees.ldam,
        {"max_margin": 0.5, "scale": 30.0},
        carries="training",
    ),
    "ldam_drw": Method(
        "LDAM+DRW",
        "Cao et al., NeurIPS 2019",
        models.DeferredReweightingModel,
        trainees.ldam_drw,
        {
            "max_margin": 0.5,
            "scale": 30.0,
            "beta": 0.9999,
            "drw_epoch": lambda config: min(config["milestones"][0], config["epochs"]),
        },
        # Drops at 160 and 180 of 200 epochs, re-weighting with the first: after two drops it would
        # come too late to move anything. The authors' code does all three one epoch later.
        {"milestones": lambda recipe: [0.8 * recipe["epochs"], 0.9 * recipe["epochs"]]},
    ),
    "crt": Method(
        "Decouple-cRT",
        KANG,
        decoupled.retrain_classifier,
        trainees.crt,
        {"stage2_epochs": 10},
        SECOND_STAGE,
        samplers=("class_balanced",),
        second_stage=True,
    ),
    "lws": Method(
        "Decouple-LWS",
        KANG,
        decoupled.scale_classifier,
        trainees.lws,
        {"stage2_epochs": 10},
        SECOND_STAGE,
        samplers=("class_balanced",),
        second_stage=True,
    ),
    "tau_norm": Method(
        "Decouple-τ-norm",
        KANG,
        decoupled.normalize_classifier,
        trainees.tau_norm,
        {"tau": None},  # chosen by cross-fitting
        samplers=(),
        second_stage=True,
    ),
    "ncm": Method(
        "Decouple-NCM",
        KANG,
        decoupled.nearest_class_mean,
        trainees.ncm,
        samplers=(),
        second_stage=True,
    ),
    "bbn": Method(
        "BBN",
        "Zhou et al., CVPR 2020",
        models.BBN,
        trainees.bbn,
        recipe={"batch_size": 128, "learning_rate": 0.1, "l2": 2e-4},
        samplers=(),
        paired=True,
    ),
    "causal_norm": Method(
        "Causal Norm",
        "Tang et al., NeurIPS 2020",
        layers.CausalNormClassifier,
        trainees.causal_norm,
        {"effect": _effect},
    ),
    "oltr": Method(
        "OLTR",
        "Liu et al., CVPR 2019",
        models.OLTR,
        trainees.oltr,
        {"centroid_weight": 0.01, "stage2_epochs": 10},
        {**SECOND_STAGE, "learning_rate": 0.05},
        samplers=("class_balanced",),
        second_stage=True,
    ),
    "lade": Method(
        "LADE",
        "Hong et al., CVPR 2021",
        lade_tf.LADEModel,
        trainees.lade,
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
    method = METHODS[config["loss"]]
    if not method.is_trained:
        return 0
    return config["stage2_epochs"] if method.second_stage else config["epochs"]


def callbacks(config):
    """Returns the Keras callbacks that the method itself needs."""
    if config["loss"] == "causal_norm" and trainees.follows_learning_rate(config):
        return [layers.CausalNormMomentum()]
    return []


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
    return tf.data.Dataset.zip(*streams).map(
        tf.autograph.experimental.do_not_convert(lambda *pair: tuple(zip(*pair, strict=True)))
    )


def recompute_statistics(model, config, data):
    """Gives averaged weights the batch statistics that belong to them, as in SWA.

    One epoch of training batches goes through the network, which notes their statistics.
    """
    epoch = num_epochs(config) - 1
    forward = tf.function(lambda x: model.network(x, training=True), autograph=False)
    for images, _ in train_batches(config, data, initial_epoch=epoch):
        forward(images)


def build_trainee(config, data):
    """Returns the `Trainee` of a run, initialised from its seed, compiled, optimizer built."""
    keras.config.set_dtype_policy(POLICIES[config["precision"]])
    check_integer(config["seed"], "--seed", minimum=0)
    keras.utils.set_random_seed(config["seed"])
    steps = 1
    if num_epochs(config):
        steps = data.steps_per_epoch(config["batch_size"])
        train_batches(config, data, initial_epoch=0)  # refuses what can't be drawn
    trainee = METHODS[config["loss"]].build(config, data)
    slower = config["backbone_learning_rate"]
    optimizer = optimizers.SGD(
        _schedule(config, steps),
        momentum=config["momentum"],
        l2=config["l2"],
        learning_rate_factors=[] if slower is None else [(BODY, slower / config["learning_rate"])],
        use_ema=bool(config["ema"]),
        ema_momentum=config["ema"] or 0.0,
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
