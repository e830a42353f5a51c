"""A run that was killed ends as one that wasn't."""

import csv
import json
import time

import h5py
import numpy as np
import pytest
from binaries import TINY, run, start

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


def test_a_killed_digits_run_resumes_exactly(tmp_path):
    check_kill_and_resume(tmp_path, *TINY[:1], "--epochs=40", seconds=0.5)


@pytest.mark.slow
def test_a_killed_cifar_run_resumes_and_learns(tmp_path, shared_data):
    # Three epochs: TensorFlow reorders a step's operations after some 90 steps.
    flags = ("--dataset=cifar100_lt", f"--data_dir={shared_data / 'data' / 'tfds'}", "--epochs=3")
    result = check_kill_and_resume(tmp_path, *flags, seconds=6)
    assert result["metrics"]["accuracy"] > 0.02  # twice chance


@pytest.mark.slow
def test_kills_at_random_moments_are_survived(tmp_path):
    output = run("kill_runs.py", "--kills=10", "--output=kills.json", cwd=tmp_path)
    assert "survived / tried: 10 / 10" in output
    assert json.loads((tmp_path / "kills.json").read_text())["survived"] == 10
