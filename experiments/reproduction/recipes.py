"""Table 7 of the LADE paper and its like, as data: what --dataset and --recipe imply.

What --loss adds stands in its row of methods.py.

Sources: the paper's section 4 and table 7, and the authors' released configuration files. Every
value can be overridden by the flag of its name; what a run used stands in its config.json.
"""

import pathlib

from lade_tf.data.sets.folder import LARGEST_IN_MEMORY
from reproduction.methods import METHODS, PARAMETERS, REQUIRED, num_epochs

# What the published long-tail recipes of 2021 do without.
PLAIN = {
    "augment": "standard",
    "mixup": None,
    "ema": None,
    "schedule": "step",
    "synchronized_batchnorm": False,
    "weights": "none",
    "backbone_learning_rate": None,  # the same as the classifier's
    "freeze_backbone": False,
    "warmup_epochs": 0,
    "milestones": [],
    "factor": 0.1,
    "momentum": 0.9,
    "imbalance_ratio": None,  # the set's own counts
}
# Of a user's own images, see `lade_tf.data.sets.folder.load`.
OWN_IMAGES = {"max_pixel": None, "image_root": None, "allow_duplicates": False}
CIFAR = {
    **PLAIN,
    "backbone": "resnet32",
    "imbalance_ratio": 100.0,
    "epochs": 200,
    "batch_size": 256,
    "learning_rate": 0.2,
    "momentum": 0.9,
    "l2": 5e-4,
    "warmup_epochs": 5,
    "milestones": [120, 160],
    "factor": 0.01,
}

DATASETS = {
    # No published recipe: chosen to train in seconds on a CPU.
    "digits_lt": {
        **PLAIN,
        "backbone": "small_cnn",
        "imbalance_ratio": 20.0,
        "epochs": 60,
        "batch_size": 64,
        "learning_rate": 0.05,
        "momentum": 0.9,
        "l2": 5e-4,
        "warmup_epochs": 5,
        "milestones": [36, 48],
        "factor": 0.1,
    },
    # The paper has no CIFAR-10-LT: CIFAR-100-LT's recipe.
    "cifar10_lt": CIFAR,
    "cifar100_lt": CIFAR,
    "places_lt": {
        **PLAIN,
        "backbone": "resnet152",
        "weights": "imagenet",
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 0.05,
        "backbone_learning_rate": 0.001,
        "l2": 5e-4,
        "milestones": [10, 20, 30],
    },
    # 90 epochs is the shorter published run.
    "imagenet_lt": {
        **PLAIN,
        "backbone": "resnext50",
        "epochs": 180,
        "batch_size": 256,
        "learning_rate": 0.05,
        "l2": 5e-4,
        "schedule": "cosine",
    },
    "inaturalist2018": {
        **PLAIN,
        "backbone": "resnet50",
        "epochs": 200,
        "batch_size": 256,
        "learning_rate": 0.1,
        "l2": 1e-4,  # the code's; the paper's text says 5e-4 of all sets
        "schedule": "cosine",
    },
    # A user's own images, no published recipe: fine-tuning as for Places-LT.
    "folder": {
        **PLAIN,
        **OWN_IMAGES,
        "backbone": "resnet50",
        "weights": "imagenet",
        "epochs": 30,
        "batch_size": 64,
        "learning_rate": 0.05,
        "backbone_learning_rate": 0.001,
        "l2": 5e-4,
        "schedule": "cosine",
    },
}
# (data set, loss): where the released configurations differ from the set's.
PER_LOSS = {
    ("imagenet_lt", "softmax"): {"learning_rate": 0.2},
    ("imagenet_lt", "causal_norm"): {"learning_rate": 0.2},
}

LADER = ("alpha", "remine_lambda")
# LADER's parameters for (data set, imbalance ratio): table 7; for CIFAR-10-LT as for CIFAR-100-LT,
# for a folder the library's. Other ratios have no published values: the flags must be given.
LADE = {
    ("digits_lt", 20): (0.1, 0.01),
    ("places_lt", None): (0.005, 0.1),
    ("imagenet_lt", None): (0.05, 0.5),
    ("inaturalist2018", None): (0.05, 0.5),
    ("folder", None): (0.1, 0.01),
    **{
        (dataset, ratio): values
        for dataset in ("cifar10_lt", "cifar100_lt")
        for ratio, values in {10: (0.01, 0.01), 50: (0.01, 0.01), 100: (0.1, 0.01)}.items()
    },
}

# --recipe: what stronger recipes do beside the method, on top of the data set's. AutoAugment's
# policy is one for colour images.
LARGE = ("places_lt", "imagenet_lt", "inaturalist2018", "folder")
AVERAGED = {"schedule": "cosine", "ema": 0.99}
RECIPES = {
    "2021": {name: {} for name in DATASETS},
    "modern": {
        "digits_lt": AVERAGED,
        "cifar10_lt": {**AVERAGED, "augment": "autoaugment_cutout"},
        "cifar100_lt": {**AVERAGED, "augment": "autoaugment_cutout"},
        **dict.fromkeys(LARGE, {**AVERAGED, "augment": "randaugment"}),
    },
}
# What decides how a network is trained, and means nothing where none is.
TRAINING = (
    *("learning_rate", "backbone_learning_rate", "freeze_backbone", "l2", "schedule", "augment"),
    *("mixup", "ema", "batch_size"),
)
# What decides how a network is made, and means nothing where a first stage's is taken.
NETWORK = ("weights", "backbone_learning_rate", "freeze_backbone", "synchronized_batchnorm")
LOSSES = tuple(METHODS)
IMAGE_SIZE = 224  # of image files where none is given


def resolve(dataset, loss, overrides):
    """Returns the complete configuration of a run.

    Args:
        dataset: a key of `DATASETS`.
        loss: a key of `methods.METHODS`.
        overrides: {name: value or None}; None keeps the recipe's value. "recipe" names one of
            `RECIPES`. With another number of epochs the recipe's milestones are scaled along; the
            first epoch stays in front of them.

    Raises:
        ValueError: for an unknown data set or loss, for a parameter of another loss, and
            for a combination without published parameters unless they are given.
    """
    config = _resolve(dataset, loss, overrides)
    if config["schedule"] == "cosine" and num_epochs(config) == 1:
        origin = "" if overrides.get("schedule") else f"the recipe of {dataset} has "
        raise ValueError(
            f"{origin}--schedule=cosine, which ends at 0: it needs at least 2 --epochs; got 1"
        )
    if overrides.get("schedule") == "step" and not config["milestones"] and config["epochs"] > 1:
        raise ValueError(
            f"--schedule=step drops the learning rate at milestones, and the recipe of {dataset} "
            "has none: it would stay what it is to the end. Leave the flag out: it is cosine"
        )
    if overrides.get("freeze_backbone") and overrides.get("backbone_learning_rate") is not None:
        raise ValueError("--backbone_learning_rate means nothing with --freeze_backbone")
    return config


def _resolve(dataset, loss, overrides):
    if dataset not in DATASETS or loss not in METHODS:
        raise ValueError(
            f"--dataset={dataset} --loss={loss} isn't known. Data sets: {', '.join(DATASETS)}. "
            f"Losses: {', '.join(LOSSES)}"
        )
    method = METHODS[loss]
    given = {name: value for name, value in overrides.items() if value is not None}
    recipe = given.setdefault("recipe", "2021")
    parameters = {name: given.pop(name) for name in PARAMETERS if name in given}
    _refuse_what_means_nothing(loss, given, parameters)
    published = {**_of_dataset(dataset, given), **PER_LOSS.get((dataset, loss), {})}
    own = {name: v(published) if callable(v) else v for name, v in method.recipe.items()}
    config = {
        "dataset": dataset,
        "loss": loss,
        "sampler": method.samplers[0] if method.samplers else None,
        **published,
        **_heeded(RECIPES[recipe][dataset], method),
        **own,
        **given,
    }
    if config["weights"] == "none" and "backbone_learning_rate" not in given:
        config["backbone_learning_rate"] = None  # a lower one is for a body that is trained already
    scale = config["epochs"] / published["epochs"]
    # A drop takes effect in its milestone's own epoch: in the first it would come before any step.
    config["milestones"] = [max(2, round(epoch * scale)) for epoch in config["milestones"]]
    return {**config, **_parameters(config, parameters)}


def run_name(config):
    """Returns the name of a run's folder, with all that isn't as published in it.

    What a second stage starts from isn't part of it.
    """
    ratio, changed = config["imbalance_ratio"], deviations(config)
    parts = [config["dataset"], *([f"ib{ratio:g}"] if ratio else []), config["loss"]]
    parts += [config["estimator"]] if config["estimator"] else []
    for name in LADER:
        parts += [name.removeprefix("remine_") + changed.pop(name)] if name in changed else []
    parts += [config["recipe"]] if config["recipe"] != "2021" else []
    parts += [f"{name}={value}" for name, value in sorted(changed.items())]
    parts += [f"{config['epochs']}ep", f"seed{config['seed']}"]
    parts += [f"data{config['data_seed']}"] if config["data_seed"] else []
    parts += [config["precision"]] if config["precision"] != "float32" else []
    return "-".join(parts)


def deviations(config):
    """Returns {name: value as text} of what isn't as published in a configuration.

    Published is the recipe of its data set, loss, --recipe, imbalance ratio, epochs and estimator.
    A key that a configuration lacks came with later recipes and tells nothing.
    """
    kept = ("recipe", "imbalance_ratio", "epochs", "image_size", "estimator", *LADER)
    published = _resolve(config["dataset"], config["loss"], {k: config.get(k) for k in kept})
    published |= {"image_size": IMAGE_SIZE, "image_root": config.get("image_root")}
    of_lade = LADE.get((config["dataset"], config["imbalance_ratio"]), (None, None))
    published |= zip(LADER, of_lade, strict=True)
    return {
        name: as_text(value)
        for name, value in config.items()
        if value is not None and published.get(name, value) != value
    }


def comparable(config):
    """Returns a configuration as it would be resolved today, its first stage by name alone.

    Keys that recipes got after a run was made have the value that nobody could change then. The
    first stage has the precision of the second, so that isn't told apart by its name. Images may
    move, so --image_root doesn't count.
    """
    first_stage = pathlib.Path(config.get("init_from") or "").name
    first_stage = {"init_from": first_stage.removesuffix(f"-{config.get('precision')}")}
    known = ("imbalance_ratio", "epochs", *PARAMETERS)
    overrides = {name: config.get(name) for name in known}
    try:
        today = resolve(config.get("dataset"), config.get("loss"), overrides)
    except ValueError:
        today = {}  # no longer known
    return {**today, **config, **first_stage, "image_root": None}


def as_text(value):
    """Returns a value of a configuration as part of a name; of a path its end."""
    return f"{value:g}" if isinstance(value, float) else pathlib.Path(str(value)).name


def _of_dataset(dataset, given):
    """Returns the recipe of a data set; of a folder of small images it is CIFAR's."""
    useless = () if dataset == "folder" else tuple(OWN_IMAGES)
    useless += () if dataset in LARGE else ("image_size",)
    for name in useless:
        if name in given:
            raise ValueError(f"--{name} means nothing with --dataset={dataset}")
    if dataset not in LARGE:
        return DATASETS[dataset]
    if "imbalance_ratio" in given:
        raise ValueError(f"--dataset={dataset} has its own counts, so no --imbalance_ratio")
    size = given.get("image_size", IMAGE_SIZE)
    if dataset == "folder" and size <= LARGEST_IN_MEMORY:
        own = {**OWN_IMAGES, "imbalance_ratio": PLAIN["imbalance_ratio"], "image_size": size}
        return {**CIFAR, **own}
    return {**DATASETS[dataset], "image_size": size}


def _refuse_what_means_nothing(loss, given, parameters):
    """Raises a ValueError for a flag that the method doesn't heed."""
    method = METHODS[loss]
    useless = [name for name in parameters if name not in method.parameters]
    useless += [name for name in _meaningless(method) if name in given]
    useless = [f"--{name}" for name in useless]
    if useless:
        raise ValueError(f"{', '.join(useless)} means nothing with --loss={loss}")
    if given.get("sampler", *method.samplers[:1]) not in (*method.samplers, None):
        raise ValueError(
            f"--sampler={given['sampler']} is wrong with --loss={loss}, whose logits would carry "
            f"another prior than it says: it needs {' or '.join(method.samplers)}"
        )


def _meaningless(method):
    """Returns the names, but those of parameters, that a method doesn't heed, each once."""
    names = [] if method.second_stage else ["init_from"]
    names += ["schedule", *NETWORK] if method.second_stage else []
    names += [] if method.is_trained else TRAINING
    names += ["mixup", "ema"] if method.paired else []
    names += [] if method.samplers else ["sampler"]
    return list(dict.fromkeys(names))


def _heeded(values, method):
    """Returns those of {name: value} that mean something for a method."""
    useless = _meaningless(method)
    return {name: value for name, value in values.items() if name not in useless}


def _parameters(config, given):
    """Returns {parameter of any method: value}, None for those of other methods."""
    own = METHODS[config["loss"]].parameters
    published = LADE.get((config["dataset"], config["imbalance_ratio"]), ())
    published = dict(zip(LADER, published, strict=False))
    values = {**own, **published, **given}
    missing = [f"--{name}" for name in own if values[name] is REQUIRED]
    if missing:
        known = ", ".join(f"{name} at {ratio}" if ratio else name for name, ratio in LADE)
        raise ValueError(
            f"--dataset={config['dataset']} --loss={config['loss']} has no published parameters at "
            f"--imbalance_ratio={config['imbalance_ratio']:g}: give {' and '.join(missing)}. "
            f"Known: {known}"
        )
    own = {name: values[name](config) if callable(values[name]) else values[name] for name in own}
    return {**dict.fromkeys(PARAMETERS), **own}
