"""--loop=device: the run of the ordinary loop, in one program an epoch, here or elsewhere."""

import dataclasses
import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from binaries import TINY, run
from reproduction import device_loop, methods, training
from reproduction.config import RunConfig
from reproduction.run_folder import RunFolder
from studies import export_program

import lade_tf
from lade_tf import losses
from lade_tf.data import ImageData, Split
from lade_tf.files import read_json, write_json
from lade_tf.optimizers import SGD, WarmupStepDecay
from lade_tf.training import checkpoints

COUNTS = [40, 15, 6]
BASE = RunConfig(
    "toy", "softmax", epochs=3, batch_size=12, seed=3, sampler="instance", augment="standard"
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    splits = []
    for counts in (COUNTS, [4, 4, 4]):
        labels = rng.permutation(np.repeat(np.arange(3), counts)).astype(np.int32)
        images = rng.integers(0, 200, (len(labels), 6, 5, 2)) + 25 * labels[:, None, None, None]
        splits.append(Split(images.astype(np.uint8), labels))
    return ImageData("toy", tuple("abc"), *splits, (0.5, 0.5), (0.2, 0.2), 255.0, 1, True)


def build(config, **lade):
    """A compiled model of a network with everything that has state: weights, statistics."""
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(methods.POLICIES[config.precision])
    images = keras.Input((6, 5, 2))
    features = keras.layers.Rescaling(1 / 255)(images)
    features = keras.layers.Conv2D(4, 3)(features)
    features = keras.layers.Activation("tanh")(lade_tf.layers.BatchNormalization()(features))
    logits = keras.layers.Dense(3, dtype="float32")(keras.layers.Flatten()(features))
    network = keras.Model(images, logits)
    if config.loss == "lade":
        model, loss = lade_tf.LADEModel(network, COUNTS, **lade), None
    elif config.loss == "ldam_drw":
        model = lade_tf.models.DeferredReweightingModel(network, COUNTS, start_step=7)
        loss = losses.LDAM(COUNTS, 0.5, 1.0)
    else:
        model = lade_tf.AdaptedModel(network, COUNTS)
        loss = losses.LogitAdjustment(COUNTS, tau=0.0)
    # Five steps an epoch: the rate changes with each.
    schedule = WarmupStepDecay(0.1, 5, milestones=(3,), factor=0.1, warmup_epochs=2)
    momentum = config.ema or 0.0
    optimizer = SGD(schedule, l2=1e-3, use_ema=bool(config.ema), ema_momentum=momentum)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


class History(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rows = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch, float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        assert epoch == self.epoch[0]
        self.rows.append({"epoch": epoch, "learning_rate": self.epoch[1], **logs})


def fit_steps(config, data, model, start, end):
    history = History()
    model.fit(
        training.train_batches(config, data, start),
        initial_epoch=start,
        epochs=end,
        steps_per_epoch=5,
        shuffle=False,
        verbose=0,
        callbacks=[history],
    )
    return history.rows


@pytest.fixture(scope="module")
def three_epochs(data):
    """The model after three epochs of BASE in the ordinary loop, to look at, and its rows."""
    model = build(BASE)
    return model, fit_steps(BASE, data, model, 0, 3)


def fit_device(config, data, model, start, end):
    history = History()
    device_loop.fit(config, data, None, model, start, end, [history], verbose=0)
    return history.rows


def assert_same(model, expected, rtol=1e-5, atol=1e-5):
    for owner in (lambda m: m, lambda m: m.optimizer):
        for found, wanted in zip(owner(model).variables, owner(expected).variables, strict=True):
            if "seed" not in wanted.path:
                np.testing.assert_allclose(
                    found.numpy(), wanted.numpy(), rtol, atol, err_msg=wanted.path
                )


def assert_same_rows(rows, expected, rtol=1e-5):
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        np.testing.assert_allclose(list(row.values()), list(wanted.values()), rtol, atol=1e-6)


CASES = {
    "softmax": {},
    "drawn with replacement, averaged": {"sampler": "class_balanced", "ema": 0.9},
    "mixup": {"mixup": 0.4},
    "reweighted from a step on": {"loss": "ldam_drw"},
    "lade, paper": {"loss": "lade", "estimator": "paper"},
    "lade, reference": {"loss": "lade", "estimator": "reference"},
    "lade, mixup": {"loss": "lade", "estimator": "paper", "mixup": 0.4},
}
LONG = {"lade, reference", "lade, mixup", "mixup", "drawn with replacement, averaged"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case in LONG else []) for case in CASES],
)
def test_three_epochs_equal_the_ordinary_loop(case, data, three_epochs):
    changes = dict(CASES[case])
    lade = {"estimator": changes.pop("estimator")} if "estimator" in changes else {}
    config = dataclasses.replace(BASE, **changes)
    model = build(config, **lade)
    expected, wanted = three_epochs
    if config != BASE:
        expected = build(config, **lade)
        wanted = fit_steps(config, data, expected, 0, 3)
    start = [weight.copy() for weight in model.network.get_weights()]
    rows = fit_device(config, data, model, 0, 3)
    assert_same(model, expected)
    assert_same_rows(rows, wanted)
    assert {"loss", "accuracy"} <= set(rows[0])
    changed = zip(start, model.network.get_weights(), strict=True)
    assert all((before != after).any() for before, after in changed)


def test_bfloat16_is_the_same_up_to_its_precision(data):
    config = dataclasses.replace(BASE, precision="bfloat16")
    expected, model = build(config), build(config)
    wanted = fit_steps(config, data, expected, 0, 3)
    assert_same_rows(fit_device(config, data, model, 0, 3), wanted, rtol=0.1)
    assert_same(model, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("loops", [(fit_steps, fit_device), (fit_device, fit_steps)])
def test_either_loop_resumes_the_other(loops, data, three_epochs, tmp_path):
    first, second = build(BASE), build(BASE)
    folder = RunFolder(tmp_path)
    loops[0](BASE, data, first, 0, 1)
    checkpoints.save(folder, first, checkpoints.Progress(1))
    assert checkpoints.restore(folder, second).epoch == 1
    loops[1](BASE, data, second, 1, 3)
    assert_same(second, three_epochs[0])


def test_the_program_has_no_variables(data):
    model = build(dataclasses.replace(BASE, loss="lade"))
    program = device_loop.EpochProgram(dataclasses.replace(BASE, loss="lade"), data, model)
    arguments = (program.values(), tf.constant(0), data.train.images, data.train.labels)
    concrete = tf.function(program.epoch, autograph=False).get_concrete_function(*arguments)
    assert not concrete.captured_inputs
    assert {value.dtype for value in program.values()} == {tf.float32, tf.int32}


def test_a_loss_that_is_not_finite_ends_the_run(data):
    model = build(BASE)
    model.network.trainable_variables[0].assign(np.full([3, 3, 2, 4], np.nan))
    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 1. There is no"):
        fit_device(BASE, data, model, 0, 1)


def test_callbacks_can_stop_it(data):
    model, history = build(BASE), History()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1)
    )
    device_loop.fit(BASE, data, None, model, 0, 3, [history, stop], verbose=0)
    assert len(history.rows) == 2 and int(model.optimizer.iterations) == 10


def test_epochs_are_validated_as_fit_does(data):
    batches = data.plain_batches("test", 5)
    both = [History(), History()]
    expected, model = build(BASE), build(BASE)
    stream = training.train_batches(BASE, data, 0)
    options = dict(steps_per_epoch=5, shuffle=False, verbose=0, validation_data=batches)
    expected.fit(stream, epochs=3, callbacks=[both[0]], **options)
    device_loop.fit(BASE, data, None, model, 0, 3, [both[1]], batches, verbose=0)
    assert "val_accuracy" in both[0].rows[0]
    assert_same_rows(both[1].rows, both[0].rows)


REFUSALS = {
    "augment": ({"augment": "randaugment"}, "--augment=randaugment has shapes"),
    "precision": ({"precision": "float16"}, "--precision=float16 may skip steps"),
    "bbn": ({"loss": "bbn"}, "--loss=bbn has training steps of its own"),
    "untrained": ({"loss": "ncm"}, "--loss=ncm trains nothing"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_it_cannot_train_is_refused(case, data):
    changes, message = REFUSALS[case]
    model = build(BASE)
    if case == "bbn":
        model = lade_tf.models.BBN.__new__(lade_tf.models.BBN)
    with pytest.raises(ValueError) as error:
        device_loop.check(dataclasses.replace(BASE, **changes), data, model)
    assert str(error.value).startswith("--loop=device can't do this: " + message)


def test_several_replicas_are_refused(data, two_replicas):
    with two_replicas.scope():
        model = build(BASE)
    with pytest.raises(ValueError, match="it is for one device: use --strategy=one_device"):
        device_loop.check(BASE, data, model)


def run_with_jax(folder, calls, carry):
    """Runs an exported program as a machine without TensorFlow does; returns its results."""
    jax = pytest.importorskip("jax")
    from jax._src.lib import xla_client

    computation = xla_client.XlaComputation((folder / "program.hlo").read_bytes())
    module = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
    device = jax.devices("cpu")[0]
    executable = device.client.compile_and_load(
        module, xla_client.DeviceList((device,)), xla_client.CompileOptions()
    )
    with np.load(folder / "arguments.npz") as archive:
        values = [jax.device_put(archive[f"arr_{i}"], device) for i in range(len(archive.files))]
    for _ in range(calls):
        shards = executable.execute_sharded(values).disassemble_into_single_device_arrays()
        values[:carry] = [shard[0] for shard in shards][:carry]
    return [np.asarray(value) for value in values[:carry]]


def test_the_exported_program_is_the_same_run_under_jax(data, tmp_path):
    pytest.importorskip("jax")
    config = dataclasses.replace(BASE, loss="lade", mixup=0.4, epochs=4)
    expected, model = build(config), build(config)
    rows = fit_steps(config, data, expected, 0, 4)
    program = device_loop.EpochProgram(config, data, model)
    manifest = export_program.export(tmp_path / "program", config, program, 0, 2, data)
    assert manifest["calls"] == 2
    *values, epoch, history = run_with_jax(tmp_path / "program", 2, manifest["carry"])
    program.assign(values)
    assert epoch == 4
    assert_same(model, expected)
    wanted = [[row[name] for name in manifest["history_columns"]] for row in rows]
    np.testing.assert_allclose(history, wanted, rtol=1e-5, atol=1e-6)


def write_results(folder, program, epochs_per_call):
    """Writes a program's results as the machine that ran it would, here by TensorFlow's XLA."""
    manifest = read_json(folder / "program.json")
    carry = manifest["carry"]
    with np.load(folder / "arguments.npz") as archive:
        values = [tf.constant(archive[f"arr_{i}"]) for i in range(len(archive.files))]
    call = tf.function(
        lambda values: export_program.run_epochs(
            program, epochs_per_call, values[:carry], *values[carry:]
        ),
        jit_compile=True,
        autograph=False,
    )
    for _ in range(manifest["calls"]):
        values[:carry] = call(values)
    np.savez(folder / "results.npz", *(value.numpy() for value in values[:carry]))


@pytest.fixture(scope="module")
def exported_once(data, tmp_path_factory):
    """The folder of a run of one epoch and that of the program of the other two, with results."""
    folder = tmp_path_factory.mktemp("exported")
    run_folder, out = RunFolder(folder / "run"), folder / "out"
    model = build(BASE)
    rows = fit_steps(BASE, data, model, 0, 1)
    run_folder.claim(BASE, data)
    clocks = {"seconds": 1.0, "cpu_seconds": 1.0, "images_per_second": 60.0}
    run_folder.write_history([{**row, "epoch": 1, **clocks} for row in rows])
    checkpoints.save(run_folder, model, checkpoints.Progress(1))
    program = device_loop.EpochProgram(BASE, data, model)
    export_program.export(out, BASE, program, 1, None, data)
    write_results(out, program, 2)
    return folder


@pytest.fixture
def exported(exported_once, data, tmp_path):
    """Copies of those folders, and a model and a program that results can be taken into."""
    shutil.copytree(exported_once, tmp_path, dirs_exist_ok=True)
    folder, model = RunFolder(tmp_path / "run"), build(BASE)
    checkpoints.restore(folder, model)
    return folder, tmp_path / "out", model, device_loop.EpochProgram(BASE, data, model)


def test_a_program_goes_on_from_a_checkpoint(data, exported, three_epochs):
    folder, out, model, program = exported
    done = export_program.import_results(out, BASE, data, folder, model, program, 5, "a TPU")
    assert done == 3
    assert folder.trained_on() == [{"device": "a TPU", "first_epoch": 2, "last_epoch": 3}]
    restored, (expected, wanted) = build(BASE), three_epochs
    assert checkpoints.restore(folder, restored).epoch == 3
    assert_same(restored, expected)
    rows = folder.read_history()
    assert [row["seconds"] for row in rows] == [1, 2.5, 2.5]
    for row, values in zip(rows, wanted, strict=True):
        for name in ("loss", "accuracy", "learning_rate"):
            assert row[name] == pytest.approx(values[name], rel=1e-5)


@pytest.mark.parametrize("fault", ["nan", "cut short", "shapes", "checkpoint", "config"])
def test_results_that_do_not_fit_change_nothing(fault, data, exported):
    folder, out, model, program = exported
    path, config = out / "results.npz", BASE
    with np.load(path) as archive:
        arrays = [archive[f"arr_{i}"] for i in range(len(archive.files))]
    error, message = ValueError, None
    if fault == "nan":
        arrays[-1][2, 1] = np.nan
        error, message = FloatingPointError, "the loss became nan in epoch 3"
    elif fault == "shapes":
        arrays[0] = arrays[0][1:]
        message = "shapes differ"
    elif fault == "config":
        config = dataclasses.replace(BASE, seed=9)
        message = "is of another configuration: seed differ"
    np.savez(path, *arrays)
    if fault == "cut short":
        path.write_bytes(path.read_bytes()[:500])
        message = "can't be read as the results of a program"
    elif fault == "checkpoint":
        checkpoints.save(folder, model, checkpoints.Progress(2))
        message = "the program starts after epoch 1; the last checkpoint"
    before = folder.file("last.weights.h5").read_bytes(), folder.read_history()
    with pytest.raises(error, match=message):
        export_program.import_results(out, config, data, folder, model, program, 5, "a TPU")
    assert (folder.file("last.weights.h5").read_bytes(), folder.read_history()) == before
    assert not folder.trained_on()


def test_what_trained_on_says_follows_the_epochs(tmp_path):
    folder = RunFolder(tmp_path)
    for device, *epochs in (("a", 1, 2), ("b", 5, 8), ("c", 5, 6)):
        folder.note_trained_on(device, *epochs)
    parts = [tuple(part.values()) for part in folder.trained_on()]
    assert parts == [("a", 1, 2), ("c", 5, 6)]
    write_json(tmp_path / "config.json", {})
    folder.delete()  # it is a run's file
    assert not tmp_path.exists()


def test_calls_must_make_up_the_run(data, tmp_path):
    program = device_loop.EpochProgram(BASE, data, build(BASE))
    with pytest.raises(ValueError, match="epochs_per_call=2 must divide the 3 epochs left"):
        export_program.export(tmp_path / "out", BASE, program, 0, 2, data)
    assert not list(tmp_path.iterdir())


def weights_of(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return arrays


def without_clocks(rows):
    clocks = {"seconds", "cpu_seconds", "images_per_second"}
    return [{name: row[name] for name in sorted({*row} - clocks)} for row in rows]


@pytest.mark.slow
def test_a_run_trained_elsewhere_ends_as_one_trained_here(lade_run, tmp_path):
    flags = (*TINY, "--loss=lade")
    shown = run(
        "studies.export_program", *flags, "--output=out", "--epochs_per_call=1", cwd=tmp_path
    )
    names = {"program.hlo", "arguments.npz", "program.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    manifest = read_json(tmp_path / "out" / "program.json")
    assert shown.endswith(f"--calls=3 --carry={manifest['carry']}\n")
    digits = lade_tf.data.load("digits_lt")
    config = RunConfig.from_json(manifest["config"])
    model = training.build_trainee(config, digits).model
    program = device_loop.EpochProgram(config, digits, model)
    write_results(tmp_path / "out", program, 1)
    back = (*flags, "--import=out", "--run_dir=run", "--seconds=6")
    for known in ((*back[:-1], "--device=a TPU"), back):
        errors = run("studies.export_program", *known, cwd=tmp_path, fails=True)
        assert "--import needs --seconds and --device" in errors
    back = (*back, "--device=a TPU")
    other = (*back, "--learning_rate=0.01")
    errors = run("studies.export_program", *other, cwd=tmp_path, fails=True)
    assert "another configuration: learning_rate differ" in errors
    assert not (tmp_path / "run").exists()
    run("studies.export_program", *back, cwd=tmp_path)
    run("train.py", *flags, "--run_dir=run", cwd=tmp_path)
    folders = tmp_path / "run", lade_run
    found, wanted = (weights_of(folder / "last.weights.h5") for folder in folders)
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        # A ReLU may tell two compilers' roundings of 0 apart, hence not 1e-5.
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-3, err_msg=name)
    rows, expected = (RunFolder(folder).read_history() for folder in folders)
    assert [row["seconds"] for row in rows] == [2, 2, 2]
    assert_same_rows(without_clocks(rows), without_clocks(expected), rtol=1e-4)
    result = read_json(tmp_path / "run" / "result.json")
    assert result["trained_on"] == [{"device": "a TPU", "first_epoch": 1, "last_epoch": 3}]
    assert "trained_on" not in read_json(lade_run / "result.json")
    assert result["metrics"]["accuracy"] == pytest.approx(
        read_json(lade_run / "result.json")["metrics"]["accuracy"], abs=0.01
    )


@pytest.mark.slow
def test_train_py_gives_the_run_of_the_ordinary_loop(lade_run, tmp_path):
    flags = (*TINY, "--loss=lade", "--run_dir=run", "--loop=device")
    run("train.py", *flags, cwd=tmp_path)
    logits = [np.load(path / "test_logits.npz")["logits"] for path in (tmp_path / "run", lade_run)]
    # With rectifiers two compilers may disagree about a rounding at 0.
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-3)


def test_train_py_refuses_it_before_anything_is_written(tmp_path):
    flags = (*TINY, "--loss=bbn", "--run_dir=run", "--loop=device")
    errors = run("train.py", *flags, cwd=tmp_path, fails=True)
    assert "--loop=device can't do this" in errors and not (tmp_path / "run").exists()
