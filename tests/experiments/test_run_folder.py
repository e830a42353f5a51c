"""A run folder whose files aren't what the run wrote, and what a killed write leaves in it."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from reproduction import run_folder
from reproduction.config import RunConfig
from reproduction.run_folder import METRICS, RunFolder, load_model

import lade_tf
from lade_tf.evaluation import SavedLogits
from lade_tf.files import read_json, write_json

CONFIG = RunConfig.resolve("digits_lt", "lade")


def make_model(seed=0, target_prior=None):
    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return lade_tf.LADEModel(network, [9, 3, 1], target_prior=target_prior)


def write_run(folder, config=CONFIG, seed=0):
    """Writes a finished run of three classes and returns its `RunFolder`."""
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    make_model(seed).save(run.file("best.keras"))
    logits = np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32)
    labels, counts = np.array([0, 0, 1, 1, 2, 2]), np.array([9, 3, 1])
    names = np.array(["ant", "bee", "cat"])
    SavedLogits(logits, labels, counts, np.full(3, 1 / 3), names).save(run.file("test_logits.npz"))
    write_json(run.file("config.json"), config.to_json())
    metrics = dict.fromkeys(METRICS, {"accuracy": 0.5})
    content = {"config": config.to_json(), **metrics, "hashes": run.hashes()}
    write_json(run.file("result.json"), content)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_run(
        tmp_path_factory.mktemp("runs") / "other", dataclasses.replace(CONFIG, seed=1), seed=1
    )


@pytest.fixture
def run(finished, tmp_path):
    return RunFolder(shutil.copytree(finished.path, tmp_path / "run"))


def test_a_whole_run_is_read(run):
    assert run.result(needed=("config", *METRICS))["config"] == CONFIG.to_json()
    assert len(run.test_logits().labels) == 6 and run.load_model().class_counts == [9, 3, 1]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("result.json", RunFolder.result),
        ("result.json", RunFolder.test_logits),
        ("result.json", RunFolder.load_model),
        ("test_logits.npz", RunFolder.result),
        ("test_logits.npz", RunFolder.test_logits),
        ("best.keras", RunFolder.result),
        ("best.keras", RunFolder.load_model),
        ("best.keras", RunFolder.export),
    ],
)
def test_a_file_of_another_run_is_refused(run, other, name, read):
    shutil.copy(other.file(name), run.file(name))
    with pytest.raises(ValueError, match=f"{name} is.*put the run's own back, or remove result"):
        read(run)
    assert not run.file("saved_model").exists()


def test_only_the_file_that_is_read_is_compared(run, other):
    shutil.copy(other.file("best.keras"), run.file("best.keras"))
    assert len(run.test_logits().labels) == 6


def test_a_result_without_hashes_is_read_as_before(run, other):
    for name in ("test_logits.npz", "best.keras"):
        shutil.copy(other.file(name), run.file(name))
    content = read_json(run.file("result.json"))
    for hashes in ({}, {"hashes": {}}, {"hashes": None}):
        del content["hashes"]
        write_json(run.file("result.json"), {**content, **hashes})
        run.test_logits(), run.load_model()
        content = {**content, "hashes": None}


@pytest.mark.parametrize(
    "missing", [("best.keras",), ("config.json",), ("best.keras", "config.json")]
)
def test_a_file_that_is_missing_is_no_mismatch(run, missing):
    for name in missing:
        run.file(name).unlink()
    assert run.result()["config"] == CONFIG.to_json() and len(run.test_logits().labels) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "it lacks config"),
        ('{"config": []}', "it lacks config"),
        ('{"config": {}}', "it lacks metrics"),
        ("[]", "must hold a JSON object"),
        ('{"config": {"seed": 0', "can't be read as JSON"),
        ("", "can't be read as JSON"),
    ],
)
def test_what_is_no_result_is_named(run, content, message):
    run.file("result.json").write_text(content)
    with pytest.raises(ValueError, match=f"result.json .*{message}"):
        run.result(needed=("config", *METRICS))


def test_what_killed_writes_and_exports_left_is_swept(run, monkeypatch, tmp_path):
    def leave():
        (run.path / "tmp-abc" / "assets").mkdir(parents=True)
        (run.path / "tmp-abc" / "assets" / "class_names.json").write_text("[]")
        (run.path / "tmp-12-best.keras").write_text("half")
        (run.path / "tmp-link").symlink_to(tmp_path)

    exported = []
    monkeypatch.setattr(
        lade_tf.LADEModel, "export", lambda self, path, **names: exported.append(path)
    )
    leave()
    run.write_export(make_model(), tmp_path / "elsewhere", ["ant", "bee", "cat"])
    assert len(list(run.path.glob("tmp-*"))) == 3, "another export may be writing there"
    run.export()
    assert not list(run.path.glob("tmp-*")) and tmp_path.exists()
    assert exported == [tmp_path / "elsewhere", run.file("saved_model")]
    leave()
    monkeypatch.setattr(run_folder, "fingerprint", lambda data: {})
    run.claim(CONFIG, None)
    assert not list(run.path.glob("tmp-*"))


@pytest.mark.parametrize("kind", ["file", "other files"])
def test_what_is_no_export_is_neither_replaced_nor_taken_for_one(run, kind):
    path = run.file("saved_model")
    if kind == "other files":
        path.mkdir()
    mine = path if kind == "file" else path / "thesis.tex"
    mine.write_text("years of work")
    for refuses in (run.check_exportable, run.export):
        with pytest.raises(ValueError, match="saved_model isn't an exported model: remove it"):
            refuses()
    assert mine.read_text() == "years of work"


def test_an_empty_folder_is_exported_to(run):
    run.file("saved_model").mkdir()
    run.check_exportable()
    run.export()
    assert (run.file("saved_model") / "saved_model.pb").exists()
    before = (run.file("saved_model") / "saved_model.pb").stat().st_mtime_ns
    run.export()
    assert (run.file("saved_model") / "saved_model.pb").stat().st_mtime_ns == before
    shutil.rmtree(run.file("saved_model") / "variables")  # lost where it was copied
    run.export()
    assert (run.file("saved_model") / "variables/variables.index").exists()
    assert not list(run.path.glob("tmp-*"))


@pytest.mark.parametrize("prior", [[np.nan, 0.5, 0.5], [1.5, -0.5, 0.0], [0.5, 0.5, 0.5]])
def test_a_stored_prior_that_is_none_is_named(tmp_path, prior):
    model = make_model()
    model.prior_adapt.target_prior.assign(prior)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="model.keras can't be used: the stored target prior"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("temperature", [np.inf, 0.0, np.nan])
def test_a_stored_temperature_that_is_none_is_named(tmp_path, temperature):
    model = make_model()
    model.prior_adapt.temperature.assign(temperature)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="model.keras can't be used: the stored temperature"):
        load_model(tmp_path / "model.keras")
