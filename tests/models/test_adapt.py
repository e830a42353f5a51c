import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf

COUNTS = np.array([70, 20, 10])
SOURCE = COUNTS / 100
TARGET = np.array([0.1, 0.3, 0.6])


def make_images():
    return np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def sequential(activation):
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation)])


def functional(activation):
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(3, activation)(inputs))


def softmax_layer(activation):
    last = [keras.layers.Softmax()] if activation == "softmax" else []
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3), *last])


def nested(activation):
    return keras.Sequential([keras.Input((5,)), sequential(activation)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("make", [sequential, functional, softmax_layer, nested])
def test_any_classifier_becomes_pc_softmax(make, activation):
    model = make(activation)
    outputs = model(make_images())
    probabilities = outputs if activation else tf.nn.softmax(outputs)
    adapted = lade_tf.adapt(model, COUNTS)
    for prior in (SOURCE, TARGET, np.full(3, 1 / 3)):
        adapted.set_target_prior(prior)
        expected = probabilities * (prior / SOURCE)
        expected /= tf.reduce_sum(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(tf.nn.softmax(adapted(make_images())), expected, rtol=1e-5)


def test_the_model_itself_is_untouched():
    model = sequential("softmax")
    before = model(make_images())
    lade_tf.adapt(model, COUNTS).set_target_prior(TARGET)
    np.testing.assert_array_equal(model(make_images()), before)


def test_a_subclassed_model_needs_to_say_what_it_gives():
    with pytest.raises(ValueError, match="from_logits must be given for this model"):
        lade_tf.adapt(Subclassed(), COUNTS)
    adapted = lade_tf.adapt(Subclassed(), COUNTS, from_logits=True)
    assert adapted(make_images()).shape == (7, 3)


@pytest.mark.parametrize("kind", ["cast", "cast in a functional model", "function", "operation"])
def test_probabilities_are_told_in_every_form(kind):
    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(3)(inputs)
    cast = keras.layers.Activation("linear", dtype="float32")  # of the mixed-precision idiom
    model = {
        "cast": lambda: keras.Sequential([sequential("softmax"), cast]),
        "cast in a functional model": lambda: keras.Model(
            inputs, cast(keras.layers.Softmax()(outputs))
        ),
        "function": lambda: sequential(tf.nn.softmax),
        "operation": lambda: keras.Model(inputs, keras.ops.softmax(outputs)),
    }[kind]()
    assert not lade_tf.adapt(model, COUNTS).from_logits
    with pytest.raises(ValueError, match="network must give logits; its last layer is a softmax"):
        lade_tf.LADEModel(model, COUNTS)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh", "softplus"])
def test_outputs_that_are_bounded_are_no_logits(activation):
    with pytest.raises(ValueError, match=f"its last layer has the activation {activation}: leave"):
        lade_tf.LADEModel(functional(activation), COUNTS)
    with pytest.raises(ValueError, match=f"probabilities of a softmax; .* {activation}"):
        lade_tf.adapt(functional(activation), COUNTS, from_logits=False)
    if activation != "sigmoid":
        model = functional(activation)
        model.compile("sgd", "hinge")
        with pytest.raises(ValueError, match=f"activation {activation}, which gives none. Train"):
            lade_tf.adapt(model, COUNTS)


def test_bounded_layers_and_operations_are_told_too():
    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(3)(inputs)
    for bounded in (keras.layers.ReLU(), keras.ops.sigmoid):
        with pytest.raises(ValueError, match="its last layer has the activation"):
            lade_tf.LADEModel(keras.Model(inputs, bounded(outputs)), COUNTS)


def test_logits_are_not_taken_for_probabilities():
    with pytest.raises(ValueError, match="from_logits must be True for this network"):
        lade_tf.adapt(sequential(None), COUNTS, from_logits=False)


class SubclassedSoftmax(Subclassed):
    def call(self, inputs):
        return keras.activations.softmax(super().call(inputs))


def test_a_softmax_that_no_layer_tells_of_is_seen_in_training():
    model = lade_tf.LADEModel(SubclassedSoftmax(), COUNTS)
    model.compile("sgd")
    with pytest.raises(ValueError, match="these are the output of a softmax or sigmoid"):
        model.fit(make_images(), np.zeros(7, int), verbose=0)


@pytest.mark.parametrize("name", ["LADE", "BalancedSoftmax", "LogitAdjustment", "LDAM", "Focal"])
def test_the_losses_see_a_softmax(name):
    loss = getattr(lade_tf.losses, name)
    network = sequential("softmax")
    network.compile("sgd", loss() if name == "Focal" else loss(COUNTS))
    with pytest.raises(ValueError, match="these are the output of a softmax or sigmoid"):
        network.fit(make_images(), np.zeros(7, int), verbose=0)


def test_a_network_of_a_dict_is_refused():
    inputs = keras.Input((5,))
    network = keras.Model(inputs, {"logits": keras.layers.Dense(3)(inputs)})
    with pytest.raises(ValueError, match="one tensor of logits; it gives a dict"):
        lade_tf.LADEModel(network, COUNTS)(make_images())


def test_a_probability_below_half_precision_is_not_known_more_exactly():
    outputs = keras.layers.Activation("softmax", dtype="mixed_float16")
    network = keras.Sequential([keras.Input((3,)), outputs])
    adapted = lade_tf.AdaptedModel(network, COUNTS, from_logits=False)
    found = adapted(np.array([[0.0, -30.0, -40.0]], np.float32))
    np.testing.assert_allclose(found[0, 1] - found[0, 0], np.log(2.0**-24), rtol=1e-3)


def test_a_metric_that_expects_probabilities_is_refused():
    adapted = lade_tf.adapt(sequential("softmax"), COUNTS)
    name, metrics = "sparse_categorical_crossentropy", keras.metrics
    of_class = "SparseCategoricalCrossentropy"
    own = [lade_tf.metrics.NegativeLogLikelihood()]
    keras_own = [metrics.SparseCategoricalCrossentropy()]
    for metric in (
        name,
        of_class,
        "AUC",
        "ce",
        ["accuracy", name],
        [getattr(metrics, name)],
        keras_own,
        own,
    ):
        for argument in ("metrics", "weighted_metrics"):
            with pytest.raises(ValueError, match="metrics must expect logits"):
                adapted.compile("sgd", **{argument: metric})
    right = [metrics.SparseCategoricalCrossentropy(from_logits=True), "accuracy"]
    own = [lade_tf.metrics.NegativeLogLikelihood(from_logits=True)]
    adapted.compile("sgd", metrics=right, weighted_metrics=own)


def test_metrics_of_the_predicted_class_take_the_logits_of_a_model():
    model = lade_tf.LADEModel(sequential(None), COUNTS)
    own = [lade_tf.metrics.ShotAccuracy(COUNTS), lade_tf.metrics.MacroF1(3)]
    model.compile("sgd", metrics=[*own, lade_tf.metrics.PerClassAccuracy(3), "accuracy"])
    images, labels = make_images(), np.array([0, 1, 2, 0, 1, 2, 0])
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    hits = model.predict(images, verbose=0).argmax(1) == labels
    expected = [hits[labels == c].mean() for c in range(3)]
    np.testing.assert_allclose(logs["per_class_accuracy"], expected)


def test_a_prior_is_not_taken_out_by_loss_and_model():
    losses = lade_tf.losses
    adapted = lade_tf.adapt(sequential(None), COUNTS)
    for loss in (losses.LADE(COUNTS), losses.BalancedSoftmax(COUNTS)):
        with pytest.raises(ValueError, match="loss must fit the prior that this model takes out"):
            adapted.compile("sgd", loss)
        lade_tf.AdaptedModel(sequential(None), COUNTS).compile("sgd", loss)
    loss = losses.LogitAdjustment(COUNTS, tau=0.5)
    with pytest.raises(ValueError, match="source_prior=loss.source_prior"):
        adapted.compile("sgd", loss)
    right = lade_tf.AdaptedModel(sequential(None), COUNTS, source_prior=loss.source_prior)
    right.compile("sgd", loss)
    adapted.compile("sgd", losses.LogitAdjustment(COUNTS, tau=0))


@pytest.mark.parametrize("kind", [lade_tf.AdaptedModel, lade_tf.LADEModel])
def test_a_network_that_has_a_target_prior_gets_no_second_one(kind):
    inner = lade_tf.LADEModel(sequential(None), COUNTS)
    inputs = keras.Input((5,))
    layered = lade_tf.PriorAdaptLayer()(keras.layers.Dense(3)(inputs))
    for network in (inner, keras.Model(inputs, layered), keras.Sequential([inner])):
        with pytest.raises(ValueError, match="this one has a target prior already"):
            kind(network, COUNTS)


def test_keras_metrics_see_finite_logits_of_a_class_of_target_prior_zero():
    model = lade_tf.LADEModel(sequential(None), COUNTS)
    top = keras.metrics.SparseTopKCategoricalAccuracy(1, name="top")
    entropy = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="entropy")
    model.compile("sgd", metrics=["accuracy", top, entropy])
    model.set_target_prior([0.5, 0.5, 0])
    logs = model.evaluate(
        make_images(), np.array([0, 1, 0, 1, 0, 1, 1]), return_dict=True, verbose=0
    )
    assert logs["top"] == logs["accuracy"] > 0 and np.isfinite(logs["entropy"])
    assert np.isneginf(model.predict(make_images(), verbose=0)[:, 2]).all()


def test_a_model_that_has_a_target_prior_is_not_adapted_again():
    with pytest.raises(ValueError, match="the target prior of this AdaptedModel can be set as it"):
        lade_tf.adapt(lade_tf.adapt(sequential(None), COUNTS), COUNTS)


def test_logits_are_told_behind_a_cast():
    cast = keras.layers.Activation("linear", dtype="float32")
    assert lade_tf.adapt(keras.Sequential([sequential(None), cast]), COUNTS).from_logits


def test_a_loss_that_expects_probabilities_is_refused():
    adapted = lade_tf.adapt(sequential("softmax"), COUNTS)
    name, losses = "sparse_categorical_crossentropy", keras.losses
    of_class = "SparseCategoricalCrossentropy"
    for loss in (name, of_class, [name], getattr(losses, name), getattr(losses, of_class)()):
        with pytest.raises(ValueError, match="loss must expect logits"):
            adapted.compile("sgd", loss)


def test_an_adapted_model_is_saved_before_its_first_call(tmp_path):
    adapted = lade_tf.adapt(sequential("softmax"), COUNTS)
    adapted.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(make_images()), adapted(make_images()))


def test_other_activations_need_to_say_what_they_give():
    with pytest.raises(ValueError, match="from_logits must be given"):
        lade_tf.adapt(sequential("selu"), COUNTS)


def test_a_probability_of_zero_stays_finite():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    logits = lade_tf.adapt(model, COUNTS)(np.array([[1000.0, 0.0, 0.0]], np.float32))
    assert np.isfinite(logits).all()


def test_evaluate_shows_the_loss_of_the_model_and_the_accuracy_of_the_target():
    images, labels = make_images(), np.array([0, 1, 2, 0, 1, 2, 0])
    model = sequential(None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    expected = model.evaluate(images, labels, verbose=0)
    adapted = lade_tf.adapt(model, COUNTS)
    adapted.set_target_prior(TARGET)
    adapted.compile("sgd", loss, metrics=["accuracy"])
    logs = adapted.evaluate(images, labels, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    right = adapted.predict(images, verbose=0).argmax(axis=1) == labels
    assert logs["accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("counts", "message"),
    [([70, 20], r"\[batch, 2\] logits"), ([70, 20, 0], "counts must hold numbers > 0")],
)
def test_bad_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        lade_tf.adapt(sequential(None), counts)


def gaussians(share, size, seed):
    """Returns samples [size, 1] of two classes at ∓1, and their labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < share).astype(np.int64)
    return rng.normal(2 * labels - 1, 1.0)[:, None].astype(np.float32), labels


@pytest.fixture
def exact():
    """A model whose logits are those of the two Gaussians at the uniform prior."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    network.layers[0].set_weights([np.array([[-1.0, 1.0]], np.float32), np.zeros(2)])
    return lade_tf.AdaptedModel(network, [9, 1])


@pytest.mark.parametrize("calibrate", [True, False])
def test_adapt_to_finds_the_prior_with_and_without_calibration(exact, calibrate):
    source, labels = gaussians(0.1, 5000, seed=0)
    target, _ = gaussians(0.7, 5000, seed=1)
    exact.adapt_to(target, source, labels, "em", calibrate=calibrate)
    np.testing.assert_allclose(exact.target_prior, [0.3, 0.7], atol=0.03)


def test_adapt_to_is_hierarchical_around_the_models_training_prior(exact):
    source, labels = gaussians(0.1, 2000, seed=0)
    target, _ = gaussians(0.7, 2000, seed=1)
    estimate = exact.adapt_to(target, source, labels)
    np.testing.assert_allclose(exact.target_prior, [0.3, 0.7], atol=0.04)
    assert estimate.low[1] < 0.7 < estimate.high[1] and estimate.p_value is None
    # 0.3 : 0.7 is 9 : 1 to the power of −0.39.
    assert estimate.fit.exponent == pytest.approx(-0.39, abs=0.1)
    assert estimate.fit.reason in estimate.verdict
    other = exact.adapt_to(target, source, labels, training_prior=[0.3, 0.7]).fit
    assert other.chosen == "training"


def test_adapt_to_takes_data_sets(exact):
    source, labels = gaussians(0.1, 300, seed=0)
    target, _ = gaussians(0.7, 300, seed=1)
    expected = exact.adapt_to(target, source, labels).prior
    arrays = tf.data.Dataset.from_tensor_slices
    found = exact.adapt_to(arrays(target).batch(7), arrays((source, labels)).batch(9), labels)
    np.testing.assert_allclose(found.prior, expected, atol=1e-6)


class Batches(keras.utils.PyDataset):
    """A data set in another order at each pass."""

    def __init__(self, source, labels):
        super().__init__()
        self.data, self.rng = (source, labels), np.random.default_rng(0)
        self.order = self.rng.permutation(len(labels))

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 0:
            self.order = self.rng.permutation(self.order)
        part = self.order[index::3]
        return self.data[0][part], self.data[1][part]


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_a_shuffled_data_set_brings_its_own_labels(exact, kind, column):
    source, labels = gaussians(0.3, 3000, seed=0)
    target, _ = gaussians(0.7, 3000, seed=1)
    expected = exact.adapt_to(target, source, labels).prior
    temperature = exact.calibrate(source, labels)
    exact.prior_adapt.set_temperature(1)
    pair = source, labels[:, None] if column else labels
    if kind == "tf.data":
        data = tf.data.Dataset.from_tensor_slices(pair).shuffle(3000, seed=0).batch(700)
    else:
        data = Batches(*pair)
    np.testing.assert_allclose(exact.adapt_to(target, data).prior, expected, atol=1e-5)
    assert exact.calibrate(data) == pytest.approx(temperature, rel=1e-5)
    for fit in (
        lambda: exact.calibrate(data, labels),
        lambda: exact.adapt_to(target, data, labels),
    ):
        with pytest.raises(ValueError, match="labels must be those that the inputs yield"):
            fit()


def test_labels_that_nothing_yields_must_be_given(exact):
    source, labels = gaussians(0.3, 300, seed=0)
    for inputs in (source, tf.data.Dataset.from_tensor_slices(source).batch(9)):
        with pytest.raises(ValueError, match="source_labels must be given, except for a tf.data"):
            exact.adapt_to(source, inputs)
        with pytest.raises(ValueError, match="^labels must be given, except"):
            exact.calibrate(inputs)


def test_labels_may_be_a_column(exact):
    source, labels = gaussians(0.3, 300, seed=0)
    temperature = exact.calibrate(source, labels)
    assert exact.calibrate(source, labels[:, None]) == pytest.approx(temperature)
    for options in ({}, {"method": "em", "calibrate": False}):
        expected = exact.adapt_to(source, source, labels, **options).prior
        found = exact.adapt_to(source, source, labels[:, None], **options).prior
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "emm"}, "method must be one of"),
        (
            {"soft": True},
            "soft means nothing for method 'hierarchical', which takes training_prior",
        ),
        ({"pseudo_count": 1}, "pseudo_count means nothing for method 'hierarchical'"),
        (
            {"method": "bbse", "foo": 1},
            "foo means nothing for method 'bbse', which takes soft, boot",
        ),
        ({"source_labels": [0]}, "source_labels must hold 7 samples; got 1"),
        ({"source_labels": np.zeros([7, 2], int)}, r"source_labels must have shape \[samples\]"),
        ({"source_labels": np.full(7, 3)}, r"source_labels must be in 0\.\.2; got values from 3"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
    ],
)
def test_adapt_to_refuses_before_it_computes(changed, message):
    model = lade_tf.adapt(sequential(None), COUNTS)
    model.network.predict = None  # calling it would be a TypeError
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    arguments = {"source_inputs": make_images(), "source_labels": labels, **changed}
    with pytest.raises(ValueError, match=message):
        model.adapt_to(make_images(), **arguments)


def overconfident(exact):
    """Makes the logits of the two Gaussians three times as large."""
    exact.network.layers[0].set_weights([np.array([[-3.0, 3.0]], np.float32), np.zeros(2)])
    return exact


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_calibrate_undoes_overconfidence_at_every_prior(exact, share):
    expected = exact(make_images()[:, :1], target_prior=[0.2, 0.8])
    model = overconfident(exact)
    raw = model.raw_logits(make_images()[:, :1])
    inputs, labels = gaussians(share, 20_000, seed=0)
    assert model.calibrate(inputs, labels) == pytest.approx(3, abs=0.15)
    assert model.temperature == pytest.approx(3, abs=0.15)
    found = model(make_images()[:, :1], target_prior=[0.2, 0.8])
    np.testing.assert_allclose(tf.nn.softmax(found), tf.nn.softmax(expected), atol=0.02)
    np.testing.assert_array_equal(model.raw_logits(make_images()[:, :1]), raw)


def test_logits_that_carry_the_training_prior_are_calibrated_at_it(exact):
    model = lade_tf.AdaptedModel(exact.network, [9, 1], source_prior=[0.9, 0.1])
    weights = np.array([[-3.0, 3.0]], np.float32), 3 * np.log([0.9, 0.1])
    model.network.layers[0].set_weights(weights)
    inputs, labels = gaussians(0.5, 20_000, seed=0)
    assert model.calibrate(inputs, labels) == pytest.approx(3, abs=0.15)


def test_a_calibrated_model_is_saved_so_and_adapts_to_what_it_should(exact, tmp_path):
    inputs, labels = gaussians(0.3, 2000, seed=0)
    model = overconfident(exact)
    temperature = model.calibrate(inputs, labels)
    model.adapt_to(gaussians(0.7, 5000, seed=1)[0], inputs, labels, "em", calibrate=False)
    np.testing.assert_allclose(model.target_prior, [0.3, 0.7], atol=0.03)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.temperature == pytest.approx(temperature)
    np.testing.assert_allclose(again(inputs), model(inputs), rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": [0]}, "labels must hold 7 samples; got 1"),
        ({"labels": np.full(7, 3)}, r"labels must be in 0\.\.2; got values from 3"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
    ],
)
def test_calibrate_refuses_before_it_computes(changed, message):
    model = lade_tf.adapt(sequential(None), COUNTS)
    model.network.predict = None
    arguments = {"labels": np.array([0, 1, 2, 0, 1, 2, 0]), **changed}
    with pytest.raises(ValueError, match=message):
        model.calibrate(make_images(), **arguments)
    assert model.temperature == 1


@pytest.mark.parametrize("y", [(1, 1), (1, 1, 1), {"labels": 1}])
def test_labels_of_another_structure_are_refused(y):
    adapted = lade_tf.adapt(sequential(None), COUNTS)
    adapted.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = tf.constant([0, 1, 2, 0, 1, 2, 0])
    y = tf.nest.map_structure(lambda _: labels, y)
    data = tf.data.Dataset.from_tensors((make_images(), y))
    with pytest.raises(ValueError, match=r"labels must be one tensor \[batch\], or the three"):
        adapted.fit(data, verbose=0)
    with pytest.raises(ValueError, match=r"labels must be one tensor \[batch\], or the three"):
        adapted.evaluate(data, verbose=0)
