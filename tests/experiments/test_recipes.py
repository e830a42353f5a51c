import pytest
from reproduction import comparison, methods, recipes
from reproduction.methods import METHODS

PUBLISHED = {
    "backbone": "resnet32",
    "epochs": 200,
    "batch_size": 256,
    "learning_rate": 0.2,
    "momentum": 0.9,
    "l2": 5e-4,
    "warmup_epochs": 5,
    "milestones": [120, 160],
    "factor": 0.01,
    "recipe": "2021",
    "schedule": "step",
    "sampler": "instance",
    "augment": "standard",
    "mixup": None,
    "ema": None,
    "synchronized_batchnorm": False,
    "weights": "none",
    "backbone_learning_rate": None,
    "freeze_backbone": False,
}


@pytest.mark.parametrize(("ratio", "alpha"), [(10.0, 0.01), (50.0, 0.01), (100.0, 0.1)])
def test_lade_on_cifar_100_is_table_7(ratio, alpha):
    config = recipes.resolve("cifar100_lt", "lade", {"imbalance_ratio": ratio})
    lade = {"alpha": alpha, "remine_lambda": 0.01, "estimator": "paper", "imbalance_ratio": ratio}
    others = dict.fromkeys(methods.PARAMETERS.keys() - lade.keys())
    assert config == {"dataset": "cifar100_lt", "loss": "lade", **PUBLISHED, **lade, **others}


# The table of recipes in ../shared/notes/reference_facts.md.
LARGE = {
    "places_lt": {
        "backbone": "resnet152",
        "weights": "imagenet",
        "learning_rate": 0.05,
        "backbone_learning_rate": 0.001,
        "l2": 5e-4,
        "schedule": "step",
        "milestones": [10, 20, 30],
        "factor": 0.1,
        "warmup_epochs": 0,
        "batch_size": 128,
        "epochs": 30,
        "alpha": 0.005,
        "remine_lambda": 0.1,
    },
    "imagenet_lt": {
        "backbone": "resnext50",
        "weights": "none",
        "learning_rate": 0.05,
        "backbone_learning_rate": None,
        "l2": 5e-4,
        "schedule": "cosine",
        "batch_size": 256,
        "epochs": 180,
        "alpha": 0.05,
        "remine_lambda": 0.5,
    },
    "inaturalist2018": {
        "backbone": "resnet50",
        "weights": "none",
        "learning_rate": 0.1,
        "l2": 1e-4,
        "schedule": "cosine",
        "batch_size": 256,
        "epochs": 200,
        "alpha": 0.05,
        "remine_lambda": 0.5,
    },
}


@pytest.mark.parametrize("dataset", LARGE)
def test_lade_on_the_large_sets_is_table_7(dataset):
    config = recipes.resolve(dataset, "lade", {})
    assert {name: config[name] for name in LARGE[dataset]} == LARGE[dataset]
    assert config["image_size"] == 224 and config["imbalance_ratio"] is None


def test_causal_norm_takes_off_more_on_the_large_sets():
    effects = {d: recipes.resolve(d, "causal_norm", {})["effect"] for d in recipes.DATASETS}
    small = {"digits_lt", "cifar10_lt", "cifar100_lt"}
    assert effects == {name: 1.5 if name in small else 3.0 for name in effects}
    assert recipes.resolve("folder", "causal_norm", {"image_size": 32})["effect"] == 1.5


def test_softmax_and_causal_norm_learn_faster_on_imagenet_lt():
    rates = {loss: recipes.resolve("imagenet_lt", loss, {})["learning_rate"] for loss in METHODS}
    assert {loss for loss, rate in rates.items() if rate == 0.2} == {"softmax", "causal_norm"}
    assert recipes.resolve("imagenet_lt", "softmax", {"learning_rate": 0.3})["learning_rate"] == 0.3


def test_90_epochs_on_imagenet_lt():
    assert recipes.resolve("imagenet_lt", "lade", {"epochs": 90})["epochs"] == 90


def test_a_backbone_that_starts_from_nothing_learns_as_fast_as_the_classifier():
    assert (
        recipes.resolve("places_lt", "lade", {"weights": "none"})["backbone_learning_rate"] is None
    )
    own = {"weights": "none", "backbone_learning_rate": 0.1}
    assert recipes.resolve("places_lt", "lade", own)["backbone_learning_rate"] == 0.1


def test_a_folder_of_small_images_has_the_recipe_of_cifar():
    small = recipes.resolve("folder", "lade", {"image_size": 32})
    cifar = recipes.resolve("cifar100_lt", "lade", {})
    own = {"dataset": "folder", "imbalance_ratio": None, "image_size": 32}
    assert small == {**cifar, **own, **recipes.OWN_IMAGES}
    assert recipes.resolve("folder", "lade", {})["backbone"] == "resnet50"


def test_the_published_parameters_of_the_other_losses():
    for loss, own in (
        ("softmax", {}),
        ("focal", {"gamma": 2.0}),
        ("ldam", {"max_margin": 0.5, "scale": 30.0}),
        ("ldam_drw", {"max_margin": 0.5, "scale": 30.0, "beta": 0.9999, "drw_epoch": 160}),
        ("causal_norm", {"effect": 1.5}),
        ("cb_focal", {"gamma": 2.0, "beta": 0.9999}),
        ("logit_adjustment", {"tau": 1.0}),
    ):
        config = recipes.resolve("cifar100_lt", loss, {})
        assert {name: config[name] for name in methods.PARAMETERS if config[name]} == own


def test_milestones_are_scaled_with_the_epochs():
    assert recipes.resolve("cifar100_lt", "softmax", {"epochs": 30})["milestones"] == [18, 24]
    # However short a run is, its first epoch has the full learning rate.
    assert recipes.resolve("cifar100_lt", "softmax", {"epochs": 1})["milestones"] == [2, 2]
    assert recipes.resolve("places_lt", "softmax", {"epochs": 3})["milestones"] == [2, 2, 3]
    assert recipes.resolve("places_lt", "softmax", {})["milestones"] == [10, 20, 30]


def test_re_weighting_begins_with_the_first_drop_of_the_learning_rate():
    config = recipes.resolve("cifar100_lt", "ldam_drw", {})
    assert (config["milestones"], config["drw_epoch"]) == ([160, 180], 160)
    config = recipes.resolve("digits_lt", "ldam_drw", {"epochs": 30})
    assert (config["milestones"], config["drw_epoch"]) == ([24, 27], 24)
    assert recipes.resolve("digits_lt", "ldam_drw", {"epochs": 1})["drw_epoch"] == 1


def test_bbn_has_a_recipe_of_its_own():
    config = recipes.resolve("cifar100_lt", "bbn", {"l2": 1e-3})
    assert (config["batch_size"], config["learning_rate"], config["l2"]) == (128, 0.1, 1e-3)


def test_the_modern_recipe_can_be_overridden():
    config = recipes.resolve("cifar100_lt", "lade", {"recipe": "modern", "ema": 0.5})
    assert (config["augment"], config["schedule"], config["ema"]) == (
        *("autoaugment_cutout", "cosine", 0.5),
    )


def test_a_recipe_changes_nothing_that_means_nothing_for_the_method():
    plain = {loss: recipes.resolve("cifar100_lt", loss, {}) for loss in METHODS}
    modern = {loss: recipes.resolve("cifar100_lt", loss, {"recipe": "modern"}) for loss in METHODS}
    for loss in ("tau_norm", "ncm"):
        assert modern[loss] == {**plain[loss], "recipe": "modern"}
    bbn = {"recipe": "modern", "schedule": "cosine", "augment": "autoaugment_cutout"}
    assert modern["bbn"] == {**plain["bbn"], **bbn}
    assert all(modern[loss]["ema"] == 0.99 for loss in METHODS.keys() - {"tau_norm", "ncm", "bbn"})


def test_every_data_set_has_every_loss():
    for dataset in recipes.DATASETS:
        for loss in recipes.LOSSES:
            assert recipes.resolve(dataset, loss, {})["loss"] == loss


def test_a_flag_wins_over_the_recipe():
    config = recipes.resolve("cifar100_lt", "lade", {"alpha": 0.0, "l2": 1e-3, "epochs": None})
    assert (config["alpha"], config["l2"], config["epochs"]) == (0.0, 1e-3, 200)


@pytest.mark.parametrize(
    ("dataset", "loss", "overrides", "message"),
    [
        ("cifar", "lade", {}, "--dataset=cifar --loss=lade isn't known. Data sets: digits_lt, "),
        ("digits_lt", "ldae", {}, "Losses: softmax, balanced_softmax, logit_adj"),
        ("digits_lt", "softmax", {"alpha": 0.1}, "--alpha means nothing with --loss=softmax"),
        ("digits_lt", "softmax", {"init_from": "x"}, "--init_from means nothing with --loss=soft"),
        (
            "digits_lt",
            "lade",
            {"sampler": "reversed"},
            "carry another prior than it says: it needs",
        ),
        ("digits_lt", "ncm", {"l2": 0.1, "ema": 0.9}, "--l2, --ema means nothing with --loss=ncm"),
        ("digits_lt", "crt", {"schedule": "step"}, "--schedule means nothing with --loss=crt"),
        (
            "digits_lt",
            "lade",
            {"image_size": 8},
            "--image_size means nothing with --dataset=dig",
        ),
        ("places_lt", "lade", {"imbalance_ratio": 9.0}, "its own counts, so no --imbalance_ratio"),
        ("places_lt", "crt", {"weights": "none"}, "--weights means nothing with --loss=crt"),
        ("digits_lt", "ncm", {"freeze_backbone": True}, "--freeze_backbone means nothing with"),
        ("digits_lt", "lws", {"freeze_backbone": False}, "--freeze_backbone means nothing with"),
        ("digits_lt", "ncm", {"batch_size": 64}, "--batch_size means nothing with --loss=ncm"),
        (
            "digits_lt",
            "oltr",
            {"synchronized_batchnorm": True},
            "--synchronized_batchnorm means nothing with --loss=oltr",
        ),
        ("digits_lt", "bbn", {"mixup": 0.2}, "--mixup means nothing with --loss=bbn"),
        ("digits_lt", "ncm", {"sampler": "reversed"}, "--sampler means nothing with --loss=ncm"),
        ("digits_lt", "focal", {"beta": 0.9}, "--beta means nothing with --loss=focal"),
        (
            "cifar100_lt",
            "lade",
            {"imbalance_ratio": 20.0},
            "no published parameters at --imbalance_ratio=20: give --alpha and --remine_lambda. "
            "Known: digits_lt at 20,",
        ),
    ],
)
def test_unknown_combinations_are_refused_with_the_known_ones(dataset, loss, overrides, message):
    with pytest.raises(ValueError) as error:
        recipes.resolve(dataset, loss, overrides)
    assert message in str(error.value)


def test_a_second_stage_may_follow_one_epoch_of_softmax():
    for loss, method in METHODS.items():
        if method.second_stage:
            assert recipes.resolve("digits_lt", loss, {"epochs": 1})["epochs"] == 1
    assert recipes.resolve("imagenet_lt", "ncm", {"epochs": 1})["epochs"] == 1
    with pytest.raises(ValueError, match="it needs at least 2 --epochs; got 1"):
        recipes.resolve("imagenet_lt", "lade", {"epochs": 1})


def test_flags_that_would_do_nothing_are_refused():
    with pytest.raises(ValueError, match="the recipe of folder has none"):
        recipes.resolve("folder", "lade", {"schedule": "step"})
    assert recipes.resolve("places_lt", "lade", {"schedule": "step"})["milestones"] == [10, 20, 30]
    both = {"freeze_backbone": True, "backbone_learning_rate": 0.01}
    with pytest.raises(ValueError, match="--backbone_learning_rate means nothing with --freeze"):
        recipes.resolve("folder", "lade", both)


def name_of(dataset, loss, **overrides):
    usual = {"seed": 0, "data_seed": 0, "precision": "float32"}
    return recipes.run_name(recipes.resolve(dataset, loss, {**usual, **overrides}))


@pytest.mark.parametrize(
    ("name", "dataset", "loss", "overrides"),
    [
        ("digits_lt-ib20-lade-paper-60ep-seed0", "digits_lt", "lade", {}),
        ("places_lt-softmax-30ep-seed0", "places_lt", "softmax", {}),
        ("imagenet_lt-softmax-schedule=step-1ep-seed0", "imagenet_lt", "softmax",
         {"epochs": 1, "schedule": "step"}),
        ("cifar100_lt-ib100-ldam_drw-30ep-seed0", "cifar100_lt", "ldam_drw", {"epochs": 30}),
        ("cifar100_lt-ib50-lade-reference-alpha0-200ep-seed1-data2-bfloat16", "cifar100_lt", "lade",
         {"imbalance_ratio": 50.0, "estimator": "reference", "alpha": 0.0, "seed": 1,
          "data_seed": 2, "precision": "bfloat16"}),
        ("cifar100_lt-ib20-lade-paper-alpha0.1-lambda0.01-200ep-seed0", "cifar100_lt", "lade",
         {"imbalance_ratio": 20.0, "alpha": 0.1, "remine_lambda": 0.01}),
        ("cifar100_lt-ib100-lade-paper-modern-batch_size=64-ema=0-200ep-seed0", "cifar100_lt",
         "lade", {"recipe": "modern", "batch_size": 64, "ema": 0.0}),
        ("cifar100_lt-ib100-crt-200ep-seed0", "cifar100_lt", "crt", {"init_from": "runs/softmax"}),
        ("places_lt-lade-paper-weights=own.h5-30ep-seed0", "places_lt", "lade",
         {"weights": "/data/own.h5"}),
        ("folder-softmax-image_size=32-200ep-seed0", "folder", "softmax", {"image_size": 32}),
    ],
)  # fmt: skip
def test_what_is_not_as_published_is_in_the_name(name, dataset, loss, overrides):
    assert name_of(dataset, loss, **overrides) == name


def test_every_flag_of_the_configuration_gives_another_name():
    flags = {
        **{"batch_size": 7, "learning_rate": 0.7, "l2": 0.7, "schedule": "cosine", "mixup": 0.7},
        **{"sampler": "reversed", "augment": "randaugment", "ema": 0.7, "backbone": "resnet50"},
        **{"synchronized_batchnorm": True, "weights": "own.h5", "freeze_backbone": True},
        **{"gamma": 0.7, "epochs": 7, "imbalance_ratio": 7.0, "seed": 7, "data_seed": 7},
        **{"precision": "bfloat16", "recipe": "modern", "backbone_learning_rate": 0.7},
    }
    names = {name_of("cifar100_lt", "focal", **{flag: value}) for flag, value in flags.items()}
    assert len(names | {name_of("cifar100_lt", "focal")}) == len(flags) + 1


def test_a_run_made_before_a_recipe_got_a_key_still_follows_it():
    recipe = recipes.resolve("digits_lt", "softmax", {})
    old = {name: value for name, value in recipe.items() if name != "synchronized_batchnorm"}
    assert comparison.Run(None, old).follows(recipe)
    assert not comparison.Run(None, {**old, "l2": 1.0}).follows(recipe)


def test_flags_of_own_images_are_in_the_configuration_and_old_ones_mean_their_defaults():
    given = {"max_pixel": 4095, "image_root": "/a", "allow_duplicates": True}
    config = recipes.resolve("folder", "softmax", given)
    assert given.items() <= config.items()
    name = recipes.run_name(config | {"seed": 0, "data_seed": 0, "precision": "float32"})
    assert "max_pixel=4095" in name and "allow_duplicates=True" in name
    assert "image_root" not in name, "images may move"
    usual = recipes.resolve("folder", "softmax", {})
    old = {key: value for key, value in usual.items() if key not in recipes.OWN_IMAGES}
    assert recipes.comparable(old) == recipes.comparable(usual)
    moved = recipes.comparable(config | {"image_root": "/b"})
    assert moved == recipes.comparable(config)
    assert recipes.comparable(config | {"max_pixel": 1023}) != recipes.comparable(config)
    for flag, value in given.items():
        with pytest.raises(ValueError, match=f"--{flag} means nothing with --dataset=digits_lt"):
            recipes.resolve("digits_lt", "softmax", {flag: value})
