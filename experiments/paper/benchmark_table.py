"""All benchmarks in one table: what, against what, what to reach, what was reached.

`table` reads the JSON files of experiments/results/benchmarks; one that is missing is "not run".
"""

import dataclasses
from collections.abc import Callable

from lade_tf.files import read_json

SIZES = {"256x100": 0.5, "128x365": 0.5, "256x1000": 0.25, "256x8142": 0.15}


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a benchmark should reach: a row of the table.

    Attributes:
        file: the benchmark, of experiments/benchmarks, and its results.
        what: what is measured.
        against: what it is compared with.
        bound: the number to reach.
        value: content of the JSON file → number.
        at_least: whether more is better.
    """

    file: str
    what: str
    against: str
    bound: float
    value: Callable
    at_least: bool = False


def _of_size(size):
    """Returns the rows of loss.py at one size."""
    shape = size.replace("x", " × ")

    def in_graph(name):
        return lambda result: result["sizes"][size]["in a graph"][name]

    def memory(result):
        extra = result["sizes"][size]["extra_memory"]
        return max(extra["lade, graph"], extra["lade, xla"])

    def from_python(result):
        return result["sizes"][size]["called from Python"]["lade / pytorch"]

    what, masks = f"LADE and its gradient, {shape}", "PyTorch, C × N masks"
    return (
        Bound("loss", f"{what}, in a graph", masks, SIZES[size], in_graph("lade / pytorch")),
        Bound("loss", f"{what}, a call from Python", masks, SIZES[size], from_python),
        Bound(
            "loss", f"{what}, in a graph", "cross-entropy", 1.5, in_graph("lade / cross-entropy")
        ),
        Bound("loss", f"its extra memory, XLA or not, {shape}", "the logits", 3, memory),
    )


def _median(name):
    return lambda result: result[name]["median"]


def _epoch(precision):
    return lambda result: result["precisions"][precision]["lade_tf / pytorch"]["median"]


BASE = "import tensorflow, keras"
BOUNDS = (
    *(row for size in SIZES for row in _of_size(size)),
    Bound("train_step", "step with LADE", "with softmax", 1.02, _median("lade / cross-entropy")),
    Bound("epoch", "images/s, float32", "PyTorch", 1.0, _epoch("float32"), at_least=True),
    Bound("epoch", "images/s, bfloat16", "PyTorch", 1.0, _epoch("bfloat16"), at_least=True),
    Bound(
        "evaluate",
        "11 priors, all metrics, 10,000 × 100",
        "11 × softmax + argmax",
        8,
        lambda result: result["results"]["CIFAR-100"]["ratio"],
    ),
    Bound(
        "input_pipeline",
        "224-pixel training images/s",
        "Pillow, one core each",
        1.6,
        lambda result: result["variants"]["training"]["ratio_to_pillow"],
        at_least=True,
    ),
    Bound(
        "input_pipeline",
        "the same, two cores",
        "one core",
        1.7,
        lambda result: result["two_cores_over_one"],
        at_least=True,
    ),
    Bound("adapt", "export, prior stored", "without one", 1.01, _median("stored prior / no prior")),
    Bound("adapt", "export, prior given", "without one", 1.01, _median("given prior / no prior")),
    Bound("startup", "`import lade_tf`", f"`{BASE}`", 1.1, _median(f"import lade_tf / {BASE}")),
    Bound("startup", "`train.py --help`", f"`{BASE}`", 1.1, _median(f"train.py --help / {BASE}")),
)


def table(folder):
    """Returns the Markdown table of the results in `folder`, a pathlib.Path."""
    lines = [
        "| benchmark | what | against | to reach | reached | on |",
        "|---|---|---|---|---|---|",
    ]
    for row in BOUNDS:
        bound = f"{'≥' if row.at_least else '≤'} {row.bound:g}"
        # What another machine measured lies beside it, as FILE-MACHINE.json.
        paths = sorted([*folder.glob(f"{row.file}.json"), *folder.glob(f"{row.file}-*.json")])
        for reached in [_reached(row, read_json(path)) for path in paths] or ["not run | "]:
            lines.append(f"| {row.file}.py | {row.what} | {row.against} | {bound} | {reached} |")
    return "\n".join(lines)


def _reached(row, result):
    """Returns two cells: the number and the processor."""
    value = row.value(result)
    met = value >= row.bound if row.at_least else value <= row.bound
    number = f"{value:.4g}" if met else f"**{value:.4g}, missed**"
    return f"{number} | {result['hardware']['cpu'].removesuffix(' Processor')}"
