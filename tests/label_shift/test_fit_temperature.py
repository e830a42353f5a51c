import numpy as np
import pytest
from oracles import cross_entropy
from shifted_gaussians import bayes_posteriors, gaussian_sample, long_tail

from lade_tf.label_shift import fit_temperature

NUM_CLASSES = 4
TRAINING = long_tail(NUM_CLASSES, 20)


def overconfident_sample(share, size, temperature=2.5, source_prior=TRAINING, seed=0):
    """Returns logits that carry `source_prior`, right but for a temperature, and labels."""
    x, labels = gaussian_sample(share, size, np.random.default_rng(seed), separation=1.5)
    return temperature * np.log(bayes_posteriors(x, source_prior, 1.5)), labels


@pytest.mark.parametrize("share", [TRAINING, np.full(NUM_CLASSES, 1 / NUM_CLASSES), TRAINING[::-1]])
def test_a_known_temperature_is_found_from_a_sample_of_any_label_distribution(share):
    logits, labels = overconfident_sample(share, 20_000)
    assert fit_temperature(logits, labels, TRAINING) == pytest.approx(2.5, abs=0.1)


def test_disentangled_logits_carry_no_prior():
    uniform = np.full(NUM_CLASSES, 1 / NUM_CLASSES)
    logits, labels = overconfident_sample(TRAINING, 20_000, source_prior=uniform)
    assert fit_temperature(logits, labels) == pytest.approx(2.5, abs=0.1)
    same = fit_temperature(logits, labels, uniform)
    assert fit_temperature(logits, labels) == pytest.approx(same)


def test_it_minimises_the_loss_at_the_shares_of_the_sample():
    logits, labels = overconfident_sample(TRAINING, 300)
    shift = np.log(np.bincount(labels) / len(labels)) - np.log(TRAINING)

    def loss(temperature):
        return cross_entropy(logits / temperature, labels, shift).mean()

    fitted = fit_temperature(logits, labels, TRAINING)
    grid = np.linspace(0.9, 1.1, 201) * fitted
    assert loss(fitted) <= min(map(loss, grid))
    step = 1e-4 * fitted
    slope = (loss(fitted + step) - loss(fitted - step)) / (2 * step)
    assert slope == pytest.approx(0, abs=1e-7)


def test_logits_twice_as_large_have_twice_the_temperature():
    logits, labels = overconfident_sample(TRAINING, 500)
    fitted = fit_temperature(logits, labels, TRAINING)
    assert fit_temperature(2 * logits, labels, TRAINING) == pytest.approx(2 * fitted)
    single = fit_temperature(logits.astype(np.float32), labels, TRAINING)
    assert single == pytest.approx(fitted, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 0.005, 150, 1e4, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_temperature_follows_any_scale_of_the_logits(scale, dtype):
    logits, labels = (part[:200] for part in overconfident_sample(TRAINING, 500))
    fitted = fit_temperature(logits, labels, TRAINING)
    scaled = fit_temperature((logits * scale).astype(dtype), labels, TRAINING)
    assert scaled == pytest.approx(scale * fitted, rel=1e-4 if dtype == np.float32 else 1e-8)


def test_an_offset_of_each_row_says_nothing():
    logits, labels = overconfident_sample(TRAINING, 300)
    offset = np.random.default_rng(0).normal(0, 1e6, (300, 1))
    expected = fit_temperature(logits, labels, TRAINING)
    assert fit_temperature(logits + offset, labels, TRAINING) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [2, 64, 2048])
def test_logits_of_a_nearest_class_mean_have_the_temperature_of_their_noise(size):
    # −½·squared distance in many dimensions, of classes that overlap: T is the noise's variance.
    rng = np.random.default_rng(0)
    labels, noise = rng.integers(3, size=1000), 30.0
    means = rng.normal(size=(3, size)) * 40 / np.sqrt(size)
    points = means[labels] + rng.normal(0, noise, (1000, size))
    logits = points @ means.T - 0.5 * np.square(means).sum(axis=1)
    logits -= 0.5 * np.square(points).sum(axis=1, keepdims=True)
    assert fit_temperature(logits, labels) == pytest.approx(noise**2, rel=0.25)


def test_one_error_is_enough_and_ties_are_none():
    logits = np.tile(np.eye(3), (20, 1))
    labels = np.tile(np.arange(3), 20)
    logits[0, :2] = 1.0  # the label is among the highest
    with pytest.raises(ValueError, match="all 60 without an error"):
        fit_temperature(logits, labels)
    logits[0, 1] = np.nextafter(1.0, 2)
    logits[1, 2] = 0.999  # right, by little: the likelihood rises until far below T = 0.01
    assert 0 < fit_temperature(logits, labels) < 1e-3


def test_only_classes_of_the_sample_can_be_confused():
    logits = np.tile([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]], (4, 1))
    with pytest.raises(ValueError, match="all 8 without an error"):
        fit_temperature(logits, [0, 1] * 4)


@pytest.mark.parametrize("row", [[0.0, 0, 0], [1e8, 1e8, 1e8], [3.0, 1, 2]])
def test_logits_that_are_the_same_for_all_tell_nothing(row):
    for scale in (1e-6, 1, 1e6):
        with pytest.raises(ValueError, match="no better than chance"):
            fit_temperature(scale * np.tile(row, (300, 1)), np.arange(300) % 3)


def test_a_class_without_samples_takes_no_part():
    logits, labels = overconfident_sample(np.array([0.5, 0.3, 0.2, 0.0]), 2000)
    fitted = fit_temperature(logits, labels, TRAINING)
    others = fit_temperature(logits[:, :3], labels, TRAINING[:3] / TRAINING[:3].sum())
    assert fitted == pytest.approx(others)


@pytest.mark.parametrize(
    ("sign", "message"),
    [(1, "they tell all 4 without an error"), (-1, "no better than chance")],
)
def test_logits_without_an_optimum_are_refused(sign, message):
    labels = np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match=message):
        fit_temperature(sign * np.eye(3)[labels], labels)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": np.zeros(4)}, r"logits must be floats \[samples, classes\]; got float64 \[4\]"),
        ({"logits": np.ones([4, 3], int)}, "logits must be floats"),
        ({"logits": np.full([4, 3], np.inf)}, "logits must be finite"),
        ({"labels": [0, 1, 2]}, "labels must hold 4 samples; got 3"),
        ({"labels": [0, 1, 2, 3]}, r"labels must be in 0\.\.2"),
        ({"labels": [1, 1, 1, 1]}, "labels must be of at least two classes; all are 1"),
        ({"source_prior": [0.5, 0.5]}, "source_prior must have 3 entries"),
        ({"source_prior": [0.5, 0.5, 0.0]}, "source_prior must hold probabilities > 0"),
    ],
)
def test_bad_input_is_refused(changed, message):
    arguments = {"logits": np.eye(4, 3), "labels": [0, 1, 2, 0], **changed}
    with pytest.raises(ValueError, match=message):
        fit_temperature(**arguments)
