"""Finished runs as the rows of a table and the curves of a figure.

A run gives one row for each way of using its logits: as they were trained, or told the label
distribution that they are tested under ("PC" in the paper). All of it comes from what is kept of
the logits (`predictions`).
"""

import dataclasses
import functools
import pathlib

from lade_tf import ops
from lade_tf.files import read_json
from reproduction import methods, predictions
from reproduction.config import RunConfig
from reproduction.run_folder import RunFolder

# On what runs in another precision than float32 are a part of, where not all are.
PRECISION_MARK = "‡"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method as it is or told the label distribution: a row of the paper's tables.

    Attributes:
        label: its name, the paper's where the paper has it.
        loss: --loss of its runs.
        estimator: --estimator of its runs, None for other losses than LADE.
        told: whether the model is told the label distribution that it is tested under.
    """

    label: str
    loss: str
    estimator: str | None = None
    told: bool = False

    @property
    def adapts_to_uniform(self):
        """Whether it is told something new at the uniform prior: not where its logits carry it."""
        return self.told and methods.METHODS[self.loss].carries != "uniform"

    def target_prior(self, saved, test_prior):
        """Returns the prior [C] that a model is told when it is tested under `test_prior`."""
        return test_prior if self.told else saved.source_prior


def _variants():
    """Yields every method as it is and told the prior; LADE, which is always told, by estimator."""
    for loss, method in methods.METHODS.items():
        if loss == "lade":
            for estimator in ops.ESTIMATORS:
                yield Variant(f"{method.label} ({estimator})", loss, estimator, told=True)
        else:
            yield Variant(method.label, loss)
            yield Variant(f"PC {method.label}", loss, told=True)


VARIANTS = tuple(_variants())


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run: where it lies and its configuration."""

    path: pathlib.Path
    config: RunConfig

    @functools.cached_property
    def predictions(self):
        """Its `predictions.SavedPredictions`."""
        return predictions.load(self.path)

    @functools.cached_property
    def saved(self):
        """Its `SavedLogits`; a ValueError names the file where they aren't kept."""
        return predictions.load_logits(self.path)

    def is_of(self, variant):
        return (self.config.loss, self.config.estimator) == (variant.loss, variant.estimator)


def load_run(path):
    """Returns the `FinishedRun` in a folder: a run folder or one of committed results."""
    path = pathlib.Path(path)
    if not (path / "result.json").exists():
        raise ValueError(f"{path} must hold a finished run; it has no result.json")
    result = read_json(path / "result.json")
    if "config" not in result:
        raise ValueError(f"{path / 'result.json'} must hold the run's config")
    return FinishedRun(path, RunConfig.from_json(result["config"], path / "result.json"))


def load_saved(path):
    """Returns the `SavedLogits` of a finished run, the `SavedPredictions` if these alone are kept.

    For what both can be adapted to, by `lade_tf.evaluation`.
    """
    if predictions.is_reduced(path):
        return predictions.load(path)
    return RunFolder(path).test_logits()


def find_runs(folder):
    """Returns every `FinishedRun` below a folder, sorted by path.

    A folder without result.json isn't one: the result is written and copied last.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with results")
    return [load_run(path.parent) for path in sorted(folder.rglob("result.json"))]


def by_seeds(found):
    """Returns {(data_seed, seed): run}; of several with the same seeds, one in float32."""
    of_seeds = {}
    for run in sorted(found, key=lambda run: run.config.precision != "float32"):
        of_seeds.setdefault((run.config.data_seed, run.config.seed), run)
    return dict(sorted(of_seeds.items()))


def training_seeds(found):
    """Returns those of {(data_seed, seed): anything} that share the training subset."""
    return {seeds: value for seeds, value in found.items() if seeds[0] == 0}


def subsets(found):
    """Returns those of {(data_seed, seed): anything} that share the training seed."""
    return {seeds: value for seeds, value in found.items() if seeds[1] == 0}


def say_precisions(groups):
    """Says once in which precisions the runs of a table or a figure were trained.

    Args:
        groups: for each row, panel or curve its `FinishedRun`s.

    Returns:
        (marks, notes): a mark or "" for each group, and a sentence unless all are in float32.
    """
    precisions = sorted({run.config.precision for group in groups for run in group})
    others = [precision for precision in precisions if precision != "float32"]
    if not others:
        return [""] * len(groups), []
    if len(precisions) == 1:
        return [""] * len(groups), [f"All runs were trained in {others[0]}."]
    marks = [
        PRECISION_MARK * any(run.config.precision in others for run in group) for group in groups
    ]
    named = " and ".join(others)
    return marks, [f"{PRECISION_MARK} With runs in {named}; all others were trained in float32."]
