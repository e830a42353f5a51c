"""Intervals, shrinking and diagnostics."""

import itertools
import warnings

import numpy as np
import pytest
from shifted_gaussians import bayes_posteriors, gaussian_sample, l1, long_tail, shifted_samples

from lade_tf import label_shift
from lade_tf.label_shift import diagnostics
from lade_tf.label_shift.diagnostics import nearest_mixture
from lade_tf.label_shift.estimate import bootstrap_priors, shrinkage_intensity
from lade_tf.numerics import draw_rows, resample_source

RESAMPLED = [name for name, e in label_shift.ESTIMATORS.items() if not e.has_intervals]
SOURCE, TARGET = long_tail(3, 4), long_tail(3, 4)[::-1]


def samples_of(size=300, seed=0, source=SOURCE, target=TARGET):
    return shifted_samples(source, target, size, seed, separation=2.0)[:3]


def overlapping_samples(size=400, seed=0):
    """A target whose classes lie closer together: no label shift."""
    rng = np.random.default_rng(seed)
    x, labels = gaussian_sample(SOURCE, size, rng, 2.0)
    target_x, _ = gaussian_sample(TARGET, size, rng, 1.2)
    return bayes_posteriors(x, SOURCE, 2.0), labels, bayes_posteriors(target_x, SOURCE, 2.0)


def test_rows_are_drawn_from_their_classes():
    labels = np.array([2, 0, 2, 1, 0, 0])
    rows = draw_rows(labels, [5, 0, 400], np.random.default_rng(0))
    np.testing.assert_array_equal(labels[rows], [0] * 5 + [2] * 400)
    assert set(rows[5:]) == {0, 2} and abs((rows[5:] == 0).sum() - 200) < 50
    rows = draw_rows(np.zeros(10, int), [2000], np.random.default_rng(0))
    assert np.bincount(rows, minlength=10).min() > 150
    source = resample_source(labels, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[source]), np.bincount(labels))


@pytest.mark.filterwarnings("ignore:the target doesn't look")
@pytest.mark.parametrize("method", RESAMPLED)
def test_estimate_is_the_plain_one_with_its_interval(method):
    samples = samples_of()
    result = label_shift.estimate(method, *samples, bootstrap=30, pseudo_count=0)
    np.testing.assert_array_equal(result.prior, getattr(label_shift, method)(*samples))
    assert (result.low < result.prior).all() and (result.prior < result.high).all()
    assert (result.low >= 0).all() and (result.high <= 1).all()
    assert result.shrinkage == 0 and 0 < result.p_value <= 1
    again = label_shift.estimate(method, *samples, bootstrap=30, pseudo_count=0)
    np.testing.assert_array_equal(again.low, result.low)
    assert again.p_value == result.p_value
    other = label_shift.estimate(method, *samples, bootstrap=30, seed=1)
    assert (other.low != result.low).any()


@pytest.mark.filterwarnings("ignore:the target doesn't look")
@pytest.mark.parametrize("method", RESAMPLED)
def test_intervals_narrow_with_confidence_and_sample_size(method):
    def width(size, confidence):
        result = label_shift.estimate(
            method, *samples_of(size), bootstrap=60, confidence=confidence
        )
        return (result.high - result.low).mean()

    wide = width(200, 0.95)
    assert width(200, 0.5) < 0.6 * wide
    assert 0.15 * wide < width(3200, 0.95) < 0.4 * wide


def test_intervals_are_quantiles_of_the_bootstrap():
    samples = samples_of()
    draws = bootstrap_priors("bbse", samples, {}, 40, np.random.default_rng(5))
    assert draws.shape == (40, 3)
    result = label_shift.estimate(
        "bbse", *samples, bootstrap=40, seed=5, confidence=0.8, pseudo_count=0
    )
    np.testing.assert_allclose([result.low, result.high], np.quantile(draws, [0.1, 0.9], axis=0))


@pytest.mark.parametrize("method", RESAMPLED)
def test_no_class_is_left_at_zero_unless_asked_for(method):
    source_probs, labels, target_probs = samples_of(size=60)
    samples = source_probs, labels, target_probs[target_probs.argmax(axis=1) == 2][:12]
    plain = label_shift.estimate(method, *samples, bootstrap=0, pseudo_count=0).prior
    assert plain.min() < 1e-6
    result = label_shift.estimate(method, *samples, bootstrap=0)
    assert result.prior.min() > 0.02 and result.pseudo_count == 1
    if method == "em":
        expected = label_shift.em(*samples, pseudo_count=1)
    else:
        expected = (12 * plain + 1) / (12 + 3)
    np.testing.assert_allclose(result.prior, expected, rtol=1e-12)
    assert result.prior.sum() == pytest.approx(1) and "1 of every class" in result.verdict
    more = label_shift.estimate(method, *samples, bootstrap=0, pseudo_count=3).prior
    assert more.min() > result.prior.min()


@pytest.mark.filterwarnings("ignore:the target doesn't look")
@pytest.mark.parametrize(("size", "confidence"), [(20, 0.95), (300, 0.8)])
def test_an_interval_never_excludes_what_the_sample_may_have_missed(size, confidence):
    source_probs, labels, _ = samples_of()
    target = np.tile([1 - 2e-9, 1e-9, 1e-9], (size, 1))
    samples, options = (source_probs, labels, target), {"bootstrap": 5, "pseudo_count": 0}
    result = label_shift.estimate("em", *samples, confidence=confidence, **options)
    # So often, (1 − high)^n, none of n images is of a class of that share.
    assert result.high[1] == pytest.approx(1 - ((1 - confidence) / 2) ** (1 / size))
    assert result.low[1] < 1e-6 and result.high[0] == pytest.approx(1)


def test_the_target_is_redrawn_at_its_own_size():
    source_probs, labels, target_probs = samples_of(size=600)
    few = target_probs[:50]
    samples = source_probs, labels, few
    draws = bootstrap_priors("bbse", samples, {"soft": True}, 200, np.random.default_rng(0))
    matrix = label_shift.confusion_matrix(source_probs, labels, soft=True)
    expected = np.sqrt(
        np.diag(np.linalg.inv(matrix) @ np.cov(few.T) @ np.linalg.inv(matrix).T) / 50
    )
    assert 0.85 < np.median(draws.std(axis=0) / expected) < 1.3


def test_the_condition_number_is_that_of_the_matrix_that_was_used():
    samples = samples_of()
    hard, soft = (label_shift.condition_number(*samples[:2], soft=soft) for soft in (False, True))
    assert hard != soft
    for method, options, expected in (
        ("em", {}, soft),
        ("bbse", {}, hard),
        ("rlls", {"soft": True}, soft),
    ):
        result = label_shift.estimate(method, *samples, bootstrap=0, **options)
        assert result.condition_number == expected


@pytest.mark.filterwarnings("ignore:the target doesn't look")
@pytest.mark.parametrize("method", ["em", "rlls"])
def test_narrow_intervals_of_a_classifier_that_knows_nothing_are_not_good(method):
    samples = np.full((300, 5), 0.2), np.repeat(np.arange(5), 60), np.full((2000, 5), 0.2)
    result = label_shift.estimate(method, *samples, bootstrap=20)
    assert "Good" not in result.verdict and "hardly tells the classes apart" in result.verdict


def test_shares_that_unseen_images_make_are_not_good():
    result = label_shift.estimate("em", *samples_of(size=400), bootstrap=20, pseudo_count=1e4)
    assert "Good: the shares of 0 of" in result.verdict


def test_the_verdict_says_what_is_good_and_what_is_not():
    many = label_shift.estimate("em", *samples_of(size=2000), bootstrap=20).verdict
    assert "Good: the shares of 3 of 3 classes" in many and "Not good" not in many
    few = label_shift.estimate("em", *samples_of(size=30), bootstrap=20).verdict
    assert "Not good" in few and "30 target images" in few
    none = label_shift.estimate("em", *samples_of(size=30), bootstrap=0).verdict
    assert "bootstrap gives intervals" in none


def test_both_samples_are_redrawn():
    source_probs, labels, target_probs = samples_of()
    same_source = (np.eye(3) * 0.7 + 0.1)[labels]
    same_target = np.tile(source_probs.mean(axis=0), (50, 1))

    def spread(source_probs, target_probs):
        samples = source_probs, labels, target_probs
        draws = bootstrap_priors("bbse", samples, {"soft": True}, 20, np.random.default_rng(0))
        return draws.std(axis=0)

    assert (spread(source_probs, same_target) > 1e-3).all()
    assert (spread(same_source, target_probs) > 1e-3).all()
    assert (spread(same_source, same_target) < 1e-12).all()


def test_no_bootstrap_leaves_out_what_needs_it():
    result = label_shift.estimate("em", *samples_of(), bootstrap=0)
    assert result.low is result.high is result.p_value is result.residual is None
    fit = label_shift.fit_em(*samples_of(), pseudo_count=1)
    assert (result.iterations, result.last_change) == fit[1:]
    assert label_shift.estimate("bbse", *samples_of(), bootstrap=0).iterations is None


def test_options_reach_the_estimator_and_the_bootstrap():
    samples = samples_of()
    result = label_shift.estimate(
        "rlls", *samples, bootstrap=20, regularization=100, soft=True, pseudo_count=0
    )
    source_prior = np.bincount(samples[1]) / len(samples[1])
    np.testing.assert_allclose(result.prior, source_prior)
    np.testing.assert_allclose(result.low, source_prior)
    assert result.condition_number == label_shift.condition_number(*samples[:2], soft=True)


@pytest.mark.filterwarnings("ignore:the target doesn't look")
@pytest.mark.slow
def test_intervals_cover_the_truth():
    covered = []
    for seed in range(100):
        samples = samples_of(size=400, seed=seed)
        result = label_shift.estimate("em", *samples, bootstrap=100, seed=seed, confidence=0.9)
        covered.append((result.low <= TARGET) & (result.high >= TARGET))
    assert 0.82 < np.mean(covered) < 0.97


def test_shrinkage_by_hand():
    draws = np.array([[0.5, 0.5], [0.7, 0.3]])
    # Variances 0.02 and 0.02; squared distance 2 * 0.4**2.
    prior, towards = np.array([0.6, 0.4]), np.array([0.2, 0.8])
    assert shrinkage_intensity(prior, towards, draws) == pytest.approx(0.04 / 0.32)
    assert shrinkage_intensity(prior, prior, draws) == 1
    assert shrinkage_intensity(prior, prior + [0.1, -0.1], draws) == 1


def test_shrinking_moves_towards_the_given_prior():
    samples = samples_of(size=60)
    plain = label_shift.estimate("bbse", *samples, bootstrap=50)
    shrunk = label_shift.estimate("bbse", *samples, bootstrap=50, shrink_to=SOURCE)
    share = shrunk.shrinkage
    assert 0 < share < 1
    np.testing.assert_allclose(shrunk.prior, (1 - share) * plain.prior + share * SOURCE)
    np.testing.assert_array_equal(shrunk.low, plain.low)


@pytest.mark.filterwarnings("ignore:the target doesn't look")
def test_shrinking_helps_where_there_is_no_shift():
    errors = []
    for seed in range(10):
        samples = samples_of(size=50, seed=seed, target=SOURCE)
        result = label_shift.estimate(
            "bbse", *samples, bootstrap=30, shrink_to=SOURCE, pseudo_count=0
        )
        errors.append([l1(result.prior, SOURCE), l1(label_shift.bbse(*samples), SOURCE)])
    shrunk, plain = np.mean(errors, axis=0)
    assert shrunk < 0.6 * plain


def test_condition_number():
    probs, labels, _ = samples_of()
    matrix = label_shift.confusion_matrix(probs, labels)
    singular_values = np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix))
    assert label_shift.condition_number(probs, labels) == pytest.approx(
        singular_values[-1] / singular_values[0]
    )
    assert label_shift.condition_number(np.eye(3), [0, 1, 2]) == pytest.approx(1)
    assert label_shift.condition_number(probs[labels > 0], labels[labels > 0]) == np.inf
    alike = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    assert label_shift.condition_number(alike, [0, 1, 2], soft=True) == np.inf


def test_effective_sample_size_is_that_of_the_weights():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    prior = np.array([0.2, 0.2, 0.6])
    weights = (prior / [0.5, 0.3, 0.2])[labels]
    expected = weights.sum() ** 2 / (weights**2).sum()
    assert label_shift.effective_sample_size(prior, labels) == pytest.approx(expected)
    assert label_shift.effective_sample_size([0.5, 0.3, 0.2], labels) == pytest.approx(100)
    assert label_shift.effective_sample_size([0, 0, 1], labels) == pytest.approx(20)
    assert label_shift.effective_sample_size([0, 0, 0.5, 0.5], labels) == pytest.approx(20)
    assert label_shift.effective_sample_size([0, 0, 0, 1], labels) == 0


def test_nearest_mixture_by_search():
    rng = np.random.default_rng(0)
    means, target = rng.uniform(size=(5, 3)), rng.uniform(size=5)
    grid = [
        np.array([a, b, 100 - a - b]) / 100
        for a, b in itertools.product(range(101), repeat=2)
        if a + b <= 100
    ]
    best = min(np.linalg.norm(means @ q - target) for q in grid)
    mixture, distance = nearest_mixture(means, target)
    assert mixture.min() >= 0 and mixture.sum() == pytest.approx(1)
    assert distance == pytest.approx(np.linalg.norm(means @ mixture - target))
    assert best - 1e-3 < distance <= best


def test_a_mixture_of_the_means_is_found():
    means = np.random.default_rng(1).uniform(size=(6, 3))
    mixture, distance = nearest_mixture(means, means @ [0.2, 0.0, 0.8])
    np.testing.assert_allclose(mixture, [0.2, 0, 0.8], atol=1e-7)
    assert distance < 1e-7


def test_label_shift_passes_and_other_shifts_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = label_shift.label_shift_test(*samples_of(size=2000), resamples=60)
    assert result.p_value > 0.05 and l1(result.mixture, TARGET) < 0.2
    with pytest.warns(UserWarning, match="doesn't look like a label shift"):
        result = label_shift.label_shift_test(*overlapping_samples(), resamples=60)
    assert result.p_value == pytest.approx(1 / 61)
    with pytest.warns(UserWarning, match="doesn't look like a label shift"):
        label_shift.estimate("bbse", *overlapping_samples(), bootstrap=60)


def test_p_values_are_spread_under_label_shift():
    p_values = []
    for seed in range(40):
        samples = samples_of(size=150, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            p_values.append(label_shift.label_shift_test(*samples, resamples=30).p_value)
    # Uniform p-values have mean 1/2 (its standard error is 0.05) and fall under 0.1 one in ten.
    assert 0.3 < np.mean(p_values) < 0.7 and np.mean(np.array(p_values) < 0.1) < 0.3


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_too_few_samples_of_a_class_are_not_judged(kept):
    source_probs, labels, target_probs = samples_of()
    rows = np.r_[np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:kept]]
    samples = source_probs[rows], labels[rows], target_probs
    with pytest.warns(UserWarning, match="wasn't tested: .* at least 3 source samples"):
        result = label_shift.label_shift_test(*samples)
    assert result.p_value is None and result.residual > 0
    with pytest.warns(UserWarning, match="wasn't tested"):
        estimate = label_shift.estimate("rlls", *samples, bootstrap=2)
    assert estimate.p_value is None and "wasn't tested" in estimate.verdict


def test_redrawn_samples_have_the_variance_of_their_class():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2000), 3)
    values = rng.normal(5, 2, (6000, 1))
    stretched = diagnostics._unshrunk(values, labels, 2000)
    means = values.reshape(2000, 3).mean(axis=1)
    within = stretched[:, 0] - means[labels]
    np.testing.assert_allclose(np.bincount(labels, within), 0, atol=1e-12)
    assert np.mean(within**2) == pytest.approx(4, rel=0.05)  # 4 · 2/3 before
    one = diagnostics._unshrunk(np.ones([1, 2]), np.array([0]), 1)
    np.testing.assert_array_equal(one, np.ones([1, 2]))


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [3, 5])
def test_few_source_samples_reject_no_label_shift_too_often(per_class):
    from studies import shift_test

    share = shift_test.rejected(per_class, 0.0, draws=200, resamples=20, seed=0)["rejected"]
    assert share <= 0.1


def test_a_missing_class_can_be_estimated_by_rlls():
    source_probs, labels, target_probs = samples_of()
    kept = labels < 2
    samples = source_probs[kept], labels[kept], target_probs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = label_shift.estimate("rlls", *samples, bootstrap=20)
    assert result.prior[2] == 1 / (300 + 3) and result.condition_number == np.inf
    assert "no source image" in result.verdict and "class 2" in result.verdict
    with pytest.warns(UserWarning, match="1 of 3 classes have no source image"):
        plain = label_shift.estimate("rlls", *samples, bootstrap=0, pseudo_count=0)
    assert plain.prior[2] == 0 and "their share is 0" in plain.verdict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "mlls"}, "method must be one of 'hierarchical', .*'em'.*; got 'mlls'"),
        ({"bootstrap": -1}, "bootstrap must be an integer >= 0"),
        ({"seed": 0.5}, "seed must be an integer >= 0"),
        ({"confidence": 95}, r"confidence must be a number in \(0, 1\); got 95"),
        ({"pseudo_count": -1}, "pseudo_count must be a finite number >= 0"),
        ({"shrink_to": [0.5, 0.5]}, "shrink_to must have 3 entries"),
        ({"shrink_to": SOURCE, "bootstrap": 0}, "bootstrap must be at least 2 to shrink; got 0"),
        ({"target_probs": np.zeros((0, 3))}, "target_probs must hold at least one sample"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    names = ("source_probs", "source_labels", "target_probs")
    given = {"method": "bbse", **dict(zip(names, samples_of(), strict=True)), **arguments}
    with pytest.raises(ValueError, match=message):
        label_shift.estimate(**given)


def test_resamples_must_be_positive():
    with pytest.raises(ValueError, match="resamples must be an integer >= 1"):
        label_shift.label_shift_test(*samples_of(), resamples=0)


def test_residual_is_written_out():
    source_probs, labels, target_probs = samples_of(size=50)

    def describe(probs):
        bins = np.minimum(np.floor(probs.max(axis=1) * 10), 9)
        return np.column_stack([probs, *[bins == k for k in range(10)]])

    target = describe(target_probs)
    scale = np.sqrt(target.var(axis=0) + 1 / 50)
    means = np.stack([describe(source_probs[labels == c]).mean(axis=0) for c in range(3)], axis=1)
    means, center = means / scale[:, np.newaxis], target.mean(axis=0) / scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = label_shift.label_shift_test(source_probs, labels, target_probs, resamples=1)
    assert result.residual == pytest.approx(np.linalg.norm(means @ result.mixture - center))
    assert result.residual == pytest.approx(nearest_mixture(means, center)[1])


@pytest.mark.parametrize(("per_class", "judges"), [(30, False), (100, True)])
def test_few_samples_that_are_all_as_confident_are_not_judged(per_class, judges):
    labels = np.repeat(np.arange(3), per_class)
    probs = np.eye(3)[labels] * 0.97 + 0.01
    if judges:
        result = label_shift.label_shift_test(probs, labels, probs[:50], resamples=19)
        assert result.p_value > 0.05
    else:
        with pytest.warns(UserWarning, match="wasn't tested: .* of different confidence"):
            result = label_shift.label_shift_test(probs, labels, probs[:50], resamples=19)
        assert result.p_value is None
