"""Every method: trained, resumed, saved, loaded, exported and adapted, like LADE."""

import dataclasses
import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from binaries import run
from reproduction import builders, methods, training
from reproduction.config import RunConfig, parameter
from reproduction.run_folder import RunFolder

import lade_tf
from lade_tf import evaluation
from lade_tf.evaluation import SavedLogits
from lade_tf.files import read_json, write_json
from lade_tf.training import checkpoints

SECOND_STAGE = {name for name, method in methods.METHODS.items() if method.second_stage}
UNTRAINED = {name for name, method in methods.METHODS.items() if not method.is_trained}
FLAGS = ("--dataset=digits_lt", "--epochs=12")
NOT_THE_DEFAULTS = {"lade": {"estimator": "reference"}, "logit_adjustment": {"tau": 0.5}}


@pytest.fixture(scope="module")
def data():
    return lade_tf.data.load("digits_lt")


# Of the methods that share their code the fast tests have one; the slow ones have the others.
RUN_FAST = {"softmax", "crt", "lade"}
RESUMED_FAST = {"lade", "bbn", "oltr", "ldam_drw", "lws"}


def every_method(fast):
    """Parametrises a test by the method, slow for all but those that are to be fast."""
    params = [
        pytest.param(name, marks=[] if name in fast else pytest.mark.slow)
        for name in methods.METHODS
    ]
    return pytest.mark.parametrize("loss", params, indirect=True, scope="module")


@pytest.fixture(scope="module")
def loss(request):
    return request.param


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory):
    """The folder of a finished run of softmax, which second stages start from."""
    return train("softmax", tmp_path_factory.mktemp("softmax"))


@pytest.fixture(scope="module")
def finished(loss, first_stage, tmp_path_factory):
    """The folder of a finished run of the method."""
    if loss == "softmax":
        return first_stage
    flags = (f"--init_from={first_stage}",) if loss in SECOND_STAGE else ()
    return train(loss, tmp_path_factory.mktemp(loss), *flags)


def train(loss, folder, *flags):
    """Trains a method, without --run_dir, and returns the one run folder that it leaves."""
    given = (f"--{name}={value}" for name, value in NOT_THE_DEFAULTS.get(loss, {}).items())
    output = run("train.py", *FLAGS, f"--loss={loss}", *given, "--export", *flags, cwd=folder)
    [run_folder] = (folder / "runs").iterdir()
    (folder / "output.txt").write_text(output)
    return run_folder


@pytest.fixture
def config(loss, first_stage):
    first = {"init_from": str(first_stage)} if loss in SECOND_STAGE else {}
    return RunConfig.resolve("digits_lt", loss, epochs=12, **first)


@every_method(RUN_FAST)
def test_its_run_says_what_its_logits_carry(loss, finished):
    saved = SavedLogits.load(finished / "test_logits.npz")
    power = 0.5 if loss == "logit_adjustment" else methods.METHODS[loss].carries == "training"
    carried = saved.counts**power
    np.testing.assert_allclose(saved.source_prior, carried / carried.sum())
    result = json.loads((finished / "result.json").read_text())
    given = {"loss": loss, **NOT_THE_DEFAULTS.get(loss, {})}
    assert {name: result["config"][name] for name in given} == given
    assert finished.name == RunConfig.from_json(result["config"]).run_name
    assert result["metrics"]["accuracy"] > 0.3  # twelve epochs; chance is 0.1


def test_softmax_shows_the_pair_with_and_without_adaptation(first_stage):
    result = json.loads((first_stage / "result.json").read_text())
    assert result["metrics"] != result["metrics_unadapted"]
    assert "not told" in (first_stage.parents[1] / "output.txt").read_text()


@every_method(RUN_FAST)
def test_saved_and_exported_it_gives_its_test_logits_at_any_prior(loss, finished, data):
    saved = SavedLogits.load(finished / "test_logits.npz")
    model = keras.saving.load_model(finished / "best.keras")
    images = data.test.images[:50].astype(np.float32)
    prior = np.linspace(1, 2, 10) / np.linspace(1, 2, 10).sum()
    expected = evaluation.adapted_probabilities(saved.logits[:50], saved.source_prior, prior)
    model.set_target_prior(prior)
    loaded = tf.nn.softmax(model.predict(images, verbose=0)).numpy()
    if loss != "tau_norm":  # whose test logits have each half's own τ
        np.testing.assert_allclose(loaded, expected, rtol=1e-4, atol=1e-6)
    served = tf.saved_model.load(finished / "saved_model").signatures["serve_with_prior"]
    served = served(images=tf.constant(images), target_prior=tf.constant(prior, tf.float32))
    np.testing.assert_allclose(served["probabilities"], loaded, rtol=1e-4, atol=1e-6)


@every_method(RESUMED_FAST)
def test_resumed_it_ends_with_the_same_weights(loss, config, data, tmp_path):
    if loss in UNTRAINED:
        pytest.skip("nothing is trained")
    short = {"stage2_epochs": 3} if loss in SECOND_STAGE else {"epochs": 3}
    short |= {"drw_epoch": 2} if loss == "ldam_drw" else {}
    config = dataclasses.replace(config, **short)
    folder, whole = RunFolder(tmp_path), training.build_trainee(config, data).model
    before = state(whole)

    def save(epoch, logs):
        if epoch == 0:
            checkpoints.save(folder, whole, checkpoints.Progress(1))

    fit(whole, config, data, 0, 3, keras.callbacks.LambdaCallback(on_epoch_end=save))
    resumed = training.build_trainee(config, data).model
    assert checkpoints.restore(folder, resumed).epoch == 1
    fit(resumed, config, data, 1, 3)
    for path, weights in state(whole).items():
        np.testing.assert_array_equal(state(resumed)[path], weights, err_msg=path)
    assert any(not np.array_equal(before[path], w) for path, w in state(whole).items())


def fit(model, config, data, start, end, *callbacks):
    model.fit(
        training.train_batches(config, data, start),
        initial_epoch=start,
        epochs=end,
        steps_per_epoch=data.steps_per_epoch(config.batch_size),
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


def state(model):
    """Returns {number: array} of all weights and the optimizer's variables."""
    return {
        f"{index} {variable.path}": variable.numpy()
        for index, variable in enumerate([*model.variables, *model.optimizer.variables])
        if "seed_generator" not in variable.path and "metric" not in variable.path
    }


def test_a_method_is_added_by_its_row(data, monkeypatch):
    """The README's example."""

    def cold(config, data):
        model = lade_tf.adapt(builders.build_network(config, data), data.class_counts)
        return builders.Trainee(model, lade_tf.losses.Focal(config.coldness))

    row = methods.Method(
        "Cold", "Author, 2026", lade_tf.losses.Focal, cold, {"coldness": 3.0}, carries="training"
    )
    monkeypatch.setitem(methods.METHODS, "cold", row)

    @dataclasses.dataclass(frozen=True)
    class WithColdness(RunConfig):
        coldness: float | None = parameter(float, "how cold")

    config = WithColdness.resolve("digits_lt", "cold", epochs=1)
    trainee = training.build_trainee(config, data)
    fit(trainee.model, config, data, 0, 1)
    assert (config.coldness, trainee.loss.gamma) == (3.0, 3.0)
    with pytest.raises(ValueError, match="--coldness means nothing with --loss=softmax"):
        WithColdness.resolve("digits_lt", "softmax", coldness=1.0)


def test_every_method_has_a_file_and_a_paper():
    root = pathlib.Path(__file__).parents[2]
    for name, method in methods.METHODS.items():
        assert (root / method.file).exists(), name
        assert method.paper or name == "softmax"


FIRST_STAGE_REFUSALS = {
    "none": ({}, "--loss=crt starts from a finished softmax run: give --init_from=RUN"),
    "no run": ({"init_from": "nowhere"}, "nowhere isn't a run folder"),
    "data set": ({"dataset": "cifar100_lt"}, "its dataset is 'digits_lt' and not 'cifar100_lt'"),
    "backbone": ({"backbone": "resnet32"}, "its backbone is 'small_cnn' and not 'resnet32'"),
    "ratio": ({"imbalance_ratio": 5.0}, "its imbalance_ratio is 20.0 and not 5.0"),
    "data seed": ({"data_seed": 1}, "its data_seed is 0 and not 1"),
    "method": ({}, "must be a softmax run with the same data, backbone"),
}


@pytest.mark.parametrize("case", FIRST_STAGE_REFUSALS)
def test_a_first_stage_that_does_not_fit_is_refused(case, first_stage, lade_run, data):
    changes, message = FIRST_STAGE_REFUSALS[case]
    given = {"none": None, "method": str(lade_run)}.get(case, str(first_stage))
    config = RunConfig.resolve("digits_lt", "crt", epochs=12, init_from=given)
    config = dataclasses.replace(config, **changes)
    with pytest.raises(ValueError) as error:
        training.first_stage(config, data)
    assert message in str(error.value)


@pytest.mark.parametrize("loss", sorted(SECOND_STAGE))
def test_a_first_stage_on_other_data_is_refused(loss, first_stage, data, tmp_path):
    config = RunConfig.resolve("digits_lt", loss, epochs=12, init_from=str(first_stage))
    other = lade_tf.data.load("digits_lt", 5.0)
    with pytest.raises(ValueError, match="other data than --data_dir has .*; train images is"):
        training.build_trainee(config, other)
    old = shutil.copytree(first_stage, tmp_path / "old")
    (old / "data.json").unlink()  # before runs had it
    training.first_stage(dataclasses.replace(config, init_from=str(old)), data)


def test_a_first_stage_on_images_of_another_size_is_refused(first_stage, data, tmp_path):
    run_folder = RunFolder(shutil.copytree(first_stage, tmp_path / "large"))
    large = {"dataset": "folder", "image_size": 96}
    config = {**read_json(run_folder.file("config.json")), **large}
    result = {**read_json(run_folder.file("result.json")), "config": config}
    for name, content in {"config.json": config, "result.json": result}.items():
        write_json(run_folder.file(name), content)
    second = {"loss": "crt", "image_size": 72, "init_from": str(run_folder.path)}
    config = dataclasses.replace(run_folder.config, **second)
    with pytest.raises(ValueError, match="its image_size is 96 and not 72"):
        training.first_stage(config, data)


@pytest.mark.parametrize(
    ("loss", "flags", "message"),
    [
        ("ldam_drw", ["--drw_epoch=13"], "--drw_epoch must be 1 to --epochs=12; got 13"),
        ("logit_adjustment", ["--tau=-1"], "--tau"),
        ("cb_focal", ["--beta=1"], "beta must be a number in [0, 1); got 1.0"),
        ("softmax", ["--init_from=run"], "--init_from means nothing with --loss=softmax"),
        ("bbn", ["--sampler=instance"], "--sampler means nothing with --loss=bbn"),
        ("softmax", ["--mixup=0"], "mixup_alpha must be a finite number > 0; got 0.0"),
        ("crt", ["--init_from=nowhere"], "nowhere isn't a run folder"),
        ("softmax", ["--ema=1"], "--ema"),
        ("softmax", ["--schedule=cosine", "--epochs=1"], "it needs at least 2 --epochs"),
        ("softmax", ["--augment=autoaugment_cutout"], "need 3 channels"),
    ],
)
def test_bad_flags_of_a_method_are_refused(loss, flags, message, tmp_path):
    errors = run("train.py", *FLAGS, f"--loss={loss}", *flags, cwd=tmp_path, fails=True)
    assert message in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["randaugment", "keras_cv_randaugment"])
def test_the_modern_recipe_and_every_training_option_run_together(augment, tmp_path):
    flags = ("--loss=balanced_softmax", f"--augment={augment}", "--mixup=0.2", "--ema=0.9")
    more = ("--label_smoothing=0.1", "--recipe=modern", "--epochs=30")
    run("train.py", *FLAGS, *flags, *more, "--run_dir=run", cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["mixup"] == 0.2 and result["metrics"]["accuracy"] > 0.2


def test_the_average_of_the_weights_is_what_is_saved(data, tmp_path):
    flags = ("--loss=softmax", "--ema=0.9", "--run_dir=run")
    run("train.py", *FLAGS, *flags, cwd=tmp_path)
    config = RunConfig.resolve("digits_lt", "softmax", epochs=12, ema=0.9)
    model = training.build_trainee(config, data).model
    checkpoints.restore(RunFolder(tmp_path / "run"), model)
    raw = model.network.get_weights()
    averages = [v.numpy() for v in model.optimizer._model_variables_moving_average]
    saved = keras.saving.load_model(tmp_path / "run" / "best.keras")
    for weight, average in zip(saved.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(weight.numpy(), average)
    assert not np.array_equal(saved.network.get_weights()[0], raw[0])
    # Their batch statistics are those of the averaged weights, not of the last step's.
    training.recompute_statistics(saved, config, data)
    again = keras.saving.load_model(tmp_path / "run" / "best.keras")
    statistics = [v.numpy() for v in again.network.non_trainable_variables]
    raw_statistics = [v.numpy() for v in model.network.non_trainable_variables]
    for found, moved, before in zip(
        statistics, saved.network.non_trainable_variables, raw_statistics, strict=True
    ):
        assert not np.array_equal(found, before)
        np.testing.assert_allclose(found, moved.numpy(), rtol=0.15, atol=0.05)


def test_no_head_learns_at_the_rate_of_the_body():
    images = keras.Input((4, 4, 1))
    maps = keras.layers.Conv2D(3, 2, name="conv")(images)
    features = keras.layers.GlobalAveragePooling2D()(maps)
    network = keras.Model(images, keras.layers.Dense(2, name="logits")(features))
    oltr = lade_tf.models.oltr_network(network, np.ones((2, 3), np.float32))
    scaled = lade_tf.models.decoupled.scale_classifier(network)
    bodies = [v.path for net in (network, oltr, scaled) for v in net.variables if "conv/" in v.path]
    heads = [v.path for net in (network, oltr) for v in net.variables if v.path not in bodies]
    heads += [v.path for v in scaled.trainable_variables]
    assert bodies and all(re.search(training.BODY, path) for path in bodies)
    assert heads and not [path for path in heads if re.search(training.BODY, path)]
