"""Finished runs as the rows of a table and the curves of a figure.

A run gives one row for each way of using its logits: as they were trained, or told the label
distribution that they are tested under ("PC" in the paper). All of it comes from what is kept of
the logits (`predictions`).
"""

import dataclasses
import functools
import pathlib

import numpy as np

from lade_tf import ops
from reproduction import evaluation, methods, predictions
from reproduction.files import read_json
from reproduction.run_folder import RunFolder

# On what runs in another precision than float32 are a part of, where not all are.
PRECISION_MARK = "‡"


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the paper's tables.

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


def _rows():
    """Yields every method as it is and told the prior; LADE, which is always told, by estimator."""
    for loss, method in methods.METHODS.items():
        if loss == "lade":
            for estimator in ops.ESTIMATORS:
                yield Method(f"{method.label} ({estimator})", loss, estimator, told=True)
        else:
            yield Method(method.label, loss)
            yield Method(f"PC {method.label}", loss, told=True)


METHODS = tuple(_rows())


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: where it lies and its configuration."""

    path: pathlib.Path
    config: dict

    @functools.cached_property
    def predictions(self):
        """Its `predictions.SavedPredictions`."""
        return predictions.load(self.path)

    @functools.cached_property
    def saved(self):
        """Its `SavedLogits`; a ValueError names the file where they aren't kept."""
        return predictions.load_logits(self.path)

    def follows(self, recipe):
        """Whether it was made with the configuration of a recipe (`recipes.resolve`).

        A key that recipes got after the run was made tells nothing about it.
        """
        return all(self.config.get(name, value) == value for name, value in recipe.items())

    def is_of(self, method):
        return (self.config["loss"], self.config["estimator"]) == (method.loss, method.estimator)


def load_run(path):
    """Returns the finished `Run` in a folder: a run folder or one of committed results."""
    path = pathlib.Path(path)
    if not (path / "result.json").exists():
        raise ValueError(f"{path} must hold a finished run; it has no result.json")
    result = read_json(path / "result.json")
    if "config" not in result:
        raise ValueError(f"{path / 'result.json'} must hold the run's config")
    return Run(path, result["config"])


def load_saved(path):
    """Returns the `SavedLogits` of a finished run, the `SavedPredictions` if these alone are kept.

    For what can be told of both, by `evaluation.evaluate` and `compare`.
    """
    if predictions.is_reduced(path):
        return predictions.load(path)
    return RunFolder(path).test_logits()


def find_runs(folder):
    """Returns every finished `Run` below a folder, sorted by path.

    A folder without result.json isn't one: the result is written and copied last.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with results")
    return [load_run(path.parent) for path in sorted(folder.rglob("result.json"))]


def by_seeds(found):
    """Returns {(data_seed, seed): `Run`}; of several with the same seeds, one in float32."""
    of_seeds = {}
    for run in sorted(found, key=lambda run: run.config["precision"] != "float32"):
        of_seeds.setdefault((run.config["data_seed"], run.config["seed"]), run)
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
        groups: for each row, panel or curve its `Run`s.

    Returns:
        (marks, notes): a mark or "" for each group, and a sentence unless all are in float32.
    """
    precisions = sorted({run.config["precision"] for group in groups for run in group})
    others = [precision for precision in precisions if precision != "float32"]
    if not others:
        return [""] * len(groups), []
    if len(precisions) == 1:
        return [""] * len(groups), [f"All runs were trained in {others[0]}."]
    marks = [
        PRECISION_MARK * any(run.config["precision"] in others for run in group) for group in groups
    ]
    named = " and ".join(others)
    return marks, [f"{PRECISION_MARK} With runs in {named}; all others were trained in float32."]


def correct(saved, target_prior):
    """Returns [samples] booleans: whether what is saved is right when told `target_prior`."""
    return saved.told(target_prior).predicted == saved.labels


def check_same_images(saved, other):
    """Raises a ValueError unless two runs were tested on the same images."""
    if not np.array_equal(saved.labels, other.labels):
        raise ValueError(
            "two runs are compared on the same test images in the same order; their labels differ"
        )


def compare(saved, other, names, test_name=None, reading="notebook"):
    """Compares what is saved of two runs told the same priors, tested on these or `test_name`.

    Returns:
        {name: {"difference", "low", "high"}}: accuracy of the first less that of the second, and
        the ends of its 95 % interval (`paired_bootstrap`).
    """
    check_same_images(saved, other)
    gains, weights = [], []
    for name in names:
        told, test = (
            evaluation.prior_for(saved, text, reading) for text in (name, test_name or name)
        )
        gains.append(correct(saved, told).astype(np.float64) - correct(other, told))
        weights.append(evaluation.class_weights(saved.labels, test))
    ends = paired_bootstrap(np.stack(gains, axis=1), np.stack(weights, axis=1))
    keys = ("difference", "low", "high")
    return {
        name: dict(zip(keys, map(float, values), strict=True))
        for name, values in zip(names, np.transpose(ends), strict=True)
    }


def format_comparison(results):
    """Returns {name: comparison} as lines of text, in points, * where the interval excludes 0."""
    lines = []
    for name, values in results.items():
        difference, low, high = (100 * values[key] for key in ("difference", "low", "high"))
        mark = "*" if low > 0 or high < 0 else ""
        lines.append(f"{name:12} {difference:+6.2f}{mark:1}  {low:+.2f} to {high:+.2f}")
    return "\n".join(lines)


def paired_bootstrap(gains, weights, resamples=2000, seed=0):
    """Returns the mean gain of one classifier over another on the same images, and its interval.

    Every resample draws as many images as there are, with replacement over the whole test set, and
    serves both classifiers, so images that are hard for both cancel out. The interval covers the
    choice of test images, not the training seed or the draw of the training subset.

    Args:
        gains: [samples] or [samples, tests]: 1 where only the first is right, −1 where only the
            second is, else 0.
        weights: as `gains`, weights of the images under the test prior.
        resamples: how many resamples.
        seed: of the resamples.

    Returns:
        (difference, low, high), floats or [tests]: the accuracy of the first less that of the
        second, and the ends of its 95 % percentile interval.
    """
    rng = np.random.default_rng(seed)
    weighted = weights * gains
    shares = np.full(len(gains), 1 / len(gains))
    differences = []
    for _ in range(resamples):
        occurrences = rng.multinomial(len(gains), shares)
        differences.append((occurrences @ weighted) / (occurrences @ weights))
    low, high = np.percentile(differences, [2.5, 97.5], axis=0)
    return weighted.sum(axis=0) / weights.sum(axis=0), low, high
