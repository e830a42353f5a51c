"""What an estimated label distribution is worth: known, estimated or none, on saved logits.

    cd experiments && python -m studies.unknown_prior --runs=RUN[,RUN...] --output=FILE.json

Every draw splits the test set into two halves. From one come the labelled images, alike of every
class as far as that goes; from the other the target images, without replacement and without their
labels. The other half also scores: the accuracy is the expectation over it under the label
distribution that was drawn from. "known" is told that one; a share that the half has too few images
for is lowered to what it has.

An estimator that refuses a draw (BBSE where its matrix is singular) leaves the uniform prior, as
its user would; `fell_back` counts those. `harm` is how often an estimate is more than half a point
worse than keeping the uniform prior. Seconds are those of all but the calibration, which the
methods of one kind share.
"""

import dataclasses
import time
import warnings

import numpy as np
from absl import flags
from reproduction import cli, finished_runs, provenance

from lade_tf import evaluation, label_shift, priors
from lade_tf.text_tables import align
from studies import quantification_peers
from studies.cifar100_superclasses import SUPERCLASSES

FLAGS = flags.FLAGS

HARM = 0.005
DISTRIBUTIONS = (*evaluation.SHIFTS, "Dirichlet(1)", "Dirichlet(.3)", "Dirichlet(.1)")
DISTRIBUTIONS += ("one class × 10", "training prior permuted", "half of the classes absent")
OF_SUPERCLASSES = ("super-classes × 10", "super-classes ÷ 10")


def draw_prior(name, counts, rng):
    """Returns the prior [classes] of a kind of label distribution, drawn anew where it is random.

    Ratios are those of real numbers, r^(-i/(C-1)) in the order of the training counts.
    """
    num_classes = len(counts)
    uniform = priors.uniform_prior(num_classes)
    kind, _, value = name.partition(":")
    if kind in priors.DIRECTIONS:
        order = np.argsort(-counts, kind="stable")
        places = np.arange(num_classes) / (num_classes - 1)
        prior = np.empty(num_classes)
        prior[order] = float(value) ** -(places if kind == "forward" else places[::-1])
    elif name.startswith("Dirichlet"):
        prior = rng.dirichlet(np.full(num_classes, float(name[10:-1])))
    elif name == "training prior permuted":
        prior = rng.permutation(counts / counts.sum())
    else:
        prior = uniform.copy()
        if name == "one class × 10":
            prior[rng.integers(num_classes)] *= 10
        elif name == "half of the classes absent":
            prior[rng.permutation(num_classes)[: num_classes // 2]] = 0
        elif name in OF_SUPERCLASSES:
            chosen = np.isin(SUPERCLASSES, rng.permutation(20)[:5])
            prior[chosen] *= 10.0 if "×" in name else 0.1
        elif name != "uniform":
            raise ValueError(f"name must be one of {', '.join(DISTRIBUTIONS)}; got {name!r}")
    return prior / prior.sum()


def feasible(prior, size, available):
    """Returns the prior of a target set of `size` images of which no class has too few.

    Shares above what is there are cut to that, the others keep their ratios.
    """
    limit, prior = available / size, prior.copy()
    capped = np.zeros(len(prior), bool)
    while np.any(too_many := ~capped & (prior > limit * (1 + 1e-9))):
        capped |= too_many
        free = prior[~capped].sum()
        prior[capped] = limit[capped]
        if free == 0 or capped.all():
            break
        prior[~capped] *= (1 - prior[capped].sum()) / free
    return prior / prior.sum()


def exponent_of(prior, training_prior):
    """Returns the a of a prior on the curve π^a, NaN of one that lies off it."""
    x = np.log(training_prior) - np.log(training_prior).mean()
    if not prior.all():
        return np.nan
    y = np.log(prior) - np.log(prior).mean()
    exponent = x @ y / (x @ x)
    return exponent if np.abs(y - exponent * x).max() < 0.1 else np.nan


def draw_target(labels, prior, size, rng):
    """Returns rows of about `size` target images without replacement, classes as in `prior`."""
    available = np.bincount(labels, minlength=len(prior))
    counts = np.minimum(rng.multinomial(size, prior), available)
    rows = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(counts)]
    return np.concatenate(rows)


def draw_labelled(labels, size, num_classes, rng):
    """Returns `size` rows, alike of every class as far as that goes."""
    order = rng.permutation(len(labels))
    # The rank of an image in its class: first one of each class, then another.
    ranks = np.empty(len(labels), int)
    for c in range(num_classes):
        mine = order[labels[order] == c]
        ranks[mine] = np.arange(len(mine))
    return order[np.argsort(ranks[order], kind="stable")][:size]


@dataclasses.dataclass
class Sample:
    """A draw: what the estimators see."""

    source: np.ndarray
    labels: np.ndarray
    training_prior: np.ndarray

    def __post_init__(self):
        self.uniform = priors.uniform_prior(len(self.training_prior))
        shared = self.source, self.labels
        self.shrunk = label_shift.fit_shrunk_calibration(*shared, self.training_prior)
        self.of_source = np.bincount(self.labels, minlength=len(self.uniform)) / len(self.labels)
        self.free = None
        if self.of_source.all():
            self.free = label_shift.fit_bias_corrected_temperature(*shared)

    def em(self, target, pseudo_count):
        if self.free is None:
            raise ValueError("EM needs a labelled image of every class")
        posteriors = self.free(target)
        options = {"calibrate": False, "pseudo_count": pseudo_count}
        return label_shift.em(self.source, self.labels, posteriors, **options)

    def hierarchical(self, target):
        return label_shift.fit_hierarchical(
            self.source, self.labels, target, self.training_prior, calibration=self.shrunk
        )

    def estimates(self, target, peers):
        """Returns {method: (prior or None, seconds, the HierarchicalFit or None)}."""
        fits = {}

        def hierarchical():
            fits["hierarchical"] = self.hierarchical(target)
            return fits["hierarchical"].prior

        def curve():
            fit = label_shift.prior_curve.fit_curve(
                label_shift.prior_curve.make_curve(self.training_prior),
                self.shrunk.calibrated(self.source),
                self.labels,
                self.shrunk.calibrated(target),
            )
            return fit.prior

        samples = self.source, self.labels, target
        methods = {
            "none: uniform": lambda: self.uniform,
            "none: training": lambda: self.training_prior,
            "EM": lambda: self.em(target, 0),
            "EM, pseudo-count 1": lambda: self.em(target, 1),
            "BBSE, soft": lambda: label_shift.bbse(*samples, soft=True),
            "RLLS": lambda: label_shift.rlls(*samples),
            "curve": curve,
            "hierarchical": hierarchical,
        }
        if peers:
            methods |= quantification_peers.estimators(*samples)
        found = {}
        for name, method in methods.items():
            start = time.perf_counter()
            try:
                prior = method()
            except (ValueError, RuntimeError):
                prior = None
            found[name] = prior, time.perf_counter() - start, fits.get(name)
        return found


def score(log_probs, labels, told, prior):
    """Returns the expected accuracy under `prior` of a model that is told `told`."""
    with np.errstate(divide="ignore"):
        predicted = (log_probs + np.log(told)).argmax(axis=1)
    num_classes = len(prior)
    right = np.bincount(labels[predicted == labels], minlength=num_classes)
    return float(prior @ (right / np.bincount(labels, minlength=num_classes)))


def measure(saved, num_labelled, num_target, names, draws, first_seed, peers):
    """Returns {method: {quantity: [draws, distributions]}} of one setting."""
    uniform = priors.uniform_prior(len(saved.counts))
    probs = evaluation.adapted_probabilities(saved.logits, saved.source_prior, uniform)
    log_probs = np.log(np.maximum(probs, np.finfo(np.float32).tiny))
    training_prior = priors.class_prior(saved.counts)
    results = {}
    for seed in range(first_seed, first_seed + draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(probs))
        source, other = order[: len(order) // 2], order[len(order) // 2 :]
        labels = saved.labels[other]
        rows = source[draw_labelled(saved.labels[source], num_labelled, len(uniform), rng)]
        sample = Sample(probs[rows], saved.labels[rows], training_prior)
        for name in names:
            available = np.bincount(labels, minlength=len(uniform))
            prior = feasible(draw_prior(name, saved.counts, rng), num_target, available)
            target = probs[other[draw_target(labels, prior, num_target, rng)]]
            found = {"known": (prior, 0.0, None), **sample.estimates(target, peers)}
            for method, (told, seconds, fit) in found.items():
                fell_back = told is None
                told = uniform if fell_back else told
                values = {
                    "accuracy": score(log_probs[other], labels, told, prior),
                    "l1": float(np.abs(told - prior).sum()),
                    "seconds": seconds,
                    "fell_back": float(fell_back),
                }
                if fit is not None:
                    values["covered"] = float(np.mean((fit.low <= prior) & (prior <= fit.high)))
                    values["temper"] = fit.temper
                    values["exponent"] = fit.exponent
                    truth = exponent_of(prior, training_prior)
                    inside = fit.exponent_low <= truth <= fit.exponent_high
                    values["exponent_covered"] = np.nan if np.isnan(truth) else float(inside)
                for quantity, value in values.items():
                    table = results.setdefault(method, {}).setdefault(quantity, {})
                    table.setdefault(name, []).append(value)
    return {
        method: {
            quantity: np.array([by_name[n] for n in names]).T for quantity, by_name in q.items()
        }
        for method, q in results.items()
    }


def summary(results):
    """Returns what a setting's draws come to: {method: {quantity: [a number a distribution]}}."""
    uniform, content = results["none: uniform"]["accuracy"], {}
    for method, values in results.items():
        accuracy = values["accuracy"]
        told = {
            "accuracy": accuracy.mean(axis=0),
            "accuracy_sd": accuracy.std(axis=0, ddof=1) if len(accuracy) > 1 else None,
            "l1": values["l1"].mean(axis=0),
            "seconds": values["seconds"].mean(),
            "fell_back": values["fell_back"].mean(axis=0),
            "harm": (accuracy < uniform - HARM).mean(axis=0),
        }
        for quantity in ("covered", "exponent", "exponent_covered", "temper"):
            if quantity in values:
                told[quantity] = values[quantity].mean(axis=0)
        content[method] = {
            quantity: None if value is None else _rounded(value) for quantity, value in told.items()
        }
    return content


def _rounded(values):
    """Returns numbers for JSON, None where there is none."""
    rounded = np.round(values, 5)
    return np.where(np.isnan(rounded), None, rounded).tolist()


def format_table(content, names):
    """Returns a setting's summary as a table: accuracy below known, and its mean and L1 error."""
    rows = [("points below known", *map(_short, names), "mean", "L1", "harm", "seconds")]
    known = 100 * np.array(content["known"]["accuracy"])
    for method, values in content.items():
        gaps = known if method == "known" else known - 100 * np.array(values["accuracy"])
        means = (
            f"{gaps.mean():.2f}",
            f"{np.mean(values['l1']):.3f}",
            f"{np.mean(values['harm']):.2f}",
        )
        rows.append((method, *(f"{gap:.1f}" for gap in gaps), *means, f"{values['seconds']:.3f}"))
    return "\n".join(align(rows))


def _short(name):
    if name.startswith("Dirichlet"):
        return "Dir" + name[9:]
    short = name.replace("forward:", "f").replace("backward:", "b").replace("super-classes", "sup")
    return {"one class × 10": "one×10", "half of the classes absent": "absent"}.get(
        short, short.replace("training prior ", "")
    )


def main():
    cli.check_new_file(FLAGS.output)
    loaded = {run.path.name: run.saved for run in map(finished_runs.load_run, FLAGS.runs)}
    if FLAGS.peers:
        quantification_peers.check_installed()
    start, results, distributions = time.monotonic(), {}, {}
    for run, saved in loaded.items():
        names = DISTRIBUTIONS + OF_SUPERCLASSES * (len(saved.counts) == len(SUPERCLASSES))
        distributions[run] = names
        for num_labelled in map(int, FLAGS.labelled):
            for num_target in map(int, FLAGS.images):
                setting = num_labelled, num_target
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    measured = measure(
                        saved, *setting, names, FLAGS.draws, FLAGS.first_seed, FLAGS.peers
                    )
                content = summary(measured)
                by_setting = results.setdefault(run, {}).setdefault(str(num_labelled), {})
                by_setting[str(num_target)] = content
                print(f"\n{run}: {num_labelled:,} labelled, {num_target:,} target images")
                print(format_table(content, names), flush=True)
    if FLAGS.output:
        content = {"draws": FLAGS.draws, "first_seed": FLAGS.first_seed}
        content |= {"distributions": distributions, "results": results}
        provenance.write_measured(FLAGS.output, content, start)


if __name__ == "__main__":
    # Here, so that tests can import this beside another binary.
    flags.DEFINE_list(
        "runs", None, "Finished runs, committed results or run folders.", required=True
    )
    flags.DEFINE_list("labelled", ["300", "500", "1000", "5000"], "Numbers of labelled images.")
    flags.DEFINE_list("images", ["100", "400", "1100"], "Numbers of target images.")
    flags.DEFINE_integer("draws", 20, "Seeds of split and target set.", lower_bound=1)
    flags.DEFINE_integer("first_seed", 0, "The first of them.", lower_bound=0)
    flags.DEFINE_bool("peers", False, "QuaPy's estimators too (extra bench).")
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
