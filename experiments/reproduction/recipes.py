"""Table 7 of the LADE paper and its like, as data: what --dataset and --recipe imply.

What --loss adds stands in its row of methods.py; config.py makes a run's configuration of both.

Sources: the paper's section 4 and table 7, and the authors' released configuration files. Every
value can be overridden by the flag of its name; what a run used stands in its config.json.
"""

from lade_tf.data.sets.folder import LARGEST_IN_MEMORY

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
TABLE_7 = {
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
IMAGE_SIZE = 224  # of image files where none is given


def published(dataset, loss, image_size=None):
    """Returns the recipe of a data set and a loss; of a folder of small images it is CIFAR's."""
    recipe = {**DATASETS[dataset], **PER_LOSS.get((dataset, loss), {})}
    if dataset in LARGE:
        recipe["image_size"] = image_size or IMAGE_SIZE
        if dataset == "folder" and recipe["image_size"] <= LARGEST_IN_MEMORY:
            recipe |= {**CIFAR, "imbalance_ratio": PLAIN["imbalance_ratio"]}
    return recipe
