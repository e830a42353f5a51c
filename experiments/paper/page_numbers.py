"""Writes the numbers of README.md and experiments/results/README.md from the measured files.

    cd experiments && python -m paper.page_numbers

A block of a page between `<!-- NAME -->` and `<!-- end -->` is replaced by what the function of
that name returns; a test asserts that none is out of date.
"""

import dataclasses
import pathlib
import re

import numpy as np
from reproduction import methods
from reproduction.config import RunConfig, as_text

from lade_tf.files import read_json
from paper import benchmark_table, table_formats, tables

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
SHIFTS = ("forward:50", "uniform", "backward:50")
# What the results page says of its runs, where a row doesn't.
USUAL = {"dataset": "cifar100_lt", "imbalance_ratio": 100, "data_seed": 0, "recipe": "2021"}


def results():
    """One row for each committed run: accuracy in % under three label distributions, and ECE."""
    rows = [
        "| run | forward 50 | uniform | backward 50 | many / medium / few | ECE |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.rglob("result.json")):
        result = read_json(path)
        config = RunConfig.from_json(result["config"], path)
        rows.append(_row(describe(config), path, result["metrics_shifted"]))
        if result["metrics_unadapted"] != result["metrics"]:
            name = describe(config, told=False)
            rows.append(_row(name, path, {"uniform": result["metrics_unadapted"]}))
    return "\n".join(rows)


def method_table():
    """One row for each --loss: what it is and where it is from."""
    rows = ["| `--loss` | method | published | logits carry |", "|---|---|---|---|"]
    for loss, method in methods.METHODS.items():
        rows.append(f"| `{loss}` | {method.label} | {method.paper} | {method.carries} |")
    return "\n".join(rows)


def method_costs():
    """One row for each --loss: where it lies, what it adds and costs."""
    costs = read_json(RESULTS / "benchmarks" / "method_steps.json")["methods"]
    rows = ["| `--loss` | flags | file | extra parameters | step / softmax |"]
    rows.append("|---|---|---|---|---|")
    for loss, method in methods.METHODS.items():
        own_flags = ", ".join(f"`{name}`" for name in method.parameters)
        own_flags += (", " if own_flags else "") + "`init_from`" if method.second_stage else ""
        cost = costs[loss]["step / softmax"]
        cells = (
            f"`{loss}` | {own_flags} | {method.file}",
            f"{costs[loss]['extra_parameters']:,}",
            f"{cost['median']:.2f}" if cost else "not trained",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def gaussian_toy():
    """The distances of studies.gaussian_toy."""
    distances = read_json(RESULTS / "gaussian_toy.json")["distances"]
    rows = ["| estimator | to log p_u(x\\|y)/p_u(x) | to log C + log p_s(y\\|x) |", "|---|---|---|"]
    for estimator, distance in distances.items():
        cells = f"{distance['disentangled']:.3f} | {distance['entangled']:.3f}"
        rows.append(f"| {estimator} | {cells} |")
    return "\n".join(rows)


def standard_error():
    """How often ± 1.96 standard errors hold the true accuracy (studies.standard_error)."""
    results = read_json(RESULTS / "standard_error.json")["coverage"]
    kinds = list(next(iter(results.values())))
    rows = [["classes × images a class", *kinds]]
    for size, shares in results.items():
        rows.append([size.replace("x", " × "), *map(_percent, shares.values())])
    return _markdown(rows, rule="---")


def shift_test():
    """How often the label shift test rejects, in % (studies.shift_test)."""
    results = read_json(RESULTS / "shift_test.json")["label shift test"]
    kinds = list(next(iter(results.values())))
    rows = [["images a class", *kinds]]
    for per_class, shares in results.items():
        rows.append([per_class, *(_of_judged(**share) for share in shares.values())])
    return _markdown(rows, rule="---")


def _of_judged(rejected, judged):
    return "declines" if rejected is None else f"{_percent(rejected)} of {judged:.0%}"


def full_recipe():
    """Table 2's rows that have run, published figures beside ours."""
    return _tables([tables.build("2", tables.Results(RESULTS))])


def answer():
    """What nobody has published, of the full recipe and of the short runs."""
    found = tables.Results(RESULTS)
    answers = (tables.answer(found, epochs) for epochs in (None, 30))
    return _tables(table for table in answers if table)


def shifted():
    """Table 9's rows that have run, of the short runs, and their paired comparison."""
    runs_and_ratio = tables.Results(RESULTS), 30, 100
    return _tables([tables.build("9", *runs_and_ratio), tables.compare("9", *runs_and_ratio)])


def _tables(chosen):
    return table_formats.markdown([_what_has_run(table) for table in chosen if table]).rstrip()


def _what_has_run(table):
    """Returns a table without the rows that have no run, and the notes that only these need."""
    rows = tuple(row for row in table.rows if _has_run(row))
    marks = {row.mark for row in rows if isinstance(row, table_formats.Row)}
    notes = tuple(n for n in table.notes if " borrowed from " not in n or n.split()[0] in marks)
    return dataclasses.replace(table, rows=rows, notes=notes)


def _has_run(row):
    return not isinstance(row, table_formats.Row) or any(f.values for f in row.figures)


def unknown_prior():
    """How far estimated priors stay below the known one: means, each distribution, intervals."""
    content = read_json(RESULTS / "unknown_prior.json")
    settings = _settings(content)
    names = next(iter(content["distributions"].values()))
    methods_shown = [name for name in next(iter(settings.values()))[0] if name != "known"]
    heads = [f"{int(labelled):,} / {int(images):,}" for labelled, images in settings]
    rows = [["labelled / target images", *heads]]
    for method in methods_shown:
        gaps = [_gaps(found, method) for found in settings.values()]
        errors = [np.mean([f[method]["l1"] for f in found]) for found in settings.values()]
        rows.append(
            [method, *(f"{g.mean():+.1f} ({e:.2f})" for g, e in zip(gaps, errors, strict=True))]
        )
    means = _markdown(rows)
    found = settings["500", "1100"]
    rows = [["500 labelled, 1,100 target images", "known", *methods_shown]]
    for k, name in enumerate(names):
        known = 100 * np.mean([one["known"]["accuracy"][k] for one in found])
        gaps = [_gaps(found, method)[k] for method in methods_shown]
        rows.append([name, f"{known:.1f}", *(f"{gap:+.1f}" for gap in gaps)])
    on_curve = [k for k, name in enumerate(names) if name == "uniform" or ":" in name]
    intervals = [["in % of the draws", *heads]]
    for title, quantity, columns in (
        ("the exponent's interval holds it", "exponent_covered", on_curve),
        ("a class's interval holds its share, on the curve", "covered", on_curve),
        ("off the curve", "covered", [k for k in range(len(names)) if k not in on_curve]),
        ("harm: half a point and more below uniform", "harm", range(len(names))),
    ):
        # None where a share was lowered to what there is: off the curve then.
        shares = [
            np.mean(
                [
                    one["hierarchical"][quantity][k]
                    for one in every
                    for k in columns
                    if one["hierarchical"][quantity][k] is not None
                ]
            )
            for every in settings.values()
        ]
        intervals.append([title, *(f"{100 * share:.0f}" for share in shares)])
    return "\n\n".join([means, _markdown(rows), _markdown(intervals)])


def unknown_prior_peers():
    """The same beside QuaPy's estimators, fewer draws."""
    settings = _settings(read_json(RESULTS / "unknown_prior_peers.json"))
    heads = [f"{int(labelled):,} / {int(images):,}" for labelled, images in settings]
    rows = [["labelled / target images", *heads, "seconds"]]
    for method in next(iter(settings.values()))[0]:
        if method == "known":
            continue
        cells = [
            f"{_gaps(found, method).mean():+.1f} ({np.mean(found[0][method]['l1']):.2f})"
            for found in settings.values()
        ]
        seconds = np.mean([found[0][method]["seconds"] for found in settings.values()])
        rows.append([method, *cells, f"{seconds:.2f}"])
    return _markdown(rows)


def _settings(content):
    """Returns {(labelled, target images): [{method: values} of every run]}."""
    settings = {}
    for by_labelled in content["results"].values():
        for labelled, by_images in by_labelled.items():
            for images, found in by_images.items():
                settings.setdefault((labelled, images), []).append(found)
    return settings


def _gaps(found, method):
    """Returns points of accuracy above the known prior, [distributions], mean of the runs."""
    gaps = [np.subtract(one[method]["accuracy"], one["known"]["accuracy"]) for one in found]
    return 100 * np.mean(gaps, axis=0)


def _markdown(rows, rule="---:"):
    header, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, "|---|" + f"{rule}|" * (len(rows[0]) - 1), *body])


def temperature():
    """Accuracy in % and ECE under three label distributions, with and without a temperature."""
    results = read_json(RESULTS / "temperature.json")["results"]
    targets = list(next(iter(results.values()))["with"])
    rows = [f"| run | temperature | {' | '.join(targets)} |", "|---|---|" + "---|" * len(targets)]
    for run, result in results.items():
        spread = f" ± {result['temperature_sd']:.2f}"
        for name, text in (("without", "1"), ("with", f"{result['temperature']:.2f}{spread}")):
            cells = [
                f"{100 * score['accuracy']:.1f}, {score['ece']:.3f}"
                for score in result[name].values()
            ]
            rows.append(f"| {run if name == 'without' else ''} | {text} | {' | '.join(cells)} |")
    return "\n".join(rows)


def benchmarks():
    """What each benchmark should reach and reaches."""
    return benchmark_table.table(RESULTS / "benchmarks")


def speed():
    """More ratios of the benchmarks."""
    benchmark = read_json(RESULTS / "benchmarks" / "train_step.json")
    rows = ["| what | ratio | |", "|---|---|---|"]
    for name, value in benchmark.items():
        if isinstance(value, dict) and "median" in value:
            low, high = value["quartiles"]
            rows.append(f"| {name} | {value['median']:.3f} | quartiles {low:.3f} to {high:.3f} |")
    for size, value in read_json(RESULTS / "benchmarks" / "loss.json")["sizes"].items():
        for name, what, place in (
            ("lade, graph", "LADE and its gradient without XLA", "in a graph"),
            ("empty call", "a call from Python that only writes the result", "called from Python"),
        ):
            label = f"{what} / PyTorch, {size.replace('x', ' × ')}"
            cost = f"{value[place]['milliseconds'][name]:.2f} ms"
            rows.append(f"| {label} | {value[place][f'{name} / pytorch']:.2f} | {cost} |")
    for value in read_json(RESULTS / "benchmarks" / "evaluate.json")["results"].values():
        size = " × ".join(f"{length:,}" for length in value["shape"])
        seconds = f"{value['seconds']:.2f} s, peak {value['gigabytes']:.2f} GB"
        label = f"11 priors, all metrics, {size} / 11 × softmax + argmax"
        rows.append(f"| {label} | {value['ratio']:.2f} | {seconds} |")
    scaling = read_json(RESULTS / "benchmarks" / "scaling.json")
    for classes, value in scaling["classes"].items():
        label = (
            f"LADER and its gradient / cross-entropy's, {scaling['batch_size']} × {int(classes):,}"
        )
        cost = f"{value['milliseconds']:.1f} ms, {value['nanoseconds per logit']:.1f} ns a logit"
        cost += f", memory {value['extra memory / logits']['lader']:.1f} × the logits'"
        rows.append(f"| {label} | {value['ratio to cross-entropy']:.2f} | {cost} |")
    pipeline = read_json(RESULTS / "benchmarks" / "input_pipeline.json")
    for name, value in pipeline["variants"].items():
        if name == "Pillow":
            continue
        cost = f"{value['milliseconds']:.2f} ms an image on one core"
        label = f"224-pixel input, images/s, {name} / Pillow, training"
        rows.append(f"| {label} | {value['ratio_to_pillow']:.2f} | {cost} |")
    memory = pipeline["memory_mib"]
    peak_over_start = f"{memory['peak'] / memory['tensorflow_started']:.2f}"
    label = "224-pixel input, peak memory / TensorFlow's at its start"
    rows.append(f"| {label} | {peak_over_start} | {memory['peak']:,} MiB |")
    em = read_json(RESULTS / "benchmarks" / "em.json")
    size = " × ".join(f"{length:,}" for length in em["shape"])
    seconds = f"{1e3 * em['step_seconds']:.0f} ms, {em['gigabytes_per_second']:.1f} GB/s"
    seconds += f", {em['bandwidth_share']:.2f} of a bare read's rate"
    rows.append(f"| step of EM, {size} / plain NumPy | {em['ratio']:.3f} | {seconds} |")
    return "\n".join(rows)


PAGES = {
    ROOT / "README.md": (full_recipe, method_table),
    RESULTS / "README.md": (
        *(
            results,
            answer,
            shifted,
            unknown_prior,
            unknown_prior_peers,
            shift_test,
            temperature,
            standard_error,
        ),
        *(method_costs, gaussian_toy, benchmarks, speed),
    ),
}


def update(page):
    """Makes every block of a page anew."""
    text = page.read_text()
    for block in PAGES[page]:
        name = block.__name__
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        replacement = rf"\g<1>{block().replace(chr(92), chr(92) * 2)}\n\g<2>"
        text, found = re.subn(pattern, replacement, text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"{page} must have one block <!-- {name} -->; it has {found}")
    page.write_text(text)


def describe(config, told=True):
    """Returns the label of a run: what tells it from all others.

    Args:
        config: its `RunConfig`.
        told: whether the model is told the label distribution: "PC", unless it is made for that.
    """
    name = config.method.label + (f" ({config.estimator})" if config.estimator else "")
    name = f"PC {name}" if told and config.loss != "lade" else name
    facts = [name, f"{config.epochs} epochs", config.precision, f"seed {config.seed}"]
    unusual = {key: getattr(config, key) for key in USUAL if getattr(config, key) != USUAL[key]}
    facts += [f"{key} {as_text(value)}" for key, value in unusual.items()]
    facts += [f"{key} {value}" for key, value in config.deviations.items()]
    return ", ".join(facts)


def _row(name, path, metrics):
    cells = [_percent(metrics[shift]["accuracy"]) if shift in metrics else "" for shift in SHIFTS]
    uniform = metrics["uniform"]
    groups = " / ".join(_percent(uniform[group]) for group in ("many", "medium", "few"))
    link = path.parent.relative_to(RESULTS)
    return f"| [{name}]({link}) | {' | '.join(cells)} | {groups} | {uniform['ece']:.3f} |"


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    for page in PAGES:
        update(page)
