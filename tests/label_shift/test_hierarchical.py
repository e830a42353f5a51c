"""The hierarchical estimate: its maths against plain NumPy, what it chooses, invariances."""

import dataclasses
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from shifted_gaussians import bayes_posteriors, gaussian_sample, l1, long_tail

from lade_tf import label_shift, priors
from lade_tf.label_shift.hierarchical import CONCENTRATIONS, _Hierarchy
from lade_tf.label_shift.prior_curve import fit_curve, make_curve
from lade_tf.label_shift.shrunk_calibration import (
    BIAS_SCALE,
    BIAS_SCALE_WEIGHT,
    COMMON_SCALE,
    solve_shrunk_calibration,
)

CLASSES = 8
TAIL = long_tail(CLASSES, 20)
UNIFORM = priors.uniform_prior(CLASSES)


def power(prior, exponent):
    return prior**exponent / (prior**exponent).sum()


def samples_of(target, size=1500, labelled=800, seed=0, separation=2.0, source=UNIFORM):
    """A classifier whose probabilities carry the uniform prior, and are those of Bayes' rule."""
    rng = np.random.default_rng(seed)
    x, labels = gaussian_sample(source, labelled, rng, separation)
    target_x, _ = gaussian_sample(target, size, rng, separation)
    source_probs, target_probs = (bayes_posteriors(v, UNIFORM, separation) for v in (x, target_x))
    return source_probs, labels, target_probs


def softmax(scores):
    return scipy.special.softmax(scores, axis=1)


def standardised(prior):
    x = np.log(prior) - np.log(prior).mean()
    return x / x.std()


# --- calibration


def test_the_calibration_is_the_penalised_optimum():
    probs, labels, _ = samples_of(TAIL, labelled=60, source=power(TAIL, 2))
    probs = softmax(1.7 * np.log(probs) + np.linspace(-0.5, 0.5, CLASSES))
    fit = solve_shrunk_calibration(probs, labels, TAIL)
    shares, x = np.bincount(labels, minlength=CLASSES) / len(labels), standardised(TAIL)
    assert shares.min() == 0  # a class without samples is among them

    posteriors = fit.calibrated(probs) * shares
    posteriors /= posteriors.sum(axis=1, keepdims=True)
    expected = (posteriors * (1 - posteriors)).sum(axis=0)
    free = 1 - expected / np.maximum(np.bincount(labels, minlength=CLASSES), 1)

    def loss(parameters):
        slope, by_prior, tau, biases = *parameters[:3], parameters[3:]
        with np.errstate(divide="ignore"):
            scores = (slope + by_prior * x) * np.log(probs) + tau * x + biases + np.log(shares)
        likelihood = -np.log(softmax(scores)[np.arange(len(labels)), labels]).sum()
        common = ((slope - 1) ** 2 + by_prior**2 + tau**2) / COMMON_SCALE**2
        return likelihood + (common + free @ biases**2 / fit.bias_scale**2) / 2

    found = np.concatenate([[fit.slope, fit.slope_by_prior, fit.tau], fit.biases])
    gradient = scipy.optimize.approx_fprime(found, loss, 1e-6)
    # The last update of σ moves the optimum by less than a tenth of a standard error.
    assert np.abs(gradient[3:] * np.sqrt(np.diag(fit.covariance))).max() < 0.1
    assert fit.biases[shares == 0] == pytest.approx(0, abs=1e-8)
    posteriors = softmax(
        (fit.slope + fit.slope_by_prior * x) * np.log(probs) + fit.tau * x + fit.biases
    )
    np.testing.assert_allclose(fit.calibrated(probs), posteriors, rtol=1e-12)


def test_the_scale_of_biases_is_a_fixed_point_and_follows_the_data():
    rng = np.random.default_rng(1)
    probs, labels, _ = samples_of(TAIL, labelled=6000)
    scales = []
    for true_scale in (0.0, 1.0):
        distorted = softmax(np.log(probs) - true_scale * rng.normal(size=CLASSES))
        fit = solve_shrunk_calibration(distorted, labels, TAIL)
        scales.append(fit.bias_scale)
        total = fit.biases @ fit.biases + np.trace(fit.covariance)
        expected = (total + BIAS_SCALE_WEIGHT * BIAS_SCALE**2) / (CLASSES + BIAS_SCALE_WEIGHT)
        assert fit.bias_scale**2 == pytest.approx(expected, rel=0.02)
    assert scales[0] < BIAS_SCALE < scales[1]


def test_the_covariance_is_the_inverse_curvature():
    probs, labels, _ = samples_of(TAIL, labelled=300)
    fit = solve_shrunk_calibration(probs, labels, TAIL)
    shares = np.bincount(labels, minlength=CLASSES) / len(labels)
    moved = fit.calibrated(probs) * shares
    moved /= moved.sum(axis=1, keepdims=True)
    information = np.diag(moved.sum(axis=0)) - moved.T @ moved
    free = 1 - np.diag(information) / np.bincount(labels)
    inverse = np.linalg.inv(information + np.diag(free) / fit.bias_scale**2)
    expected = np.sqrt(np.outer(free, free)) * inverse
    np.testing.assert_allclose(fit.covariance, expected, rtol=0.03, atol=1e-4)


def test_a_sample_without_an_error_keeps_the_calibration_finite():
    probs = np.full((CLASSES, CLASSES), 0.01) + 0.9 * np.eye(CLASSES)
    probs /= probs.sum(axis=1, keepdims=True)
    fit = solve_shrunk_calibration(probs, np.arange(CLASSES), TAIL)
    assert 1 <= fit.slope < 50 and np.isfinite(fit.calibrated(probs)).all()


# --- the curve


@pytest.mark.parametrize("exponent", [1.0, 0.4, -0.8])
def test_the_curves_exponent_is_found(exponent):
    source, labels, target = samples_of(power(TAIL, exponent), size=4000, labelled=4000)
    fit = fit_curve(make_curve(TAIL), source, labels, target)
    error = np.sqrt(fit.covariance[0, 0])
    assert 0.01 < error < 0.1 and abs(fit.coefficients[0] - exponent) < 3 * error
    np.testing.assert_allclose(fit.prior, power(TAIL, fit.coefficients[0]))


def test_the_uncorrected_exponent_is_the_likelihoods_maximum():
    source, labels, target = samples_of(power(TAIL, -0.5))
    fit = fit_curve(make_curve(TAIL), source, labels, target)
    best = scipy.optimize.minimize_scalar(
        lambda a: -np.log(target @ power(TAIL, a)).sum(), bounds=(-2, 2), method="bounded"
    ).x
    assert fit.uncorrected[0] == pytest.approx(best, abs=1e-4)


def test_the_correction_undoes_what_miscalibration_does():
    truth = power(TAIL, -0.7)
    source, labels, target = samples_of(truth, size=20_000, labelled=20_000)
    x = standardised(TAIL)
    source, target = (softmax(0.8 * np.log(p) + 0.3 * x) for p in (source, target))
    fit = fit_curve(make_curve(TAIL), source, labels, target)
    assert abs(fit.uncorrected[0] + 0.7) > 0.2
    assert abs(fit.coefficients[0] + 0.7) < 3 * np.sqrt(fit.covariance[0, 0]) < 0.15


def test_attributes_join_the_curve():
    attribute = np.array([0, 1] * (CLASSES // 2))
    truth = power(TAIL, 0.5) * np.exp(1.2 * attribute)
    samples = samples_of(truth / truth.sum(), size=6000, labelled=4000)
    fit = label_shift.fit_hierarchical(*samples, TAIL, class_attributes=attribute)
    assert fit.exponent == pytest.approx(0.5, abs=0.15)
    weight, error = fit.attribute_weights[0], fit.attribute_errors[0]
    assert abs(weight - 1.2) < 3 * error < 0.4
    assert l1(fit.prior, truth / truth.sum()) < 0.08
    without = label_shift.hierarchical(*samples, TAIL)
    assert l1(fit.prior, truth / truth.sum()) < l1(without, truth / truth.sum())


def test_a_kind_that_is_absent_keeps_its_weight_finite():
    attribute = np.array([0, 1] * (CLASSES // 2))
    truth = UNIFORM * (attribute == 0)
    fit = label_shift.fit_hierarchical(
        *samples_of(truth / truth.sum(), separation=4.0), TAIL, class_attributes=attribute
    )
    assert np.isfinite(fit.attribute_weights).all() and fit.prior[attribute == 1].sum() < 0.05


# --- the hierarchy


def hierarchy_of(target, temper, centre):
    model = _Hierarchy(target, centre, np.zeros((CLASSES, CLASSES)))
    assert model.temper == 1  # nothing is unknown of the calibration
    model.temper = temper
    return model


def test_the_maximum_a_posteriori_is_one():
    _, _, target = samples_of(power(TAIL, -0.5), size=300)
    model = hierarchy_of(target, 0.6, TAIL)
    alpha = 40 * TAIL
    prior = model.maximum_a_posteriori(alpha, TAIL)

    def objective(theta):
        log_prior = theta - scipy.special.logsumexp(theta)
        return -0.6 * np.log(target @ np.exp(log_prior)).sum() - alpha @ log_prior

    gradient = scipy.optimize.approx_fprime(np.log(prior), objective, 1e-6)
    assert np.abs(gradient).max() < 1e-3
    best = scipy.optimize.minimize(objective, np.zeros(CLASSES), tol=1e-10).fun
    assert objective(np.log(prior)) < best + 1e-6
    # The curvature is the second derivative, but for the constant that θ doesn't know.
    step, hessian = 1e-4, np.zeros((CLASSES, CLASSES))
    for k, direction in enumerate(np.eye(CLASSES)):
        ends = [
            scipy.optimize.approx_fprime(np.log(prior) + s * step * direction, objective, 1e-6)
            for s in (1, -1)
        ]
        hessian[k] = (ends[0] - ends[1]) / (2 * step)
    expected = hessian + 1 / CLASSES
    np.testing.assert_allclose(model.curvature(prior, alpha), expected, atol=0.05)


def test_the_evidence_is_the_marginal_likelihoods():
    """Against importance sampling from the Dirichlet itself, where that is easy: two images."""
    _, _, target = samples_of(TAIL, size=6)
    model = hierarchy_of(target, 1.0, TAIL)
    draws = np.random.default_rng(0).dirichlet(80 * TAIL, size=200_000)
    expected = np.log(np.exp(np.log(target @ draws.T).sum(axis=0)).mean())
    found = model._candidate("hierarchy", 80.0, TAIL, TAIL).evidence
    assert found == pytest.approx(expected, abs=0.02)


def test_the_evidence_becomes_the_curves_own():
    _, _, target = samples_of(TAIL, size=200)
    model = hierarchy_of(target, 0.7, UNIFORM)
    found = model._candidate("hierarchy", 1e9, UNIFORM, UNIFORM).evidence
    assert found == pytest.approx(model.temper * model.log_likelihood(UNIFORM), abs=1e-3)


def test_the_temper_is_written_out():
    _, _, target = samples_of(TAIL, size=200)
    root = np.random.default_rng(0).normal(size=(CLASSES, CLASSES)) / 5
    covariance = root @ root.T
    moved = target * TAIL / (target @ TAIL)[:, None]
    by_bias = np.mean([np.diag(r) - np.outer(r, r) for r in moved], axis=0)
    added = len(target) * by_bias @ covariance @ by_bias
    expected = 1 / (1 + np.mean(np.diag(added) / moved.var(axis=0)))
    assert _Hierarchy(target, TAIL, covariance).temper == pytest.approx(expected)


# --- what is chosen


def test_what_is_chosen_and_said():
    kept = {"uniform": UNIFORM, "training": TAIL}
    for name, truth in kept.items():
        fit = label_shift.fit_hierarchical(*samples_of(truth, size=400), TAIL)
        assert fit.chosen == name and name in fit.reason and np.isinf(fit.concentration)
        np.testing.assert_array_equal(fit.prior, truth)
    reverse = power(TAIL, -1)
    fit = label_shift.fit_hierarchical(*samples_of(reverse), TAIL)
    assert fit.chosen == "curve" and f"{fit.exponent:.2f}" in fit.reason
    assert fit.exponent_low < -1 < fit.exponent_high and l1(fit.prior, reverse) < 0.15
    assert fit.evidence["curve"] == 0 > fit.evidence["hierarchy"]
    odd = np.random.default_rng(3).permutation(TAIL)
    fit = label_shift.fit_hierarchical(*samples_of(odd, size=4000, separation=3.0), TAIL)
    assert fit.chosen in ("hierarchy", "free") and max(fit.evidence.values()) > 10
    assert l1(fit.prior, odd) < 0.1 and np.isfinite(fit.concentration)


def test_a_centre_is_kept_or_left():
    last_month = np.random.default_rng(3).permutation(TAIL)
    samples = samples_of(last_month, size=400)
    fit = label_shift.fit_hierarchical(*samples, TAIL, centre=last_month)
    assert fit.chosen == "centre" and "centre is kept" in fit.reason and fit.exponent is None
    np.testing.assert_allclose(fit.prior, last_month)
    samples = samples_of(last_month, size=4000, separation=3.0)
    fit = label_shift.fit_hierarchical(*samples, TAIL, centre=last_month[::-1])
    assert fit.chosen in ("hierarchy", "free") and l1(fit.prior, last_month) < 0.1


def test_unlabelled_images_count_less_the_fewer_labelled_ones_there_are():
    tempers = [
        label_shift.fit_hierarchical(*samples_of(TAIL, size=size, labelled=labelled), TAIL).temper
        for size, labelled in ((100, 2000), (2000, 2000), (2000, 100))
    ]
    assert 1 > tempers[0] > tempers[1] > tempers[2] > 0


@pytest.mark.slow
def test_intervals_cover_the_truth():
    on_curve, off_curve, exponents = [], [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        exponent = rng.uniform(-1, 1)
        truth = power(TAIL, exponent)
        fit = label_shift.fit_hierarchical(*samples_of(truth, 400, 400, seed), TAIL)
        on_curve.append((fit.low <= truth) & (truth <= fit.high))
        exponents.append(fit.exponent_low <= exponent <= fit.exponent_high)
        truth = rng.dirichlet(np.ones(CLASSES))
        fit = label_shift.fit_hierarchical(*samples_of(truth, 400, 400, seed), TAIL)
        off_curve.append((fit.low <= truth) & (truth <= fit.high))
    assert 0.88 < np.mean(exponents) < 1
    assert np.mean(on_curve) > 0.9 and np.mean(off_curve) > 0.8


def test_a_target_that_nothing_places_on_the_curve_stays_near_the_uniform_prior():
    source, labels, target = samples_of(UNIFORM, size=1000, labelled=400)
    two = labels < 2
    fit = label_shift.fit_hierarchical(source[two], labels[two], target, TAIL)
    assert np.isfinite(fit.prior).all() and l1(fit.prior, UNIFORM) < 0.7


# --- invariances


def test_the_order_of_classes_and_of_images_means_nothing():
    source, labels, target = samples_of(long_tail(CLASSES, 5)[::-1], size=500, labelled=200)
    plain = label_shift.fit_hierarchical(source, labels, target, TAIL)
    rng = np.random.default_rng(0)
    rows, others, order = (rng.permutation(n) for n in (200, 500, CLASSES))
    shuffled = label_shift.fit_hierarchical(source[rows], labels[rows], target[others], TAIL)
    np.testing.assert_allclose(shuffled.prior, plain.prior, rtol=1e-5)
    place = np.argsort(order)
    renamed = label_shift.fit_hierarchical(
        source[:, order], place[labels], target[:, order], TAIL[order]
    )
    np.testing.assert_allclose(renamed.prior, plain.prior[order], rtol=1e-5)
    np.testing.assert_allclose(renamed.high, plain.high[order], rtol=1e-4)
    assert renamed.chosen == plain.chosen


def test_probabilities_may_carry_the_training_prior():
    source, labels, target = samples_of(power(TAIL, -0.6))
    carried = [p * TAIL / (p @ TAIL)[:, None] for p in (source, target)]
    plain = label_shift.fit_hierarchical(source, labels, target, TAIL)
    fit = label_shift.fit_hierarchical(carried[0], labels, carried[1], TAIL)
    assert l1(fit.prior, plain.prior) < 0.02


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_classes(dtype):
    truth, training = np.array([0.9, 0.1]), np.array([0.2, 0.8])
    rng = np.random.default_rng(0)
    x, labels = gaussian_sample([0.5, 0.5], 2000, rng, 2.0)
    target_x, _ = gaussian_sample(truth, 2000, rng, 2.0)
    source, target = (
        bayes_posteriors(v, np.full(2, 0.5), 2.0).astype(dtype) for v in (x, target_x)
    )
    fit = label_shift.fit_hierarchical(source, labels, target, training)
    assert fit.low[1] < 0.1 < fit.high[1] and l1(fit.prior, truth) < 0.1
    uniform = label_shift.fit_hierarchical(source, labels, target, [0.5, 0.5])
    assert uniform.exponent is None and l1(uniform.prior, truth) < 0.1


def test_a_class_without_source_images_keeps_a_share():
    source, labels, target = samples_of(UNIFORM)
    kept = labels < CLASSES - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate = label_shift.estimate(
            "hierarchical", source[kept], labels[kept], target, bootstrap=0, training_prior=TAIL
        )
    assert 0.05 < estimate.prior[-1] < 0.25 and "rests on the classifier" in estimate.verdict


def test_without_a_training_prior_the_source_is_the_curve():
    samples = samples_of(TAIL, source=TAIL)
    counts = np.bincount(samples[1], minlength=CLASSES) + 1
    np.testing.assert_array_equal(
        label_shift.hierarchical(*samples),
        label_shift.hierarchical(*samples, counts / counts.sum()),
    )


def test_one_target_image_and_a_classifier_that_knows_nothing_change_nothing():
    source, labels, target = samples_of(UNIFORM)
    fit = label_shift.fit_hierarchical(source, labels, target[:1], TAIL)
    assert fit.chosen in ("uniform", "training") and fit.exponent_high - fit.exponent_low > 2
    flat = np.full((800, CLASSES), 1 / CLASSES)
    fit = label_shift.fit_hierarchical(flat, labels, flat, TAIL)
    assert np.isfinite(fit.prior).all() and fit.prior.sum() == pytest.approx(1)
    assert fit.chosen in ("uniform", "training") and fit.high.max() == 1


@pytest.mark.parametrize(
    "num_classes",
    [pytest.param(1000, marks=pytest.mark.slow), pytest.param(8142, marks=pytest.mark.nightly)],
)
def test_thousands_of_classes(num_classes):
    rng = np.random.default_rng(0)
    labels = np.arange(num_classes)
    probs = np.full((num_classes, num_classes), 0.4 / num_classes, np.float32)
    probs[labels, rng.permutation(num_classes)] += 0.2
    probs[labels, labels] += 0.4
    training = long_tail(num_classes, 500)
    target = probs[rng.choice(num_classes, 3000, p=training)]
    fit = label_shift.fit_hierarchical(probs, labels, target, training)
    assert fit.exponent == pytest.approx(1, abs=0.3) and np.isfinite(fit.high).all()


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training_prior": [1.0]}, "training_prior must have 8 entries"),
        ({"training_prior": np.eye(CLASSES)[0]}, "training_prior .*0"),
        ({"centre": np.eye(CLASSES)[0]}, "centre .*0"),
        ({"class_attributes": np.zeros(3)}, r"class_attributes must be numbers \[8 classes, k\]"),
        ({"class_attributes": ["sea"] * CLASSES}, "class_attributes must be numbers"),
        ({"class_attributes": np.full(CLASSES, np.nan)}, "class_attributes must be finite"),
        ({"class_attributes": np.ones(CLASSES)}, "class_attributes must differ"),
        ({"class_attributes": np.log(TAIL)}, "class_attributes must differ"),
        ({"confidence": 95}, r"confidence must be a number in \(0, 1\)"),
        ({"target_probs": np.zeros((0, CLASSES))}, "target_probs must hold at least one"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    names = ("source_probs", "source_labels", "target_probs")
    samples = dict(zip(names, samples_of(TAIL, 20, 20), strict=True))
    with pytest.raises(ValueError, match=message):
        label_shift.hierarchical(**{**samples, "training_prior": TAIL, **arguments})


def test_what_means_nothing_for_it_is_refused():
    for name, value in (("pseudo_count", 1), ("shrink_to", TAIL), ("soft", True)):
        with pytest.raises(ValueError, match=f"{name} means nothing for method 'hierarchical'"):
            label_shift.estimate("hierarchical", *samples_of(TAIL, 20, 20), **{name: value})


def test_its_verdict_rests_on_its_own_intervals():
    samples = samples_of(TAIL, 4000, 800, separation=0.2)
    estimate = label_shift.estimate("hierarchical", *samples, bootstrap=0, training_prior=TAIL)
    assert estimate.condition_number > 300 and "hardly tells" not in estimate.verdict
    assert "Good: the shares of" in estimate.verdict
    flat = np.full((80, CLASSES), 1 / CLASSES), np.repeat(np.arange(CLASSES), 10)
    nothing = label_shift.estimate("hierarchical", *flat, flat[0], 0, training_prior=TAIL)
    assert "Good: the shares of 0 of 8" in nothing.verdict


def test_it_is_the_default_and_its_estimate_holds_the_fit():
    samples = samples_of(TAIL, 200, 400)
    names = ("source_probs", "source_labels", "target_probs")
    estimate = label_shift.estimate(
        **dict(zip(names, samples, strict=True)), training_prior=TAIL, bootstrap=0
    )
    fit = label_shift.fit_hierarchical(*samples, TAIL)
    for field in dataclasses.fields(fit):
        np.testing.assert_array_equal(getattr(estimate.fit, field.name), getattr(fit, field.name))
    np.testing.assert_array_equal(estimate.low, fit.low)
    assert estimate.verdict.startswith(fit.reason) and estimate.pseudo_count == 0
    assert len(CONCENTRATIONS) > 3


def test_a_calibration_is_fitted_once_for_many():
    samples = samples_of(power(TAIL, 0.5), 200, 400)
    calibration = label_shift.fit_shrunk_calibration(*samples[:2], TAIL)
    again = label_shift.hierarchical(*samples, TAIL, calibration=calibration)
    np.testing.assert_array_equal(again, label_shift.hierarchical(*samples, TAIL))
    two = label_shift.fit_shrunk_calibration([[0.6, 0.4], [0.3, 0.7]], [0, 1], [0.5, 0.5])
    with pytest.raises(ValueError, match="calibration must be of 8 classes"):
        label_shift.hierarchical(*samples, TAIL, calibration=two)
    with pytest.raises(ValueError, match="training_prior must have 8 entries"):
        label_shift.fit_shrunk_calibration(*samples[:2], [0.5, 0.5])


# --- the registry


def test_an_estimator_from_outside(monkeypatch):
    def of_source(source_probs, source_labels, target_probs, weight=1.0):
        return np.full(source_probs.shape[1], weight / source_probs.shape[1])

    monkeypatch.setattr(label_shift.estimators, "ESTIMATORS", dict(label_shift.ESTIMATORS))
    label_shift.register_estimator(label_shift.Estimator("flat", of_source, of_source))
    estimate = label_shift.estimate("flat", *samples_of(TAIL, 20, 80), bootstrap=3, weight=1.0)
    np.testing.assert_allclose(estimate.prior, UNIFORM)
    with pytest.raises(ValueError, match="name must be new; 'flat'"):
        label_shift.register_estimator(label_shift.Estimator("flat", of_source, of_source))
    with pytest.raises(ValueError, match="colour means nothing for method 'flat'"):
        label_shift.estimate("flat", *samples_of(TAIL, 20, 80), colour=1)


def test_a_nearly_uniform_training_prior_has_no_curve():
    nearly = UNIFORM * (1 + 1e-3 * np.linspace(-1, 1, CLASSES))
    for target in (UNIFORM, TAIL):
        arguments = samples_of(target)
        fit, same = (label_shift.fit_hierarchical(*arguments, p) for p in (nearly, UNIFORM))
        assert fit.exponent is None and "power" not in fit.reason
        np.testing.assert_allclose(fit.prior, same.prior, rtol=1e-6)
    assert label_shift.fit_hierarchical(*samples_of(UNIFORM), nearly).chosen == "uniform"


def test_an_exponent_that_nothing_tells_leaves_the_uniform_prior():
    _, labels, _ = samples_of(UNIFORM)
    flat = np.tile(TAIL, (len(labels), 1))  # no image differs from another
    fit = label_shift.fit_hierarchical(flat, labels, flat, TAIL)
    assert fit.chosen == "uniform" and "don't tell" in fit.reason and "inf" not in fit.reason


@pytest.mark.parametrize("name", ["training_prior", "centre"])
def test_priors_of_any_ratio_give_finite_intervals(name):
    for given in (long_tail(CLASSES, 1e14), np.eye(CLASSES)[0] * (1 - 7e-30) + 1e-30):
        for target in (UNIFORM, given):
            fit = label_shift.fit_hierarchical(*samples_of(target), **{name: given})
            assert np.isfinite([fit.low, fit.high]).all() and fit.high.max() <= 1


def test_a_class_that_no_image_has_isnt_taken_for_all_of_them():
    """The upper end of a share of n images is about 3.7 / n where none of them is there."""
    target = np.r_[0, 0, np.full(CLASSES - 2, 1 / (CLASSES - 2))][::-1]
    samples = samples_of(target, size=400, separation=5.0)
    fit = label_shift.fit_hierarchical(*samples, TAIL)
    assert (fit.high[-2:] >= 0.5 / 400).all() and (fit.high[-2:] < 15 / 400).all()
