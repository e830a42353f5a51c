"""Finished runs as the rows of a table and the curves of a figure.

A run gives one row for each way of using its logits: as they were trained, or told the label
distribution that they are tested under ("PC" in the paper).
"""

import dataclasses
import pathlib

import numpy as np
import runs


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

    def target_prior(self, saved, test_prior):
        """Returns the prior [C] that the model is told when it is tested under `test_prior`."""
        return test_prior if self.told else saved.source_prior


METHODS = (
    Method("Softmax", "softmax"),
    Method("PC Softmax", "softmax", told=True),
    Method("Balanced Softmax", "balanced_softmax"),
    Method("PC Balanced Softmax", "balanced_softmax", told=True),
    Method("LADE (paper)", "lade", "paper", told=True),
    Method("LADE (reference)", "lade", "reference", told=True),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: where it lies, its configuration and its test logits."""

    path: pathlib.Path
    config: dict
    saved: runs.SavedLogits

    def is_of(self, method):
        return (self.config["loss"], self.config["estimator"]) == (method.loss, method.estimator)


def load_run(path):
    """Returns the finished `Run` in a folder that holds result.json and test_logits.npz."""
    path = pathlib.Path(path)
    if not (path / "result.json").exists():
        raise ValueError(f"{path} must hold a finished run; it has no result.json")
    result = runs.read_json(path / "result.json")
    if "config" not in result:
        raise ValueError(f"{path / 'result.json'} must hold the run's config")
    return Run(path, result["config"], runs.SavedLogits.load(path / "test_logits.npz"))


def find_runs(folder):
    """Returns every finished `Run` below a folder, sorted by path."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with results")
    return [load_run(path.parent) for path in sorted(folder.rglob("test_logits.npz"))]


def paired_bootstrap(correct, other_correct, weights, resamples=2000, seed=0):
    """Compares the accuracies of two classifiers on the same test images.

    Every resample draws as many images as there are, with replacement over the whole test set, and
    serves both, so images that are hard for both cancel out. The interval covers the choice of
    test images, not the training seed or the draw of the training subset.

    Args:
        correct, other_correct: [samples] booleans, whether each classifier is right.
        weights: [samples] weights of the images under the test prior.
        resamples: how many resamples.
        seed: of the resamples.

    Returns:
        (difference, low, high): accuracy of the first less that of the second, and the ends of
        its 95 % percentile interval.
    """
    gain = weights * (correct.astype(np.float64) - other_correct)
    occurrences = np.random.default_rng(seed).multinomial(
        len(gain), np.full(len(gain), 1 / len(gain)), size=resamples
    )
    differences = (occurrences @ gain) / (occurrences @ weights)
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(gain.sum() / weights.sum()), float(low), float(high)
