"""The paper's tables: which runs fill which cell, and what they give.

Flag-free, so that tables.py, the README's numbers and tests build the same tables.
"""

import dataclasses
import pathlib

import comparison
import evaluation
import numpy as np
import recipes
import runs
from table_formats import Comparison, Figure, Row, Table

from lade_tf import priors

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PUBLISHED = runs.read_json(ROOT / "third_party" / "published" / "lade_cvpr2021.json")["tables"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a cell shows: of which runs, tested under which prior, which metric.

    Attributes:
        changed: {name of LADE's parameter: value} where it isn't the recipe's.
    """

    dataset: str
    epochs: int
    imbalance_ratio: float | None = None
    prior: str = "uniform"
    metric: str = "accuracy"
    changed: dict = dataclasses.field(default_factory=dict)

    def recipe(self, method):
        """Returns the configuration of the runs that count, or None if there is no recipe yet."""
        overrides = {
            "epochs": self.epochs,
            "imbalance_ratio": self.imbalance_ratio,
            "estimator": method.estimator,
            **self.changed,
        }
        try:
            return recipes.resolve(self.dataset, method.loss, overrides)
        except ValueError:
            return None

    def with_each(self, name, values):
        """Returns a list of this setting with one attribute set to each of the values."""
        return [dataclasses.replace(self, **{name: value}) for value in values]


GROUPS = ("many", "medium", "few", "accuracy")
CALIBRATION = ("accuracy", "ece", "classwise_ece", "brier", "nll")
CIFAR = Setting("cifar100_lt", 200, 50)
PLACES = Setting("places_lt", 30)
IMAGENET = Setting("imagenet_lt", 180)
INATURALIST = Setting("inaturalist2018", 200)

# The setting of each column.
COLUMNS = {
    "2": CIFAR.with_each("imbalance_ratio", (100, 50, 10)),
    "3": PLACES.with_each("metric", GROUPS),
    "4": IMAGENET.with_each("metric", GROUPS),
    "5": [INATURALIST],
    "6": IMAGENET.with_each("prior", evaluation.PROTOCOL),
    "9": CIFAR.with_each("prior", evaluation.PROTOCOL),
    "10": CIFAR.with_each("metric", CALIBRATION),
    "11": IMAGENET.with_each("metric", CALIBRATION),
}
# Table 8 has data sets as rows, and as columns what is left out of LADE.
ABLATED = [
    *CIFAR.with_each("imbalance_ratio", (10, 50, 100)),
    *(PLACES, IMAGENET, INATURALIST),
]
ABLATIONS = ({}, {"remine_lambda": 0}, {"alpha": 0})

METHODS = {method.label: method for method in comparison.METHODS}
# The published figures came from the first.
LADE = ("LADE (reference)", "LADE (paper)")
OTHER_RATIO = ("9", "10")
SEEDS_NOTE = "Ours: mean ± standard deviation (number of seeds)."
COMPARED = ("2", "9")


class Results:
    """Finished runs below a folder and their metrics, each computed once."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        # Of several runs with the same seeds the first counts: one in float32.
        self.runs = sorted(
            comparison.find_runs(folder), key=lambda run: run.config["precision"] != "float32"
        )
        self._metrics = {}

    def of(self, method, setting):
        """Returns {(data_seed, seed): run} of the runs that count; `method` None has none."""
        recipe = setting.recipe(method) if method else None
        found = {}
        for run in self.runs if recipe else ():
            if run.follows(recipe):
                found.setdefault((run.config["data_seed"], run.config["seed"]), run)
        return dict(sorted(found.items()))

    def values(self, method, setting):
        """Returns the setting's metric in the paper's units, one value a run."""
        scale = 100 if setting.metric in GROUPS else 1
        return tuple(
            scale * self._metrics_of(run, method, setting.prior)[setting.metric]
            for run in self.of(method, setting).values()
        )

    def _metrics_of(self, run, method, prior):
        key = (run.path, method, prior)
        if key not in self._metrics:
            test = evaluation.resolve_prior(
                prior, run.saved.counts, evaluation.per_class(run.saved)
            )
            told = method.target_prior(run.saved, test)
            self._metrics[key] = evaluation.evaluate(run.saved, told, test)
        return self._metrics[key]

    def precision_notes(self, cells):
        """Returns the note, if any, that names the runs of (method, setting) not in float32."""
        others = {
            f"{run.path.relative_to(self.folder)} ({run.config['precision']})"
            for cell in cells
            for run in self.of(*cell).values()
            if run.config["precision"] != "float32"
        }
        return [f"Not trained in float32: {', '.join(sorted(others))}."] if others else []


def entries(number):
    """Yields (name, method, settings, published row, whether its figures are this row's)."""
    for index, row in enumerate(PUBLISHED[number]["rows"]):
        ablation = number == "8"
        labels = LADE if ablation or row["name"] == "LADE" else (row["name"],)
        settings = ABLATED[index].with_each("changed", ABLATIONS) if ablation else COLUMNS[number]
        if "epochs" in row:
            settings = [dataclasses.replace(s, epochs=row["epochs"]) for s in settings]
        for label in labels:
            name = f"{row['name']}, {label}" if ablation else label
            yield name, METHODS.get(label), settings, row, label != LADE[1]


def build(number, results, epochs=None, imbalance_ratio=None):
    """Returns the paper's table of a number as a `Table`.

    Args:
        number: a key of `PUBLISHED`.
        results: `Results`.
        epochs: of our runs, None for the published number.
        imbalance_ratio: of tables 9 and 10, None for the published one. No other table heeds it.
    """
    published = PUBLISHED[number]
    changes = _changes(number, epochs, imbalance_ratio)
    comparable = changes.get("imbalance_ratio") in (None, published.get("imbalance_ratio"))
    rows, cells = [], []
    for name, method, settings, row, is_published in entries(number):
        settings = [dataclasses.replace(setting, **changes) for setting in settings]
        cells += [(method, setting) for setting in settings]
        figures = row["values"] if comparable and is_published else [None] * len(settings)
        ours = [results.values(method, setting) for setting in settings]
        figures = tuple(map(Figure, figures, ours, published["decimals"]))
        rows.append(Row(name, figures, row.get("mark", ""), row.get("epochs")))
    borrowed = [f"{mark} borrowed from {work}." for mark, work in published["borrowed"].items()]
    return Table(
        number=number,
        caption=_caption(number, changes, comparable),
        leading=("method", "figures"),
        columns=tuple(published["columns"]),
        rows=tuple(rows),
        notes=(SEEDS_NOTE, *borrowed, *results.precision_notes(cells)),
    )


def _changes(number, epochs, imbalance_ratio):
    """Returns what the flags change in the settings of a table."""
    changes = {} if epochs is None else {"epochs": epochs}
    if imbalance_ratio is not None and number in OTHER_RATIO:
        changes["imbalance_ratio"] = imbalance_ratio
    return changes


def _caption(number, changes, comparable):
    published = PUBLISHED[number]
    caption = f"Table {number}. {published['title']}"
    if "imbalance_ratio" in published:
        ratio = changes.get("imbalance_ratio", published["imbalance_ratio"])
        caption += f", training imbalance ratio {ratio:g}"
    if not comparable:
        caption += f" (published for {published['imbalance_ratio']} only, left out)"
    lengths = sorted({s.epochs for _, _, settings, *_ in entries(number) for s in settings})
    if changes.get("epochs") is not None and lengths != [changes["epochs"]]:
        caption += (
            f". Ours: {changes['epochs']} epochs; published: {' and '.join(map(str, lengths))}"
        )
    return f"{caption}."


def compare(number, results, epochs=None, imbalance_ratio=None):
    """Returns a `Table` of LADE against each other method of a table, None without such runs.

    Runs are paired by seed and data seed, and compared at the uniform prior.
    """
    changes = _changes(number, epochs, imbalance_ratio)
    methods = [method for _, method, *_ in entries(number) if method]
    rows = [
        row
        for setting in COLUMNS[number]
        if setting.prior == "uniform"
        for first, second in _pairs(methods)
        for row in _paired(results, first, second, dataclasses.replace(setting, **changes))
    ]
    if not rows:
        return None
    return Table(
        number=number,
        caption=f"Table {number}, paired comparison. Accuracy at uniform test labels, the first "
        "method's less the second's, in points.",
        leading=("methods", "runs"),
        columns=("difference", "95 % interval"),
        rows=tuple(rows),
        notes=(
            "* The interval excludes 0. It is a bootstrap over the shared test images: it tells "
            "nothing about another seed or another draw of the training subset.",
        ),
    )


def _pairs(methods):
    """Yields LADE with each other method, both LADEs with each other once."""
    for index, label in enumerate(LADE):
        for method in methods:
            if method.label not in LADE[: index + 1]:
                yield METHODS[label], method


def _paired(results, first, second, setting):
    """Yields the `Comparison` of each pair of runs with the same seeds."""
    runs_of_second = results.of(second, setting)
    for seeds, run in results.of(first, setting).items():
        if seeds not in runs_of_second:
            continue
        other = runs_of_second[seeds]
        comparison.check_same_images(run.saved, other.saved)
        uniform = priors.uniform_prior(len(run.saved.counts))
        right, other_right = (
            comparison.correct(one.saved, method.target_prior(one.saved, uniform))
            for one, method in ((run, first), (other, second))
        )
        interval = comparison.paired_bootstrap(
            right.astype(np.float64) - other_right,
            evaluation.class_weights(run.saved.labels, uniform),
        )
        yield Comparison(
            f"{first.label} − {second.label}",
            f"IB {setting.imbalance_ratio:g}, data seed {seeds[0]}, seed {seeds[1]}",
            *(100 * value for value in interval),
        )


def build_all(numbers, results, epochs=None, imbalance_ratio=None):
    """Returns the tables of the numbers, each with its paired comparison below it."""
    tables = []
    for number in numbers:
        tables.append(build(number, results, epochs, imbalance_ratio))
        if number in COMPARED:
            tables.append(compare(number, results, epochs, imbalance_ratio))
    return [table for table in tables if table]
