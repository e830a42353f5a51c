"""What sweep.py runs, as data: a suite is a list of runs, a run is {flag of train.py: value}.

A suite is in the order in which it runs: what matters most first, a second stage after the softmax
run that it starts from.
"""

from reproduction.methods import METHODS

SOFTMAX = {"loss": "softmax"}
LADE_RUNS = ({"loss": "lade", "estimator": "paper"}, {"loss": "lade", "estimator": "reference"})
HEADLINE = (SOFTMAX, {"loss": "balanced_softmax"}, *LADE_RUNS)
OTHERS = tuple(
    {"loss": loss} for loss in METHODS if loss not in {method["loss"] for method in HEADLINE}
)
# Those of the others that tables 2, 9 and 10 show at further imbalance ratios.
AT_FURTHER_RATIOS = tuple({"loss": loss} for loss in ("focal", "ldam", "bbn", "causal_norm"))
# Table 8. Without LADER both estimators are the same loss: one of them runs.
ABLATIONS = (
    *({**method, "remine_lambda": 0.0} for method in LADE_RUNS),
    {**LADE_RUNS[1], "alpha": 0.0},
)
# Figure 3's panels of CIFAR-100-LT.
FIGURE_3_ALPHA = (0.0, 0.01, 0.1, 1.0)
# The paper's appendix searched a grid and doesn't say which: these are the values that won on some
# data set (table 7). It searched on a validation set; CIFAR-100-LT has none, so here the grid shows
# how sensitive the test accuracy is, and chooses nothing.
GRID_ALPHA = (0.005, 0.01, 0.05, 0.1)
GRID_LAMBDA = (0.01, 0.1, 0.5)

# The committed runs that keep their logits, in float16, beside their predictions: for studies that
# tell a model what no table does.
KEPT_LOGITS = (
    *(
        f"cifar100_lt-ib100-{method}-200ep-seed{seed}-bfloat16"
        for method in ("softmax", "lade-reference", "lade-paper")
        for seed in (0, 1, 2)
    ),
    "cifar100_lt-ib100-lade-paper-modern-100ep-seed0",
    "cifar100_lt-ib50-softmax-200ep-seed0-bfloat16",
    "cifar100_lt-ib50-lade-reference-200ep-seed0-bfloat16",
)


def cifar100_lt(seeds=(0, 1, 2)):
    """The paper's tables 2, 8, 9 and 10 and figure 3, and other draws of the subset."""
    ratios, seeds = _cifar(100, 50, 10), _each("seed", seeds)
    ib100, one_seed = ratios[:1], seeds[:1]
    return [
        *_cross(ratios, seeds, HEADLINE),
        *_cross(ib100, seeds, OTHERS),
        *_cross(ratios[1:], seeds, AT_FURTHER_RATIOS),
        *_cross(ratios, seeds, ABLATIONS),
        # Figure 3; α = 0 is above.
        *_cross(ib100, one_seed, LADE_RUNS, _each("alpha", FIGURE_3_ALPHA[1:])),
        # With the training seed that finished_runs.subsets asks for.
        *_cross(ib100, [{"seed": 0}], _each("data_seed", (1, 2)), (SOFTMAX, *LADE_RUNS)),
    ]


def short(seeds=(0,)):
    """Every method, and LADE without its regularisers, for 30 epochs."""
    runs = (*HEADLINE, *OTHERS, *ABLATIONS)
    return _cross(_cifar(100), _each("epochs", (30,)), _each("seed", seeds), runs)


def modern(seeds=(0, 1, 2)):
    """LADE with the stronger recipe."""
    return _cross(_cifar(100), _each("recipe", ("modern",)), _each("seed", seeds), LADE_RUNS)


def digits(seeds=(0,)):
    """A minute on a CPU, to see how a sweep goes."""
    methods = (SOFTMAX, {"loss": "crt"}, LADE_RUNS[1])
    return _cross(_each("dataset", ("digits_lt",)), _each("seed", seeds), methods)


def grid(seeds=(0,), imbalance_ratio=100):
    """LADE's α and λ."""
    values = _each("alpha", GRID_ALPHA), _each("remine_lambda", GRID_LAMBDA)
    return _cross(_cifar(imbalance_ratio), _each("seed", seeds), LADE_RUNS, *values)


SUITES = {suite.__name__: suite for suite in (cifar100_lt, short, modern, digits)}


def _cifar(*ratios):
    return _cross(_each("dataset", ("cifar100_lt",)), _each("imbalance_ratio", ratios))


def _each(flag, values):
    return [{flag: value} for value in values]


def _cross(*axes):
    """Returns every combination of one dict from each axis, the last axis fastest."""
    combined = [{}]
    for axis in axes:
        combined = [{**flags, **more} for flags in combined for more in axis]
    return combined
