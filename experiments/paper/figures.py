"""The paper's figures: which runs are drawn, and how."""

import numpy as np
from matplotlib.figure import Figure
from reproduction import finished_runs, recipes
from reproduction.config import REPEATS, RunConfig

from lade_tf import evaluation, metrics, plots
from paper import suites

LINE_INCHES = 0.25
MOST_COLUMNS = 3
GROUP = ("dataset", "imbalance_ratio", "epochs")
FIGURE_3_LOSSES = ("softmax", "balanced_softmax", "lade")
# The methods of the paper's shifted tables: what else is compared stands in tables.
DRAWN = [
    method
    for method in finished_runs.VARIANTS
    if method.loss in ("softmax", "balanced_softmax", "causal_norm", "lade")
]


def group_name(run):
    """Returns the part of a file's name that says which runs were drawn."""
    dataset, imbalance_ratio, epochs = (getattr(run.config, name) for name in GROUP)
    ratio = [f"ib{imbalance_ratio:g}"] if imbalance_ratio else []
    return "-".join([dataset, *ratio, f"{epochs}ep"])


def find_groups(folder, wanted):
    """Returns {group name: runs} of the finished runs below `folder`.

    Args:
        folder: folder with results.
        wanted: {configuration key of `GROUP`: value or None for any}.
    """
    groups = {}
    for run in finished_runs.find_runs(folder):
        groups.setdefault(group_name(run), []).append(run)
    matching = {
        name: members
        for name, members in groups.items()
        if all(value in (None, getattr(members[0].config, key)) for key, value in wanted.items())
    }
    if not matching:
        asked = " ".join(f"--{key}={value}" for key, value in wanted.items() if value is not None)
        raise ValueError(
            f"--results={folder} has no finished run{asked and f' of {asked}'}; "
            f"it has {', '.join(groups) or 'none at all'}"
        )
    return matching


def follows_recipe(run, free=()):
    """Whether a run has the published settings of its loss, those named in `free` aside."""
    given = ("imbalance_ratio", "epochs", "estimator")
    overrides = {name: getattr(run.config, name) for name in (*given, *free)}
    try:
        recipe = RunConfig.resolve(run.config.dataset, run.config.loss, **overrides)
    except ValueError:
        return True  # Nothing was published that it could differ from.
    return run.config.follows(recipe)


def by_training_seed(members):
    """Returns one run for each training seed, the lowest first."""
    return list(finished_runs.training_seeds(finished_runs.by_seeds(members)).values())


def repeats(members, method):
    """Returns a method's run for each training seed; they differ in nothing but `REPEATS`."""
    chosen = [run for run in members if run.is_of(method) and follows_recipe(run)]
    for run in chosen[1:]:
        differing = run.config.comparable.differing(chosen[0].config.comparable)
        if differing := [name for name in differing if name not in REPEATS]:
            raise ValueError(
                f"{run.path} and {chosen[0].path} differ in {', '.join(differing)}: they must lie "
                "in different --results"
            )
    return by_training_seed(chosen)


def uniform_panels(figure_name, members):
    """Yields (label, run, outcome) of each method on the uniform test set.

    A method that is told the prior predicts what its untold twin does if that is free of any prior
    already; it is left out.
    """
    drawn = set()
    for method in DRAWN:
        chosen = repeats(members, method)
        if not chosen:
            print(f"figure {figure_name}: no run of {method.label}")
            continue
        saved = chosen[0].predictions
        target = method.target_prior(saved, evaluation.prior_for(saved, "uniform"))
        key = (method.loss, method.estimator, tuple(np.round(target, 9)))
        if key not in drawn:
            drawn.add(key)
            yield method.label, chosen[0], saved.adapted_to(target)


def draw_average_probability(members):
    """Figure 2: a panel for each method."""
    panels = [
        (label, run, (outcome.mean_probability[np.newaxis], run.predictions.counts))  # one row
        for label, run, outcome in uniform_panels("2", members)
    ]
    return panel_figure(plots.average_probability, panels)


def draw_class_logits(members):
    """Figure 3: LADE for each alpha, after the losses without LADER for contrast."""
    of_panel = {}
    for run in members:
        if run.config.loss in FIGURE_3_LOSSES and follows_recipe(run, free=("alpha",)):
            of_panel.setdefault(logit_panel(run.config), []).append(run)
    panels, missing = [], wanted_alphas(members[0].config.dataset)
    for (_, title), found in sorted(of_panel.items()):
        for run in by_training_seed(found)[:1]:
            saved = run.predictions
            moments = saved.positive_logits, saved.negative_logits
            panels.append((title, run, (*moments, saved.counts)))
            is_lade = run.config.loss != "balanced_softmax"
            missing.discard(run.config.alpha if is_lade else 0.0)
    for alpha in sorted(missing):
        print(f"figure 3: no run with alpha={alpha:g}")
    return panel_figure(plots.draw_class_logits, panels)


def wanted_alphas(dataset):
    """Returns the alphas that figure 3 shows of a data set: the published and the suite's."""
    published = {alpha for (name, _), (alpha, _) in recipes.TABLE_7.items() if name == dataset}
    return published.union(suites.FIGURE_3_ALPHA if dataset == "cifar100_lt" else ())


def logit_panel(config):
    """Returns (what panels are sorted by, title) of the panel in which a run's logits belong."""
    if config.loss == "lade":
        title = f"LADE ({config.estimator}), α = {config.alpha:g}"
        return (2, config.estimator, config.alpha), title
    if config.loss == "balanced_softmax":
        return (1,), "Balanced Softmax (LADE, α = 0)"
    return (0,), "Softmax"


def draw_reliability(members):
    """Figures 4 and 6: a panel for each method."""
    panels = [
        (label, run, (outcome.confidence, outcome.correct, np.ones(len(outcome.correct))))
        for label, run, outcome in uniform_panels("6", members)
    ]
    return panel_figure(plots.draw_reliability, panels, panel_inches=(2.6, 2.6))


def draw_accuracy_curves(members):
    """Tables 6 and 9 as curves: a line for each method."""
    found = {method: repeats(members, method) for method in DRAWN}
    for method in (method for method, chosen in found.items() if not chosen):
        print(f"figure curves: no run of {method.label}")
    if not any(found.values()):
        return None
    marks, caption = finished_runs.say_precisions(list(found.values()))
    curves = {}
    for (method, chosen), mark in zip(found.items(), marks, strict=True):
        accuracies = [accuracy_curve(run.predictions, method) for run in chosen]
        accuracies = np.reshape(accuracies, (len(chosen), len(evaluation.SHIFTS)))
        number = f" ({len(chosen)} runs)" if len(chosen) > 1 else ""
        curves[f"{method.label}{mark}{number}"] = accuracies
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    put_caption(figure, caption)
    axes = figure.subplots()
    plots.accuracy_curves(axes, curves)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize="x-small")
    return figure


def accuracy_curve(saved, method):
    """Returns the expected accuracy under each of `evaluation.SHIFTS`."""
    accuracies = []
    for name in evaluation.SHIFTS:
        test = evaluation.prior_for(saved, name)
        told = method.target_prior(saved, test)
        predictions = saved.adapted_to(told).predicted
        weights = evaluation.class_weights(saved.labels, test)
        accuracies.append(metrics.accuracy(predictions, saved.labels, weights))
    return accuracies


def panel_figure(draw, panels, panel_inches=(3.2, 2.6)):
    """Returns a figure of one `draw(axes, *arguments)` for each (title, run, arguments)."""
    if not panels:
        return None
    marks, caption = finished_runs.say_precisions([[run] for _, run, _ in panels])
    rows = -(-len(panels) // MOST_COLUMNS)
    columns = -(-len(panels) // rows)  # four make a square
    # A legend as wide as three panels stands in lines below a single one.
    legend_lines = 3 if columns == 1 else 1
    height = rows * panel_inches[1] + (legend_lines + len(caption)) * LINE_INCHES
    figure = Figure(figsize=(columns * panel_inches[0], height), layout="constrained")
    put_caption(figure, caption)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (title, _, arguments), mark in zip(grid, panels, marks, strict=False):
        draw(axes, *arguments)
        axes.set_title(title + mark)
        axes.label_outer()
    for spare in grid[len(panels) :]:
        spare.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    beside = -(-len(labels) // legend_lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=beside, frameon=False)
    return figure


def put_caption(figure, caption):
    """Writes what concerns all of a figure above it."""
    if caption:
        figure.suptitle(" ".join(caption), fontsize="small")


FIGURES = {
    "2": ("figure2_average_probability", draw_average_probability),
    "3": ("figure3_class_logits", draw_class_logits),
    "6": ("figure6_reliability", draw_reliability),
    "curves": ("accuracy_curves", draw_accuracy_curves),
}
