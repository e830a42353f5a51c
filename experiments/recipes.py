"""Table 7 of the LADE paper and its like, as data: what --dataset and --loss imply.

Sources: the paper's section 4 and table 7, and the authors' released configuration files. Every
value can be overridden by the flag of its name; what a run used stands in its config.json.
"""

CIFAR = {
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
}

# (alpha, remine_lambda) of LADE for (data set, imbalance ratio): table 7 for CIFAR-100-LT, the same
# for CIFAR-10-LT. Other ratios have no published values: the flags must be given.
LADE = {
    ("digits_lt", 20): (0.1, 0.01),
    **{
        (dataset, ratio): values
        for dataset in ("cifar10_lt", "cifar100_lt")
        for ratio, values in {10: (0.01, 0.01), 50: (0.01, 0.01), 100: (0.1, 0.01)}.items()
    },
}

# What each loss has beside the recipe, and the published value where it is the same everywhere.
PARAMETERS = {
    "softmax": (),
    "balanced_softmax": (),
    "logit_adjustment": ("tau",),
    "focal": ("gamma",),
    "cb_focal": ("beta", "gamma"),
    "lade": ("estimator", "alpha", "remine_lambda"),
}
DEFAULTS = {"tau": 1.0, "gamma": 2.0, "beta": 0.9999, "estimator": "paper"}
LOSSES = tuple(PARAMETERS)
LOSS_FLAGS = tuple(dict.fromkeys(name for names in PARAMETERS.values() for name in names))


def resolve(dataset, loss, overrides):
    """Returns the complete configuration of a run.

    Args:
        dataset: a key of `DATASETS`.
        loss: one of `LOSSES`.
        overrides: {name: value or None}; None keeps the recipe's value. With another number of
            epochs the recipe's milestones are scaled along.

    Raises:
        ValueError: for an unknown data set or loss, for a parameter of another loss, and
            for a combination without published parameters unless they are given.
    """
    if dataset not in DATASETS or loss not in LOSSES:
        raise ValueError(
            f"--dataset={dataset} --loss={loss} isn't known. Data sets: {', '.join(DATASETS)}. "
            f"Losses: {', '.join(LOSSES)}"
        )
    recipe = DATASETS[dataset]
    given = {name: value for name, value in overrides.items() if value is not None}
    config = {"dataset": dataset, "loss": loss, **recipe, **given}
    scale = config["epochs"] / recipe["epochs"]
    config["milestones"] = [max(1, round(epoch * scale)) for epoch in recipe["milestones"]]
    return {**config, **_parameters(config, given)}


def _parameters(config, given):
    """Returns {flag of any loss: value}, None for those of other losses."""
    own = PARAMETERS[config["loss"]]
    useless = [f"--{name}" for name in LOSS_FLAGS if name in given and name not in own]
    if useless:
        raise ValueError(f"{', '.join(useless)} means nothing with --loss={config['loss']}")
    published = LADE.get((config["dataset"], config["imbalance_ratio"]), ())
    defaults = {**DEFAULTS, **dict(zip(("alpha", "remine_lambda"), published, strict=False))}
    missing = [f"--{name}" for name in own if name not in given and name not in defaults]
    if missing:
        known = ", ".join(f"{name} at {ratio}" for name, ratio in LADE)
        raise ValueError(
            f"--dataset={config['dataset']} --loss={config['loss']} has no published parameters at "
            f"--imbalance_ratio={config['imbalance_ratio']:g}: give {' and '.join(missing)}. "
            f"Known: {known}"
        )
    parameters = {name: given.get(name, defaults.get(name)) for name in own}
    return {**dict.fromkeys(LOSS_FLAGS), **parameters}
