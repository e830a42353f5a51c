"""The paper's tables from run folders made here, against float64 computations written here."""

import collections
import csv
import io
import json
import pathlib
import re

import numpy as np
import pytest
from binaries import run
from oracles import resampled_interval
from paper import table_formats, tables
from paper.table_formats import Comparison, Figure, Row, Table
from reproduction import finished_runs
from reproduction.config import RunConfig

from lade_tf.evaluation import SavedLogits
from lade_tf.files import write_json

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "third_party/published"
PUBLISHED = json.loads((FOLDER / "lade_cvpr2021.json").read_text())["tables"]
SETTINGS = json.loads((FOLDER / "lade_cvpr2021_settings.json").read_text())["tables"]
COUNTS = np.array([200, 120, 60, 19, 5])
PER_CLASS = 50
LABELS = np.repeat(np.arange(5), PER_CLASS)
TRAIN = COUNTS / COUNTS.sum()
UNIFORM = np.full(5, 0.2)
RATIOS = (50, 25, 10, 5, 2)
REFERENCE = {"loss": "lade", "estimator": "reference"}
PAPER = {"loss": "lade", "estimator": "paper"}
SOFTMAX = {"loss": "softmax"}


def logits_of(key):
    rng = np.random.default_rng(key)
    return (rng.normal(size=(len(LABELS), 5)) + 1.5 * np.eye(5)[LABELS]).astype(np.float32)


def write_run(path, loss, key, labels=LABELS, **overrides):
    """Writes what a table needs of a finished run of CIFAR-100-LT."""
    path.mkdir(parents=True)
    fixed = {"seed": 0, "data_seed": 0, "precision": "float32", "imbalance_ratio": 50.0}
    config = RunConfig.resolve("cifar100_lt", loss, **{**fixed, **overrides})
    write_json(path / "result.json", {"config": config.to_json()})
    source = TRAIN if loss == "softmax" else UNIFORM
    names = np.array(list("abcde"))
    saved = SavedLogits(logits_of(key), labels, COUNTS, source, names)
    saved.save(path / "test_logits.npz")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of runs: two seeds of two methods, one of a third, and some that don't count."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        write_run(folder / f"softmax-{seed}", **SOFTMAX, key=seed, seed=seed)
        write_run(folder / f"below/lade-{seed}", **REFERENCE, key=10 + seed, seed=seed)
    write_run(folder / "lade_paper", **PAPER, key=20, precision="bfloat16")
    write_run(folder / "no_lader", **REFERENCE, key=30, alpha=0.0)
    write_run(folder / "no_remine", **PAPER, key=31, remine_lambda=0.0)
    write_run(folder / "short", **REFERENCE, key=32, epochs=30, imbalance_ratio=100.0)
    write_run(folder / "other_rate", **SOFTMAX, key=33, learning_rate=0.1, seed=2)
    # Seed 0 in float32 counts, but beside a run in bfloat16.
    write_run(folder / "again", **SOFTMAX, key=34, precision="bfloat16")
    write_run(folder / "again-1", **SOFTMAX, key=35, precision="bfloat16", seed=1)
    write_run(folder / "again-lade", **REFERENCE, key=36, precision="bfloat16", seed=1)
    write_run(folder / "softmax-subset", **SOFTMAX, key=40, data_seed=1, precision="bfloat16")
    write_run(folder / "lade-subset", **REFERENCE, key=41, data_seed=1, precision="bfloat16")
    write_run(folder / "lade-both", **REFERENCE, key=42, data_seed=1, seed=1)
    write_run(folder / "paper-both", **PAPER, key=43, data_seed=2, seed=1, precision="bfloat16")
    return folder


@pytest.fixture(scope="module")
def outputs(results):
    """{format: what the binary prints} of all tables."""
    return {
        name: run("tables.py", f"--results={results}", f"--format={name}", cwd=results)
        for name in table_formats.FORMATS
    }


def records_of(text):
    """{(table, row, column): record} of a CSV; epochs and text are left as they are."""
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
    keys = [(row["table"], row["epochs"], row["row"], row["column"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return {(key[0], *key[2:]): row for key, row in zip(keys, rows, strict=True)}


@pytest.fixture(scope="module")
def records(outputs):
    return records_of(outputs["csv"])


def shifted(name):
    direction, _, ratio = name.partition(" ")
    if direction == "uniform":
        return UNIFORM
    counts = np.array([int(PER_CLASS * float(ratio) ** (-rank / 4)) for rank in range(5)])
    counts = counts if direction == "forward" else counts[::-1]
    return counts / counts.sum()


def posteriors(key, source, told):
    logits = logits_of(key).astype(np.float64) - np.log(source) + np.log(told)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def accuracy(probabilities, test):
    right = (probabilities.argmax(axis=1) == LABELS).reshape(5, PER_CLASS)
    return 100 * np.dot(test, right.mean(axis=1))


def calibration_error(confidence, hits):
    bins = np.minimum((confidence * 20).astype(int), 19)
    gaps = [abs((hits - confidence)[bins == b].sum()) for b in range(20)]
    return sum(gaps) / len(confidence)


def calibration(probabilities):
    truth = np.eye(5)[LABELS]
    top = probabilities.argmax(axis=1)
    classwise = [calibration_error(probabilities[:, c], truth[:, c]) for c in range(5)]
    return {
        "accuracy %": 100 * np.mean(top == LABELS),
        "ECE": calibration_error(probabilities.max(axis=1), top == LABELS),
        "classwise ECE": np.mean(classwise),
        "Brier": np.mean(((probabilities - truth) ** 2).sum(axis=1)),
        "NLL": -np.mean(np.log(probabilities[np.arange(len(LABELS)), LABELS])),
    }


def methods_at(test):
    """{row: (keys of its runs, source prior, told prior)} of tables 9 and 10."""
    return {
        "Softmax": ((0, 1), TRAIN, TRAIN),
        "PC Softmax": ((0, 1), TRAIN, test),
        "LADE (reference)": ((10, 11), UNIFORM, test),
        "LADE (paper)": ((20,), UNIFORM, test),
    }


def test_shifted_accuracy_is_the_expectation_as_mean_and_sd_over_seeds(records):
    for name in PUBLISHED["9"]["columns"]:
        test = shifted(name)
        for row, (keys, source, told) in methods_at(test).items():
            record = records["9", row, name]
            values = [accuracy(posteriors(key, source, told), test) for key in keys]
            mean = sum(values) / len(values)
            assert float(record["ours"]) == pytest.approx(mean, rel=1e-5), (row, name)
            assert int(record["seeds"]) == len(keys)
            if len(keys) == 2:
                assert float(record["sd"]) == pytest.approx(
                    abs(values[0] - values[1]) / 2**0.5, rel=1e-4, abs=1e-5
                )
            else:
                assert record["sd"] == ""


def test_calibration_is_that_of_the_probabilities_at_the_uniform_prior(records):
    for row, (keys, source, told) in methods_at(UNIFORM).items():
        reports = [calibration(posteriors(key, source, told)) for key in keys]
        for name in PUBLISHED["10"]["columns"]:
            expected = np.mean([report[name] for report in reports])
            assert float(records["10", row, name]["ours"]) == pytest.approx(expected, rel=1e-4)


def test_the_difference_is_ours_less_the_published_figure(records):
    values = [accuracy(posteriors(key, UNIFORM, UNIFORM), UNIFORM) for key in (10, 11)]
    record = records["2", "LADE (reference)", "50"]
    assert float(record["published"]) == 50.5
    assert float(record["difference"]) == pytest.approx(np.mean(values) - 50.5, rel=1e-4)
    assert records["2", "LADE (paper)", "50"]["published"] == ""
    assert records["2", "LADE (paper)", "50"]["difference"] == ""
    assert records["2", "LADE (paper)", "50"]["seeds"] == "1"


def test_the_ablation_takes_exactly_the_runs_without_a_regulariser(records):
    seeds = {
        (row, column): record["seeds"]
        for (table, row, column), record in records.items()
        if table == "8" and record["seeds"] != "0"
    }
    name = "CIFAR-100-LT (IB 50), LADE"
    assert seeds == {
        (f"{name} (reference)", "LADE"): "2",
        (f"{name} (reference)", "α = 0"): "1",
        (f"{name} (paper)", "LADE"): "1",
        (f"{name} (paper)", "λ = 0"): "1",
        (f"{name} (paper)", "α = 0"): "1",  # the same loss, the same run
    }
    expected = accuracy(posteriors(30, UNIFORM, UNIFORM), UNIFORM)
    record = records["8", f"{name} (reference)", "α = 0"]
    assert float(record["ours"]) == pytest.approx(expected, rel=1e-5)
    assert float(record["published"]) == 49.9
    same = records["8", f"{name} (paper)", "α = 0"]
    assert same["ours"] == record["ours"] and same["published"] == ""


def test_every_published_figure_is_there_and_only_matching_runs_are_ours(outputs):
    rows = list(csv.DictReader(io.StringIO(outputs["csv"])))
    for number, table in PUBLISHED.items():
        shown = [row["published"] for row in rows if row["table"] == number and row["published"]]
        values = [value for row in table["rows"] for value in row["values"]]
        assert [float(text) for text in shown] == values
    run_in = {
        (row["table"], row["column"])
        for row in rows
        if row["seeds"] not in ("0", "") and not row["low"]
    }
    assert {table for table, _ in run_in} == {"2", "8", "9", "10"}
    assert {column for table, column in run_in if table == "2"} == {"50"}
    assert all(row["ours"] == "" for row in rows if row["row"] in ("LDAM", "PC Causal Norm"))


def test_pairs_share_seeds_and_precision_and_differ_by_their_accuracies(records):
    pairs = {key[1:]: value for key, value in records.items() if key[0] == "2" and value["low"]}
    seed0, seed1 = (f"IB 50, data seed 0, seed {seed}" for seed in (0, 1))
    reference, paper = "LADE (reference) − ", "LADE (paper) − "
    subset1, seeds, subsets = "data seed 1, seed 0", "2 training seeds", "2 subsets"
    of_softmax = (seed0, seed1, *(f"IB 50, {text}" for text in (subset1, seeds, subsets)))
    assert set(pairs) == {
        *((f"{reference}{other}", c) for other in ("Softmax", "PC Softmax") for c in of_softmax),
        *((f"{paper}{other}", seed0) for other in ("Softmax", "PC Softmax")),
    }
    assert any(key[0] == "9" and value["low"] for key, value in records.items())
    # The second pair is of two runs in bfloat16, though softmax has one in float32.
    for name, *keys in ((f"{reference}Softmax", seed1, 11, 1), (f"{paper}Softmax", seed0, 20, 34)):
        pair = pairs[name, keys[0]]
        lade, softmax = posteriors(keys[1], UNIFORM, UNIFORM), posteriors(keys[2], TRAIN, TRAIN)
        difference = accuracy(lade, UNIFORM) - accuracy(softmax, UNIFORM)
        assert float(pair["difference"]) == pytest.approx(difference, rel=1e-5)
        low, high = resampled_interval(
            lade.argmax(1) == LABELS, softmax.argmax(1) == LABELS, np.ones(250)
        )
        assert float(pair["low"]) == pytest.approx(100 * low, abs=1)
        assert float(pair["high"]) == pytest.approx(100 * high, abs=1)


def test_several_pairs_give_mean_sd_and_a_paired_t_interval(records, outputs):
    def difference(lade, softmax, told):
        mine, other = posteriors(lade, UNIFORM, UNIFORM), posteriors(softmax, TRAIN, told)
        return accuracy(mine, UNIFORM) - accuracy(other, UNIFORM)

    for other, told in (("Softmax", TRAIN), ("PC Softmax", UNIFORM)):
        for column, keys in (("training seeds", (11, 1)), ("subsets", (41, 40))):
            pair = records["2", f"LADE (reference) − {other}", f"IB 50, 2 {column}"]
            values = [difference(10, 0, told), difference(*keys, told)]
            mean, sd = np.mean(values), abs(values[0] - values[1]) / 2**0.5
            half = 12.7062 * sd / 2**0.5  # Student's t of 1 degree of freedom at 97.5 %
            found = [float(pair[name]) for name in ("difference", "sd", "low", "high")]
            assert found == pytest.approx([mean, sd, mean - half, mean + half], rel=1e-4)
            assert pair["seeds"] == "2"
    # The answer has the means, and single pairs only where there are no others.
    answer = {key[1:]: value for key, value in records.items() if key[0] == "answer"}
    assert set(answer) == {
        ("LADE (paper) − PC Softmax", "IB 50, data seed 0, seed 0"),
        ("LADE (reference) − PC Softmax", "IB 50, 2 training seeds"),
        ("LADE (reference) − PC Softmax", "IB 50, 2 subsets"),
    }
    for key in list(answer)[1:]:
        assert answer[key]["difference"] == records["2", *key]["difference"]
    (text,) = (t for t in outputs["markdown"].split("\n**") if t.startswith("Does the loss"))
    line = next(line for line in text.splitlines() if "2 training seeds" in line)
    values = [float(answer[list(answer)[1]][name]) for name in ("difference", "sd")]
    assert f"| {values[0]:+.1f} ± {values[1]:.1f}".replace("-", "−") in line
    assert "t interval" in text and "bootstrap" in text


def test_other_draws_of_the_subset_are_a_row_of_their_own(records, outputs):
    values = [accuracy(posteriors(key, UNIFORM, UNIFORM), UNIFORM) for key in (10, 41)]
    record = records["2", "LADE (reference), several subsets", "50"]
    assert float(record["ours"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert record["seeds"] == "2" and record["published"] == ""
    assert ("2", "LADE (paper), several subsets", "50") not in records
    assert records["2", "LADE (reference)", "50"]["seeds"] == "2"  # no other subset among them
    table = outputs["markdown"].split("\n**Table 2, paired")[0]
    assert table.count("drawn anew (--data\\_seed)") + table.count("drawn anew (--data_seed)") == 1


def markdown_tables(text):
    """[(caption, rows of cells)] of the Markdown tables in a text."""
    tables = []
    for block in re.split(r"^\*\*(?=\S)", text, flags=re.MULTILINE)[1:]:
        lines = [line for line in block.splitlines() if line.startswith("|")]
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        tables.append((block.splitlines()[0], [[cell.strip() for cell in row] for row in cells]))
    return tables


def test_markdown_has_equal_rows_and_shows_mean_sd_and_seeds(outputs):
    tables = markdown_tables(outputs["markdown"])
    assert len(tables) == len(PUBLISHED) + len(SETTINGS) + 3
    for caption, rows in tables:
        assert len({len(row) for row in rows}) == 1, caption
        assert set(rows[1]) == {"---", "---:"}
    rows = next(rows for caption, rows in tables if caption.startswith("Table 2. "))
    at = next(i for i, row in enumerate(rows) if row[0] == "LADE (reference)")
    first, second = (accuracy(posteriors(key, UNIFORM, UNIFORM), UNIFORM) for key in (10, 11))
    mean, sd = (first + second) / 2, abs(first - second) / 2**0.5
    assert rows[at][1:] == ["paper", "45.4", "50.5", "61.7"]
    assert rows[at + 1] == ["", "ours", "not run", f"{mean:.1f} ± {sd:.1f} (2)", "not run"]
    assert rows[at + 2] == ["", "ours − paper", "", f"{mean - 50.5:+.1f}", ""]
    assert rows[at + 3][:3] == ["LADE (paper)", "ours‡", "not run"]
    assert rows[at + 3][3].endswith(" (1)")
    assert ["LDAM†", "paper", "42.0", "46.6", "58.7"] in rows
    assert rows[rows.index(["LDAM†", "paper", "42.0", "46.6", "58.7"]) + 1][1:] == [
        "ours", "not run", "not run", "not run",
    ]  # fmt: skip


def test_borrowed_figures_and_other_precisions_are_named(outputs, results):
    text = outputs["markdown"]
    assert text.count("\n§ borrowed from Tang et al.") == 1
    assert "\n\\* borrowed from Zhou et al." in text and "| BBN\\* | paper | 69.6 |" in text
    assert "LADE (reference), 180 epochs" in text
    # A mark on the rows that runs in bfloat16 are part of, no names of folders.
    built = tables.build_all(list(tables.TABLES), tables.Results(results))
    marked = [
        (table.number, {row.name for row in table.rows if getattr(row, "own_mark", "")})
        for table in built
        if any(note.startswith("‡") for note in table.notes)
    ]
    softmaxes = {"Softmax", "PC Softmax"}
    subsets = {f"{name}, several subsets" for name in ("LADE (reference)", *softmaxes)}
    pairs = {f"{lade} − {name}" for lade in tables.LADE_ROWS for name in softmaxes}
    assert marked == [
        ("2", {"LADE (paper)", *subsets}),
        ("2", pairs),
        ("8", {"CIFAR-100-LT (IB 50), LADE (paper)"}),
        ("9", {"LADE (paper)"}),
        ("9", pairs),
        ("10", {"LADE (paper)"}),
        ("answer", {pair for pair in pairs if "PC" in pair}),
    ]
    assert "| LADE (paper) | ours‡ | " in text
    assert "LADE (paper) − Softmax‡ | IB 50" in text
    note = "\n‡ With runs in bfloat16; all others were trained in float32."
    assert text.count(note) == text.count("‡ With runs in") == 7
    assert not re.search(r"lade_paper|lade-subset|\(bfloat16\)", text)


def test_a_precision_that_all_runs_share_is_said_once(tmp_path):
    for seed, precision in ((0, "bfloat16"), (1, "bfloat16")):
        write_run(tmp_path / f"{seed}", **SOFTMAX, key=seed, seed=seed, precision=precision)
        write_run(tmp_path / f"lade{seed}", **PAPER, key=seed + 2, seed=seed, precision=precision)
    found = tables.Results(tmp_path)
    for table in (tables.build("2", found), tables.compare("2", found)):
        assert table.notes.count("All runs were trained in bfloat16.") == 1
        assert not any("‡" in cell for line in table.lines() for cell in line)
    write_run(tmp_path / "32", **SOFTMAX, key=0)
    table = tables.build("2", tables.Results(tmp_path))
    marked = [row.name for row in table.rows if row.own_mark]
    assert marked == ["Softmax", "PC Softmax", "LADE (paper)"]  # one of two seeds is enough
    assert "All runs" not in str(table.notes)


def test_latex_is_balanced_and_escaped(outputs):
    text = outputs["latex"]
    assert text.isascii()
    assert not re.search(r"(?<!\\)[%_#]", text)
    plain = re.sub(r"\\[{}$]", "", text)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    begun, ended = (
        collections.Counter(re.findall(rf"\\{word}{{(\w+)}}", text)) for word in ("begin", "end")
    )
    number = len(PUBLISHED) + len(SETTINGS) + 3
    assert begun == ended == {"table": number, "tabular": number}
    tabulars = re.findall(r"\\begin{tabular}{(\w+)}\n(.*?)\\end{tabular}", text, flags=re.DOTALL)
    for alignment, body in tabulars:
        rows = [line for line in body.splitlines() if line != r"\hline"]
        assert all(len(re.findall(r"(?<!\\)&", row)) == len(alignment) - 1 for row in rows)
        assert all(row.endswith(r" \\") for row in rows)
    assert r"LDAM\dag{} & paper & 42.0" in text and r" $\pm$ " in text


def test_what_the_text_formats_must_escape_is_escaped():
    row = Row("a_b | 50%", (Figure(1.0, (3.0, 2.0)),), mark="*")
    table = Table("2", "A & B {~^\\}", ("method", "figures"), ("#$",), (row,))
    latex = table_formats.latex([table])
    assert r"\caption{A \& B \{\textasciitilde{}\textasciicircum{}\textbackslash{}\}}" in latex
    assert r"a\_b | 50\%*" in latex and r"\#\$" in latex and r"2.5 $\pm$ 0.7 (2)" in latex
    assert r"| a_b \| 50%\* | paper | 1.0 |" in table_formats.markdown([table])


@pytest.mark.parametrize(
    ("low", "high", "marked"), [(0.1, 0.9, True), (-0.9, -0.1, True), (-0.1, 0.9, False)]
)
def test_a_difference_is_marked_if_its_interval_excludes_0(low, high, marked):
    line = Comparison("a − b", "seed 0", (low + high) / 2, low, high).lines()[0]
    assert line[2].endswith("*") == marked
    assert line[3] == f"{low:+.1f} to {high:+.1f}".replace("-", "−")
    line = Comparison("a − b", "2 seeds", (low + high) / 2, low, high, sd=0.26, seeds=2).lines()[0]
    assert line[2].endswith(" ± 0.3*" if marked else " ± 0.3")


def test_other_epochs_and_another_ratio_are_said_and_not_compared_where_they_differ(
    results, tmp_path
):
    flags = ("--table=9,2,4", "--epochs=30", "--imbalance_ratio=100", f"--results={results}")
    assert run("tables.py", *flags, "--output=tables.md", cwd=tmp_path) == ""
    (nine, rows), (two, rows_of_two), (four, _) = markdown_tables(
        (tmp_path / "tables.md").read_text()
    )
    assert "imbalance ratio 100 (published for 50 only, left out)" in nine
    assert nine.endswith(" left out). Ours: 30 epochs.**") and "30 epochs; published: 200" in two
    assert "Ours: 30 epochs; published: 90 and 180" in four
    assert {row[1] for row in rows[2:]} == {"ours"}
    expected = accuracy(posteriors(32, UNIFORM, shifted("forward 50")), shifted("forward 50"))
    lade = next(row for row in rows if row[0] == "LADE (reference)")
    assert lade[2] == f"{expected:.1f} (1)"
    assert ["LADE (reference)", "paper", "45.4", "50.5", "61.7"] in rows_of_two
    assert all("(" not in cell for row in rows_of_two for cell in row[3:])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--table=2,12,x",),
            "--table must name some of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, answer; got 12, x",
        ),
        (("--results=missing",), "missing must be a folder with results"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, flags, message):
    errors = run("tables.py", *flags, cwd=tmp_path, fails=True)
    assert errors.splitlines()[-1].startswith(f"tables.py: {message}")
    assert "Traceback" not in errors


def test_csv_and_captions_say_how_long_our_runs_are(results, records, outputs):
    assert records["2", "LADE (reference)", "50"]["our_epochs"] == "200"
    assert records["2", "LADE (reference), several subsets", "50"]["our_epochs"] == "200"
    not_run = [r for r in records.values() if not r["ours"] and not r["low"]]
    assert not_run and not any(r["our_epochs"] for r in not_run)
    assert {r["our_epochs"] for r in records.values() if r["low"]} == {"200"}
    assert {r["epochs"] for r in records.values() if r["table"] == "4"} == {"90", "180"}
    assert "Runs of" not in outputs["markdown"]
    found = tables.Results(results)
    short = records_of(table_formats.csv_text([tables.build("2", found, epochs=30)]))
    assert short["2", "LADE (reference)", "100"]["our_epochs"] == "30"


def test_a_method_and_its_twin_are_one_at_the_uniform_prior(tmp_path):
    for epochs in (200, 30):
        same = {"key": 0, "epochs": epochs}
        write_run(tmp_path / f"lade-{epochs}", **REFERENCE, **same)
        write_run(tmp_path / f"balanced-{epochs}", "balanced_softmax", **same)
    table = tables.compare("9", tables.Results(tmp_path))
    assert [row.name for row in table.rows] == ["LADE (reference) − Balanced Softmax"]
    # Nothing has a star, so no note explains it.
    assert table.notes == (tables.BOOTSTRAP_NOTE,)
    write_run(tmp_path / "softmax", **SOFTMAX, key=1, epochs=30)
    table = tables.compare("9", tables.Results(tmp_path), epochs=30)
    names = ("Balanced Softmax", "Softmax", "PC Softmax")
    assert [row.name for row in table.rows] == [f"LADE (reference) − {name}" for name in names]
    assert table.caption.endswith(" Runs of 30 epochs.")
    assert any(row.excludes_0 for row in table.rows) and tables.STAR_NOTE in table.notes


def test_an_answer_without_runs_is_refused(results, tmp_path):
    flags = ("--table=answer", "--epochs=7", f"--results={results}", "--output=answer.md")
    errors = run("tables.py", *flags, cwd=tmp_path, fails=True)
    message = "tables.py: --table=answer --epochs=7 must have runs to compare; below --results="
    assert errors.splitlines()[-1].startswith(message) and not (tmp_path / "answer.md").exists()


def test_a_half_copied_folder_is_no_run(tmp_path):
    for name in ("whole", "half"):
        write_run(tmp_path / name, **SOFTMAX, key=0)
    (tmp_path / "half" / "result.json").unlink()
    assert [run.path.name for run in finished_runs.find_runs(tmp_path)] == ["whole"]


def test_runs_on_other_test_images_are_not_compared(tmp_path):
    write_run(tmp_path / "softmax", **SOFTMAX, key=0)
    write_run(tmp_path / "lade", **REFERENCE, key=1, labels=LABELS[::-1].copy())
    errors = run("tables.py", "--table=2", "--results=.", cwd=tmp_path, fails=True)
    assert "are compared on the same test images in the same order; their labels differ" in errors
    assert "Traceback" not in errors
