import dataclasses

import pytest
from reproduction import recipes
from reproduction.config import RunConfig
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
    config = RunConfig.resolve("cifar100_lt", "lade", imbalance_ratio=ratio)
    lade = {"alpha": alpha, "remine_lambda": 0.01, "estimator": "paper", "imbalance_ratio": ratio}
    others = dict.fromkeys(set(RunConfig.parameters()) - lade.keys())
    usual = {"seed": 0, "data_seed": 0, "precision": "float32"}
    assert config.to_json() == {
        "dataset": "cifar100_lt",
        "loss": "lade",
        **PUBLISHED,
        **usual,
        **lade,
        **others,
    }


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
    config = RunConfig.resolve(dataset, "lade")
    assert {name: config.to_json()[name] for name in LARGE[dataset]} == LARGE[dataset]
    assert config.image_size == 224 and config.imbalance_ratio is None


def test_causal_norm_takes_off_more_on_the_large_sets():
    effects = {d: RunConfig.resolve(d, "causal_norm").effect for d in recipes.DATASETS}
    small = {"digits_lt", "cifar10_lt", "cifar100_lt"}
    assert effects == {name: 1.5 if name in small else 3.0 for name in effects}
    assert RunConfig.resolve("folder", "causal_norm", image_size=32).effect == 1.5


def test_softmax_and_causal_norm_learn_faster_on_imagenet_lt():
    rates = {loss: RunConfig.resolve("imagenet_lt", loss).learning_rate for loss in METHODS}
    assert {loss for loss, rate in rates.items() if rate == 0.2} == {"softmax", "causal_norm"}
    assert RunConfig.resolve("imagenet_lt", "softmax", learning_rate=0.3).learning_rate == 0.3


def test_90_epochs_on_imagenet_lt():
    assert RunConfig.resolve("imagenet_lt", "lade", epochs=90).epochs == 90


def test_a_backbone_that_starts_from_nothing_learns_as_fast_as_the_classifier():
    assert RunConfig.resolve("places_lt", "lade", weights="none").backbone_learning_rate is None
    own = {"weights": "none", "backbone_learning_rate": 0.1}
    assert RunConfig.resolve("places_lt", "lade", **own).backbone_learning_rate == 0.1


def test_a_folder_of_small_images_has_the_recipe_of_cifar():
    small = RunConfig.resolve("folder", "lade", image_size=32)
    cifar = RunConfig.resolve("cifar100_lt", "lade")
    own = {"dataset": "folder", "imbalance_ratio": None, "image_size": 32}
    assert small == dataclasses.replace(cifar, **own, allow_duplicates=False)
    assert RunConfig.resolve("folder", "lade").backbone == "resnet50"


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
        config = RunConfig.resolve("cifar100_lt", loss)
        assert {name: v for name in RunConfig.parameters() if (v := getattr(config, name))} == own


def test_milestones_are_scaled_with_the_epochs():
    assert RunConfig.resolve("cifar100_lt", "softmax", epochs=30).milestones == (18, 24)
    # However short a run is, its first epoch has the full learning rate.
    assert RunConfig.resolve("cifar100_lt", "softmax", epochs=1).milestones == (2, 2)
    assert RunConfig.resolve("places_lt", "softmax", epochs=3).milestones == (2, 2, 3)
    assert RunConfig.resolve("places_lt", "softmax").milestones == (10, 20, 30)


def test_re_weighting_begins_with_the_first_drop_of_the_learning_rate():
    config = RunConfig.resolve("cifar100_lt", "ldam_drw")
    assert (config.milestones, config.drw_epoch) == ((160, 180), 160)
    config = RunConfig.resolve("digits_lt", "ldam_drw", epochs=30)
    assert (config.milestones, config.drw_epoch) == ((24, 27), 24)
    assert RunConfig.resolve("digits_lt", "ldam_drw", epochs=1).drw_epoch == 1


def test_bbn_has_a_recipe_of_its_own():
    config = RunConfig.resolve("cifar100_lt", "bbn", l2=1e-3)
    assert (config.batch_size, config.learning_rate, config.l2) == (128, 0.1, 1e-3)


def test_the_modern_recipe_can_be_overridden():
    config = RunConfig.resolve("cifar100_lt", "lade", recipe="modern", ema=0.5)
    assert (config.augment, config.schedule, config.ema) == (
        *("autoaugment_cutout", "cosine", 0.5),
    )


def test_a_recipe_changes_nothing_that_means_nothing_for_the_method():
    plain = {loss: RunConfig.resolve("cifar100_lt", loss) for loss in METHODS}
    modern = {loss: RunConfig.resolve("cifar100_lt", loss, recipe="modern") for loss in METHODS}
    for loss in ("tau_norm", "ncm"):
        assert modern[loss] == dataclasses.replace(plain[loss], recipe="modern")
    bbn = {"recipe": "modern", "schedule": "cosine", "augment": "autoaugment_cutout"}
    assert modern["bbn"] == dataclasses.replace(plain["bbn"], **bbn)
    assert all(modern[loss].ema == 0.99 for loss in METHODS.keys() - {"tau_norm", "ncm", "bbn"})


def test_every_data_set_has_every_loss():
    for dataset in recipes.DATASETS:
        for loss in METHODS:
            assert RunConfig.resolve(dataset, loss).loss == loss


def test_a_flag_wins_over_the_recipe():
    config = RunConfig.resolve("cifar100_lt", "lade", alpha=0.0, l2=1e-3, epochs=None)
    assert (config.alpha, config.l2, config.epochs) == (0.0, 1e-3, 200)


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
        ("digits_lt", "ncm", {"l2": 0.1, "ema": 0.9}, "--ema, --l2 means nothing with --loss=ncm"),
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
        RunConfig.resolve(dataset, loss, **overrides)
    assert message in str(error.value)


def test_a_second_stage_may_follow_one_epoch_of_softmax():
    for loss, method in METHODS.items():
        if method.second_stage:
            assert RunConfig.resolve("digits_lt", loss, epochs=1).epochs == 1
    assert RunConfig.resolve("imagenet_lt", "ncm", epochs=1).epochs == 1
    with pytest.raises(ValueError, match="it needs at least 2 --epochs; got 1"):
        RunConfig.resolve("imagenet_lt", "lade", epochs=1)


def test_flags_that_would_do_nothing_are_refused():
    with pytest.raises(ValueError, match="the recipe of folder has none"):
        RunConfig.resolve("folder", "lade", schedule="step")
    assert RunConfig.resolve("places_lt", "lade", schedule="step").milestones == (10, 20, 30)
    both = {"freeze_backbone": True, "backbone_learning_rate": 0.01}
    with pytest.raises(ValueError, match="--backbone_learning_rate means nothing with --freeze"):
        RunConfig.resolve("folder", "lade", **both)
