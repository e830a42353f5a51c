"""Draws the paper's figures from the finished runs below a folder.

    python experiments/figures.py --results=experiments/results --output_dir=figures

    2       mean predicted probability of each class, told the uniform prior where a method is told
    3       logits of each class over positive and negative samples, a panel for each alpha
    6       reliability diagrams (of ImageNet-LT: the paper's figure 4)
    curves  accuracy against the imbalance of the test set (tables 6 and 9)

Each is written as PNG and PDF, once for each group of runs that agree in data set, imbalance ratio
and epochs; the group is in the file's name. Within a group only runs of the published recipe are
drawn (reproduction/recipes.py), figure 3 takes any alpha. As in the tables a training seed counts
once, with data seed 0 and in float32 where that has run; another precision stands in the caption.
Figures 2, 3 and 6 show the run of the lowest seed, the curves the mean and standard deviation over
the seeds.
"""

import itertools
import pathlib

from absl import flags
from paper.figures import FIGURES, GROUP, find_groups, follows_recipe
from reproduction import cli

from lade_tf.files import replacing

FLAGS = flags.FLAGS
PNG_DPI = 150

flags.DEFINE_string("results", None, "Folder with finished runs, at any depth.", required=True)
flags.DEFINE_string("output_dir", None, "Folder to write to; made if need be.", required=True)
flags.DEFINE_list("figure", list(FIGURES), f"What to draw: {', '.join(FIGURES)}.")
flags.DEFINE_string("dataset", None, "Only runs on this data set.")
flags.DEFINE_float("imbalance_ratio", None, "Only runs with this imbalance ratio.")
flags.DEFINE_integer("epochs", None, "Only runs of so many epochs.")
flags.DEFINE_bool("overwrite", False, "Replace figures that exist already.")


def outputs(path):
    """Returns {path: options of savefig} of a figure; the same picture gives the same bytes."""
    return {
        path.with_name(f"{path.name}.png"): {"dpi": PNG_DPI},
        path.with_name(f"{path.name}.pdf"): {"metadata": {"CreationDate": None}},
    }


def check_flags():
    """Refuses what can be refused before any work."""
    unknown = [name for name in FLAGS.figure if name not in FIGURES]
    if unknown or not FLAGS.figure:
        raise ValueError(f"--figure must be of {', '.join(FIGURES)}; got {','.join(unknown)!r}")
    output_dir = pathlib.Path(FLAGS.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"--output_dir={output_dir} must be a folder; it is a file")


def main():
    check_flags()
    groups = find_groups(FLAGS.results, {name: FLAGS[name].value for name in GROUP})
    output_dir = pathlib.Path(FLAGS.output_dir)
    drawings = {
        output_dir / f"{FIGURES[name][0]}_{group}": (FIGURES[name][1], members)
        for group, members in groups.items()
        for name in FLAGS.figure
    }
    for file in (file for path in drawings for file in outputs(path)):
        cli.check_new(file, overwrite=FLAGS.overwrite)
    output_dir.mkdir(parents=True, exist_ok=True)
    for run in itertools.chain(*groups.values()):
        if not follows_recipe(run):
            print(f"{run.path} isn't of the published recipe: at most figure 3 shows it")
    for path, (draw, members) in drawings.items():
        figure = draw(members)
        if figure is None:
            print(f"{path.name}: nothing to draw")
            continue
        for file, options in outputs(path).items():
            with replacing(file) as temporary:
                figure.savefig(temporary, **options)
            print(f"wrote {file}")


if __name__ == "__main__":
    cli.run(main)
