"""Writes the README's numbers from the files under experiments/results.

    python experiments/readme_numbers.py

A block of the README between `<!-- NAME -->` and `<!-- end -->` is replaced by what the function of
that name returns; a test asserts that none is out of date.
"""

import pathlib
import re

import runs

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
README = ROOT / "README.md"
SHIFTS = ("forward:50", "uniform", "backward:50")


def results():
    """One row for each committed run: accuracy in % under three label distributions, and ECE."""
    rows = [
        "| run | forward 50 | uniform | backward 50 | many / medium / few | ECE |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.rglob("result.json")):
        result = runs.read_json(path)
        rows.append(_row(_describe(result["config"]), path, result["metrics_shifted"]))
        if result["metrics_unadapted"] != result["metrics"]:
            name = _describe(result["config"]) + ", not adapted"
            rows.append(_row(name, path, {"uniform": result["metrics_unadapted"]}))
    return "\n".join(rows)


def gaussian_toy():
    """The distances of experiments/gaussian_toy.py."""
    distances = runs.read_json(RESULTS / "gaussian_toy.json")["distances"]
    rows = ["| estimator | to log p_u(x\\|y)/p_u(x) | to log C + log p_s(y\\|x) |", "|---|---|---|"]
    for estimator, distance in distances.items():
        cells = f"{distance['disentangled']:.3f} | {distance['entangled']:.3f}"
        rows.append(f"| {estimator} | {cells} |")
    return "\n".join(rows)


def speed():
    """The ratios of experiments/benchmarks/train_step.py."""
    benchmark = runs.read_json(RESULTS / "benchmarks" / "train_step.json")
    rows = ["| ratio of step times | median | quartiles |", "|---|---|---|"]
    for name, value in benchmark.items():
        if isinstance(value, dict) and "median" in value:
            low, high = value["quartiles"]
            rows.append(f"| {name} | {value['median']:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(rows)


BLOCKS = {"results": results, "gaussian_toy": gaussian_toy, "speed": speed}


def updated(text):
    """Returns the README's text with every block made anew."""
    for name, block in BLOCKS.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        replacement = rf"\g<1>{block().replace(chr(92), chr(92) * 2)}\n\g<2>"
        text, found = re.subn(pattern, replacement, text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"README.md must have one block <!-- {name} -->; it has {found}")
    return text


def _describe(config):
    method = {"softmax": "PC Softmax", "balanced_softmax": "Balanced Softmax", "lade": "LADE"}
    name = method[config["loss"]] + (f" ({config['estimator']})" if config["estimator"] else "")
    return f"{name}, {config['epochs']} epochs, {config['precision']}"


def _row(name, path, metrics):
    cells = [_percent(metrics[shift]["accuracy"]) if shift in metrics else "" for shift in SHIFTS]
    uniform = metrics["uniform"]
    groups = " / ".join(_percent(uniform[group]) for group in ("many", "medium", "few"))
    link = path.parent.relative_to(ROOT)
    return f"| [{name}]({link}) | {' | '.join(cells)} | {groups} | {uniform['ece']:.3f} |"


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
