"""A run that was killed ends as one that wasn't."""

import csv
import json
import re
import time

import h5py
import numpy as np
import pytest
from binaries import TINY, run, start
from reproduction.run_folder import RunFolder

from lade_tf.training import checkpoints

CLOCKS = {"seconds", "cpu_seconds", "images_per_second"}


def kill_in_the_middle_of_an_epoch(*flags, cwd, seconds):
    """Starts a training and kills it `seconds` after its first checkpoint."""
    process = start("train.py", *flags, cwd=cwd)
    checkpoint = cwd / "run" / "last.weights.h5"
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "it finished before it was killed"


def history(folder):
    with open(folder / "history.csv") as file:
        return [
            {name: value for name, value in row.items() if name not in CLOCKS}
            for row in csv.DictReader(file)
        ]


def weights(path):
    """Returns every array of a checkpoint: weights, optimizer, everything."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return arrays


def assert_same_run(actual, expected):
    """Asserts that two run folders hold the same numbers, bit for bit."""
    assert history(actual) == history(expected)
    actual_weights, expected_weights = (
        weights(folder / "last.weights.h5") for folder in (actual, expected)
    )
    assert actual_weights.keys() == expected_weights.keys() and len(expected_weights) > 10
    for name, array in expected_weights.items():
        np.testing.assert_array_equal(actual_weights[name], array, err_msg=name)
    with (
        np.load(actual / "test_logits.npz") as one,
        np.load(expected / "test_logits.npz") as other,
    ):
        np.testing.assert_array_equal(one["logits"], other["logits"])
    results = [json.loads((folder / "result.json").read_text()) for folder in (actual, expected)]
    assert results[0]["metrics"] == results[1]["metrics"]


def check_kill_and_resume(tmp_path, *flags, seconds):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
    flags = (*flags, "--loss=lade", "--run_dir=run")
    run("train.py", *flags, cwd=whole)
    kill_in_the_middle_of_an_epoch(*flags, cwd=killed, seconds=seconds)
    run("train.py", *flags, cwd=killed)
    assert_same_run(killed / "run", whole / "run")
    return json.loads((whole / "run" / "result.json").read_text())


@pytest.mark.slow
def test_a_killed_digits_run_resumes_exactly(tmp_path):
    check_kill_and_resume(tmp_path, *TINY[:1], "--epochs=40", seconds=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("--ema=0.9",), ("--augment=keras_cv_randaugment", "--epochs=3")]
)
def test_a_digits_run_that_is_told_to_stop_goes_on_inside_the_epoch(more, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
    flags = (*TINY[:1], "--batch_size=8", "--epochs=6", "--loss=lade", "--run_dir=run", *more)
    run("train.py", *flags, cwd=whole)
    process = start("train.py", *flags, cwd=killed)
    while not (killed / "run" / "last.weights.h5").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.terminate()
    errors = process.communicate()[1]
    place = re.search("stopped by SIGTERM after step ([0-9]+) of epoch ([2-6])", errors)
    assert process.returncode == 1 and place, errors
    with h5py.File(killed / "run" / "last.weights.h5") as file:
        progress = checkpoints.Progress.of(file)
    assert (progress.step, progress.epoch + 1) == tuple(map(int, place.groups()))
    run("train.py", *flags, cwd=killed)
    assert_same_run(killed / "run", whole / "run")


def test_checkpoints_are_kept_by_number(tmp_path):
    run("train.py", *TINY, "--loss=softmax", "--run_dir=run", "--keep_every=2", cwd=tmp_path)
    kept = {path.name for path in (tmp_path / "run").glob("*.weights.h5")}
    assert kept == {"last.weights.h5", "previous.weights.h5", "epoch-0002.weights.h5"}
    with h5py.File(tmp_path / "run" / "epoch-0002.weights.h5") as file:
        assert checkpoints.Progress.of(file).epoch == 2


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_written(tmp_path):
    flags = (*TINY, "--loss=softmax", "--run_dir=run")
    run("train.py", *flags, cwd=tmp_path)
    (tmp_path / "run" / "result.json").unlink()
    before = (tmp_path / "run" / "previous.weights.h5").read_bytes()
    (tmp_path / "run" / "previous.weights.h5").rename(tmp_path / "run" / "last.weights.h5")
    # A checkpoint is some 300 kB, the history 1: the former no longer fits.
    errors = run("train.py", *flags, cwd=tmp_path, fails=True, largest_file=100_000)
    assert "the checkpoint of epoch 3 can't be written to run" in errors
    assert "File too large" in errors and "is the one before" in errors
    assert (tmp_path / "run" / "last.weights.h5").read_bytes() == before
    assert not list((tmp_path / "run").glob("tmp-*"))
    run("train.py", *flags, cwd=tmp_path)


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    flags = (*TINY, "--loss=softmax", "--run_dir=file/run")
    errors = run("train.py", *flags, cwd=tmp_path, fails=True)
    assert "file/run" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("backbone", "epochs", "seconds"),
    [
        pytest.param("small_cnn", 2, 1, marks=pytest.mark.slow),
        pytest.param("resnet32", 3, 6, marks=pytest.mark.nightly),
    ],
)
def test_a_killed_cifar_run_resumes_and_learns(backbone, epochs, seconds, tmp_path, shared_data):
    flags = ("--dataset=cifar100_lt", f"--data_dir={shared_data / 'data' / 'tfds'}")
    # Every epoch has more than the some 90 steps after which TensorFlow reorders the operations.
    flags += (f"--backbone={backbone}", f"--epochs={epochs}", "--batch_size=64")
    result = check_kill_and_resume(tmp_path, *flags, seconds=seconds)
    assert result["metrics"]["accuracy"] > 0.02  # twice chance


@pytest.mark.slow
def test_kills_at_random_moments_are_survived(tmp_path):
    flags = ("--kills=6", "--kills_per_run=3", "--epochs=30", "--output=kills.json")
    output = run("studies.kill_runs", *flags, cwd=tmp_path)
    assert "survived / tried: 6 / 6" in output
    assert json.loads((tmp_path / "kills.json").read_text())["survived"] == 6


def test_two_processes_never_train_in_one_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.alone():
        errors = run("train.py", *TINY, "--loss=lade", "--run_dir=run", cwd=tmp_path, fails=True)
        assert "another process is training in run: wait for it or end it" in errors
        (folder.path / "config.json").write_text("{}")
        with pytest.raises(ValueError, match="another process is training"):
            folder.delete()
        assert folder.file("config.json").exists()
    folder.delete()
    assert not folder.path.exists()
