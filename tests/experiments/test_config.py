"""The configuration of a run: flags, names, JSON of this and of other versions."""

import dataclasses
import json
import pathlib

import pytest
from absl import flags
from absl.testing import flagsaver
from reproduction import recipes, train_flags
from reproduction.config import REPEATS, RunConfig
from reproduction.methods import METHODS


def name_of(dataset, loss, **overrides):
    return RunConfig.resolve(dataset, loss, **overrides).run_name


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


def test_json_has_no_flag_that_means_nothing_for_the_data_set_and_is_read_again():
    own = {"max_pixel": 4095, "image_root": "/a", "allow_duplicates": True, "image_size": 32}
    for dataset in recipes.DATASETS:
        for loss, method in METHODS.items():
            first = {"init_from": "runs/first"} if method.second_stage else {}
            more = own if dataset == "folder" else {}
            config = RunConfig.resolve(dataset, loss, **first, **more)
            content = json.loads(json.dumps(config.to_json()))
            assert RunConfig.from_json(content) == config
            assert ("init_from" in content) == method.second_stage
            assert ("max_pixel" in content) == (dataset == "folder")
            assert ("image_size" in content) == (dataset in recipes.LARGE)


def test_a_key_that_a_configuration_lacks_has_the_value_that_nobody_could_change_then():
    config = RunConfig.resolve("digits_lt", "softmax", epochs=7, seed=3)
    needed = {"dataset", "loss", "epochs", *REPEATS}
    old = {name: value for name, value in config.to_json().items() if name in needed}
    assert RunConfig.from_json(old) == config and RunConfig.from_json(old).follows(config)
    changed = RunConfig.from_json({**old, "l2": 1.0})
    assert not changed.follows(config) and not changed.same_run_as(config)
    assert changed.differences(config) == "l2 is 1.0 there and 0.0005 now"
    for name in needed - {"epochs"}:
        with pytest.raises(ValueError, match=f"old.json must hold a run's .*lacks {name}"):
            RunConfig.from_json({key: old[key] for key in needed - {name}}, "old.json")


def test_what_this_version_does_not_know_is_kept_and_tells_runs_apart():
    config = RunConfig.resolve("digits_lt", "softmax")
    newer = RunConfig.from_json({**config.to_json(), "dropout": 0.5})
    assert newer.to_json()["dropout"] == 0.5 and not newer.same_run_as(config)
    assert newer.differences(config) == "dropout is 0.5 there and None now"
    assert newer.follows(config), "as recipes have no such thing"
    other = RunConfig.from_json({**config.to_json(), "loss": "gone"})
    assert (other.loss, other.l2) == ("gone", 5e-4) and not other.same_run_as(config)


def test_seeds_precision_and_where_a_first_stage_lies_make_no_other_recipe():
    recipe = RunConfig.resolve("digits_lt", "crt")
    run = dataclasses.replace(recipe, seed=1, data_seed=2, precision="bfloat16", init_from="x/y")
    assert run.follows(recipe) and not run.same_run_as(recipe)
    moved = dataclasses.replace(run, init_from="elsewhere/y-bfloat16")
    assert moved.same_run_as(run)
    assert not dataclasses.replace(run, init_from="x/z").same_run_as(run)
    assert not run.follows(RunConfig.resolve("digits_lt", "crt", stage2_epochs=5))


def test_flags_of_own_images_are_in_the_configuration():
    given = {"max_pixel": 4095, "image_root": "/a", "allow_duplicates": True}
    config = RunConfig.resolve("folder", "softmax", **given)
    assert given.items() <= config.to_json().items()
    assert "max_pixel=4095" in config.run_name and "allow_duplicates=True" in config.run_name
    assert "image_root" not in config.run_name, "images may move"
    assert dataclasses.replace(config, image_root="/b").same_run_as(config)
    assert not dataclasses.replace(config, max_pixel=1023).same_run_as(config)
    for flag, value in given.items():
        with pytest.raises(ValueError, match=f"--{flag} means nothing with --dataset=digits_lt"):
            RunConfig.resolve("digits_lt", "softmax", **{flag: value})


def test_flags_give_the_configuration():
    given = ("--alpha=0.3", "--seed=3", "--freeze_backbone", "--precision=bfloat16", "--epochs=9")
    with flagsaver.flagsaver():
        train_flags.FLAGS(["train.py", "--dataset=digits_lt", "--loss=lade", *given])
        more = {"alpha": 0.3, "seed": 3, "freeze_backbone": True, "precision": "bfloat16"}
        assert RunConfig.from_flags() == RunConfig.resolve("digits_lt", "lade", epochs=9, **more)
        assert RunConfig.from_flags(epochs=7).milestones == (4, 6)
    with flagsaver.flagsaver():
        train_flags.FLAGS(["train.py", "--dataset=folder", "--loss=softmax", "--image_root=~/a"])
        assert RunConfig.from_flags().image_root == str(pathlib.Path.home() / "a")


def test_bounds_and_choices_are_those_of_the_fields():
    for wrong in ("--epochs=0", "--ema=1", "--max_pixel=65536", "--sampler=x", "--estimator=x"):
        with flagsaver.flagsaver(), pytest.raises(flags.IllegalFlagValueError):
            train_flags.FLAGS(["train.py", "--dataset=digits_lt", "--loss=lade", wrong])
    assert "lade: weight of LADER." in train_flags.FLAGS["alpha"].help
    assert train_flags.FLAGS["gamma"].help.startswith("focal, cb_focal: ")
