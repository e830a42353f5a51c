"""From saved logits to metrics: what the model is told, and what the test set is like.

The test set is balanced. A test prior weights its classes, which gives the exact expectation of
accuracy, Brier score and NLL over all test sets of that label distribution; calibration errors are
those of the weighted set, lower than a drawn one's by its noise. One can be drawn as well.

What is evaluated is `saved_logits.SavedLogits`, which can be told any prior, or
`predictions.SavedPredictions`, which hold what came of some of them: both have labels, counts,
source_prior, class_names and `told(target_prior)`.
"""

import dataclasses
import pathlib

import numpy as np

from lade_tf import metrics, priors
from lade_tf.checks import check_integer, check_number
from lade_tf.numerics import row_blocks

SHIFTS = ("forward:50", "forward:10", "uniform", "backward:10", "backward:50")
# Section 4.3 of the paper, in the order of its tables 6 and 9.
PROTOCOL = (
    *(f"forward:{ratio}" for ratio in (50, 25, 10, 5, 2)),
    "uniform",
    *(f"backward:{ratio}" for ratio in (2, 5, 10, 25, 50)),
)
HEADINGS = {"accuracy_se": "± se", "accuracy_drawn": "drawn"}
PRIOR_NAMES = (
    "uniform, train, forward:RATIO, backward:RATIO, dirichlet:CONCENTRATION:SEED or the path of "
    'a .json file that holds {"prior": [a share for each class]} or {class name: share}'
)


def feasible(names, per_class):
    """Returns those of `names` under which every class, of `per_class` images, keeps one."""
    return [n for n in names if n == "uniform" or int(n.split(":")[1]) <= per_class]


def check_tested(dataset, class_names, labels):
    """Raises a ValueError unless every class has a test image: its accuracy would be unknown.

    Args:
        dataset: its name, for the message.
        class_names: one name a class.
        labels: [test images] integers.
    """
    untested = set(range(len(class_names))) - set(np.unique(labels).tolist())
    if untested:
        raise ValueError(
            f"the test set of {dataset} must hold an image of every class; "
            f"{len(untested)} have none, the first is {class_names[min(untested)]!r}"
        )


def check_run(path, more=""):
    """Raises a ValueError with the right flag, and `more`, if `path`, of --run, is a SavedModel."""
    if path and pathlib.Path(path, "saved_model.pb").exists():
        raise ValueError(
            f"--run={path} must be a run folder, it is a SavedModel: give --model={path}{more}"
        )


def check_prior_name(name):
    """Raises a ValueError unless `name` is one that `resolve_prior` understands."""
    kind, *values = name.split(":")
    if kind in priors.DIRECTIONS and len(values) == 1 and values[0]:
        check_number(_number(values[0]), f"the ratio in {name!r}", minimum=1)
    elif kind == "dirichlet" and len(values) == 2:
        check_number(_number(values[0]), f"the concentration in {name!r}", above=0)
        seed = int(values[1]) if values[1].isdecimal() else values[1]
        check_integer(seed, f"the seed in {name!r}", minimum=0)
    elif name not in ("uniform", "train") and not name.endswith(".json"):
        raise ValueError(f"a prior must be {PRIOR_NAMES}; got {name!r}")


def _number(text):
    """Returns the number that a text is; another text as it is, for the checks to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def resolve_prior(name, class_counts, per_class, reading="notebook", class_names=None):
    """Returns the prior that a flag names, [C].

    Args:
        name: "uniform", "train", "forward:R" or "backward:R" (section 4.3 of the paper, R the
            imbalance ratio), "dirichlet:A:SEED" (one draw, all concentrations A) or the path of a
            prior file (`priors.load_prior`), its "rest" spread as in training.
        class_counts: [C] training counts.
        per_class: test images per class; the shifted sets are made of whole images.
        reading: of section 4.3's formula, "notebook" or "paper" (`priors.shifted_counts`).
        class_names: [C], for a file that names its classes, or None where they have no names.

    Raises:
        ValueError: if `name` names no prior, or a ratio that leaves a class without an image.
    """
    check_prior_name(name)
    num_classes = len(class_counts)
    if name == "uniform":
        return priors.uniform_prior(num_classes)
    # Only a model that was built with zero_count="smooth" has a count of 0.
    training_prior = priors.class_prior(class_counts, "error" if np.all(class_counts) else "smooth")
    if name == "train":
        return training_prior
    if name.endswith(".json"):
        return priors.load_prior(name, num_classes, class_names, training_prior=training_prior)
    kind, value, *seed = name.split(":")
    if kind == "dirichlet":
        return np.random.default_rng(int(seed[0])).dirichlet(np.full(num_classes, float(value)))
    counts = priors.shifted_counts(per_class, class_counts, float(value), kind, reading)
    if counts.min() == 0:
        raise ValueError(
            f"{name} leaves a class without an image: the test set has {per_class} a class, so the "
            f"ratio can be {per_class} at most"
        )
    return counts / counts.sum()


def prior_for(saved, name, reading="notebook"):
    """Returns the prior, [C], that a flag names for the test set of what is saved."""
    return resolve_prior(name, saved.counts, per_class(saved), reading, saved.class_names.tolist())


def adapt(logits, source_prior, target_prior):
    """Returns probabilities [samples, C]: softmax(f − log p_s + log p_t), equation 4."""
    with np.errstate(divide="ignore"):  # a target prior may be 0
        shift = (np.log(target_prior) - np.log(source_prior)).astype(logits.dtype)
    probabilities = np.empty_like(logits)
    for rows in row_blocks(logits):
        block = logits[rows] + shift
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        np.divide(block, block.sum(axis=1, keepdims=True), out=probabilities[rows])
    return probabilities


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a model gives for the test images when it is told a prior.

    Attributes:
        probabilities: [samples, C].
        labels: [samples].
        counts: [C] training images of every class.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    @property
    def predicted(self):
        """The predicted classes, [samples]."""
        return self.probabilities.argmax(axis=1)

    def report(self, test_prior):
        """Returns `metrics.classification_report` on classes as in `test_prior`."""
        weights = class_weights(self.labels, test_prior)
        return metrics.classification_report(self.probabilities, self.labels, self.counts, weights)


def evaluate(saved, target_prior, test_prior, draw_seed=None):
    """Returns the metrics of what is saved, told `target_prior`, on classes as in `test_prior`.

    `accuracy_se` is the standard error of `accuracy`; with a `draw_seed`, `accuracy_drawn` is the
    accuracy on one drawn test set. None is what `SavedPredictions` don't tell.
    """
    outcome = saved.told(target_prior)
    report, predictions = outcome.report(test_prior), outcome.predicted
    accuracy, error = metrics.expected_accuracy(predictions, saved.labels, test_prior)
    drawn = {}
    if draw_seed is not None:
        images = draw(saved.labels, test_prior, draw_seed)
        drawn["accuracy_drawn"] = float(np.mean(predictions[images] == saved.labels[images]))
    return {"accuracy": accuracy, "accuracy_se": error, **drawn, **{**report, "accuracy": accuracy}}


def drawn_counts(test_prior, per_class):
    """Returns [C] class sizes of the largest test set that `per_class` images a class allow."""
    # What is a whole number but for rounding is that number.
    return np.floor(per_class * test_prior / test_prior.max() + 1e-6).astype(np.int64)


def draw(labels, test_prior, seed):
    """Returns the sorted indices of a test set drawn, without replacement, to have a prior."""
    rng = np.random.default_rng(seed)
    smallest = int(np.bincount(labels, minlength=len(test_prior))[test_prior > 0].min())
    chosen = [
        rng.permutation(np.flatnonzero(labels == c))[:count]
        for c, count in enumerate(drawn_counts(test_prior, smallest))
    ]
    return np.sort(np.concatenate(chosen))


def class_weights(labels, test_prior):
    """Returns [samples] weights under which a test set has the label distribution `test_prior`."""
    per_class = np.bincount(labels, minlength=len(test_prior))
    if np.any((per_class == 0) & (test_prior > 0)):
        missing = int(np.flatnonzero((per_class == 0) & (test_prior > 0))[0])
        raise ValueError(f"the test set must hold every class of the test prior; none of {missing}")
    return (test_prior / np.maximum(per_class, 1))[labels] * len(labels)


def per_class(saved):
    """Returns the images per class of the balanced test set (of its smallest class)."""
    return int(np.bincount(saved.labels, minlength=len(saved.counts)).min())


def evaluate_priors(saved, names, test_name=None, reading="notebook", draw_seed=None):
    """Returns {name: metrics}, the model told each prior and tested on it, or on `test_name`."""
    results = {}
    for name in names:
        told, test = (prior_for(saved, text, reading) for text in (name, test_name or name))
        results[name] = evaluate(saved, told, test, draw_seed)
    return results


def format_table(results, first_column="prior"):
    """Returns {row name: metrics} as an aligned table; accuracies in %, the rest as they are."""
    percent = (*HEADINGS, "accuracy", "many", "medium", "few")
    columns = list(next(iter(results.values())))
    titles = [HEADINGS.get(name, name) for name in columns]
    rows = [
        [
            first_column,
            *(f"{t} %" if n in percent else t for n, t in zip(columns, titles, strict=True)),
        ]
    ]
    for name, values in results.items():
        cells = [_cell(values[column], column in percent) for column in columns]
        rows.append([name, *cells])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _cell(value, percent):
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"
