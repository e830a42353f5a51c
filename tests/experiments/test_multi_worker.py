"""Two worker processes on loopback train the run that one process trains."""

import json
import os
import shutil
import socket
import time

import pytest
from binaries import run, start
from test_strategies import FLAGS, MORE, assert_same

WORKERS = (*FLAGS, "--strategy=multi_worker")


def start_workers(*flags, folders):
    """Starts a worker in each of two folders."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("localhost", 0)), other.bind(("localhost", 0))
        addresses = [f"localhost:{it.getsockname()[1]}" for it in (one, other)]
    return [
        start(
            "train.py",
            *WORKERS,
            *flags,
            cwd=folder,
            environment={
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                )
            },
        )
        for index, folder in enumerate(folders)
    ]


def finish(processes):
    """Waits for both and returns what the chief said."""
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs[0][0]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run("train.py", *FLAGS, *MORE, cwd=folder)
    return folder / "run"


@pytest.mark.slow
def test_they_reach_the_same_weights(one_process, tmp_path):
    output = finish(start_workers(*MORE, folders=[tmp_path] * 2))
    assert_same(tmp_path / "run", one_process)
    assert "digits_lt, lade, 3 epochs" in output


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_after_one_is_killed_both_go_on(killed, tmp_path):
    flags = ("--epochs=8", "--learning_rate=0.0001", "--run_dir=run")
    processes = start_workers(*flags, folders=[tmp_path] * 2)
    history = tmp_path / "run" / "history.csv"
    while not history.exists():
        time.sleep(0.05)
    processes[killed].kill()
    _, errors = processes[1 - killed].communicate(timeout=120)
    rows = len(history.read_text().splitlines()) - 1
    assert processes[1 - killed].returncode == 1 and rows < 8
    if killed == 1:
        assert "another worker is gone" in errors and "Traceback" not in errors
    kept = history.read_text().splitlines()[:rows]
    finish(start_workers(*flags, folders=[tmp_path] * 2))
    assert history.read_text().splitlines()[:rows] == kept
    run("train.py", *FLAGS, *flags, cwd=(tmp_path / "one").mkdir() or tmp_path / "one")
    assert_same(tmp_path / "run", tmp_path / "one" / "run")


@pytest.mark.slow
def test_a_folder_of_its_own_for_each_is_refused(one_process, tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    shutil.copytree(one_process, folders[0] / "run")
    (folders[0] / "run" / "result.json").unlink()
    shutil.move(folders[0] / "run" / "previous.weights.h5", folders[0] / "run" / "last.weights.h5")
    for process in start_workers(*MORE, folders=folders):
        _, errors = process.communicate(timeout=120)
        assert "they found [[2, 0], [0, 0]]" in errors and process.returncode == 1


@pytest.mark.parametrize("config", ["", "{", '{"cluster": {"worker": ["a:1"]}}'])
def test_without_a_cluster_the_message_shows_one(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    errors = run("train.py", *WORKERS, *MORE, cwd=tmp_path, fails=True)
    assert "needs the environment variable TF_CONFIG" in errors and "host0:2222" in errors
    assert not os.listdir(tmp_path)
