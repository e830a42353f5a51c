"""Prints the paper's tables with the published figures beside ours.

    python experiments/tables.py --table=2,8,9,10,answer --format=markdown --output=tables.md

Ours are computed from the predictions of finished runs below --results: the mean ± standard
deviation over seeds, with the number of seeds in brackets. A run counts for a table if its
configuration is the recipe's of that table (reproduction/recipes.py), whatever its precision. The
paper's LADE is compared with estimator "reference", which made the published figures; estimator
"paper" is a row without a published figure. Shifted test sets are exact expectations.

Runs with --data_seed=0 make a row; those of other draws of the training subset stand in a row of
their own. Below tables 2 and 9 LADE is compared with every other method, run by run. Table "answer"
is what nobody has published: does the loss in the equations beat the one in the released code, and
does either beat PC Softmax by more than the noise? Tables 1 and 7 need no runs; table 1 counts the
lists of the larger data sets in --data_dir.

--imbalance_ratio shows tables 9 and 10 at another ratio, without the published figures; --epochs
shows runs of another length than published.
"""

from absl import flags
from paper import table_formats
from paper.tables import OTHER_RATIO, RESULTS, TABLES, Results, build_all
from reproduction import cli

from lade_tf.files import replacing

FLAGS = flags.FLAGS

flags.DEFINE_list("table", list(TABLES), "Numbers of the paper's tables, or answer.")
flags.DEFINE_enum("format", "markdown", list(table_formats.FORMATS), "How to print them.")
flags.DEFINE_string("results", str(RESULTS), "Folder of finished runs.")
flags.DEFINE_integer("epochs", None, "Epochs of our runs; default the table's.", lower_bound=1)
flags.DEFINE_float("imbalance_ratio", None, "Of tables 9 and 10; default 50.", lower_bound=1)
flags.DEFINE_string("data_dir", None, "Folder of the lists for table 1 (prepare.py).")
flags.DEFINE_string("output", None, "File to write instead of printing; must be new.")


def check_flags():
    """Refuses what can be refused before any work."""
    unknown = sorted(set(FLAGS.table) - set(TABLES))
    if unknown or not FLAGS.table:
        raise ValueError(
            f"--table must name some of {', '.join(TABLES)}; got {', '.join(unknown) or 'none'}"
        )
    if FLAGS.imbalance_ratio is not None and not {*FLAGS.table} & {*OTHER_RATIO}:
        raise ValueError(f"--imbalance_ratio is for tables {' and '.join(OTHER_RATIO)}")
    cli.check_new_file(FLAGS.output)


def main():
    check_flags()
    results = Results(FLAGS.results)
    tables = build_all(FLAGS.table, results, FLAGS.epochs, FLAGS.imbalance_ratio, FLAGS.data_dir)
    if not tables:  # answer alone, which is made of nothing but runs
        length = "" if FLAGS.epochs is None else f" --epochs={FLAGS.epochs}"
        raise ValueError(
            f"--table={','.join(FLAGS.table)}{length} must have runs to compare; below "
            f"--results={FLAGS.results} are none that fit"
        )
    text = table_formats.FORMATS[FLAGS.format](tables)
    if FLAGS.output:
        with replacing(FLAGS.output) as temporary:
            temporary.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    cli.run(main)
