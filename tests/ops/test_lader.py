import numpy as np
import oracles
import pytest
import scipy.special
import tensorflow as tf

from lade_tf import ops, priors

SHAPES = [(256, 100), (128, 365), (256, 1000), (256, 8142)]


def make_batch(size, num_classes, scale=80.0, seed=0):
    """Logits up to ±scale, labels drawn from a long-tailed prior, and its counts."""
    rng = np.random.default_rng(seed)
    counts = priors.exponential_counts(1000, num_classes, 250)
    logits = rng.uniform(-scale, scale, (size, num_classes)).astype(np.float32)
    labels = rng.choice(num_classes, size, p=counts / counts.sum()).astype(np.int32)
    return logits, labels, counts


def value_and_gradient(logits, labels, counts, remine_lambda, estimator, **kwargs):
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = ops.lader(logits, labels, counts, remine_lambda, estimator, **kwargs)
    return value.numpy(), tape.gradient(value, logits).numpy()


def assert_close(actual, expected, tolerance=1e-5):
    """Relative to the largest entry: single entries cancel to nothing."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
@pytest.mark.parametrize(("size", "num_classes"), SHAPES)
def test_value_and_gradient_are_the_oracles(size, num_classes, estimator, jit):
    logits, labels, counts = make_batch(size, num_classes)
    function = tf.function(
        lambda f, y: value_and_gradient_in_graph(f, y, counts, estimator), jit_compile=jit
    )
    value, gradient = function(logits, labels)
    expected_value, expected_gradient = oracles.lader(logits, labels, counts, 0.1, estimator)
    assert value.numpy() == pytest.approx(expected_value, rel=1e-5)
    assert_close(gradient.numpy(), expected_gradient)


def value_and_gradient_in_graph(logits, labels, counts, estimator):
    value = ops.lader(logits, labels, counts, 0.1, estimator)
    return value, tf.gradients(value, logits)[0]


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
@pytest.mark.parametrize("part", [np.s_[:, 3], np.s_[:8, :]], ids=["column", "rows"])
def test_logits_far_below_all_others_are_accurate(part, estimator, jit):
    # exp of their distance to the rows' or the batch's highest logit is 0 in float32.
    logits, labels, counts = make_batch(64, 10, scale=5.0)
    logits[part] -= 150
    labels[:] = np.where(np.arange(64) < 8, 3, labels)
    function = tf.function(
        lambda f, y: value_and_gradient_in_graph(f, y, counts, estimator), jit_compile=jit
    )
    value, gradient = function(logits, labels)
    expected_value, expected = oracles.lader(logits, labels, counts, 0.1, estimator)
    assert value.numpy() == pytest.approx(expected_value, rel=1e-5)
    for column in range(10):
        assert_close(gradient[:, column].numpy(), expected[:, column], 2e-5)


def make_far_batch(size, num_classes, gap, decades, seed=0):
    """Logits of which some columns, the rarest among them, lie `gap` below their rows' highest."""
    rng = np.random.default_rng(seed)
    counts = np.round(10.0 ** rng.uniform(0, decades, num_classes))
    counts[[0, -1]] = 10**decades, 1
    logits = rng.uniform(-5, 5, (size, num_classes)).astype(np.float32)
    far = rng.random(num_classes) < 0.3
    far[-3:] = True
    logits[:, far] -= np.float32(gap)
    logits[: size // 4] -= np.float32(gap / 3)
    labels = rng.choice(num_classes, size, p=counts / counts.sum())
    labels[:3] = [num_classes - 1, num_classes - 2, num_classes - 1]
    return logits, labels, counts


def t_and_gradient(logits, labels, counts, remine_lambda, estimator):
    """T of every class and LADER's gradient, in float64 and for all classes at once."""
    f, (size, num_classes) = np.asarray(logits, np.float64), logits.shape
    prior, in_batch = counts / counts.sum(), np.bincount(labels, minlength=num_classes)
    per_sample = 1 / (np.maximum(in_batch, 1) if estimator == "paper" else in_batch + 1e-8)
    weight = -np.log(num_classes * prior[labels])[:, None]
    if estimator == "reference":
        weight = np.log(1 / num_classes + 1e-9) - np.log(prior + 1e-9)
    log_sum = scipy.special.logsumexp(f + weight, axis=0)
    t = log_sum - np.log(size)
    gradient = (1 + 2 * remine_lambda * t) * np.exp(f + weight - log_sum)
    gradient[np.arange(size), labels] -= per_sample[labels]
    active = (in_batch > 0) | (estimator == "reference")
    return t, prior * np.where(active, gradient, 0)


@pytest.mark.parametrize(
    ("size", "num_classes", "gaps", "jit"),
    [
        (32, 10, (0, 55, 65, 75, 90, 130, 200), False),
        (32, 365, (60, 75), True),
        (16, 8142, (60, 75), False),
        (8, 100_000, (0, 45, 60, 200), False),
    ],
)
@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_rare_classes_far_below_are_accurate(size, num_classes, gaps, jit, estimator):
    # 1 + 2λT is 0 for no T here, where float32's T would leave no digit of a gradient.
    remine_lambda = 1e-3

    @tf.function(jit_compile=jit)
    def compute(f, y):
        statistics = ops.lader_statistics(f, y, prior, estimator)
        value, _ = ops.lader_of_statistics(statistics, prior, remine_lambda, estimator)
        return statistics[2], tf.gradients(value, f)[0]

    for gap in gaps:
        logits, labels, counts = make_far_batch(size, num_classes, gap, decades=7)
        prior = counts / counts.sum()  # the same for all gaps
        t, expected = t_and_gradient(logits, labels, counts, remine_lambda, estimator)
        log_sum, gradient = compute(logits, labels.astype(np.int32))
        own = log_sum.numpy() - np.log(size)
        if estimator == "reference":
            own += np.log(1 / num_classes + 1e-9) - np.log(prior + 1e-9)
        assert np.all(np.abs(own - t) <= 2e-5 * np.maximum(1, np.abs(t))), gap
        error = np.abs(gradient.numpy() - expected).max(axis=0)
        assert np.all(error <= 2e-5 * np.abs(expected).max(axis=0)), gap


def test_far_bfloat16_logits_are_as_accurate():
    logits, labels, counts = make_far_batch(32, 100, 70, decades=6)
    halves = tf.cast(logits, tf.bfloat16)
    statistics = ops.lader_statistics(halves, labels, counts / counts.sum())
    t, _ = t_and_gradient(tf.cast(halves, tf.float64).numpy(), labels, counts, 0.01, "paper")
    np.testing.assert_allclose(statistics[2] - np.log(32), t, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("logit", [27.5, 28.0, 29.0, 30.0])
def test_a_rare_class_in_a_row_far_below_the_highest_is_accurate(logit):
    counts = np.array([1e7] + [1.0] * 9)
    labels = np.array([0, 1])
    logits = np.full((2, 10), 100.0, np.float32)
    logits[0, 0], logits[1] = logit, 12.0
    prior = counts / counts.sum()
    found = ops.lader_statistics(logits, labels, prior)[2, 0].numpy()
    terms = logits[:, 0].astype(np.float64) - np.log(10 * prior[labels])
    assert found == pytest.approx(np.logaddexp.reduce(terms), rel=2e-6)
    # The gradient of the log of the sum: each term's share in it.
    _, gradient = value_and_gradient(logits, labels, counts, 0.0, "paper")
    shares = np.exp(terms - np.logaddexp.reduce(terms))
    expected = prior[0] * (shares - (labels == 0))
    np.testing.assert_allclose(gradient[:, 0], expected, atol=2e-5 * np.abs(expected).max())


def test_an_example_without_weight_is_no_maximum_of_a_vanished_column():
    logits, labels, counts = make_batch(8, 5, scale=5.0)
    labels[0] = 2
    logits[:7, 2] -= 150  # this column's own highest logit is that of no example that occurs
    weight = np.array([1, 1, 1, 1, 1, 1, 1, 0.0])
    expected, without = value_and_gradient(logits[:7], labels[:7], counts, 0.1, "paper")
    value, gradient = value_and_gradient(logits, labels, counts, 0.1, "paper", sample_weight=weight)
    assert value == pytest.approx(expected, rel=1e-6) and np.isfinite(value)
    np.testing.assert_allclose(gradient[:7], without, rtol=1e-5, atol=1e-9)
    assert np.all(gradient[7] == 0)


def test_a_masked_logit_of_an_example_without_weight_has_no_influence():
    logits, labels, counts = make_batch(8, 5, scale=5.0)
    expected = ops.lader(logits[:7], labels[:7], counts, 0.1).numpy()
    logits[7, labels[7]] = -np.inf
    weight = np.array([1, 1, 1, 1, 1, 1, 1, 0.0])
    value = ops.lader(logits, labels, counts, 0.1, sample_weight=weight)
    assert value.numpy() == pytest.approx(expected, rel=1e-6)


def test_a_masked_class_that_is_absent_has_no_influence():
    logits, labels, counts = make_batch(8, 5, scale=5.0)
    labels %= 4
    expected = value_and_gradient(logits, labels, counts, 0.1, "paper")
    logits[:, 4] = -np.inf  # its T is −inf too
    value, gradient = value_and_gradient(logits, labels, counts, 0.1, "paper")
    assert value == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-9)


def test_statistics_of_an_absent_class_have_no_gradient():
    statistics = tf.constant([[3.0, 0.0, 1.0], [2.0, 0.0, -1.0], [0.5, -np.inf, 0.2]])
    with tf.GradientTape() as tape:
        tape.watch(statistics)
        value, _ = ops.lader_of_statistics(statistics, np.array([0.6, 0.3, 0.1]), 0.1)
    gradient = tape.gradient(value, statistics).numpy()
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.all(gradient[1:, 1] == 0)


@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_a_batch_without_weight_gives_zero_and_no_gradient(estimator):
    logits, labels, counts = make_batch(4, 5, scale=5.0)
    value, gradient = value_and_gradient(
        logits, labels, counts, 0.1, estimator, sample_weight=np.zeros(4)
    )
    assert value == 0 and np.all(gradient == 0)


def test_the_released_1e_9_stands_inside_the_log_of_the_prior():
    counts, labels = np.array([10**9, 1]), [0, 1]  # the second prior is 1e-9: twice that inside
    logits = np.zeros((2, 2), np.float32)
    expected, _ = oracles.lader(logits, labels, counts, 1e9, "reference")
    value = ops.lader(logits, labels, counts, 1e9, "reference").numpy()
    assert value == pytest.approx(expected, rel=1e-5)
    prior = 1 / (10**9 + 1)
    t = np.log(0.5 + 1e-9) - np.log([1 - prior + 1e-9, prior + 1e-9])
    by_hand = np.sum([1 - prior, prior] * (t + 1e9 * t**2))
    assert expected == pytest.approx(by_hand, rel=1e-6)
    only_rare = 1e9 * prior * (t[1] ** 2 - (np.log(0.5) - np.log(prior)) ** 2)
    assert abs(only_rare) > 10  # without it the value would be off by this much


@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_every_single_gradient_is_accurate(estimator):
    logits, labels, counts = make_batch(64, 10, scale=5.0)
    _, gradient = value_and_gradient(logits, labels, counts, 0.1, estimator)
    _, expected = oracles.lader(logits, labels, counts, 0.1, estimator)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_gradient_is_that_of_finite_differences(estimator):
    logits, labels, counts = make_batch(6, 5, scale=3.0)
    logits = logits.astype(np.float64)
    _, gradient = value_and_gradient(logits, labels, counts, 0.1, estimator)
    step = 1e-6
    for index in np.ndindex(logits.shape):
        shift = np.zeros_like(logits)
        shift[index] = step
        above, below = (
            ops.lader(logits + sign * shift, labels, counts, 0.1, estimator).numpy()
            for sign in (1, -1)
        )
        assert gradient[index] == pytest.approx((above - below) / (2 * step), abs=1e-8)


def statistic(logits, labels, counts):
    """T_c of the paper, in float64."""
    weight = 1 / (len(counts) * counts / counts.sum())[labels]
    return np.log((weight[:, None] * np.exp(logits.astype(np.float64))).mean(axis=0))


def test_gradient_columns_sum_to_2_lambda_pi_t():
    logits, labels, counts = make_batch(64, 20, scale=5.0)
    _, gradient = value_and_gradient(logits.astype(np.float64), labels, counts, 0.3, "paper")
    prior = counts / counts.sum()
    present = np.isin(np.arange(20), labels)
    expected = np.where(present, 2 * 0.3 * prior * statistic(logits, labels, counts), 0)
    np.testing.assert_allclose(gradient.sum(axis=0), expected, atol=1e-12)


def test_without_lambda_a_constant_on_a_column_changes_nothing():
    logits, labels, counts = make_batch(64, 20, scale=5.0)
    shifted = logits.astype(np.float64) + np.linspace(-3, 3, 20)
    before = ops.lader(logits.astype(np.float64), labels, counts, 0.0)
    np.testing.assert_allclose(ops.lader(shifted, labels, counts, 0.0), before, rtol=1e-12)


@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_permuting_the_batch_changes_nothing(estimator):
    logits, labels, counts = make_batch(64, 20, scale=5.0)
    order = np.random.default_rng(1).permutation(64)
    before, gradient = value_and_gradient(logits, labels, counts, 0.1, estimator)
    after, permuted = value_and_gradient(logits[order], labels[order], counts, 0.1, estimator)
    assert after == pytest.approx(before, rel=1e-6)
    np.testing.assert_allclose(permuted, gradient[order], rtol=1e-5, atol=1e-9)


def test_paper_leaves_an_absent_class_alone():
    logits, labels, counts = make_batch(16, 50)
    _, gradient = value_and_gradient(logits, labels, counts, 0.1, "paper")
    absent = ~np.isin(np.arange(50), labels)
    assert absent.any() and np.all(gradient[:, absent] == 0)


def test_reference_moves_an_absent_class():
    logits, labels, counts = make_batch(16, 50, scale=5.0)
    logits, prior = logits.astype(np.float64), counts / counts.sum()
    _, gradient = value_and_gradient(logits, labels, counts, 0.1, "reference")
    absent = int(np.flatnonzero(~np.isin(np.arange(50), labels))[0])
    t = np.log(np.exp(logits[:, absent]).mean()) - np.log(50 * prior[absent])
    assert gradient[:, absent].sum() == pytest.approx(prior[absent] * (1 + 0.2 * t), rel=1e-5)
    raised = logits.copy()
    raised[:, absent] += 2.0
    change = ops.lader(raised, labels, counts, 0.0, "reference") - ops.lader(
        logits, labels, counts, 0.0, "reference"
    )
    assert change.numpy() == pytest.approx(2.0 * prior[absent], rel=1e-6)


def test_the_infimum_has_t_zero_and_positive_logits_at_log_c_pi_n_over_n_c():
    # Descent on single logits; negative ones run off to −∞, so they start far down.
    counts, labels = np.array([6, 3, 1]), np.array([0, 0, 0, 1, 1, 2, 2, 2])
    logits = tf.Variable(np.where(np.eye(3)[labels] == 1, 0.0, -20.0))

    @tf.function
    def descend():
        with tf.GradientTape() as tape:
            value = ops.lader(logits, labels, counts, 0.1)
        logits.assign_sub(5.0 * tape.gradient(value, logits))

    for _ in range(3000):
        descend()
    f, prior = logits.numpy(), counts / counts.sum()
    np.testing.assert_allclose(statistic(f, labels, counts), 0, atol=1e-3)
    present = np.bincount(labels)
    expected = np.log(3 * prior * 8 / present)
    np.testing.assert_allclose(f[np.arange(8), labels], expected[labels], atol=1e-3)


@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_a_weight_is_a_number_of_occurrences(estimator):
    logits, labels, counts = make_batch(12, 5, scale=5.0)
    weight = np.array([2, 1, 0, 3, 1, 1, 0, 2, 1, 1, 4, 1])
    expected = ops.lader(
        np.repeat(logits, weight, axis=0), np.repeat(labels, weight), counts, 0.1, estimator
    )
    actual = ops.lader(logits, labels, counts, 0.1, estimator, sample_weight=weight)
    assert actual.numpy() == pytest.approx(expected.numpy(), rel=1e-5)


def test_an_example_without_weight_has_no_influence():
    logits, labels, counts = make_batch(8, 5, scale=5.0)
    weight = np.array([1, 1, 1, 1, 1, 1, 1, 0.0])
    expected, _ = value_and_gradient(logits[:7], labels[:7], counts, 0.1, "paper")
    logits[7] = 1000.0  # its exponentials would swallow all others
    value, gradient = value_and_gradient(logits, labels, counts, 0.1, "paper", sample_weight=weight)
    assert value == pytest.approx(expected, rel=1e-6)
    assert np.all(gradient[7] == 0) and np.isfinite(gradient).all()


def test_weights_of_another_number_are_refused():
    logits, labels, counts = make_batch(3, 5)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(3,\); got \(2,\)"):
        ops.lader(logits, labels, counts, 0.1, sample_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="sample_weight must be finite"):
        ops.lader(logits, labels, counts, 0.1, sample_weight=[1.0, 2.0, np.inf])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool"])
def test_labels_may_have_a_type_that_cannot_hold_the_number_of_classes(dtype):
    labels = np.array([0, 1, 1, 0])
    expected, _ = ops.check_labels(labels, tf.zeros([4, 256]), 256)
    found, validity = ops.check_labels(labels.astype(dtype), tf.zeros([4, 256]), 256)
    np.testing.assert_array_equal(found, expected)
    assert validity == 1


def test_a_negative_weight_is_refused():
    logits, labels, counts = make_batch(3, 5)
    weight = [1.0, -1.0, 1.0]
    with pytest.raises(
        ValueError, match="sample_weight must be finite and >= 0 everywhere; got -1.0"
    ):
        ops.lader(logits, labels, counts, 0.1, sample_weight=weight)
    compiled = tf.function(
        lambda f, w: ops.lader(f, labels, counts, 0.1, sample_weight=w), jit_compile=True
    )
    assert np.isnan(compiled(logits, tf.constant(weight)).numpy())


@pytest.mark.parametrize("estimator", ops.ESTIMATORS)
def test_an_empty_batch_gives_zero(estimator):
    value, gradient = value_and_gradient(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int32), [4, 3, 2, 1], 0.1, estimator
    )
    assert value == 0 and gradient.shape == (0, 4)


def test_a_dynamic_batch_size_traces_once():
    counts = np.array([5, 3, 1])
    function = tf.function(
        lambda f, y: ops.lader(f, y, counts, 0.1),
        input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int32)],
    )
    for size in (1, 7, 30):
        logits = np.random.default_rng(size).normal(size=(size, 3)).astype(np.float32)
        labels = (np.arange(size) % 3).astype(np.int32)
        expected, _ = oracles.lader(logits, labels, counts, 0.1, "paper")
        assert function(logits, labels).numpy() == pytest.approx(expected, rel=1e-5)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_statistics_of_half_precision_logits_are_float32(dtype):
    logits, labels, counts = make_batch(64, 20)
    halves = tf.cast(logits, dtype)
    value = ops.lader(halves, labels, counts, 0.1)
    expected, _ = oracles.lader(tf.cast(halves, tf.float64), labels, counts, 0.1, "paper")
    assert value.dtype == tf.float32 and value.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", [-1, 3, 1000, 2**32, 0.5])
def test_labels_out_of_range_are_never_a_plausible_number(label):
    logits, counts = np.zeros((2, 3), np.float32), [3, 2, 1]
    labels = np.array([0, label])
    with pytest.raises(ValueError, match=rf"integers in 0..2; got labels from .*{label}"):
        ops.lader(logits, labels, counts, 0.1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be integers in 0..2"):
        tf.function(lambda: ops.lader(logits, labels, counts, 0.1))()
    compiled = tf.function(
        lambda f, y: value_and_gradient_in_graph(f, y, counts, "paper"), jit_compile=True
    )
    value, gradient = compiled(logits, labels)
    assert np.isnan(value.numpy()) and np.isnan(gradient.numpy()).all()


def test_nan_logits_give_nan():
    logits = np.zeros((2, 3), np.float32)
    logits[0, 1] = np.nan
    assert np.isnan(ops.lader(logits, [0, 1], [3, 2, 1], 0.1).numpy())


@pytest.mark.parametrize(
    ("logits", "labels", "arguments", "message"),
    [
        ((2, 4), [0, 1], {}, r"logits must have shape \[batch, 3\].*\(2, 4\)"),
        ((2,), [0, 1], {}, r"logits must have shape \[batch, 3\].*\(2,\)"),
        ((2, 3), [0, 1, 1], {}, "same batch size; got 3 labels for 2 rows"),
        ((2, 3), [[0, 1], [1, 0]], {}, r"labels must be integers of shape \[batch\]"),
        ((2, 3), [0, 1], {"estimator": "mine"}, "estimator must be one of 'paper', 'reference'"),
        ((2, 3), [0, 1], {"remine_lambda": -1}, "remine_lambda must be a finite number >= 0"),
        ((2, 3), [0, 1], {"class_counts": [1, 0, 2]}, "counts must hold numbers > 0"),
    ],
)
def test_bad_arguments_are_refused(logits, labels, arguments, message):
    arguments = {"class_counts": [3, 2, 1], "remine_lambda": 0.1, **arguments}
    with pytest.raises(ValueError, match=message):
        ops.lader(np.zeros(logits, np.float32), labels, **arguments)
