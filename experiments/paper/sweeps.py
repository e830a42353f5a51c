"""What is done and what is missing of a suite of trainings, and the training of what is missing."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

from reproduction import methods, predictions, recipes
from reproduction.config import RunConfig
from reproduction.run_folder import RunFolder

from lade_tf.files import hash_of, read_json, replacing, write_json
from lade_tf.text_tables import align
from paper import suites

TRAIN = pathlib.Path(__file__).parents[1] / "train.py"


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A call of train.py: its flags, what they resolve to and where it lies.

    Attributes:
        flags: {flag: value}.
        config: its `RunConfig`.
        folder: its `RunFolder`.
        copy: path of its folder below --results.
    """

    flags: dict
    config: RunConfig
    folder: RunFolder
    copy: pathlib.Path

    @property
    def name(self):
        return self.folder.path.name

    @property
    def first_stage(self):
        """The run folder of softmax that a second stage starts from, else None."""
        path = self.flags.get("init_from")
        return path and pathlib.Path(path)

    def command(self, data_dir):
        """Returns the command that trains it, from its checkpoint if there is one."""
        given = {**self.flags, "run_dir": self.folder.path}
        given |= {"data_dir": data_dir} if data_dir else {}
        train = os.path.relpath(TRAIN)
        return [sys.executable, train, *(f"--{name}={value}" for name, value in given.items())]


def plan(suite, common, runs_dir, results):
    """Returns the `PlannedRun`s of a suite in their order, each once.

    Args:
        suite: list of {flag of train.py: value}.
        common: {flag: value} that every run gets; None keeps the suite's.
        runs_dir: folder of run folders.
        results: folder of finished results.
    """
    given = {name: value for name, value in common.items() if value is not None}
    usual = {"data_seed": 0, "precision": "float32"}
    planned = [_run({**usual, **flags, **given}, runs_dir, results) for flags in suite]
    return list({run.name: run for run in planned}.values())


def _run(given, runs_dir, results):
    if methods.METHODS[given["loss"]].second_stage:
        softmax = _run({**given, "loss": "softmax"}, runs_dir, results)
        given = {**given, "init_from": str(softmax.folder.path)}
    config = RunConfig.resolve(**given)
    name = config.run_name
    is_short = config.epochs < recipes.DATASETS[config.dataset]["epochs"]
    copy = pathlib.Path(results, "short" if is_short else "", name)
    return PlannedRun(given, config, RunFolder(pathlib.Path(runs_dir, name)), copy)


class FinishedResults:
    """Finished runs below --results and in run folders.

    Args:
        folder: --results.
        any_precision: whether a result there counts for a run in another precision too.
    """

    def __init__(self, folder, any_precision=False):
        self.any_precision = any_precision
        self.finished = [
            (RunConfig.from_json(result["config"], path), result)
            for path in sorted(pathlib.Path(folder).rglob("result.json"))
            if "config" in (result := read_json(path))
        ]

    def copied(self, run, **changes):
        """Returns the result below --results of a run with `changes`, None if there is none."""
        wanted = dataclasses.replace(run.config.comparable, **changes)
        found = (result for config, result in self.finished if config.same_run_as(wanted))
        return next(found, None)

    def find(self, run):
        """Returns the result of a `PlannedRun`, None if there is none."""
        if has(run, "result.json"):
            return read_json(run.folder.file("result.json"))
        precisions = methods.POLICIES if self.any_precision else [run.config.precision]
        copies = (self.copied(run, precision=precision) for precision in precisions)
        return next(filter(None, copies), None)

    def lacks_copy(self, run):
        """Whether a run is finished in its folder alone."""
        return has(run, "result.json") and not self.copied(run)

    def obstacle(self, run):
        """Returns why a run can't be made or copied, None if it can."""
        if not self.copied(run) and holds_another(run.copy / "result.json", run):
            return f"{run.copy} holds another run"
        if run.folder.file("config.json").exists() and not has(run, "config.json"):
            return f"{run.folder.path} holds another run"
        return None

    def state(self, run):
        """Returns "done", "done in bfloat16", "blocked", "57 of 200 epochs" or "missing"."""
        result = self.find(run)
        if (not result or self.lacks_copy(run)) and self.obstacle(run):
            return "blocked"
        if result:
            precision = result["config"]["precision"]
            return "done" if precision == run.config.precision else f"done in {precision}"
        epochs = len(run.folder.read_history()) if has(run, "config.json") else 0
        return f"{epochs} of {run.config.num_epochs} epochs" if epochs else "missing"


def has(run, name):
    """Whether a file lies in the run folder, and this is the run's and no other's."""
    are_there = all(run.folder.file(file).exists() for file in ("config.json", name))
    return are_there and not run.folder.config_differences(run.config)


def holds_another(path, run):
    """Whether a result.json is there and another run's."""
    if not path.exists():
        return False
    there = read_json(path).get("config")
    return there is None or not RunConfig.from_json(there, path).same_run_as(run.config)


def format_list(planned, results):
    """Returns a line for each run, accuracies in %, how many are done and what blocks others."""
    rows = [("run", "state", "accuracy", "not told the prior")]
    for run in planned:
        result = results.find(run) or {}
        scores = [result.get(name) for name in ("metrics", "metrics_unadapted")]
        scores = [f"{100 * score['accuracy']:.1f}" if score else "" for score in scores]
        scores[1] = scores[1] if scores[1] != scores[0] else ""
        rows.append((run.name, results.state(run), *scores))
    done = sum(row[1].startswith("done") for row in rows)
    blocked = [run for run in planned if results.state(run) == "blocked"]
    reasons = [f"{run.name} is blocked: {results.obstacle(run)}" for run in blocked]
    return "\n".join([*align(rows, left=len(rows[0])), f"{done} of {len(planned)} done", *reasons])


def copy_result(run):
    """Copies what tables and figures need of a finished run."""
    run.copy.mkdir(parents=True, exist_ok=True)
    predictions.reduce(run.folder.path, run.copy, run.name in suites.KEPT_LOGITS)
    history = run.folder.file("history.csv")
    if history.exists():
        with replacing(run.copy / history.name) as temporary:
            shutil.copyfile(history, temporary)
    result = read_json(run.folder.file("result.json"))
    if "hashes" in result:  # those of the files that lie beside it now
        files = [run.copy / name for name in (predictions.FILE, predictions.LOGITS)]
        hashes = {file.name: hash_of(file) for file in files if file.exists()}
        result["hashes"] = {**result["hashes"], **hashes}
    write_json(run.copy / "result.json", result)  # the last: then all are there


def train(command):
    """Runs a command to its end; returns whether it succeeded.

    It has its own process group, so that Ctrl-C reaches it as the SIGTERM for which train.py writes
    a checkpoint.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def carry_out(planned, results, data_dir=None, repeat_first_stages=False):
    """Runs what is missing; returns {name of a run that failed: why}."""
    failed = {}
    for number, run in enumerate(planned, start=1):
        repeat = repeat_first_stages and is_needed_again(run, planned, results)
        is_to_train = repeat or not results.find(run)
        if not is_to_train and not results.lacks_copy(run):
            continue
        problem = results.obstacle(run)
        if is_to_train and not problem:
            print(f"[{number} of {len(planned)}] {run.name}", flush=True)
            problem = None if train(run.command(data_dir)) else "train.py says why above"
        if problem:
            failed[run.name] = problem
        elif not results.copied(run):
            try:
                copy_result(run)
            except ValueError as error:  # its logits can't be read
                failed[run.name] = str(error)
    return failed


def is_needed_again(run, planned, results):
    """Whether a missing second stage needs the weights of a run that was made elsewhere."""
    missing = (other for other in planned if not results.find(other))
    needed = any(other.first_stage == run.folder.path for other in missing)
    return needed and not has(run, "best.keras")
