"""bbse, rlls and em against written-out oracles, invariants and known priors."""

import numpy as np
import pytest
import scipy.optimize
from shifted_gaussians import l1, long_tail, shifted_samples

from lade_tf import label_shift, numerics
from lade_tf.label_shift.confusion import class_means
from lade_tf.label_shift.em import em_step, solve_em
from lade_tf.label_shift.rlls import confusion_error_bound, regularized_solution


def bbse_soft(*samples):
    return label_shift.bbse(*samples, soft=True)


def rlls_soft(*samples):
    return label_shift.rlls(*samples, soft=True)


def em_uncalibrated(*samples):
    return label_shift.em(*samples, calibrate=False)


BY_MATRIX = [label_shift.bbse, bbse_soft, label_shift.rlls, rlls_soft]
ESTIMATORS = [*BY_MATRIX, label_shift.em]


def small_samples(size=400, num_classes=4, seed=0):
    source, target = long_tail(num_classes, 4), long_tail(num_classes, 4)[::-1]
    return shifted_samples(source, target, size, seed, separation=2.0)[:3]


def check_recovery(size, ratio, em_bound, matrix_bound, seed=0):
    """Prints and checks the L1 errors on exactly calibrated data, accuracy at least 90 %."""
    source_prior = long_tail(10, ratio)
    target_prior = source_prior[::-1]
    *samples, target_labels = shifted_samples(source_prior, target_prior, size, seed)
    assert (samples[0].argmax(axis=1) == samples[1]).mean() >= 0.9
    assert (samples[2].argmax(axis=1) == target_labels).mean() >= 0.9
    counted = l1(np.bincount(target_labels, minlength=10) / size, target_prior)
    errors = {
        estimator.__name__: float(l1(estimator(*samples), target_prior)) for estimator in ESTIMATORS
    }
    print(f"L1 errors, {size} samples: counting the labels {counted:.4f}", errors)
    assert l1(source_prior, target_prior) > 0.5 and counted < 0.02
    assert errors.pop("em") < em_bound
    assert max(errors.values()) < matrix_bound


def test_priors_are_recovered_on_calibrated_data():
    check_recovery(20_000, 4, em_bound=0.03, matrix_bound=0.06)


@pytest.mark.slow
def test_priors_are_recovered_from_200_000_samples():
    check_recovery(200_000, 10, em_bound=0.02, matrix_bound=0.03)


def test_confusion_matrix_by_loops():
    probs, labels, _ = small_samples(size=60)
    for soft in (False, True):
        expected = np.zeros((4, 4))
        for p, y in zip(probs, labels, strict=True):
            prediction = p if soft else np.eye(4)[p.argmax()]
            expected[:, y] += prediction / (labels == y).sum()
        np.testing.assert_allclose(
            label_shift.confusion_matrix(probs, labels, soft), expected, atol=1e-12
        )


@pytest.mark.parametrize("soft", [False, True])
def test_bbse_solves_the_confusion_system(soft):
    source_probs, labels, target_probs = small_samples()

    def predictions(probs):
        return probs if soft else np.eye(4)[probs.argmax(axis=1)]

    # Lipton et al.: the joint matrix gives the weights, the weights times the source the prior.
    joint = predictions(source_probs).T @ np.eye(4)[labels] / len(labels)
    weights = np.linalg.inv(joint) @ predictions(target_probs).mean(axis=0)
    expected = weights * np.bincount(labels) / len(labels)
    assert expected.min() > 0
    prior = label_shift.bbse(source_probs, labels, target_probs, soft)
    np.testing.assert_allclose(prior, expected, atol=1e-12)


@pytest.mark.parametrize("estimator", BY_MATRIX)
def test_an_estimate_outside_the_simplex_is_projected(estimator):
    source_probs, labels, _ = small_samples()
    # More certain of class 0 than any source sample's mean: only negative shares explain it.
    prior = estimator(source_probs, labels, np.tile([[0.999, 0.001, 0.0, 0.0]], (5, 1)))
    assert prior.min() == 0 and prior.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("penalty", [1e-4, 0.05, 0.2, 0.5])
def test_rlls_solution_is_the_minimum(penalty):
    rng = np.random.default_rng(1)
    matrix, target = np.diag([0.5, 0.3, 0.1]) + 0.02 * rng.normal(size=(3, 3)), rng.normal(size=3)

    def objective(theta):
        return np.linalg.norm(matrix @ theta - target) + penalty * np.linalg.norm(theta)

    solution = regularized_solution(matrix, target, penalty)
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-10, "fatol": 1e-14}
    other = min(
        scipy.optimize.minimize(objective, start, method="Nelder-Mead", options=options).fun
        for start in (solution + 0.1, np.zeros(3), np.linalg.inv(matrix) @ target)
    )
    assert objective(solution) <= other + 1e-9


def test_rlls_solution_of_nothing_is_nothing():
    np.testing.assert_array_equal(regularized_solution(np.eye(3), np.zeros(3), 0.1), np.zeros(3))


def test_rlls_penalty_goes_from_bbse_to_the_source_prior():
    samples = small_samples()
    source_prior = np.bincount(samples[1]) / len(samples[1])
    distances = [
        l1(label_shift.rlls(*samples, regularization=factor), source_prior)
        for factor in (0, 0.1, 0.4, 1, 30)
    ]
    assert distances[0] == pytest.approx(l1(label_shift.bbse(*samples), source_prior), abs=1e-9)
    assert distances == sorted(distances, reverse=True) and distances[2] > distances[3]
    assert distances[-1] == 0


def test_rlls_bound_by_hand():
    assert confusion_error_bound(1000, 10) == pytest.approx(
        3 * (2 * np.log(400) / 3000 + np.sqrt(2 * np.log(400) / 1000))
    )


def test_rlls_is_written_out():
    source_probs, labels, target_probs = small_samples()
    source_prior = np.bincount(labels) / len(labels)
    joint = class_means(source_probs, labels, soft=True) * source_prior
    difference = target_probs.mean(axis=0) - source_probs.mean(axis=0)
    theta = regularized_solution(joint, difference, 0.5 * confusion_error_bound(400, 4))
    prior = label_shift.rlls(source_probs, labels, target_probs, soft=True, regularization=0.5)
    expected = label_shift.project_to_simplex(source_prior * (1 + theta))
    np.testing.assert_allclose(prior, expected, atol=1e-12)


def em_by_loops(posteriors, source_prior, steps):
    """Saerens et al., equation 2.9, one sample after the other."""
    prior = source_prior.copy()
    for _ in range(steps):
        total = np.zeros_like(prior)
        for p in posteriors:
            adapted = p * prior / source_prior
            total += adapted / adapted.sum()
        prior = total / len(posteriors)
    return prior


def test_em_is_the_written_out_iteration():
    source_probs, labels, target_probs = small_samples(size=50)
    source_prior = np.bincount(labels) / len(labels)
    fit = solve_em(source_probs, labels, target_probs, calibrate=False, max_iterations=7)
    expected = em_by_loops(target_probs, source_prior, steps=7)
    assert fit.iterations == 7
    np.testing.assert_allclose(fit.prior, expected, atol=1e-12)


@pytest.mark.parametrize("share", [1e-3, 1e-12, 1e-30, 0.0])
def test_em_step_with_a_rare_class(share):
    posteriors = small_samples(size=50)[2]
    prior = np.array([0.5, 0.3, 0.2 - share, share])
    adapted = posteriors * prior / 0.25
    expected = (adapted / adapted.sum(axis=1, keepdims=True)).mean(axis=0)
    step = em_step(posteriors, np.full(4, 0.25), prior)
    np.testing.assert_allclose(step, expected, rtol=1e-12)


def test_em_runs_on_the_calibrated_posteriors():
    source_probs, labels, target_probs = small_samples()
    sharp_source, sharp_target = (
        p**3 / (p**3).sum(axis=1, keepdims=True) for p in (source_probs, target_probs)
    )
    calibrate = label_shift.fit_bias_corrected_temperature(sharp_source, labels)
    expected = em_uncalibrated(source_probs, labels, calibrate(sharp_target))
    np.testing.assert_allclose(
        label_shift.em(sharp_source, labels, sharp_target), expected, atol=1e-12
    )
    # A map of the same family in front is calibrated away.
    np.testing.assert_allclose(
        label_shift.em(sharp_source, labels, sharp_target),
        label_shift.em(*small_samples()),
        atol=1e-5,
    )


def test_likelihood_never_decreases():
    source_probs, labels, target_probs = small_samples()
    source_prior = np.bincount(labels) / len(labels)
    prior, likelihoods = source_prior, []
    for _ in range(60):
        likelihoods.append(np.log(target_probs @ (prior / source_prior)).mean())
        prior = em_step(target_probs, source_prior, prior)
    assert (np.diff(likelihoods) >= -1e-14).all() and likelihoods[-1] > likelihoods[0] + 0.01


def test_em_ends_at_the_maximum_of_the_likelihood():
    source_probs, labels, target_probs = small_samples()
    source_prior = np.bincount(labels) / len(labels)

    def negative_likelihood(scores):
        prior = np.exp(scores) / np.exp(scores).sum()
        return -np.log(target_probs @ (prior / source_prior)).mean()

    best = scipy.optimize.minimize(negative_likelihood, np.zeros(4), options={"gtol": 1e-10}).x
    fit = label_shift.fit_em(source_probs, labels, target_probs, calibrate=False, tolerance=1e-10)
    np.testing.assert_allclose(fit.prior, np.exp(best) / np.exp(best).sum(), atol=1e-6)
    assert fit.last_change < 1e-10


def test_em_converges_below_its_tolerance():
    samples = small_samples()
    fit = label_shift.fit_em(*samples)
    before = solve_em(*samples, max_iterations=fit.iterations - 1)
    assert fit.last_change < 1e-6 <= before.last_change
    assert fit.last_change == pytest.approx(l1(fit.prior, before.prior), rel=1e-6)


def test_em_warns_where_it_stops_early():
    with pytest.warns(UserWarning, match="hasn't converged.*after 2 iterations"):
        label_shift.em(*small_samples(), max_iterations=2)


def test_em_in_blocks_and_float32(monkeypatch):
    source_probs, labels, target_probs = small_samples()
    expected = label_shift.em(source_probs, labels, target_probs)
    narrow = label_shift.em(*(np.float32(source_probs), labels, np.float32(target_probs)))
    np.testing.assert_allclose(narrow, expected, atol=2e-5)
    assert narrow.dtype == np.float64
    monkeypatch.setattr(numerics, "BLOCK_ENTRIES", 4 * 30)
    in_blocks = label_shift.em(source_probs, labels, target_probs)
    np.testing.assert_allclose(in_blocks, expected, atol=1e-7)


def test_half_precision_posteriors_are_not_summed_in_half_precision():
    source_probs, labels, target_probs = small_samples()
    expected = em_uncalibrated(source_probs, labels, target_probs.astype(np.float16).astype(float))
    half = em_uncalibrated(source_probs, labels, target_probs.astype(np.float16))
    np.testing.assert_allclose(half, expected, atol=2e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_shift_the_estimate_is_the_source_prior(estimator):
    source_probs, labels, _ = small_samples()
    source_prior = np.bincount(labels) / len(labels)
    prior = estimator(source_probs, labels, source_probs)
    np.testing.assert_allclose(prior, source_prior, atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_follow_a_permutation_of_the_classes(estimator):
    source_probs, labels, target_probs = small_samples()
    order = np.array([2, 0, 3, 1])
    permuted = estimator(source_probs[:, order], np.argsort(order)[labels], target_probs[:, order])
    expected = estimator(source_probs, labels, target_probs)[order]
    np.testing.assert_allclose(permuted, expected, atol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_ignore_the_order_of_samples(estimator):
    source_probs, labels, target_probs = small_samples()
    order = np.random.default_rng(3).permutation(len(labels))
    shuffled = estimator(source_probs[order], labels[order], target_probs[order[::-1]])
    expected = estimator(source_probs, labels, target_probs)
    np.testing.assert_allclose(shuffled, expected, atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_are_float64_distributions(estimator):
    prior = estimator(*small_samples())
    assert prior.shape == (4,) and prior.dtype == np.float64
    assert prior.min() >= 0 and prior.sum() == pytest.approx(1, abs=1e-12)


P, Y = np.full((4, 2), 0.5), [0, 1, 0, 1]
BAD_INPUT = {
    "source_probs must be finite; got NaN": ([[np.nan, 1.0]] * 4, Y, P),
    "target_probs must be finite; got NaN": (P, Y, [[np.nan, 1.0]]),
    r"target_probs must lie in \[0, 1\] \(apply softmax": (P, Y, [[3.0, -2.0]]),
    "target_probs must sum to 1": (P, Y, [[0.5, 0.1]]),
    r"source_labels must be in 0\.\.1; got values from 0 to 2": (P, [0, 1, 2, 1], P),
    r"source_labels must be in 0\.\.1; got values from -1": (P, [0, 1, -1, 1], P),
    "source_labels must be integers": (P, [0.0, 1.0, 0.0, 1.0], P),
    "source_labels must hold 4 samples; got 3": (P, [0, 1, 0], P),
    "target_probs must have 2 classes, as source_probs; got 3": (P, Y, np.full((4, 3), 1 / 3)),
    "target_probs must hold at least one sample; got none": (P, Y, np.zeros((0, 2))),
    "target_probs must hold at least one sample": (P, Y, []),
    "source_probs must hold at least one sample": (np.zeros((0, 2)), [], P),
    "target_probs must have shape": (P, Y, [0.5, 0.5]),
}


@pytest.mark.parametrize(
    "function", [label_shift.bbse, label_shift.rlls, label_shift.em, label_shift.label_shift_test]
)
@pytest.mark.parametrize("message", BAD_INPUT)
def test_bad_input_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        function(*BAD_INPUT[message])


def without_class(samples, missing):
    source_probs, labels, target_probs = samples
    return source_probs[labels != missing], labels[labels != missing], target_probs


def test_a_missing_class_makes_bbse_and_em_offer_rlls():
    samples = without_class(small_samples(), 2)
    message = (
        r"source_labels must hold every class; class 2 has no sample, so {}\. label_shift.rlls"
    )
    with pytest.raises(
        ValueError, match=message.format("the confusion matrix of BBSE is singular")
    ):
        label_shift.bbse(*samples)
    with pytest.raises(ValueError, match=message.format("EM can't start from the source prior")):
        label_shift.em(*samples)
    for soft in (False, True):
        prior = label_shift.rlls(*samples, soft=soft)
        assert prior[2] == 0 and prior.sum() == pytest.approx(1, abs=1e-12)
        assert (prior[[0, 1, 3]] > 0).all()


def test_a_class_never_predicted_makes_hard_bbse_singular():
    source_probs, labels, target_probs = small_samples()
    mixed = np.diag([1, 1, 0.3, 1]) + np.outer([0, 0, 0.7, 0], [1, 0, 0, 0])
    samples = source_probs @ mixed, labels, target_probs @ mixed
    hard = class_means(*samples[:2], soft=False)
    assert not hard[2].any()
    with pytest.raises(ValueError, match="rank is 3 of 4; class 2 is never predicted.*rlls.*soft"):
        label_shift.bbse(*samples)
    assert label_shift.bbse(*samples, soft=True)[2] > 0
    assert label_shift.rlls(*samples).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("estimator", "option", "message"),
    [
        (label_shift.rlls, {"regularization": -1}, "regularization must be a finite number >= 0"),
        (label_shift.em, {"tolerance": 0}, "tolerance must be a finite number > 0"),
        (label_shift.em, {"max_iterations": 0}, "max_iterations must be an integer >= 1"),
    ],
)
def test_bad_options_are_refused(estimator, option, message):
    with pytest.raises(ValueError, match=message):
        estimator(*small_samples(), **option)


def test_pseudo_counts_make_em_the_maximum_a_posteriori():
    source_probs, labels, target_probs = small_samples()
    options = {"calibrate": False, "tolerance": 1e-12}
    prior = label_shift.em(source_probs, labels, target_probs, pseudo_count=2.5, **options)
    ratios = target_probs / (np.bincount(labels) / len(labels))

    def log_posterior(q):
        return np.log(ratios @ q).sum() + 2.5 * np.log(q).sum()

    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(size=len(prior)) * 1e-3
        other = prior + step - step.mean()
        assert log_posterior(other) < log_posterior(prior)
    many = label_shift.em(source_probs, labels, target_probs, pseudo_count=1e9)
    np.testing.assert_allclose(many, 1 / len(many), rtol=1e-5)
    with pytest.raises(ValueError, match="pseudo_count must be a finite number >= 0; got -1"):
        label_shift.em(source_probs, labels, target_probs, pseudo_count=-1)
