import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lade_tf import plots

COUNTS = np.array([20, 100, 5, 50])
ORDER = [1, 3, 0, 2]


@pytest.fixture
def axes():
    """Axes of a figure that is drawn to the end of the test: what can't be drawn fails."""
    figure = Figure()
    yield figure.subplots()
    figure.canvas.draw()


def random_logits(num_samples=200, num_classes=4, scale=2.0):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=scale, size=(num_samples, num_classes))
    return logits, rng.integers(num_classes, size=num_samples)


def random_probabilities(**kwargs):
    logits, labels = random_logits(**kwargs)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def line(axes, label):
    """Returns the one line of that label."""
    (found,) = [artist for artist in axes.lines if artist.get_label() == label]
    return found


def bars(axes, label):
    """Returns (left edges, bottoms, heights) of the bars of that label."""
    (found,) = [group for group in axes.containers if group.get_label() == label]
    return np.array([[bar.get_x(), bar.get_y(), bar.get_height()] for bar in found]).T


def assert_band(collection, position, low, high):
    """Asserts that a filled band runs along `low` and `high`."""
    vertices = collection.get_paths()[0].vertices
    for x, ends in zip(position, zip(low, high, strict=True), strict=True):
        at_x = vertices[np.isclose(vertices[:, 0], x), 1]
        np.testing.assert_allclose((at_x.min(), at_x.max()), ends)


def test_average_probability_is_the_mean_in_descending_count(axes):
    probabilities, _ = random_probabilities()
    plots.average_probability(axes, probabilities.astype(np.float32), COUNTS)
    mean = [sum(row[c] for row in probabilities) / len(probabilities) for c in ORDER]
    assert line(axes, "mean prediction").get_xdata().tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(line(axes, "mean prediction").get_ydata(), mean, rtol=1e-6)
    np.testing.assert_allclose(
        line(axes, "training prior").get_ydata(), np.array([100, 50, 20, 5]) / 175
    )
    np.testing.assert_allclose(line(axes, "target prior").get_ydata(), [0.25] * 4)
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() and axes.get_ylabel() == "mean probability"


def test_average_probability_beside_another_target_prior(axes):
    plots.average_probability(axes, np.full((2, 4), 0.25), COUNTS, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(line(axes, "target prior").get_ydata(), [0.2, 0.4, 0.1, 0.3])


def test_classes_of_equal_count_keep_their_order(axes):
    probabilities = np.tile(np.arange(1, 401) / 80200, (2, 1))
    plots.average_probability(axes, probabilities, np.tile([3, 7], 200))
    expected = [*probabilities[0, 1::2], *probabilities[0, ::2]]
    np.testing.assert_allclose(line(axes, "mean prediction").get_ydata(), expected)


def test_class_logits_are_means_and_deviations_of_positive_and_negative_samples(axes):
    logits, labels = random_logits()
    plots.class_logits(axes, logits, labels, COUNTS)
    bands = dict(zip(("positive samples", "negative samples"), axes.collections, strict=True))
    for name, positive in (("positive samples", True), ("negative samples", False)):
        mean, deviation = [], []
        for c in ORDER:
            mine = [
                row[c]
                for row, label in zip(logits, labels, strict=True)
                if (label == c) == positive
            ]
            mean.append(sum(mine) / len(mine))
            deviation.append(np.sqrt(sum((value - mean[-1]) ** 2 for value in mine) / len(mine)))
        mean, deviation = np.array(mean), np.array(deviation)
        np.testing.assert_allclose(line(axes, name).get_ydata(), mean)
        assert_band(bands[name], [1, 2, 3, 4], mean - deviation, mean + deviation)
    reference = line(axes, "log C")
    np.testing.assert_allclose(reference.get_ydata(), [np.log(4)] * 2)
    assert reference.get_linestyle() == ":"


def test_a_class_without_samples_leaves_a_gap(axes):
    logits, _ = random_logits(num_samples=6)
    plots.class_logits(axes, logits, [0, 1, 1, 0, 2, 2], COUNTS)
    assert np.isnan(line(axes, "positive samples").get_ydata()).tolist() == [0, 1, 0, 0]
    assert np.isfinite(line(axes, "negative samples").get_ydata()).all()


def looped_bins(probabilities, labels, weight, num_bins):
    """Returns {bin: (weight, accuracy, confidence)} by a loop over the bins with samples."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = {}
    for k in range(num_bins):
        inside = (k / num_bins <= confidence) & (confidence < (k + 1) / num_bins)
        inside |= (k == num_bins - 1) & (confidence == 1)
        if weight[inside].sum() > 0:
            means = [np.average(of[inside], weights=weight[inside]) for of in (correct, confidence)]
            bins[k] = (weight[inside].sum(), *means)
    return bins


@pytest.mark.parametrize(("num_bins", "weighted"), [(20, False), (20, True), (7, True)])
def test_reliability_bars_and_gaps_and_ece(axes, num_bins, weighted):
    probabilities, labels = random_probabilities()
    probabilities[:3] = np.eye(4)[:3]  # confidence of exactly 1
    probabilities[3] = [0.55, 0.15, 0.15, 0.15]  # an edge, were it not for rounding
    rng = np.random.default_rng(1)
    weight = rng.integers(3, size=len(labels)) if weighted else np.ones(len(labels))
    sample_weight = weight if weighted else None
    plots.reliability_diagram(axes, probabilities, labels, num_bins, sample_weight)
    expected = looped_bins(probabilities, labels, weight, num_bins)
    in_bin, accuracy, confidence = np.array(list(expected.values())).T
    left, bottom, height = bars(axes, "accuracy")
    np.testing.assert_allclose(left, np.array(list(expected)) / num_bins)
    np.testing.assert_allclose(bottom, 0)
    np.testing.assert_allclose(height, accuracy)
    left, bottom, height = bars(axes, "gap")
    np.testing.assert_allclose(bottom, accuracy)
    np.testing.assert_allclose(height, confidence - accuracy, atol=1e-12)
    ece = (in_bin * np.abs(accuracy - confidence)).sum() / weight.sum()
    assert [text.get_text() for text in axes.texts] == [f"ECE {ece:.4f}"]
    assert line(axes, "calibrated").get_xydata().tolist() == [[0, 0], [1, 1]]


def test_reliability_has_20_bins_and_none_where_no_sample_is(axes):
    plots.reliability_diagram(axes, [[0.72, 0.28], [0.71, 0.29]], [0, 1])
    left, _, height = bars(axes, "accuracy")
    assert (left.tolist(), height.tolist()) == ([0.7], [0.5])
    assert axes.containers[0][0].get_width() == pytest.approx(0.05)


def test_curves_are_means_with_a_band_where_there_are_runs(axes):
    runs = np.array([[0.5, 0.4, 0.3], [0.6, 0.3, 0.2], [0.7, 0.5, 0.1]])
    plots.accuracy_curves(
        axes, {"one": [0.9, 0.8, 0.7], "none": np.empty((0, 3)), "three": runs}, [5]
    )
    assert [artist.get_label() for artist in axes.lines] == ["one", "three"]
    np.testing.assert_allclose(line(axes, "one").get_ydata(), [0.9, 0.8, 0.7])
    mean = runs.sum(axis=0) / 3
    deviation = np.sqrt(((runs - mean) ** 2).sum(axis=0) / 2)
    np.testing.assert_allclose(line(axes, "three").get_ydata(), mean)
    (band,) = axes.collections
    assert_band(band, [0, 1, 2], mean - deviation, mean + deviation)
    # A method without runs keeps its style for the day it has some.
    assert line(axes, "three").get_color() == plots.CURVE_STYLES[2]["color"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "1", "5"]


def test_curves_cover_the_paper_s_protocol(axes):
    plots.accuracy_curves(axes, {"Softmax": np.linspace(0.6, 0.2, 11)})
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["50", "25", "10", "5", "2", "1", "2", "5", "10", "25", "50"]
    assert "forward" in axes.get_xlabel() and axes.get_ylabel() == "accuracy"


def test_no_two_curves_look_the_same():
    for key in ("color", "marker"):
        assert len({style[key] for style in plots.CURVE_STYLES}) == len(plots.CURVE_STYLES)


def test_prior_bars_show_all_that_is_known(axes):
    estimate, training = np.array([0.5, 0.2, 0.3]), np.array([0.1, 0.6, 0.3])
    low, high = np.array([0.4, 0.15, 0.31]), np.array([0.7, 0.2, 0.4])  # one misses the estimate
    names = ["cat", "dog", "cow"]
    plots.prior_bars(axes, estimate, training, low, high, [0.4, 0.25, 0.35], names)
    order = [1, 2, 0]
    left, bottom, height = bars(axes, "estimate")
    np.testing.assert_allclose(left + 0.4, [1, 2, 3])
    np.testing.assert_allclose(height, estimate[order])
    (stairs,) = [patch for patch in axes.patches if patch.get_label() == "training prior"]
    np.testing.assert_allclose(stairs.get_data().values, training[order])
    np.testing.assert_allclose(stairs.get_data().edges, [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(line(axes, "true prior").get_ydata(), [0.25, 0.35, 0.4])
    (whiskers,) = axes.collections
    ends = [[(1, 0.15), (1, 0.2)], [(2, 0.31), (2, 0.4)], [(3, 0.4), (3, 0.7)]]
    np.testing.assert_allclose(whiskers.get_segments(), ends)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["dog", "cow", "cat"]
    assert axes.get_ylim()[0] == 0 and axes.get_ylabel() == "probability"


def test_a_hundred_classes_are_numbered(axes):
    training = np.geomspace(1, 0.01, 100) / np.geomspace(1, 0.01, 100).sum()
    names = [f"class {c}" for c in range(100)]
    plots.prior_bars(axes, np.full(100, 0.01), training, class_names=names)
    axes.figure.canvas.draw()
    ticks = [tick for tick in axes.get_xticks() if 1 <= tick <= 100]
    assert 3 <= len(ticks) <= 7 and len(bars(axes, "estimate")[0]) == 100
    assert [artist.get_label() for artist in axes.lines] == []
    assert to_hex(axes.containers[0][0].get_facecolor()) == plots.SKY.lower()


UNIFORM = np.full((2, 4), 0.25)
BAD_INPUT = [
    (plots.average_probability, (2 * UNIFORM, COUNTS), "probabilities must sum to 1"),
    (plots.average_probability, (UNIFORM, [1, 2]), "class_counts must hold 4 classes; got 2"),
    (plots.average_probability, (UNIFORM, COUNTS, [0.5, 0.5]), "target_prior must have 4 entries"),
    (plots.class_logits, (np.zeros(3), [0], COUNTS), "logits must have shape .*got shape .3."),
    (plots.class_logits, (np.full((1, 4), np.nan), [0], COUNTS), "logits must be finite"),
    (plots.class_logits, (np.zeros((1, 4)), [4], COUNTS), "labels must be in 0..3"),
    (plots.class_logits, (np.zeros((1, 4)), [3], [1, 2]), "class_counts must hold 4 classes"),
    (plots.reliability_diagram, (UNIFORM, [0]), "labels must hold 2 samples; got 1"),
    (plots.reliability_diagram, (UNIFORM, [0, 1], 0), "num_bins must be an integer >= 1; got 0"),
    (plots.reliability_diagram, (UNIFORM, [0, 1], 5, [0, 0]), "sample_weight must have a positive"),
    (plots.accuracy_curves, ({},), "curves must hold 1 to 8 methods; got 0"),
    (plots.accuracy_curves, ({"a": [0.1]},), "the curve of 'a' must have shape .11. or .runs, 11."),
    (plots.accuracy_curves, ({"a": [0.1, 50, 0.1]}, [2]), "must hold accuracies in 0..1"),
    (plots.accuracy_curves, ({"a": [0.1, np.nan, 0.1]}, [2]), "must hold accuracies in 0..1"),
    (plots.prior_bars, ([0.5, 0.5], [0.2, 0.3, 0.5]), "estimate must have 3 entries"),
    (plots.prior_bars, ([0.5, 0.5], [0.5, 0.6]), "training_prior must sum to 1"),
    (plots.prior_bars, ([0.5, 0.5], [0.5, 0.5], [0, 0]), "low and high must be given together"),
    (plots.prior_bars, ([0.5, 0.5], [0.5, 0.5], [0], [1]), "low must hold 2 finite numbers"),
    (plots.prior_bars, ([0.5, 0.5], [0.5, 0.5], [0, 1], [1, 0.5]), "not so at class 1"),
    (plots.prior_bars, ([1, 0], [0.5, 0.5], None, None, [1]), "true_prior must have 2 entries"),
    (plots.prior_bars, ([1, 0], [0.5, 0.5], None, None, None, ["a"]), "class_names must hold 2"),
]


@pytest.mark.parametrize(("draw", "arguments", "message"), BAD_INPUT)
def test_bad_input_is_refused(axes, draw, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(axes, *arguments)


def test_a_bad_curve_is_refused_before_any_is_drawn(axes):
    with pytest.raises(ValueError):
        plots.accuracy_curves(axes, {"good": [0.1, 0.2, 0.3], "bad": [2]}, [5])
    assert not axes.lines


def test_the_package_imports_without_matplotlib_and_plots_says_how_to_get_it():
    code = """
import sys
sys.modules["matplotlib"] = None
import lade_tf
print("lade_tf.plots" in sys.modules)
try:
    import lade_tf.plots
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    imported, message = result.stdout.splitlines()
    assert imported == "False", result.stderr
    assert message == 'lade_tf.plots needs matplotlib: pip install "lade-tf[plots]"'
