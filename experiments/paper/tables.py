"""The paper's tables: which runs fill which cell, and what they give.

Flag-free, so that tables.py, the README's numbers and tests build the same tables.
"""

import dataclasses
import pathlib

import numpy as np
import scipy.stats
from reproduction import finished_runs
from reproduction.config import RunConfig
from reproduction.finished_runs import subsets, training_seeds
from reproduction.methods import POLICIES

from lade_tf import evaluation, priors
from lade_tf.data.sets import imagenet, inaturalist, places
from lade_tf.files import read_json
from paper.table_formats import Comparison, Exact, Figure, Row, Table

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
FOLDER = ROOT / "third_party" / "published"
PUBLISHED = read_json(FOLDER / "lade_cvpr2021.json")["tables"]
# Tables 1 and 7, which no run fills.
SETTINGS = read_json(FOLDER / "lade_cvpr2021_settings.json")["tables"]
ANSWER = "answer"
TABLES = (*sorted((*PUBLISHED, *SETTINGS), key=int), ANSWER)


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
            return RunConfig.resolve(self.dataset, method.loss, **overrides)
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
    "6": IMAGENET.with_each("prior", evaluation.SHIFTS),
    "9": CIFAR.with_each("prior", evaluation.SHIFTS),
    "10": CIFAR.with_each("metric", CALIBRATION),
    "11": IMAGENET.with_each("metric", CALIBRATION),
}
# Table 8 has data sets as rows, and as columns what is left out of LADE.
ABLATED = [
    *CIFAR.with_each("imbalance_ratio", (10, 50, 100)),
    *(PLACES, IMAGENET, INATURALIST),
]
# Without LADER both estimators are the same loss: the runs of one stand for both.
ABLATIONS = ({}, {"remine_lambda": 0}, {"alpha": 0, "estimator": "reference"})

BY_LABEL = {method.label: method for method in finished_runs.VARIANTS}
# The published figures came from the first.
LADE_ROWS = ("LADE (reference)", "LADE (paper)")
OTHER_RATIO = ("9", "10")
SEEDS_NOTE = "Ours: mean ± standard deviation (number of seeds)."
SUBSETS_NOTE = (
    "Several subsets: the training subset was drawn anew (--data_seed), the training seed is one."
)
STAR_NOTE = "* The interval excludes 0."
BOOTSTRAP_NOTE = (
    "Of one pair of runs the interval is a bootstrap over the shared test images: it tells nothing "
    "about another seed or another draw of the training subset."
)
SEVERAL_NOTE = (
    "Of several runs: mean ± standard deviation of the differences of pairs of runs with the same "
    "seeds, and the t interval of their mean, which covers what differs between the pairs, either "
    "the training seed or the draw of the training subset; it doesn't cover the choice of test "
    "images, which the intervals of single pairs do."
)
COMPARED = ("2", "9")
# The question that nobody published an answer to: which loss is better, and is it more than PC
# Softmax by more than the noise?
ASKED = (
    ("LADE (paper)", "LADE (reference)"),
    ("LADE (paper)", "PC Softmax"),
    ("LADE (reference)", "PC Softmax"),
)
TRAINING_SETS = {"places_lt": places, "imagenet_lt": imagenet, "inaturalist2018": inaturalist}
CIFAR_IMAGES, CIFAR_CLASSES = 500, 100  # of CIFAR-100 before the cut, a class


class Results:
    """Finished runs below a folder and their metrics, each computed once."""

    def __init__(self, folder):
        self.runs = finished_runs.find_runs(folder)
        self._metrics = {}

    def of(self, method, setting, precisions=tuple(POLICIES)):
        """Returns {(data_seed, seed): run} of the runs that count; `method` None has none."""
        recipe = setting.recipe(method) if method else None
        return finished_runs.by_seeds(
            run
            for run in self.runs
            if recipe and run.config.precision in precisions and run.config.follows(recipe)
        )

    def averaged(self, method, setting, repeats=training_seeds):
        """Returns the runs whose mean a cell shows, those of `training_seeds` or `subsets`."""
        return list(repeats(self.of(method, setting)).values())

    def values(self, method, setting, repeats=training_seeds):
        """Returns the setting's metric in the paper's units, one value for each run `averaged`."""
        scale = 100 if setting.metric in GROUPS else 1
        return tuple(
            scale * self._metrics_of(run, method, setting.prior)[setting.metric]
            for run in self.averaged(method, setting, repeats)
        )

    def _metrics_of(self, run, method, prior):
        key = (run.path, method, prior)
        if key not in self._metrics:
            test = evaluation.prior_for(run.predictions, prior)
            told = method.target_prior(run.predictions, test)
            self._metrics[key] = evaluation.evaluate(run.predictions, told, test)
        return self._metrics[key]


def entries(number):
    """Yields (name, method, settings, published row, whether its figures are this row's)."""
    for index, row in enumerate(PUBLISHED[number]["rows"]):
        ablation = number == "8"
        labels = LADE_ROWS if ablation or row["name"] == "LADE" else (row["name"],)
        settings = ABLATED[index].with_each("changed", ABLATIONS) if ablation else COLUMNS[number]
        if "epochs" in row:
            settings = [dataclasses.replace(s, epochs=row["epochs"]) for s in settings]
        for label in labels:
            name = f"{row['name']}, {label}" if ablation else label
            yield name, BY_LABEL.get(label), settings, row, label != LADE_ROWS[1]


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
    rows = []
    for name, method, settings, row, is_published in entries(number):
        settings = [dataclasses.replace(setting, **changes) for setting in settings]
        figures = row["values"] if comparable and is_published else [None] * len(settings)
        ours = [results.values(method, setting) for setting in settings]
        figures = tuple(map(Figure, figures, ours, published["decimals"]))
        epochs_of_both = row.get("epochs"), settings[0].epochs
        used = tuple(run for setting in settings for run in results.averaged(method, setting))
        rows.append(Row(name, figures, row.get("mark", ""), *epochs_of_both, used))
    subset_rows = _subset_rows(results, changes) if number == "2" else []
    rows, precisions = _with_precisions([*rows, *subset_rows])
    borrowed = [f"{mark} borrowed from {work}." for mark, work in published["borrowed"].items()]
    return Table(
        number=number,
        caption=_caption(number, changes, comparable),
        leading=("method", "figures"),
        columns=tuple(published["columns"]),
        rows=rows,
        notes=(
            SEEDS_NOTE,
            *([SUBSETS_NOTE] if subset_rows else []),
            *borrowed,
            *precisions,
        ),
    )


def _with_precisions(rows):
    """Returns the rows, with marks where their runs differ in precision, and the notes on these."""
    marks, notes = finished_runs.say_precisions([row.runs for row in rows])
    marked = zip(rows, marks, strict=True)
    return tuple(dataclasses.replace(row, own_mark=mark) for row, mark in marked), notes


def _subset_rows(results, changes):
    """Returns table 2's rows of methods with runs on several draws of the subset."""
    rows = []
    for name, method, settings, *_ in entries("2"):
        figures, used = [], []
        settings = [dataclasses.replace(setting, **changes) for setting in settings]
        for setting in settings:
            cell = method, setting, subsets
            found = results.averaged(*cell)
            figures.append(Figure(None, results.values(*cell) if len(found) > 1 else ()))
            used += found if len(found) > 1 else []
        if any(figure.values for figure in figures):
            epochs = settings[0].epochs
            named = f"{name}, several subsets", tuple(figures)
            rows.append(Row(*named, our_epochs=epochs, runs=tuple(used)))
    return rows


def _changes(number, epochs, imbalance_ratio=None):
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
        caption += f". Ours: {changes['epochs']} epochs"
        caption += f"; published: {' and '.join(map(str, lengths))}" if comparable else ""
    return f"{caption}."


def compare(number, results, epochs=None, imbalance_ratio=None):
    """Returns a `Table` of LADE against each other method of a table, None without such runs.

    Runs are paired by seed, data seed and precision, and compared at the uniform prior.
    """
    changes = _changes(number, epochs, imbalance_ratio)
    pairs = list(_pairs([method for _, method, *_ in entries(number) if method]))
    rows = [
        row
        for setting in COLUMNS[number]
        if setting.prior == "uniform"
        for row in _paired(results, pairs, dataclasses.replace(setting, **changes))
    ]
    caption = (
        f"Table {number}, paired comparison. Accuracy at uniform test labels, the first "
        "method's less the second's, in points."
    )
    caption += f" Runs of {epochs} epochs." if epochs else ""
    return _comparison_table(number, caption, rows)


def answer(results, epochs=None):
    """Returns a `Table` that compares the two losses and PC Softmax, None without such runs."""
    pairs = [tuple(BY_LABEL[label] for label in labels) for labels in ASKED]
    rows = []
    for setting in COLUMNS["2"]:
        found = list(_paired(results, pairs, dataclasses.replace(setting, **_changes("2", epochs))))
        repeated = {row.name for row in found if row.seeds > 1}
        rows += [row for row in found if row.seeds > 1 or row.name not in repeated]
    caption = (
        "Does the loss in the paper's equations beat the one in the released code, and does either "
        "beat PC Softmax by more than the noise? CIFAR-100-LT, accuracy at uniform test labels, "
        "the first method's less the second's, in points."
    )
    caption += f" Runs of {epochs} epochs." if epochs else ""
    return _comparison_table(ANSWER, caption, rows)


def _comparison_table(number, caption, rows):
    if not rows:
        return None
    rows, precisions = _with_precisions(rows)
    one, several = ([row for row in rows if (row.seeds > 1) == flag] for flag in (False, True))
    return Table(
        number=number,
        caption=caption,
        leading=("methods", "runs"),
        columns=("difference", "95 % interval"),
        rows=rows,
        notes=(
            *([STAR_NOTE] if any(row.excludes_0 for row in rows) else []),
            *([BOOTSTRAP_NOTE] if one else []),
            *([SEVERAL_NOTE] if several else []),
            *precisions,
        ),
    )


def _pairs(methods):
    """Yields LADE with each other method, both LADEs with each other once.

    All are compared at the uniform prior, where "PC X" is X if X's logits carry that: one is left.
    """
    different = {}
    for method in methods:
        different.setdefault((method.loss, method.estimator, method.adapts_to_uniform), method)
    for index, label in enumerate(LADE_ROWS):
        for method in different.values():
            if method.label not in LADE_ROWS[: index + 1]:
                yield BY_LABEL[label], method


def _paired(results, pairs, setting):
    """Yields the `Comparison`s of pairs of methods: of each pair of runs, then of several."""
    matched = {
        (pair, seeds): runs_of_pair
        for pair in pairs
        for seeds, runs_of_pair in _matched(results, pair, setting).items()
    }
    if not matched:
        return
    intervals = dict(zip(matched, _intervals(matched), strict=True))
    ratio, epochs = f"IB {setting.imbalance_ratio:g}", setting.epochs
    for pair in pairs:
        name = " − ".join(method.label for method in pair)
        found = {key[1]: (ends, matched[key]) for key, ends in intervals.items() if key[0] == pair}
        for (data_seed, seed), (ends, used) in found.items():
            column = f"{ratio}, data seed {data_seed}, seed {seed}"
            yield Comparison(name, column, *ends, runs=used, our_epochs=epochs)
        for repeats in (training_seeds, subsets):
            several = repeats(found).values()
            if len(several) > 1:
                column = f"{ratio}, {len(several)} {repeats.__name__.replace('_', ' ')}"
                ends = _t_interval([difference for (difference, *_), _ in several])
                used = tuple(run for _, runs_of_pair in several for run in runs_of_pair)
                yield Comparison(name, column, *ends, runs=used, our_epochs=epochs)


def _matched(results, pair, setting):
    """Returns {(data_seed, seed): two methods' runs} of equal precision."""
    found = {}
    for precision in reversed(POLICIES):  # float32, the first, takes the others' place
        first, second = (results.of(method, setting, [precision]) for method in pair)
        found |= {seeds: (first[seeds], second[seeds]) for seeds in first if seeds in second}
    return dict(sorted(found.items()))


def _intervals(matched):
    """Returns (difference, low, high) in points of each ((first, second), seeds): two runs."""
    saved = next(iter(matched.values()))[0].predictions
    uniform = evaluation.prior_for(saved, "uniform")
    gains = []
    for (methods, _), pair in matched.items():
        for run in pair:
            evaluation.check_same_images(saved, run.predictions)
        right, other_right = (
            evaluation.correct(run.predictions, method.target_prior(run.predictions, uniform))
            for method, run in zip(methods, pair, strict=True)
        )
        gains.append(right.astype(np.float64) - other_right)
    weights = evaluation.class_weights(saved.labels, uniform)
    weights = np.repeat(weights[:, np.newaxis], len(gains), axis=1)
    ends = evaluation.paired_bootstrap(np.stack(gains, axis=1), weights)
    return (100 * np.transpose(ends)).tolist()


def _t_interval(differences):
    """Returns mean, low, high, sd and number of paired differences; 95 % t interval of the mean."""
    count, mean, sd = len(differences), np.mean(differences), np.std(differences, ddof=1)
    half = scipy.stats.t.ppf(0.975, count - 1) * sd / np.sqrt(count)
    return *map(float, (mean, mean - half, mean + half, sd)), count


def training_sets(data_dir=None):
    """Returns table 1: the training sets of the library beside the published ones.

    Args:
        data_dir: folder of the lists of the larger sets, None or without some of them for the sizes
            that the library knows.
    """
    rows, notes = [], ["The paper rounds, and counts CIFAR-100's images before the cut."]
    for row in SETTINGS["1"]["rows"]:
        counts, problem = _training_counts(row["dataset"], row.get("imbalance_ratio"), data_dir)
        if problem:
            known = TRAINING_SETS[row["dataset"]]
            ours = (known.CLASSES, known.SIZES["train"], None)
            notes.append(f"{row['name']}: sizes that prepare.py asks for; no lists here: {problem}")
        else:
            ratio = round(counts.max() / counts.min(), 2)
            ours = (len(counts), int(counts.sum()), int(ratio) if ratio == int(ratio) else ratio)
        rows.append(Exact(row["name"], tuple(row["values"]), ours))
    return _settings_table("1", rows, notes)


def _training_counts(dataset, imbalance_ratio, data_dir):
    """Returns (images of each class, None) or (None, why they aren't known)."""
    if dataset == "cifar100_lt":
        return priors.exponential_counts(CIFAR_IMAGES, CIFAR_CLASSES, imbalance_ratio), None
    if data_dir is None:
        return None, "--data_dir isn't given"
    try:
        _, splits = TRAINING_SETS[dataset].read(data_dir)
    except ValueError as error:
        return None, str(error)
    return np.bincount(splits["train"].labels), None


def lade_settings():
    """Returns table 7: the recipes' settings of LADE beside the published ones."""
    rows = []
    for row in SETTINGS["7"]["rows"]:
        overrides = {"imbalance_ratio": row.get("imbalance_ratio")}
        config = RunConfig.resolve(row["dataset"], "lade", **overrides)
        ours = (config.remine_lambda, config.alpha, config.batch_size)
        rows.append(Exact(row["name"], tuple(row["values"]), ours))
    return _settings_table("7", rows)


def _settings_table(number, rows, notes=()):
    published = SETTINGS[number]
    return Table(
        number=number,
        caption=f"Table {number}. {published['title']}.",
        leading=("data set", "figures"),
        columns=tuple(published["columns"]),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def build_all(numbers, results, epochs=None, imbalance_ratio=None, data_dir=None):
    """Returns the tables of the numbers, each with its paired comparison below it."""
    tables = []
    for number in numbers:
        if number == "1":
            tables.append(training_sets(data_dir))
        elif number == "7":
            tables.append(lade_settings())
        elif number == ANSWER:
            tables.append(answer(results, epochs))
        else:
            tables.append(build(number, results, epochs, imbalance_ratio))
        if number in COMPARED:
            tables.append(compare(number, results, epochs, imbalance_ratio))
    return [table for table in tables if table]
