"""Replicas train the run that one device trains."""

import csv
import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf
from binaries import run
from reproduction import strategies

# The learning rate is small: rounding differs, and training amplifies it.
FLAGS = ("--dataset=digits_lt", "--loss=lade", "--batch_size=64", "--synchronized_batchnorm")
MORE = ("--epochs=3", "--learning_rate=0.001", "--run_dir=run")


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run("train.py", *FLAGS, *MORE, cwd=folder)
    return folder / "run"


def losses(folder):
    with open(folder / "history.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(folder):
    with h5py.File(folder / "last.weights.h5") as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: item}) if "vars" in name else None)
        return {name: item[()] for name, item in found.items() if hasattr(item, "shape")}


def assert_same(folder, expected):
    np.testing.assert_allclose(losses(folder), losses(expected), rtol=1e-5)
    actual, expected = weights(folder), weights(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_replicas_train_the_same_run(one_device, tmp_path):
    run("train.py", *FLAGS, *MORE, "--strategy=mirrored", "--replicas=2", cwd=tmp_path)
    assert_same(tmp_path / "run", one_device)


@pytest.mark.slow
def test_a_run_goes_on_on_another_number_of_replicas(one_device, tmp_path):
    folder = shutil.copytree(one_device, tmp_path / "run")
    shutil.move(folder / "previous.weights.h5", folder / "last.weights.h5")  # two epochs of three
    (folder / "result.json").unlink()
    run("train.py", *FLAGS, *MORE, "--replicas=4", cwd=tmp_path)
    assert_same(folder, one_device)


def test_several_replicas_on_one_device_are_refused(tmp_path):
    flags = (*FLAGS, *MORE, "--strategy=one_device", "--replicas=2")
    errors = run("train.py", *flags, cwd=tmp_path, fails=True)
    assert "--replicas=2 needs --strategy=mirrored" in errors and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_deterministic_runs_are_equal_bit_for_bit(tmp_path):
    for name in ("one", "other"):
        run("train.py", *FLAGS, *MORE, "--deterministic", f"--run_dir={name}", cwd=tmp_path)
    for name, array in weights(tmp_path / "one").items():
        np.testing.assert_array_equal(weights(tmp_path / "other")[name], array, err_msg=name)


@pytest.mark.parametrize(("gpus", "expected"), [([], []), (["GPU:0"], [1])])
def test_beside_a_gpu_operations_have_one_thread(monkeypatch, gpus, expected):
    threads = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", threads.append)
    strategies.make("one_device")
    assert threads == expected
