import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

import lade_tf
from lade_tf import metrics

COUNTS = [500, 101, 100, 20, 19, 3]
SIZE, NUM_CLASSES = 47, len(COUNTS)


def shot_accuracy(probabilities, labels, sample_weight):
    return metrics.shot_accuracy(probabilities.argmax(1), labels, COUNTS, sample_weight)


def per_class_accuracy(probabilities, labels, sample_weight):
    return metrics.per_class_accuracy(probabilities.argmax(1), labels, NUM_CLASSES, sample_weight)


def macro_f1(probabilities, labels, sample_weight):
    return metrics.macro_f1(probabilities.argmax(1), labels, sample_weight)


def ece(probabilities, labels, sample_weight):
    return metrics.expected_calibration_error(probabilities, labels, 20, sample_weight)


def classwise_ece(probabilities, labels, sample_weight):
    return metrics.classwise_calibration_error(probabilities, labels, 20, sample_weight)


# What makes the streaming metric, and the NumPy function that it must equal.
PAIRS = {
    "ece": (metrics.ExpectedCalibrationError, ece),
    "classwise_ece": (metrics.ClasswiseCalibrationError, classwise_ece),
    "brier": (metrics.BrierScore, metrics.brier_score),
    "nll": (metrics.NegativeLogLikelihood, metrics.negative_log_likelihood),
    "shot_accuracy": (lambda **kwargs: metrics.ShotAccuracy(COUNTS, **kwargs), shot_accuracy),
    "per_class_accuracy": (
        lambda **kwargs: metrics.PerClassAccuracy(NUM_CLASSES, **kwargs),
        per_class_accuracy,
    ),
    "macro_f1": (lambda **kwargs: metrics.MacroF1(NUM_CLASSES, **kwargs), macro_f1),
}
CALIBRATION = ["ece", "classwise_ece", "brier", "nll"]
every_metric = pytest.mark.parametrize("name", PAIRS)


def make_samples(size=SIZE, seed=0, untested_class=None):
    """float32 logits and probabilities [size, classes], labels and float32 weights [size]."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(size, NUM_CLASSES)).astype(np.float32)
    # Often right, or accuracies and F1 would be near 0 whatever is computed.
    labels = np.where(rng.uniform(size=size) < 0.5, logits.argmax(1), rng.integers(6, size=size))
    if untested_class is not None:
        labels[labels == untested_class] = untested_class - 1
    weight = rng.integers(0, 5, size=size).astype(np.float32) / 2
    return logits, tf.nn.softmax(logits).numpy(), labels, weight


def as_numbers(result):
    """A result of either kind as float64 [values], with NaN for None."""
    values = list(result.values()) if isinstance(result, dict) else result
    return np.array(values, dtype=np.float64)


def assert_same(streaming, expected, tolerance=1e-6):
    if isinstance(expected, dict):
        assert list(streaming) == list(expected)
    np.testing.assert_allclose(as_numbers(streaming), as_numbers(expected), rtol=0, atol=tolerance)


def stream(metric, labels, predictions, weight=None, batch_sizes=(SIZE,)):
    start = 0
    for size in batch_sizes:
        batch = slice(start, start + size)
        batch_weight = None if weight is None else weight[batch]
        metric.update_state(labels[batch], predictions[batch], batch_weight)
        start += size
    assert start == len(labels)
    return metric.result()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_sizes", [(47,), (16, 16, 15), (1, 30, 0, 16), (1,) * 47], ids=len)
@every_metric
def test_equals_the_numpy_function_whatever_the_batches(name, batch_sizes, weighted):
    _, p, y, weight = make_samples()
    weight = weight if weighted else None
    make, numpy_function = PAIRS[name]
    result = stream(make(), y, p, weight, batch_sizes)
    assert_same(result, numpy_function(p, y, weight), tolerance=1e-12)


@every_metric
def test_one_sample(name):
    _, p, y, _ = make_samples(size=1)
    make, numpy_function = PAIRS[name]
    assert_same(stream(make(), y, p, batch_sizes=(1,)), numpy_function(p, y, None), 1e-12)


@every_metric
def test_a_weight_is_a_number_of_occurrences(name):
    _, p, y, weight = make_samples()
    times = (2 * weight).astype(int)
    make, _ = PAIRS[name]
    repeated = make()(np.repeat(y, times), np.repeat(p, times, axis=0))
    assert_same(make()(y, p, sample_weight=times), repeated, tolerance=1e-12)


@every_metric
def test_logits_give_what_their_softmax_gives(name):
    logits, p, y, weight = make_samples()
    make, numpy_function = PAIRS[name]
    result = make(from_logits=True)(y, logits, weight)
    assert_same(result, numpy_function(p, y, weight))


@pytest.mark.parametrize("name", ["shot_accuracy", "per_class_accuracy", "macro_f1"])
def test_metrics_of_the_predicted_class_take_logits_as_they_are(name):
    logits, p, y, _ = make_samples()
    make, numpy_function = PAIRS[name]
    assert_same(make()(y, logits), numpy_function(p, y, None))


@every_metric
def test_a_class_of_target_prior_zero_has_the_logit_minus_infinity(name):
    logits, _, y, _ = make_samples(untested_class=2)
    logits[:, 2] = -np.inf
    make, numpy_function = PAIRS[name]
    expected = numpy_function(tf.nn.softmax(logits).numpy(), y, None)
    assert_same(make(from_logits=True)(y, logits), expected)


@every_metric
def test_a_class_without_a_test_sample(name):
    # Class 5 is the only one but class 4 that is few-shot; without both, the group is untested.
    _, p, y, _ = make_samples(untested_class=5)
    y[y == 4] = 3
    make, numpy_function = PAIRS[name]
    expected = numpy_function(p, y, None)
    if name == "shot_accuracy":
        assert expected["few"] is None
    assert_same(make()(y, p), expected)


@every_metric
def test_a_class_of_weight_zero_is_left_out(name):
    _, p, y, _ = make_samples()
    weight = (y < 4).astype(np.float32)
    make, numpy_function = PAIRS[name]
    assert_same(make()(y, p, weight), numpy_function(p[y < 4], y[y < 4], None))


def loop_gap(confidences, hits, num_bins):
    """Binned calibration error with every edge written out."""
    error = 0.0
    for k in range(num_bins):
        low, high = k / num_bins, (k + 1) / num_bins
        last = k == num_bins - 1
        members = [i for i, p in enumerate(confidences) if low <= p < high or (last and p == 1.0)]
        error += abs(sum(float(hits[i]) - float(confidences[i]) for i in members))
    return error / len(confidences)


@pytest.mark.parametrize("num_bins", [1, 20, 49])
def test_float32_confidences_at_every_edge_and_beside_it(num_bins):
    # float32(k / 20) lies below k / 20 for some k and above it for others.
    edges = (np.arange(num_bins + 1) / num_bins).astype(np.float32)
    confidence = np.concatenate(
        [edges, np.nextafter(edges[1:], np.float32(0)), np.nextafter(edges[:-1], np.float32(1))]
    )
    p = np.stack([confidence, np.float32(1) - confidence], axis=1)
    y = np.random.default_rng(3).integers(2, size=len(p))
    columns = [loop_gap(p[:, c].tolist(), y == c, num_bins) for c in range(2)]
    top = loop_gap(p.max(1).tolist(), p.argmax(1) == y, num_bins)
    expected = {
        metrics.ExpectedCalibrationError: (top, metrics.expected_calibration_error),
        metrics.ClasswiseCalibrationError: (
            np.mean(columns),
            metrics.classwise_calibration_error,
        ),
    }
    for metric, (loop, numpy_function) in expected.items():
        assert metric(num_bins)(y, p).numpy() == pytest.approx(loop, rel=1e-12)
        assert numpy_function(p, y, num_bins) == pytest.approx(loop, rel=1e-12)


def test_confidence_of_exactly_one_counts_and_empty_bins_add_nothing():
    one_hot = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    labels = np.array([0, 1, 1])
    assert metrics.ExpectedCalibrationError()(labels, one_hot).numpy() == pytest.approx(1 / 3)
    expected = metrics.classwise_calibration_error(one_hot, labels)
    assert metrics.ClasswiseCalibrationError()(labels, one_hot).numpy() == pytest.approx(expected)


def test_a_confidence_just_above_one_belongs_in_the_last_bin():
    # Softmax outputs may round to above 1.
    p = np.array([[1.0000001, 0.0], [0.96, 0.04]], np.float32)
    assert_same(metrics.ExpectedCalibrationError()([1, 0], p), abs(-1 + 0.04) / 2)


def test_a_confident_mistake_is_clipped_at_1e_15():
    p = np.array([[0.0, 1.0]], np.float32)
    value = metrics.NegativeLogLikelihood()([0], p).numpy()
    assert value == pytest.approx(-np.log(1e-15), rel=1e-12)
    logits = np.array([[-200.0, 0.0]], np.float32)
    value = metrics.NegativeLogLikelihood(from_logits=True)([0], logits).numpy()
    assert value == pytest.approx(-np.log(1e-15), rel=1e-12)


def test_equals_scikit_learn():
    _, p, y, weight = make_samples(size=200)
    # Scikit-learn warns of rows that miss a sum of 1 by more than float64 rounding.
    p = p.astype(np.float64) / p.sum(axis=1, dtype=np.float64, keepdims=True)
    classes = np.arange(NUM_CLASSES)
    for w in (None, weight):
        batches = {"batch_sizes": (64, 64, 72), "weight": w}
        brier = stream(metrics.BrierScore(), y, p, **batches)
        expected = sum(
            sklearn.metrics.brier_score_loss(y == c, p[:, c], sample_weight=w) for c in classes
        )
        assert brier.numpy() == pytest.approx(expected, rel=1e-12)
        nll = stream(metrics.NegativeLogLikelihood(), y, p, **batches)
        expected = sklearn.metrics.log_loss(y, p, sample_weight=w, labels=classes)
        assert nll.numpy() == pytest.approx(expected, rel=1e-12)
        f1 = stream(metrics.MacroF1(NUM_CLASSES), y, p, **batches)
        expected = sklearn.metrics.f1_score(y, p.argmax(1), sample_weight=w, average="macro")
        assert f1.numpy() == pytest.approx(expected, rel=1e-12)
        recall = stream(metrics.PerClassAccuracy(NUM_CLASSES), y, p, **batches)
        expected = sklearn.metrics.recall_score(y, p.argmax(1), sample_weight=w, average=None)
        np.testing.assert_allclose(recall, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([0, 0, 1], [0, 2, 1]), ([0, 1], [1, 0]), ([4, 2], [4, 2]), ([0, 0], [0, 0])],
    ids=["predicted but untested", "all wrong", "neither seen", "one class"],
)
def test_macro_f1_skips_only_classes_that_are_nowhere(labels, predictions):
    expected = sklearn.metrics.f1_score(labels, predictions, average="macro")
    assert metrics.macro_f1(predictions, labels) == pytest.approx(expected, rel=1e-12)
    value = metrics.MacroF1(6)(labels, np.eye(6)[predictions]).numpy()
    assert value == pytest.approx(expected, rel=1e-12)


@every_metric
def test_ties_go_to_the_first_class_as_in_numpy(name):
    p = np.full((6, NUM_CLASSES), 1 / NUM_CLASSES, np.float32)
    y = np.array([0, 0, 1, 2, 3, 5])
    make, numpy_function = PAIRS[name]
    assert_same(make()(y, p), numpy_function(p, y, None))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@every_metric
def test_other_precisions(name, dtype):
    _, p, y, _ = make_samples()
    p = tf.cast(p, dtype)
    make, numpy_function = PAIRS[name]
    assert_same(make()(y, p), numpy_function(tf.cast(p, "float64").numpy(), y, None))


@every_metric
def test_the_softmax_of_half_precision_logits_is_taken_in_float32(name):
    logits, _, y, _ = make_samples()
    logits = logits.astype(np.float16)
    make, numpy_function = PAIRS[name]
    expected = numpy_function(tf.nn.softmax(logits.astype(np.float32)).numpy(), y, None)
    assert_same(make(from_logits=True)(y, logits), expected)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@every_metric
def test_labels_and_weights_as_keras_hands_them_over(name, shape, dtype):
    _, p, y, weight = make_samples()
    make, numpy_function = PAIRS[name]
    result = make()(y.astype(dtype).reshape(shape), p, weight.reshape(shape))
    assert_same(result, numpy_function(p, y, weight))


@every_metric
def test_counts_beyond_2_to_the_24_are_not_lost(name):
    _, p, y, _ = make_samples()
    weight = np.ones(SIZE)
    weight[0] = 2**24
    make, numpy_function = PAIRS[name]
    # After the heavy sample, one at a time: float32 sums would stand still.
    result = stream(make(), y, p, weight, (1,) * SIZE)
    expected = numpy_function(p, y, weight)
    assert_same(result, expected, tolerance=1e-12)


def test_float32_sums_stop_counting_at_2_to_the_24():
    metric = metrics.PerClassAccuracy(1, dtype="float32")
    metric.update_state([0], [[1.0]], [2**24])
    metric.update_state([0], [[1.0]])
    assert metric.total.numpy() == 2**24
    assert metric.result().dtype == tf.float32


@every_metric
def test_reset_forgets_everything_even_nan(name):
    _, p, y, weight = make_samples()
    make, numpy_function = PAIRS[name]
    metric = make()
    assert np.isnan(as_numbers(metric.result())).all()
    broken = p.copy()
    broken[0, 0] = np.nan
    assert np.isnan(as_numbers(metric(y, broken))).all()
    metric.reset_state()
    assert all(np.all(variable.numpy() == 0) for variable in metric.variables)
    assert np.isnan(as_numbers(metric.result())).all()
    assert_same(metric(y, p, weight), numpy_function(p, y, weight))


@pytest.mark.parametrize("jit_compile", [False, True])
@every_metric
def test_inside_a_compiled_function(name, jit_compile):
    _, p, y, weight = make_samples()
    make, numpy_function = PAIRS[name]
    metric = make()

    @tf.function(jit_compile=jit_compile)
    def step(labels, probabilities, weight):
        metric.update_state(labels, probabilities, weight)
        return metric.result()

    step(y[:16], p[:16], weight[:16])
    result = step(y[16:], p[16:], weight[16:])
    assert_same(tf.nest.map_structure(np.asarray, result), numpy_function(p, y, weight))


@every_metric
def test_under_xla_bad_input_gives_nan(name):
    _, p, y, weight = make_samples()
    make, numpy_function = PAIRS[name]
    metric = make()
    update = tf.function(metric.update_state, jit_compile=True)

    def value(*batch):
        metric.reset_state()
        update(*map(tf.constant, batch))
        return metric.result()

    assert_same(value(y, p, weight), numpy_function(p, y, weight))
    assert np.isnan(as_numbers(value(np.full(SIZE, NUM_CLASSES), p, weight))).all()
    assert np.isnan(as_numbers(value(y, p, -weight))).all()
    if name in CALIBRATION:
        assert np.isnan(as_numbers(value(y, 2 * p, weight))).all()


@pytest.mark.parametrize("sizes", [(24, 23), (47, 0), (1, 46)])
@every_metric
def test_two_replicas_equal_one(name, sizes, two_replicas):
    _, p, y, weight = make_samples()
    make, numpy_function = PAIRS[name]
    with two_replicas.scope():
        metric = make()

    def share(array):
        parts = np.split(array, [sizes[0]])
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    @tf.function
    def step(*batch):
        two_replicas.run(metric.update_state, args=batch)

    for times in (1, 2):  # the second time, a reset must have reached both
        metric.reset_state()
        for _ in range(times):
            step(share(y), share(p), share(weight))
        assert_same(metric.result(), numpy_function(p, y, weight))
    alone = make()
    stream(alone, np.tile(y, 2), np.tile(p, (2, 1)), np.tile(weight, 2), (2 * SIZE,))
    for summed, expected in zip(metric.variables, alone.variables, strict=True):
        np.testing.assert_allclose(summed, expected, rtol=0, atol=1e-12)


def make_model(metric_list, **kwargs):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(NUM_CLASSES)])
    model = lade_tf.LADEModel(network, COUNTS)
    model.compile(keras.optimizers.SGD(0.1), **{"metrics": metric_list, **kwargs})
    return model


def make_metrics():
    return [make(from_logits=True) for make, _ in PAIRS.values()]


def flat(results):
    """Logs have the entries of shot_accuracy beside the others."""
    return {
        **{k: v for k, v in results.items() if k != "shot_accuracy"},
        **results["shot_accuracy"],
    }


def expected_logs(model, images, labels, sample_weight=None):
    p = tf.nn.softmax(model.predict(images, verbose=0)).numpy()
    return flat({name: function(p, labels, sample_weight) for name, (_, function) in PAIRS.items()})


def assert_logs_hold(logs, expected):
    assert set(expected) == set(logs) - {"loss", "cross_entropy", "lader"}
    for name, value in expected.items():
        assert_same(logs[name], np.nan if value is None else value)


def make_images(seed=0):
    _, _, labels, weight = make_samples(seed=seed)
    return np.random.default_rng(seed).normal(size=(SIZE, 4)).astype(np.float32), labels, weight


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_a_model(jit_compile):
    images, labels, _ = make_images()
    model = make_model(make_metrics(), jit_compile=jit_compile)
    model.set_target_prior([0.1, 0.1, 0.1, 0.2, 0.2, 0.3])
    logs = model.evaluate(images, labels, batch_size=16, verbose=0, return_dict=True)
    assert_logs_hold(logs, expected_logs(model, images, labels))


def test_in_a_model_with_sample_weights():
    images, labels, weight = make_images()
    model = make_model(None, weighted_metrics=make_metrics())
    logs = model.evaluate(images, labels, 16, sample_weight=weight, verbose=0, return_dict=True)
    assert_logs_hold(logs, expected_logs(model, images, labels, weight))


@pytest.mark.slow
def test_in_a_model_on_two_replicas(two_replicas):
    images, labels, _ = make_images()
    with two_replicas.scope():
        model = make_model(make_metrics())
    logs = model.evaluate(images, labels, batch_size=16, verbose=0, return_dict=True)
    assert_logs_hold(logs, expected_logs(model, images, labels))


def test_fit_shows_them_and_callbacks_can_follow_a_shot_group(tmp_path):
    images, labels, _ = make_images()
    model = make_model(make_metrics())
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_few", mode="max", save_best_only=True
    )
    model.fit(images, labels, validation_data=(images, labels), callbacks=[checkpoint], verbose=1)
    assert {"ece", "val_nll", "few", "val_few", "val_macro_f1"} <= set(model.history.history)
    # Keras only warns of a monitored name that isn't in the logs, and saves nothing.
    again = keras.saving.load_model(tmp_path / "best.keras")
    logs = again.evaluate(images, labels, verbose=0, return_dict=True)
    assert_logs_hold(logs, expected_logs(again, images, labels))


@every_metric
def test_config_round_trip(name):
    make, _ = PAIRS[name]
    metric = make(from_logits=True, name="mine")
    again = type(metric).from_config(metric.get_config())
    assert again.get_config() == metric.get_config()
    logits, _, y, weight = make_samples()
    assert_same(again(y, logits, weight), metric(y, logits, weight), tolerance=0)


@every_metric
def test_default_names_are_those_of_the_report(name):
    make, _ = PAIRS[name]
    assert make().name == name


P = np.full((2, NUM_CLASSES), 1 / NUM_CLASSES, np.float32)
BAD_BATCHES = {
    "y_pred must have shape": ([0, 1], P[0], None),
    "labels must be integers of shape": (np.eye(6)[:2], P, None),
    "labels and logits must have the same batch size": ([0, 1, 2], P, None),
    r"labels must be integers in 0\.\.5; got labels from 0 to 6": ([0, 6], P, None),
    "labels must be integers in .* from -1": ([0, -1], P, None),
    "labels must be integers in": ([0, 0.5], P, None),
    "sample_weight must have shape": ([0, 1], P, [1.0, 1.0, 1.0]),
    "sample_weight must be finite and >= 0 everywhere; got -1": ([0, 1], P, [1.0, -1.0]),
    "sample_weight must be finite": ([0, 1], P, [1.0, np.nan]),
    "sample_weight must be finite and": ([0, 1], P, [1.0, np.inf]),
}


@pytest.mark.parametrize("message", BAD_BATCHES)
@every_metric
def test_bad_batches_are_refused(name, message):
    labels, probabilities, weight = BAD_BATCHES[message]
    metric = PAIRS[name][0]()
    with pytest.raises(ValueError, match=message):
        metric.update_state(labels, probabilities, weight)
    assert not any(np.any(variable.numpy()) for variable in metric.variables)


@pytest.mark.parametrize("name", CALIBRATION)
def test_logits_taken_for_probabilities_are_refused(name):
    logits, _, y, _ = make_samples()
    metric = PAIRS[name][0]()
    with pytest.raises(ValueError, match=r"sum to 1 in every row \(from_logits=True takes logits"):
        metric.update_state(y, logits)
    with pytest.raises(tf.errors.InvalidArgumentError, match="sum to 1 in every row"):
        tf.function(metric.update_state)(y, logits)


@pytest.mark.parametrize("name", ["shot_accuracy", "per_class_accuracy", "macro_f1"])
def test_another_number_of_classes_is_refused(name):
    with pytest.raises(
        ValueError, match=r"y_pred must have shape \[batch, 6\]; got shape \(2, 3\)"
    ):
        PAIRS[name][0]().update_state([0, 1], np.eye(3)[:2])


def test_the_number_of_classes_must_stay():
    metric = metrics.ClasswiseCalibrationError()
    metric.update_state([0, 1], P)
    with pytest.raises(
        ValueError, match=r"y_pred must have shape \[batch, 6\]; got shape \(2, 3\)"
    ):
        metric.update_state([0, 1], np.eye(3)[:2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.ExpectedCalibrationError(0), "num_bins must be an integer >= 1; got 0"),
        (lambda: metrics.ClasswiseCalibrationError(2.5), "num_bins must be an integer >= 1"),
        (lambda: metrics.PerClassAccuracy(0), "num_classes must be an integer >= 1; got 0"),
        (lambda: metrics.MacroF1("6"), "num_classes must be an integer >= 1"),
        (lambda: metrics.ShotAccuracy([5, -1]), "class_counts must hold numbers >= 0"),
        (lambda: metrics.ShotAccuracy([0.5, 0.5]), "class_counts must hold whole numbers.*shares"),
        (lambda: metrics.ShotAccuracy([]), "class_counts must hold at least 2"),
        (lambda: metrics.macro_f1([0, 1], [0]), "predictions must hold 1 samples; got 2"),
        (lambda: metrics.macro_f1([0], [0], [0.0]), "sample_weight must have a positive entry"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
