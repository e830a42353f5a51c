"""figures.py runs in processes of its own: its flags are those of other binaries, too."""

import json
import re

import numpy as np
import pytest
from binaries import run
from reproduction.config import RunConfig

from lade_tf.evaluation import SavedLogits
from lade_tf.files import read_json, write_json

COUNTS = np.array([200, 143, 102, 73, 52, 37, 27, 19, 14, 10])
PER_CLASS = 50
PICTURES = (
    "figure2_average_probability",
    "figure3_class_logits",
    "figure6_reliability",
    "accuracy_curves",
)
INSPECT = """
import json, sys
from paper import figures
described = {}
for group, members in figures.find_groups(sys.argv[1], {}).items():
    described[group] = {}
    for name, (_, draw) in figures.FIGURES.items():
        figure = draw(members)
        described[group][name] = figure and {
            axes.get_title(): {
                line.get_label(): list(map(float, line.get_ydata())) for line in axes.lines
            }
            for axes in figure.axes
        }
        captions = described[group].setdefault("captions", [])
        captions.append(figure and figure.get_suptitle())
print("\\n" + json.dumps(described))
"""
COLLECT_ERRORS = """
import json, sys
import figures
from absl.testing import flagsaver

errors = []
for arguments in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        figures.FLAGS(["figures.py", *arguments])
        try:
            figures.main()
        except ValueError as error:
            errors.append(str(error))
print("\\n" + json.dumps(errors))
"""


def make_run(folder, loss, seed=0, dataset="digits_lt", **overrides):
    """Writes what figures.py reads of a finished run; returns its `SavedLogits`."""
    usual = {"seed": seed, "data_seed": 0, "precision": "float32"}
    config = RunConfig.resolve(dataset, loss, **{**usual, **overrides})
    name = "-".join([loss, f"seed{seed}", *(f"{k}{v}" for k, v in overrides.items())])
    path = folder / name
    path.mkdir(parents=True)
    write_json(path / "result.json", {"config": config.to_json()})
    rng = np.random.default_rng([seed, len(name)])
    labels = np.repeat(np.arange(10), PER_CLASS).astype(np.int32)
    logits = rng.normal(size=(len(labels), 10)) + 2 * np.eye(10)[labels]
    source_prior = COUNTS / COUNTS.sum() if loss == "softmax" else np.full(10, 0.1)
    if loss == "softmax":
        logits += np.log(source_prior)
    names = np.array([str(c) for c in range(10)])
    saved = SavedLogits(logits.astype(np.float32), labels, COUNTS, source_prior, names)
    saved.save(path / "test_logits.npz")
    return saved


def run_code(code, argument, cwd):
    """Returns the JSON in the last line that the code prints."""
    path = cwd / "code.py"
    path.write_text(code)
    output = run(str(path), argument, cwd=cwd)
    path.unlink()
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with runs of every method, repeats, another alpha and another number of epochs."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        make_run(folder / "main", "softmax", seed)
    # Seed 0 counts once: in float32, and not on another subset.
    make_run(folder / "again", "softmax", precision="bfloat16")
    make_run(folder / "again", "softmax", data_seed=1)
    make_run(folder / "main", "balanced_softmax")
    make_run(folder / "main", "balanced_softmax", seed=1, precision="bfloat16")
    make_run(folder / "main", "lade")
    make_run(folder / "main", "lade", alpha=0.5)
    make_run(folder / "main", "lade", estimator="reference", learning_rate=0.7)
    make_run(folder / "short", "balanced_softmax", epochs=5)
    make_run(folder / "short", "softmax", epochs=5, precision="bfloat16")
    return folder


@pytest.fixture(scope="module")
def drawn(results, tmp_path_factory):
    """What stands in the figures of `results`: {group: {figure: {panel: {line: y}}}}."""
    return run_code(INSPECT, results, tmp_path_factory.mktemp("code"))


def expected_accuracy(saved, told, test):
    """Σ p_t(c)·acc_c of predictions for the prior `told`, or of the logits as they are."""
    logits = saved.logits.astype(np.float64)
    if told is not None:
        logits = logits - np.log(saved.source_prior) + np.log(told)
    right = logits.argmax(axis=1) == saved.labels
    return sum(test[c] * right[saved.labels == c].mean() for c in range(10))


def protocol():
    """The 11 test priors of section 4.3, from forward 50 to backward 50."""
    ratios = [50, 25, 10, 5, 2, 1]
    profiles = [[int(PER_CLASS * (1 / r) ** (c / 9)) for c in range(10)] for r in ratios]
    profiles += [profile[::-1] for profile in profiles[-2::-1]]
    return [np.array(profile) / sum(profile) for profile in profiles]


def test_runs_of_other_epochs_stand_in_other_figures(drawn):
    assert set(drawn) == {"digits_lt-ib20-60ep", "digits_lt-ib20-5ep"}
    short = drawn["digits_lt-ib20-5ep"]
    assert list(short["2"]) == ["Softmax‡", "PC Softmax‡", "Balanced Softmax"]
    assert set(short["curves"][""]) == {*short["2"], "PC Balanced Softmax"}
    caption = "‡ With runs in bfloat16; all others were trained in float32."
    assert short["captions"] == [caption] * 4
    # Of seed 0, which the panels show, all methods have a run in float32; the curves take more.
    assert drawn["digits_lt-ib20-60ep"]["captions"] == ["", "", "", caption]


def test_a_precision_that_all_runs_share_stands_in_the_caption_alone(tmp_path):
    for loss in ("softmax", "lade"):
        make_run(tmp_path, loss, precision="bfloat16")
    figures = run_code(INSPECT, tmp_path, tmp_path)["digits_lt-ib20-60ep"]
    assert figures["captions"] == ["All runs were trained in bfloat16."] * 4
    titles = [title for name in ("2", "3", "6") for title in figures[name]]
    assert not [text for text in (*titles, *figures["curves"][""]) if "‡" in text or "16" in text]


def test_figures_2_and_6_have_a_panel_for_each_prediction(drawn):
    figures = drawn["digits_lt-ib20-60ep"]
    # On a uniform test set, PC Balanced Softmax is Balanced Softmax; the reference's learning
    # rate isn't the recipe's.
    expected = ["Softmax", "PC Softmax", "Balanced Softmax", "LADE (paper)"]
    assert list(figures["2"]) == expected and list(figures["6"]) == expected


def test_figure_2_tells_pc_softmax_the_uniform_prior_and_shows_the_lowest_seed(drawn, results):
    saved = SavedLogits.load(results / "main" / "softmax-seed0" / "test_logits.npz")
    logits = saved.logits.astype(np.float64)
    shifts = {"Softmax": 0.0, "PC Softmax": np.log(0.1) - np.log(saved.source_prior)}
    for title, shift in shifts.items():
        odds = np.exp(logits + shift)
        mean = (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
        lines = drawn["digits_lt-ib20-60ep"]["2"][title]
        np.testing.assert_allclose(lines["mean prediction"], mean, rtol=1e-5)


def test_figure_3_has_a_panel_for_each_alpha(drawn, results):
    panels = drawn["digits_lt-ib20-60ep"]["3"]
    assert list(panels) == [
        "Softmax",
        "Balanced Softmax (LADE, α = 0)",
        "LADE (paper), α = 0.1",
        "LADE (paper), α = 0.5",
    ]
    saved = SavedLogits.load(results / "main" / "lade-seed0-alpha0.5" / "test_logits.npz")
    means = [saved.logits[saved.labels == c, c].mean() for c in range(10)]
    np.testing.assert_allclose(
        panels["LADE (paper), α = 0.5"]["positive samples"], means, rtol=1e-5
    )


def test_curves_are_the_expected_accuracies_and_the_mean_of_the_runs(drawn, results):
    curves = drawn["digits_lt-ib20-60ep"]["curves"][""]
    assert list(curves) == [
        "Softmax (2 runs)",
        "PC Softmax (2 runs)",
        "Balanced Softmax‡ (2 runs)",
        "PC Balanced Softmax‡ (2 runs)",
        "LADE (paper)",
    ]
    cases = (
        ("Softmax (2 runs)", ("softmax-seed0", "softmax-seed1"), False),
        ("PC Softmax (2 runs)", ("softmax-seed0", "softmax-seed1"), True),
        (
            "Balanced Softmax‡ (2 runs)",
            ("balanced_softmax-seed0", "balanced_softmax-seed1-precisionbfloat16"),
            False,
        ),
        ("LADE (paper)", ("lade-seed0",), True),
    )
    for label, names, told in cases:
        of_runs = [SavedLogits.load(results / "main" / name / "test_logits.npz") for name in names]
        expected = [
            np.mean([expected_accuracy(saved, test if told else None, test) for saved in of_runs])
            for test in protocol()
        ]
        np.testing.assert_allclose(curves[label], expected)


def test_every_figure_is_written_as_png_and_pdf_and_replaced_by_overwrite_only(results, tmp_path):
    flags = (f"--results={results}", "--output_dir=new/figures", "--epochs=60")
    output = run("figures.py", *flags, cwd=tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "new" / "figures").iterdir()}
    assert {path.name for path in files} == {
        f"{picture}_digits_lt-ib20-60ep.{ending}"
        for picture in PICTURES
        for ending in ("png", "pdf")
    }
    for path, content in files.items():
        start = b"\x89PNG" if path.suffix == ".png" else b"%PDF"
        assert content.startswith(start) and len(content) > 5000
    assert "figure 3: no run" not in output
    assert "figure 2: no run of LADE (reference)" in output
    left_out = [line for line in output.splitlines() if "isn't of the published recipe" in line]
    assert len(left_out) == 2  # alpha 0.5 and the learning rate

    curves = tmp_path / "new" / "figures" / "accuracy_curves_digits_lt-ib20-60ep.png"
    curves.write_bytes(b"old")
    flags += ("--figure=curves",)
    errors = run("figures.py", *flags, cwd=tmp_path, fails=True)
    (line,) = [line for line in errors.splitlines() if line.startswith("figures.py:")]
    assert "exists already: give a new file or --overwrite" in line and "Traceback" not in errors
    assert curves.read_bytes() == b"old"
    run("figures.py", *flags, "--overwrite", cwd=tmp_path)
    assert {path: path.read_bytes() for path in files} == files  # the same bytes again


def test_figure_3_misses_the_alphas_of_the_data_set_and_its_suite(tmp_path):
    make_run(tmp_path, "lade", dataset="cifar100_lt")
    make_run(tmp_path, "balanced_softmax", dataset="cifar100_lt")  # α = 0
    output = run("figures.py", "--results=.", "--figure=3", "--output_dir=.", cwd=tmp_path)
    assert re.findall(r"no run with alpha=(.*)", output) == ["0.01", "1"]


def test_data_sets_without_an_imbalance_ratio_are_drawn_too(tmp_path):
    names = {"places_lt": 30, "imagenet_lt": 180, "inaturalist2018": 200, "folder": 30}
    for dataset in names:
        make_run(tmp_path / dataset, "softmax", dataset=dataset)
    run("figures.py", "--results=.", "--figure=curves", "--output_dir=drawn", cwd=tmp_path)
    assert {path.stem for path in (tmp_path / "drawn").iterdir()} == {
        f"accuracy_curves_{dataset}-{epochs}ep" for dataset, epochs in names.items()
    }


def test_runs_from_before_a_recipe_got_a_key_are_drawn_with_later_ones(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "runs", "softmax", seed=seed)
    path = tmp_path / "runs" / "softmax-seed0" / "result.json"
    config = read_json(path)["config"]
    del config["recipe"]
    write_json(path, {"config": config})
    output = run("figures.py", "--results=runs", "--figure=curves", "--output_dir=.", cwd=tmp_path)
    assert "accuracy_curves" in output


def test_bad_input_is_refused_before_anything_is_written(results, tmp_path):
    (tmp_path / "a_file").touch()
    # No recipe was published for this ratio, so nothing says which of the two is meant.
    for alpha in (0.1, 0.2):
        make_run(tmp_path / "unlike", "lade", imbalance_ratio=7.0, alpha=alpha, remine_lambda=0.1)
    make_run(tmp_path / "bare", "softmax")
    config = {"dataset": "digits_lt", "loss": "softmax", "epochs": 3}
    write_json(tmp_path / "bare" / "softmax-seed0" / "result.json", {"config": config})
    (tmp_path / "empty").mkdir()
    cases = {
        "--figure=5": "--figure must be of 2, 3, 6, curves; got '5'",
        "--figure=": "--figure must be of 2, 3, 6, curves; got ''",
        "--dataset=cifar100_lt": "has no finished run of --dataset=cifar100_lt; it has digits",
        "--imbalance_ratio=3": "has no finished run of --imbalance_ratio=3.0; it has digits",
        "--output_dir=a_file": "--output_dir=a_file must be a folder; it is a file",
        "--results=nowhere": "nowhere must be a folder with results",
        "--results=empty": "--results=empty has no finished run; it has none at all",
        "--results=bare": "result.json must hold a run's configuration; it lacks seed",
        "--results=unlike": "differ in alpha: they must lie in different --results",
    }
    usual = [f"--results={results}", "--output_dir=new", "--figure=curves"]
    arguments = json.dumps([[*usual, flag] for flag in cases])
    errors = run_code(COLLECT_ERRORS, arguments, cwd=tmp_path)
    for error, message in zip(errors, cases.values(), strict=True):
        assert message in error and "\n" not in error
    assert not list(tmp_path.glob("new/*"))
