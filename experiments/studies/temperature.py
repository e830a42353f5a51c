"""What a temperature is worth: calibration and accuracy with and without it, on saved logits.

    cd experiments && python -m studies.temperature --runs=RUN[,RUN...] --output=FILE.json

The balanced test set is split into two halves, class by class: from one a labelled sample is drawn,
to which the temperature is fitted as by `AdaptedModel.calibrate`; on the other half the model, told
each prior, is measured in expectation under it. Then they change places. Several seeds draw split
and sample anew.
"""

import dataclasses
import time

import numpy as np
from absl import flags
from reproduction import cli, finished_runs, provenance

from lade_tf import evaluation, label_shift
from lade_tf.text_tables import align
from studies.halves import split

FLAGS = flags.FLAGS

MEASURED = ("accuracy", "ece", "nll")


def scores(saved, half, temperature, targets):
    """Returns [targets, metrics] of some images, the model told the target it is tested under."""
    scaled = dataclasses.replace(
        saved, logits=saved.logits[half] / np.float32(temperature), labels=saved.labels[half]
    )
    measured = evaluation.evaluate_shifts(scaled, targets)
    return [[measured[target][metric] for metric in MEASURED] for target in targets]


def measure(saved, targets, images, draws):
    """Returns the temperature and {"without", "with": {target: {metric}}}, means over the draws.

    `_sd` are the standard deviations of a sample, None of a single one.
    """
    temperatures, measured = [], {"without": [], "with": []}
    for seed in range(draws):
        halves = split(saved.labels, seed)
        rng = np.random.default_rng(seed)
        for source, half in (halves, halves[::-1]):
            sample = rng.choice(source, images, replace=False)
            labelled = saved.logits[sample], saved.labels[sample]
            temperatures.append(label_shift.fit_temperature(*labelled, saved.source_prior))
            measured["without"].append(scores(saved, half, 1, targets))
            measured["with"].append(scores(saved, half, temperatures[-1], targets))
    by_target = {
        name: {target: _named(values, i) for i, target in enumerate(targets)}
        for name, values in ((name, np.array(values)) for name, values in measured.items())
    }
    mean, sd = _mean_and_sd(np.array(temperatures))
    return {"temperature": mean, "temperature_sd": sd, **by_target}


def _named(values, target):
    pairs = {name: _mean_and_sd(values[:, target, i]) for i, name in enumerate(MEASURED)}
    sds = {f"{name}_sd": sd for name, (_, sd) in pairs.items()}
    return {**{name: mean for name, (mean, _) in pairs.items()}, **sds}


def _mean_and_sd(values):
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def format_table(results, targets):
    """Returns the results as a table: accuracy in %, ECE and NLL."""
    rows = [("", *targets)]
    for run, result in results.items():
        rows.append((run,))
        for name, title in (("without", "1"), ("with", f"{result['temperature']:.2f}")):
            cells = [
                f"{100 * score['accuracy']:.1f}  {score['ece']:.3f}  {score['nll']:.2f}"
                for score in result[name].values()
            ]
            rows.append((f"  temperature {title}", *cells))
    return "\n".join(align(rows))


def check_sample(saved, run):
    """Raises a ValueError if a half of the test set hasn't got --images."""
    smaller = int((np.bincount(saved.labels) // 2).sum())
    if FLAGS.images > smaller:
        raise ValueError(
            f"--images must be at most {smaller}, half of the test set of {run}; got {FLAGS.images}"
        )


def main():
    cli.check_new_file(FLAGS.output)
    for target in FLAGS.targets:
        evaluation.check_prior_name(target)
    loaded = {run.path.name: run.saved for run in map(finished_runs.load_run, FLAGS.runs)}
    for name, saved in loaded.items():
        check_sample(saved, name)
    start = time.monotonic()
    results = {
        name: measure(saved, FLAGS.targets, FLAGS.images, FLAGS.draws)
        for name, saved in loaded.items()
    }
    print("accuracy in %, expected calibration error, negative log-likelihood in nats\n")
    print(format_table(results, FLAGS.targets))
    if FLAGS.output:
        content = {"images": FLAGS.images, "draws": FLAGS.draws, "folds": 2, "results": results}
        provenance.write_measured(FLAGS.output, content, start)


if __name__ == "__main__":
    # Here, so that tests can import this beside another binary.
    flags.DEFINE_list(
        "runs", None, "Finished runs, committed results or run folders.", required=True
    )
    flags.DEFINE_list("targets", ["forward:50", "uniform", "backward:50"], "Priors tested under.")
    flags.DEFINE_integer("images", 500, "Labelled images that it is fitted to.", lower_bound=2)
    flags.DEFINE_integer("draws", 5, "Seeds of split and sample.", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
