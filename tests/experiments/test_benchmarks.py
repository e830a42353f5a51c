"""Benchmarks run at a tiny size and write what the tables read."""

import json

import numpy as np
import pytest
from benchmarks.turns import ratio, take_turns
from binaries import EXPERIMENTS, run, start
from paper import benchmark_table

WRITING = sorted(
    f"{path.parent.name}.{path.stem}"
    for path in (*EXPERIMENTS.glob("benchmarks/*.py"), EXPERIMENTS / "studies" / "gaussian_toy.py")
    if '"output"' in path.read_text()
)
IN_PROCESSES_OF_THEIR_OWN = {"epoch", "loss"}  # which start others themselves
IMPORTED = {"augmentation": "keras_cv", "epoch": "torch", "loss": "torch"}


def run_benchmark(name, *flags, cwd):
    """Runs a benchmark and returns what it wrote."""
    flags = (*flags, f"--output={name}.json")
    if name not in IN_PROCESSES_OF_THEIR_OWN:
        run(f"benchmarks.{name}", *flags, cwd=cwd)
    else:
        process = start(f"benchmarks.{name}", *flags, cwd=cwd)
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
    return json.loads((cwd / f"{name}.json").read_text())


def reached(name, folder):
    """Returns what the cells of a benchmark's rows say was reached."""
    rows = benchmark_table.table(folder).splitlines()
    return [row.split("|")[-3].strip() for row in rows if row.startswith(f"| {name}.py")]


def write(path, result, cpu="some processor"):
    path.write_text(json.dumps({**result, "hardware": {"cpu": cpu}}))


@pytest.mark.slow
def test_loss_is_measured(tmp_path):
    pytest.importorskip("torch")
    flags = ("--sizes=8x10", "--turns=1", "--processes=1", "--memory_floats=100000")
    row = run_benchmark("loss", *flags, cwd=tmp_path)["sizes"]["8x10"]
    assert row["least_bytes"] == 2 * 8 * 10 * 4 and row["in a graph"]["lade / pytorch"] > 0
    assert "empty call / pytorch" not in row["in a graph"]
    assert row["called from Python"]["empty call / pytorch"] > 0


@pytest.mark.slow
def test_an_epoch_is_measured(tmp_path):
    pytest.importorskip("torch")
    flags = ("--batch_size=8", "--epoch_steps=2", "--turns=1", "--precisions=float32")
    result = run_benchmark("epoch", *flags, cwd=tmp_path)
    assert result["parameters"] == 550_388, "of both networks"
    result = result["precisions"]["float32"]
    assert result["lade_tf / pytorch"]["median"] > 0
    assert any("Conv2D" in name for name in result["share of our operations' time"])


@pytest.mark.slow
def test_a_step_is_measured(tmp_path):
    flags = ("--batch_size=8", "--steps=1", "--blocks=1")
    result = run_benchmark("train_step", *flags, cwd=tmp_path)
    assert result["lade / cross-entropy"]["median"] > 0
    assert len(reached("train_step", tmp_path)) == 1


@pytest.mark.slow
def test_the_evaluation_is_measured(tmp_path):
    run_benchmark("evaluate", "--rounds=1", cwd=tmp_path)
    assert "not run" not in reached("evaluate", tmp_path)


@pytest.mark.slow
def test_serving_with_a_prior_is_measured(tmp_path):
    run_benchmark("adapt", "--batch_size=2", "--turns=1", cwd=tmp_path)
    assert len(reached("adapt", tmp_path)) == 2 and "not run" not in reached("adapt", tmp_path)


@pytest.mark.slow
def test_a_served_model_is_measured_under_load(tmp_path):
    result = run_benchmark("serve", "--threads=4", "--requests=800", cwd=tmp_path)
    assert result["outcomes"] == {"right": 720, "refused": 64, "NaN": 16}


@pytest.mark.slow
def test_starting_is_measured(tmp_path):
    run_benchmark("startup", "--turns=1", cwd=tmp_path)
    assert len(reached("startup", tmp_path)) == 2 and "not run" not in reached("startup", tmp_path)


@pytest.mark.parametrize("module", WRITING)
def test_an_old_file_is_refused_before_anything_is_measured(module, tmp_path):
    name = module.split(".")[1]
    if name in IMPORTED:
        pytest.importorskip(IMPORTED[name])
    (tmp_path / "old.json").write_text("{}")
    required = ("--images=images",) if name == "input_pipeline" else ()
    errors = run(module, "--output=old.json", *required, cwd=tmp_path, fails=True)
    assert "--output=old.json exists already: give a new file" in errors
    assert (tmp_path / "old.json").read_text() == "{}"


def test_works_take_turns_in_both_orders():
    order = []
    seconds = take_turns({name: lambda n=name: order.append(n) for name in "ab"}, 2, warm_up=1)
    assert "".join(order) == "abbaab" and len(seconds["a"]) == len(seconds["b"]) == 2


def test_the_ratio_is_the_median_of_the_turns_ratios():
    values = {"a": np.array([1.0, 9.0, 2.0]), "b": np.array([1.0, 3.0, 4.0])}
    assert ratio(values, "a", "b") == {"median": 1.0, "quartiles": [0.75, 2.0]}


def test_what_is_missed_and_what_was_not_run_is_said(tmp_path):
    adapt = {
        "stored prior / no prior": {"median": 1.005},
        "given prior / no prior": {"median": 1.03},
    }
    write(tmp_path / "adapt.json", adapt)
    ratios = {"float32": 1.2, "bfloat16": 0.9}
    epoch = {name: {"lade_tf / pytorch": {"median": ratio}} for name, ratio in ratios.items()}
    write(tmp_path / "epoch.json", {"precisions": epoch})
    assert reached("adapt", tmp_path) == ["1.005", "**1.03, missed**"]
    assert reached("epoch", tmp_path) == ["1.2", "**0.9, missed**"]
    assert set(reached("loss", tmp_path)) == {"not run"}


def test_each_machine_that_measured_has_a_row(tmp_path):
    ratio = {"stored prior / no prior": {"median": 1.0}, "given prior / no prior": {"median": 1.0}}
    write(tmp_path / "adapt.json", ratio, cpu="AMD EPYC")
    write(tmp_path / "adapt-intel.json", ratio, cpu="Intel(R) Xeon(R) Processor")
    rows = [row for row in benchmark_table.table(tmp_path).splitlines() if "prior given" in row]
    assert [row.split(" | ")[-1] for row in rows] == ["Intel(R) Xeon(R) |", "AMD EPYC |"]
