"""What --loss means: the table of methods.

To add a method, write its file in lade_tf, its function in builders.py and its row in `METHODS`; a
parameter that no method had is a field of `config.RunConfig`.
"""

import dataclasses
from collections.abc import Callable

import lade_tf
from lade_tf import layers, losses, models
from lade_tf.data.sets.folder import LARGEST_IN_MEMORY
from lade_tf.models import decoupled
from reproduction import builders

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# The data set's recipe has this parameter, or its flag must be given.
REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Attributes:
        label: its name, the paper's where the paper has it.
        paper: where it was published.
        source: the object of lade_tf that it consists of.
        build: function (config, data) → `builders.Trainee`, see there.
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

    @property
    def makes_network(self):
        """Whether it makes a network: a second stage takes its first one's."""
        return not self.second_stage

    @property
    def draws_single_batches(self):
        """Whether it is trained on one batch at a time."""
        return self.is_trained and not self.paired


def _effect(config):
    """Returns α of TDE as published: 1.5 on CIFAR, 3 on the large sets."""
    return 3.0 if (config.image_size or 0) > LARGEST_IN_MEMORY else 1.5


# Kang et al. and OLTR have no published recipe for small images: the second stages are short.
SECOND_STAGE = {"schedule": "cosine"}
KANG = "Kang et al., ICLR 2020"


METHODS = {
    "softmax": Method(
        "Softmax",
        "",
        losses.LogitAdjustment,
        builders.softmax,
        {"label_smoothing": 0.0},
        carries="training",
        samplers=lade_tf.data.SAMPLERS,
    ),
    "balanced_softmax": Method(
        "Balanced Softmax",
        "Ren et al., NeurIPS 2020",
        losses.BalancedSoftmax,
        builders.balanced_softmax,
        {"label_smoothing": 0.0},
    ),
    "logit_adjustment": Method(
        "Logit Adjustment",
        "Menon et al., ICLR 2021",
        losses.LogitAdjustment,
        builders.logit_adjustment,
        {"tau": 1.0, "label_smoothing": 0.0},
        carries="∝ π^(1−τ)",
    ),
    "focal": Method(
        "Focal Loss",
        "Lin et al., ICCV 2017",
        losses.Focal,
        builders.focal,
        {"gamma": 2.0},
        carries="training",
        samplers=lade_tf.data.SAMPLERS,
    ),
    "cb_focal": Method(
        "CB-Focal",
        "Cui et al., CVPR 2019",
        losses.ClassBalancedFocal,
        builders.cb_focal,
        {"beta": 0.9999, "gamma": 2.0},
    ),
    "ldam": Method(
        "LDAM",
        "Cao et al., NeurIPS 2019",
        losses.LDAM,
        builders.ldam,
        {"max_margin": 0.5, "scale": 30.0},
        carries="training",
    ),
    "ldam_drw": Method(
        "LDAM+DRW",
        "Cao et al., NeurIPS 2019",
        models.DeferredReweightingModel,
        builders.ldam_drw,
        {
            "max_margin": 0.5,
            "scale": 30.0,
            "beta": 0.9999,
            "drw_epoch": lambda config: min(config.milestones[0], config.epochs),
        },
        # Drops at 160 and 180 of 200 epochs, re-weighting with the first: after two drops it would
        # come too late to move anything. The authors' code does all three one epoch later.
        {"milestones": lambda recipe: [0.8 * recipe["epochs"], 0.9 * recipe["epochs"]]},
    ),
    "crt": Method(
        "Decouple-cRT",
        KANG,
        decoupled.retrain_classifier,
        builders.crt,
        {"stage2_epochs": 10},
        SECOND_STAGE,
        samplers=("class_balanced",),
        second_stage=True,
    ),
    "lws": Method(
        "Decouple-LWS",
        KANG,
        decoupled.scale_classifier,
        builders.lws,
        {"stage2_epochs": 10},
        SECOND_STAGE,
        samplers=("class_balanced",),
        second_stage=True,
    ),
    "tau_norm": Method(
        "Decouple-τ-norm",
        KANG,
        decoupled.normalize_classifier,
        builders.tau_norm,
        {"tau": None},  # chosen by cross-fitting
        samplers=(),
        second_stage=True,
    ),
    "ncm": Method(
        "Decouple-NCM",
        KANG,
        decoupled.nearest_class_mean,
        builders.ncm,
        samplers=(),
        second_stage=True,
    ),
    "bbn": Method(
        "BBN",
        "Zhou et al., CVPR 2020",
        models.BBN,
        builders.bbn,
        recipe={"batch_size": 128, "learning_rate": 0.1, "l2": 2e-4},
        samplers=(),
        paired=True,
    ),
    "causal_norm": Method(
        "Causal Norm",
        "Tang et al., NeurIPS 2020",
        layers.CausalNormClassifier,
        builders.causal_norm,
        {"effect": _effect},
    ),
    "oltr": Method(
        "OLTR",
        "Liu et al., CVPR 2019",
        models.OLTR,
        builders.oltr,
        {"centroid_weight": 0.01, "stage2_epochs": 10},
        {**SECOND_STAGE, "learning_rate": 0.05},
        samplers=("class_balanced",),
        second_stage=True,
    ),
    "lade": Method(
        "LADE",
        "Hong et al., CVPR 2021",
        lade_tf.LADEModel,
        builders.lade,
        {"estimator": "paper", "alpha": REQUIRED, "remine_lambda": REQUIRED},
    ),
}
