"""The queue of trainings: what it runs, in which order, and what it leaves alone."""

import dataclasses
import json
import pathlib
import re
import shlex
import signal
import time

import numpy as np
import pytest
from binaries import run, start
from paper import suites, sweeps, tables
from reproduction import finished_runs, methods, predictions
from reproduction.config import RunConfig
from reproduction.run_folder import RunFolder

from lade_tf import evaluation
from lade_tf.evaluation import SavedLogits
from lade_tf.files import hash_of, read_json, write_json

ROOT = pathlib.Path(__file__).parents[2]
LOGITS = "test_logits.npz"
RESULTS = ROOT / "experiments" / "results"
ALL = {**suites.SUITES, "grid": suites.grid}
COMMON = {"precision": "float32", "epochs": None}


def write_logits(folder, seed=0):
    """Writes the test logits of a run."""
    labels = np.repeat(np.arange(3, dtype=np.int32), 4)
    logits = np.random.default_rng(seed).normal(size=(12, 3)).astype(np.float32)
    counts, names = np.array([30, 20, 10]), np.array(list("abc"))
    saved = SavedLogits(logits, labels, counts, counts / 60, names)
    saved.save(folder / "test_logits.npz")
    return saved


@pytest.fixture
def planned(tmp_path):
    """The digits suite: softmax, crt, lade."""
    return sweeps.plan(
        suites.digits(), {**COMMON, "epochs": 3}, tmp_path / "runs", tmp_path / "results"
    )


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that were trained, in their order, by a train.py that writes at once."""
    names = []

    def train(command):
        given = dict(flag.removeprefix("--").split("=", 1) for flag in command[2:])
        folder = pathlib.Path(given["run_dir"])
        names.append(folder.name)
        if train.fails == folder.name:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {"seed": int, "data_seed": int, "epochs": int, "imbalance_ratio": float}
        kinds |= {"alpha": float, "remine_lambda": float}
        overrides = {name: kinds.get(name, str)(value) for name, value in given.items()}
        dataset, loss = overrides.pop("dataset"), overrides.pop("loss")
        overrides.pop("run_dir")
        config = RunConfig.resolve(dataset, loss, **overrides)
        write_json(folder / "config.json", config.to_json())
        write_json(
            folder / "result.json", {"config": config.to_json(), "metrics": {"accuracy": 0.5}}
        )
        (folder / "best.keras").write_text(str(len(names)))
        write_logits(folder, seed=len(names))
        return True

    train.fails = None
    monkeypatch.setattr(sweeps, "train", train)
    names_and_train = names, train
    return names_and_train


def carry_out(planned, results, **options):
    return sweeps.carry_out(planned, sweeps.FinishedResults(results), **options)


def test_what_is_missing_runs_once_and_is_copied(planned, trained, tmp_path):
    results = tmp_path / "results"
    assert carry_out(planned, results) == {}
    names = [f"digits_lt-ib20-{kind}-3ep-seed0" for kind in ("softmax", "crt", "lade-reference")]
    assert trained[0] == [run.name for run in planned] == names
    for name in names:
        copied = {path.name for path in (results / "short" / name).iterdir()}
        assert copied == {"result.json", "predictions.npz"}
        expected = predictions.load(tmp_path / "runs" / name)
        kept = predictions.load(results / "short" / name)
        np.testing.assert_array_equal(kept.predicted, expected.predicted)
    assert carry_out(planned, results) == {}
    assert trained[0] == names
    # The copies alone are enough, whatever their folders are called.
    (tmp_path / "runs").rename(tmp_path / "gone")
    (results / "short" / names[0]).rename(results / "elsewhere")
    assert carry_out(planned, results) == {}
    assert trained[0] == names
    # And the run folders alone: their results are copied again.
    (tmp_path / "gone").rename(tmp_path / "runs")
    (results / "short").rename(tmp_path / "old")
    assert carry_out(planned, results) == {}
    assert trained[0] == names
    assert {path.parent.name for path in results.rglob("result.json")} == {"elsewhere", *names[1:]}


def test_a_copy_that_was_broken_off_is_made_again(planned, trained, tmp_path):
    carry_out(planned, tmp_path / "results")
    (planned[0].copy / "result.json").unlink()
    assert carry_out(planned, tmp_path / "results") == {}
    assert (planned[0].copy / "result.json").exists() and len(trained[0]) == 3


def test_the_copies_of_some_runs_keep_their_logits(planned, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "KEPT_LOGITS", (planned[1].name,))
    assert carry_out(planned, tmp_path / "results") == {}
    without = read_json(planned[1].copy / "result.json")
    assert without == read_json(planned[1].folder.file("result.json"))
    kept = {path.parent.name for path in (tmp_path / "results").rglob("test_logits.npz")}
    assert kept == {planned[1].name}
    with np.load(planned[1].copy / "test_logits.npz") as file:
        assert file["logits"].dtype == np.float16
    with np.load(planned[1].folder.file("test_logits.npz")) as file:
        assert file["logits"].dtype == np.float32  # the run folder has all of it


def test_the_hashes_of_a_copy_are_those_of_its_own_files(planned, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "KEPT_LOGITS", (planned[1].name,))
    carry_out(planned, tmp_path / "results")
    (tmp_path / "results").rename(tmp_path / "old")
    for run_ in planned[:2]:
        path = run_.folder.file("result.json")
        whole = {name: hash_of(run_.folder.file(name)) for name in ("best.keras", LOGITS)}
        write_json(path, {**read_json(path), "hashes": whole})
        sweeps.copy_result(run_)
        hashes = read_json(run_.copy / "result.json")["hashes"]
        there = {path.name for path in run_.copy.iterdir()} - {"result.json"}
        assert {name: hash_of(run_.copy / name) for name in there} == {
            name: hashes[name] for name in there
        }
        assert hashes["best.keras"] == whole["best.keras"]  # of a file that isn't there
        assert (hashes[LOGITS] == whole[LOGITS]) == (LOGITS not in there)
        assert read_json(path)["hashes"] == whole


def test_the_runs_that_keep_their_logits_are_runs_of_the_suites():
    common = {**COMMON, "precision": "bfloat16"}
    names = {run.name for run in sweeps.plan(suites.cifar100_lt(), common, "runs", "results")}
    (modern,) = set(suites.KEPT_LOGITS) - names
    common = {"precision": "float32", "epochs": 100}
    assert modern in {run.name for run in sweeps.plan(suites.modern(), common, "runs", "results")}


def test_a_run_whose_logits_are_damaged_is_named_and_does_not_stop_the_others(
    planned, trained, tmp_path
):
    carry_out(planned, tmp_path / "results")
    (tmp_path / "results").rename(tmp_path / "old")
    planned[1].folder.file("test_logits.npz").write_text("cut short")
    failed = carry_out(planned, tmp_path / "results")
    assert list(failed) == [planned[1].name] and len(trained[0]) == 3
    assert "doesn't hold saved logits: it isn't an .npz" in failed[planned[1].name]
    assert not (planned[1].copy / "result.json").exists()  # so it isn't taken for a result
    write_logits(planned[1].folder.path)
    assert carry_out(planned, tmp_path / "results") == {}


def test_a_failure_is_named_and_does_not_stop_the_others(planned, trained, tmp_path):
    names, train = trained
    train.fails = planned[1].name
    failed = carry_out(planned, tmp_path / "results")
    assert list(failed) == [planned[1].name] and len(names) == 3
    assert not planned[1].copy.exists()
    train.fails = None
    assert carry_out(planned, tmp_path / "results") == {}
    assert names[3:] == [planned[1].name]


@pytest.mark.parametrize("place", ["run", "copy"])
def test_another_run_of_the_same_name_is_left_alone(place, planned, trained, tmp_path):
    folder = planned[0].folder.path if place == "run" else planned[0].copy
    folder.mkdir(parents=True)
    other = {**planned[0].config.to_json(), "l2": 0.1}
    write_json(folder / "config.json", other)
    write_json(folder / "result.json", {"config": other})
    results = tmp_path / "results"
    text = sweeps.format_list(planned, sweeps.FinishedResults(results))
    assert re.search(rf"^{planned[0].name} +blocked$", text, flags=re.MULTILINE)
    assert f"{planned[0].name} is blocked: {folder} holds another run" in text
    failed = carry_out(planned, results)
    assert failed == {planned[0].name: f"{folder} holds another run"}
    assert trained[0] == [run.name for run in planned[1:]]
    assert read_json(folder / "result.json")["config"]["l2"] == 0.1


def test_a_finished_run_is_not_copied_over_another(planned, trained, tmp_path):
    results = sweeps.FinishedResults(tmp_path / "results")
    assert sweeps.carry_out(planned, results) == {}
    assert "3 of 3 done" in sweeps.format_list(planned, results)
    other = {"config": {**planned[0].config.to_json(), "l2": 0.1}}
    write_json(planned[0].copy / "result.json", other)
    text = sweeps.format_list(planned, sweeps.FinishedResults(tmp_path / "results"))
    assert re.search(rf"^{planned[0].name} +blocked ", text, flags=re.MULTILINE)
    message = f"{planned[0].copy} holds another run"
    assert f"2 of 3 done\n{planned[0].name} is blocked: {message}" in text
    assert carry_out(planned, tmp_path / "results") == {planned[0].name: message}
    assert read_json(planned[0].copy / "result.json") == other and len(trained[0]) == 3


def test_results_in_any_precision_count_where_none_is_asked_for(trained, tmp_path):
    def plan(precision):
        common = {"precision": precision, "epochs": 3}
        return sweeps.plan(suites.digits(), common, tmp_path / "runs", tmp_path / "results")

    carry_out(plan("bfloat16"), tmp_path / "results")
    (tmp_path / "runs").rename(tmp_path / "gone")
    results = sweeps.FinishedResults(tmp_path / "results", any_precision=True)
    text = sweeps.format_list(plan(None), results)
    assert text.count("  done in bfloat16  50.0") == 3 and "3 of 3 done" in text
    assert sweeps.carry_out(plan(None), results) == {}
    assert len(trained[0]) == 3 and not (tmp_path / "runs").exists()
    assert not plan(None)[0].copy.exists()
    # With a precision that is asked for, only results in it count.
    assert carry_out(plan("float32"), tmp_path / "results") == {}
    assert trained[0][3:] == [run.name for run in plan("float32")]
    results = sweeps.FinishedResults(tmp_path / "results", any_precision=True)
    assert [results.state(run) for run in plan(None)] == ["done"] * 3


def test_softmax_is_repeated_only_where_it_is_asked_for(planned, trained, tmp_path):
    results = tmp_path / "results"
    carry_out([planned[0], planned[2]], results)
    (tmp_path / "runs").rename(tmp_path / "gone")
    copy = (planned[0].copy / "predictions.npz").read_bytes()
    assert carry_out(planned, results, repeat_first_stages=True) == {}
    assert trained[0][2:] == [planned[0].name, planned[1].name]
    assert (planned[0].copy / "predictions.npz").read_bytes() == copy  # the first result stays
    assert carry_out(planned, results, repeat_first_stages=True) == {}
    assert len(trained[0]) == 4


def test_results_from_before_a_recipe_got_a_key_count_for_the_plain_recipe_only(tmp_path):
    new = {"augment", "recipe", "schedule", "mixup", "ema", "sampler", "label_smoothing"}

    def is_found(flags):
        (run,) = sweeps.plan([flags], COMMON, "runs", tmp_path)
        return sweeps.FinishedResults(tmp_path).copied(run) is not None

    flags = {"dataset": "cifar100_lt", "loss": "softmax", "seed": 0}
    (old,) = sweeps.plan([flags], COMMON, "runs", tmp_path)
    config = {name: value for name, value in old.config.to_json().items() if name not in new}
    write_json(tmp_path / "result.json", {"config": config})
    assert is_found(flags)
    for name, value in {
        **{"recipe": "modern", "augment": "randaugment", "label_smoothing": 0.1, "seed": 1},
        **{"data_seed": 1, "imbalance_ratio": 50, "epochs": 30, "sampler": "square_root"},
    }.items():
        assert not is_found({**flags, name: value}), name


def test_a_second_stage_is_the_same_wherever_its_first_stage_lies(planned):
    config = planned[1].config
    assert config.init_from == str(planned[0].folder.path)
    elsewhere = dataclasses.replace(config, init_from=f"runs/{planned[0].name}")
    assert elsewhere.same_run_as(config)
    assert not dataclasses.replace(config, init_from="runs/other").same_run_as(config)


def test_train_goes_on_with_whatever_the_sweep_goes_on_with(planned, tmp_path):
    softmax, crt, _ = planned
    later = {"label_smoothing", "schedule", "mixup"}  # keys that recipes may have got later

    def claim(planned_run, **changes):
        config = {**planned_run.config.to_json(), **changes}
        old = {name: value for name, value in config.items() if name not in later}
        planned_run.folder.path.mkdir(parents=True, exist_ok=True)
        write_json(planned_run.folder.file("config.json"), old)

    def is_refused(planned_run, **changes):
        try:
            planned_run.folder.check(dataclasses.replace(planned_run.config, **changes))
        except ValueError:
            return True
        return False

    for planned_run in (softmax, crt):
        claim(planned_run)
        assert sweeps.has(planned_run, "config.json") and not is_refused(planned_run)
        assert is_refused(planned_run, mixup=0.2) and is_refused(planned_run, seed=1)
        claim(planned_run, seed=1)
        assert not sweeps.has(planned_run, "config.json") and is_refused(planned_run)
    # A first stage that was moved or copied is the same, another of the same name isn't.
    claim(softmax)
    copy = tmp_path / "copy" / softmax.name
    claim(crt, init_from=str(copy))
    assert not is_refused(crt) and sweeps.has(crt, "config.json")
    copy.mkdir(parents=True)
    write_json(copy / "config.json", softmax.config.to_json())
    assert not is_refused(crt) and sweeps.has(crt, "config.json")
    write_json(copy / "config.json", {**softmax.config.to_json(), "l2": 0.1})
    with pytest.raises(ValueError, match="of the first stage l2 is 0.1 there and 0.0005 now"):
        crt.folder.check(crt.config)
    assert not sweeps.has(crt, "config.json")


@pytest.mark.parametrize("name", ALL)
def test_suites_have_no_two_runs_of_one_name_and_softmax_before_second_stages(name):
    flags = ALL[name](seeds=(0, 1))
    planned = sweeps.plan(flags, COMMON, "runs", "results")
    configs = {run.name: run.config for run in planned}
    for given in flags:
        (one,) = sweeps.plan([given], COMMON, "runs", "results")
        assert configs[one.name] == one.config, "another run has its name"
    order = [run.folder.path for run in planned]
    for position, planned_run in enumerate(planned):
        if planned_run.config.method.second_stage:
            assert order.index(planned_run.first_stage) < position
            first = planned[order.index(planned_run.first_stage)].config
            assert first.loss == "softmax" and first.seed == planned_run.config.seed


def test_the_suites_are_those_of_the_issue():
    def count(planned, **wanted):
        return sum(all(getattr(r.config, k) == v for k, v in wanted.items()) for r in planned)

    planned = sweeps.plan(suites.cifar100_lt(), COMMON, "runs", "results")
    recipe = {"epochs": 200, "recipe": "2021", "backbone": "resnet32"}
    assert count(planned, **recipe) == len(planned)
    for ratio, alpha in ((100, 0.1), (50, 0.01), (10, 0.01)):
        for seed in (0, 1, 2):
            at = {"imbalance_ratio": ratio, "seed": seed, "data_seed": 0}
            assert count(planned, **at, loss="softmax") == 1
            assert count(planned, **at, loss="balanced_softmax") == 1
            for estimator in ("paper", "reference"):
                lade = {**at, "loss": "lade", "estimator": estimator, "remine_lambda": 0.01}
                assert count(planned, **lade, alpha=alpha) == 1
                assert count(planned, **{**lade, "remine_lambda": 0}, alpha=alpha) == 1
            assert count(planned, **{**lade, "estimator": "reference"}, alpha=0) == 1
    for loss in methods.METHODS:
        assert count(planned, loss=loss, imbalance_ratio=100, data_seed=0) >= 3
    for alpha in (0, 0.01, 0.1, 1):
        figure = {"imbalance_ratio": 100, "alpha": alpha, "remine_lambda": 0.01, "seed": 0}
        assert count(planned, **figure, estimator="reference") >= 1
    assert [r.config.imbalance_ratio for r in planned[:12]] == [100] * 12
    assert [r.config.seed for r in planned[:12]] == [0] * 4 + [1] * 4 + [2] * 4
    assert count(planned, loss="lade", estimator="reference", data_seed=2, seed=0) == 1
    short = sweeps.plan(suites.short(), COMMON, "runs", "results")
    assert {r.config.loss for r in short} == set(methods.METHODS)
    assert count(short, epochs=30, imbalance_ratio=100, seed=0) == len(short)
    modern = sweeps.plan(suites.modern(), {**COMMON, "epochs": 400}, "runs", "results")
    assert count(modern, loss="lade", recipe="modern", ema=0.99, epochs=400) == len(modern) == 6
    grid = sweeps.plan(suites.grid(imbalance_ratio=50), COMMON, "runs", "results")
    assert count(grid, loss="lade", imbalance_ratio=50, seed=0) == len(grid) == 24


def test_the_suite_fills_the_tables_that_it_names():
    planned = sweeps.plan(suites.cifar100_lt(), COMMON, "runs", "results")
    made = [r.config for r in planned if r.config.data_seed == 0]
    for number in ("2", "8", "9", "10"):
        for name, method, settings, *_ in tables.entries(number):
            for setting in settings:
                if setting.dataset == "cifar100_lt":
                    recipe = setting.recipe(method)
                    seeds = {config.seed for config in made if config.follows(recipe)}
                    assert seeds == {0, 1, 2}, (number, name, setting)


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_on_other_subsets_count_whatever_the_seeds_of_the_suite(seed):
    planned = sweeps.plan(suites.cifar100_lt(seeds=(seed,)), COMMON, "runs", "results")
    seeds = [(r.config.data_seed, r.config.seed) for r in planned if r.config.data_seed]
    assert len(seeds) == 6 and set(seeds) == finished_runs.subsets(dict.fromkeys(seeds)).keys()


def test_the_committed_full_runs_count_unless_a_precision_is_asked_for(tmp_path):
    line = "^cifar100_lt-ib100-softmax-200ep-seed0 +"
    flags = ("--suite=cifar100_lt", "--list")
    listed = run("sweep.py", *flags, cwd=tmp_path)
    assert re.search(f"{line}done in bfloat16 +46.3 +40.6$", listed, flags=re.MULTILINE)
    listed = run("sweep.py", *flags, "--precision=float32", cwd=tmp_path)
    assert re.search(f"{line}missing$", listed, flags=re.MULTILINE)


def test_the_committed_runs_have_their_names():
    for path in RESULTS.rglob("result.json"):
        config = RunConfig.from_json(read_json(path)["config"])
        assert config.run_name == path.parent.name


def test_the_committed_short_runs_are_done():
    results = sweeps.FinishedResults(RESULTS)

    def done(seed, precision):
        flags = {**COMMON, "precision": precision}
        planned = sweeps.plan(suites.short(seeds=(seed,)), flags, "no_runs", RESULTS)
        return {run.name for run in planned if results.state(run) == "done"}

    assert len(done(0, "float32")) == len(suites.short())
    for path in (RESULTS / "short").rglob("result.json"):
        config = read_json(path)["config"]
        assert path.parent.name in done(config["seed"], config["precision"])


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("result.json")), ids=lambda p: p.parent.name)
def test_every_committed_result_names_its_command_and_commit(path):
    result = json.loads(path.read_text())
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", result["commit"])
    python, script, *given = shlex.split(result["command"])
    assert python == "python" and script.endswith("experiments/train.py")
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in given)
    assert flags["dataset"] == result["config"]["dataset"]
    assert flags["loss"] == result["config"]["loss"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give either --suite or --grid"),
        (("--suite=short", "--grid"), "give either --suite or --grid"),
        (("--suite=short", "--imbalance_ratio=50"), "--imbalance_ratio is for --grid"),
        (("--suite=short", "--seeds=a,1"), "--seeds must be integers like 0,1,2; got a,1"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path):
    errors = run("sweep.py", *flags, cwd=tmp_path, fails=True)
    assert errors.splitlines()[-1].startswith(f"sweep.py: {message}") and "Traceback" not in errors


FLAGS = ("--suite=digits", "--results=results")


@pytest.mark.slow
def test_a_real_sweep_runs_copies_and_does_nothing_a_second_time(tmp_path):
    foreign = tmp_path / "runs" / "digits_lt-ib20-lade-reference-2ep-seed0"
    foreign.mkdir(parents=True)
    (foreign / "note.txt").write_text("mine")
    flags = (*FLAGS, "--epochs=2")
    errors = run("sweep.py", *flags, cwd=tmp_path, fails=True)
    assert "sweep.py: 1 of 3 runs failed: digits_lt-ib20-lade-reference-2ep-seed0" in errors
    (foreign / "note.txt").unlink()
    output = run("sweep.py", *flags, cwd=tmp_path)
    assert output.count("[3 of 3]") == 1 and "[1 of 3]" not in output and "3 of 3 done" in output
    planned = sweeps.plan(suites.digits(), {**COMMON, "epochs": 2}, "runs", tmp_path / "results")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for planned_run in planned:
        copy, folder = planned_run.copy, tmp_path / planned_run.folder.path
        assert read_json(folder / "config.json") == planned_run.config.to_json()
        result = read_json(copy / "result.json")
        assert result["config"] == planned_run.config.to_json()
        assert (copy / "history.csv").read_bytes() == (folder / "history.csv").read_bytes()
        whole = read_json(folder / "result.json")
        assert {**result, "hashes": None} == {**whole, "hashes": None}
        kept = predictions.load(copy)
        assert evaluation.evaluate_shifts(kept, ["uniform"])["uniform"] == pytest.approx(
            result["metrics"], rel=1e-6
        )
        assert not (copy / "test_logits.npz").exists()
        line = rf"{planned_run.name} +done +{100 * result['metrics']['accuracy']:.1f}"
        assert re.search(line, output)
    assert "[" not in run("sweep.py", *flags, cwd=tmp_path)
    run("sweep.py", *flags, "--list", cwd=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def stop(flags, history, epochs, number, cwd):
    """Starts a sweep and stops it by a signal once a run has some epochs; returns its output."""
    # Tests that run in the background ignore Ctrl-C, and so would the processes that they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start("sweep.py", *flags, cwd=cwd)
    signal.signal(signal.SIGINT, before)
    while len(history.read_history()) < epochs:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "stopped: the same command goes on" in errors and "Traceback" not in errors
    assert "stopped by SIGTERM after" in errors  # by train.py, with a checkpoint
    return output


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on(tmp_path):
    flags = (*FLAGS, "--epochs=30")
    name = "digits_lt-ib20-softmax-30ep-seed0"
    history = RunFolder(tmp_path / "runs" / name)
    stop(flags, history, 1, signal.SIGINT, tmp_path)
    listed = run("sweep.py", *flags, "--list", cwd=tmp_path)
    done = int(re.search(rf"{name} +(\d+) of 30 epochs", listed)[1])
    assert "0 of 3 done" in listed
    # Not at once: the epoch that was broken off ends on its own, and between the two parts of the
    # training a signal finds nothing that isn't on the disk.
    output = stop(flags, history, done + 3, signal.SIGTERM, tmp_path)
    assert int(re.search(r"Epoch (\d+)/", output)[1]) == done + 1
    assert "3 of 3 done" in run("sweep.py", *flags, cwd=tmp_path)
    assert len(history.read_history()) == 30
