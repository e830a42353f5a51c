"""Second stages of a trained network against float64 NumPy."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.backbones import small_cnn
from lade_tf.layers import ClassScale, NearestClassMean
from lade_tf.models import decoupled

CLASSES = 4
COUNTS = [40, 20, 10, 5]
TAUS = (0.0, 0.7, 1.0, 2.0)


def make_network(nested=True):
    """A network whose batch norm has seen data, with biases that matter."""
    pixels = keras.Input((8, 8, 1))
    backbone = small_cnn()
    features = backbone(pixels / 16.0) if nested else backbone.outputs[0]
    logits = keras.layers.Dense(
        CLASSES, bias_initializer="random_normal", dtype="float32", name="logits"
    )(features)
    network = keras.Model(pixels if nested else backbone.inputs[0], logits)
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(*make_data(), verbose=0)
    return network


def linear_network(**kwargs):
    """Features that are the inputs."""
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, **kwargs)(inputs))


def make_data(size=40):
    rng = np.random.default_rng(0)
    labels = np.arange(size) % CLASSES
    images = rng.uniform(0, 16, (size, 8, 8, 1)) * (1 + labels[:, None, None, None])
    return images.astype(np.float32), labels


def batches(images, labels, size=16):
    return [
        (images[start : start + size], labels[start : start + size])
        for start in range(0, len(labels), size)
    ]


def float64_parts(network, images):
    """Returns features [images, d], kernel [d, classes] and bias [classes] in float64."""
    feature_model, dense = decoupled.split(network)
    arrays = feature_model(images, training=False), dense.kernel, dense.bias
    return tuple(np.asarray(array, np.float64) for array in arrays)


METHODS = {
    "crt": decoupled.retrain_classifier,
    "lws": decoupled.scale_classifier,
    "tau_norm": lambda network: decoupled.normalize_classifier(network, 0.7),
    "ncm": lambda network: decoupled.nearest_class_mean(network, batches(*make_data()), CLASSES),
}
TRAINED = {"crt": ["kernel", "bias"], "lws": ["scale"], "tau_norm": [], "ncm": []}


def adapted(method, **kwargs):
    model = lade_tf.AdaptedModel(METHODS[method](make_network(**kwargs)), COUNTS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(lade_tf.optimizers.SGD(0.1, l2=1e-2), loss, metrics=["accuracy"])
    return model


def test_split_gives_features_and_classifier():
    images, _ = make_data()
    network = make_network()
    features, kernel, bias = float64_parts(network, images)
    assert features.shape == (40, 64)
    np.testing.assert_allclose(network(images), features @ kernel + bias, rtol=1e-4, atol=1e-5)
    sequential = keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)])
    feature_model, dense = decoupled.split(sequential)
    assert dense is sequential.layers[-1] and feature_model.output_shape == (None, 3)


def test_a_retrained_classifier_starts_fresh_on_the_same_features():
    images, _ = make_data()
    network = make_network()
    features, kernel, _ = float64_parts(network, images)
    retrained = decoupled.retrain_classifier(network)
    again, fresh, bias = float64_parts(retrained, images)
    np.testing.assert_array_equal(again, features)
    assert np.abs(fresh - kernel).min() > 0
    assert 0.9 / 8 < np.abs(fresh).max() <= 1 / 8 and np.abs(bias).max() <= 1 / 8
    expected = features @ fresh + bias
    np.testing.assert_allclose(retrained(images), expected, rtol=1e-4, atol=1e-5)
    assert retrained.layers[-1].name == "logits"


def test_scales_multiply_logits_and_their_bias():
    images, _ = make_data()
    network = make_network()
    features, kernel, bias = float64_parts(network, images)
    scaled = decoupled.scale_classifier(network)
    np.testing.assert_array_equal(scaled(images), network(images))
    scale = np.array([0.5, 1.0, 2.0, -3.0])
    scaled.layers[-1].scale.assign(scale)
    expected = scale * (features @ kernel + bias)
    np.testing.assert_allclose(scaled(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau", TAUS)
def test_normalised_weights_are_their_formula(tau):
    images, _ = make_data()
    network = make_network()
    features, kernel, bias = float64_parts(network, images)
    kernel *= [0.3, 1, 2, 5]
    network.layers[-1].kernel.assign(kernel)
    norms = np.sqrt((kernel**2).sum(axis=0))
    expected = np.stack([features @ kernel[:, c] / norms[c] ** tau for c in range(CLASSES)], axis=1)
    normalized = decoupled.normalize_classifier(network, tau)
    np.testing.assert_allclose(normalized(images), expected, rtol=1e-4, atol=1e-5)
    saved = network(images).numpy()
    from_logits = decoupled.tau_normalized_logits(saved, bias, norms, tau)
    assert from_logits.dtype == np.float64
    np.testing.assert_allclose(from_logits, expected, rtol=1e-4, atol=1e-5)


def test_without_tau_only_the_bias_is_gone():
    images, _ = make_data()
    network = make_network()
    normalized = decoupled.normalize_classifier(network, 0)
    bias = network.layers[-1].bias.numpy()
    assert np.abs(bias).min() > 1e-3
    np.testing.assert_allclose(normalized(images), network(images) - bias, rtol=1e-4, atol=1e-6)


def test_tau_of_one_gives_every_class_a_weight_of_norm_one():
    kernel = decoupled.normalize_classifier(make_network(), 1.0).layers[-1].kernel
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-6)


def test_a_classifier_without_bias_is_normalised_too():
    network = linear_network(use_bias=False)
    inputs = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(decoupled.normalize_classifier(network, 0)(inputs), network(inputs))


def test_nearest_class_mean_is_its_formula():
    images, labels = make_data(37)
    network = make_network()
    features, _, _ = float64_parts(network, images)
    means = [features[labels == c].mean(axis=0) for c in range(CLASSES)]
    expected = [[-0.5 * ((x - mean) ** 2).sum() for mean in means] for x in features]
    nearest = decoupled.nearest_class_mean(network, iter(batches(images, labels)), CLASSES)
    np.testing.assert_allclose(nearest(images), expected, rtol=1e-3, atol=1e-5)


def test_nearest_class_mean_takes_a_stream_and_keeps_small_distances_far_from_the_origin():
    rng = np.random.default_rng(0)
    labels = np.arange(400, dtype=np.int32) % CLASSES
    features = 1000 + labels[:, None] + rng.normal(0, 0.1, (400, 3))
    features = features.astype(np.float32)
    stream = tf.data.Dataset.from_tensor_slices((features, labels)).batch(64)
    nearest = decoupled.nearest_class_mean(linear_network(), stream, CLASSES)
    exact = features.astype(np.float64)
    means = np.stack([exact[labels == c].mean(axis=0) for c in range(CLASSES)])
    expected = -0.5 * ((exact[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_allclose(nearest(features), expected, atol=1e-3)
    np.testing.assert_array_equal(np.argmax(nearest(features), axis=1), labels)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_fit_moves_the_head_and_nothing_else(method, nested):
    images, labels = make_data()
    model = adapted(method, nested=nested)
    assert [variable.name for variable in model.trainable_variables] == TRAINED[method]
    before = {variable.path: variable.numpy() for variable in model.network.variables}
    assert any("moving_mean" in path for path in before)
    model.fit(images, labels, epochs=2, verbose=0)
    heads = {variable.path for variable in model.trainable_variables}
    for variable in model.network.variables:
        if variable.path in heads:
            assert (variable.numpy() != before[variable.path]).all(), variable.path
        else:
            np.testing.assert_array_equal(variable, before[variable.path], variable.path)


@pytest.mark.parametrize("method", METHODS)
def test_training_sees_batch_norm_in_inference_mode(method):
    images, _ = make_data()
    network = METHODS[method](make_network())
    np.testing.assert_array_equal(network(images, training=True), network(images, training=False))


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[] if m in ("crt", "ncm") else pytest.mark.slow) for m in METHODS],
)
def test_an_adapted_model_is_saved_loaded_trained_and_exported(method, tmp_path):
    images, labels = make_data()
    model = adapted(method)
    model.fit(images, labels, verbose=0)
    model.set_target_prior([0.1, 0.2, 0.3, 0.4])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    logits = model.predict(images, verbose=0)
    np.testing.assert_array_equal(again.predict(images, verbose=0), logits)
    model.export(tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    exported = served(images=tf.constant(images))["logits"]
    np.testing.assert_allclose(exported, logits, rtol=1e-5, atol=1e-5)
    assert [variable.name for variable in again.trainable_variables] == TRAINED[method]
    for trained in (model, again):
        trained.fit(images, labels, shuffle=False, verbose=0)
    for variable, expected in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable, expected)


@pytest.mark.parametrize("method", METHODS)
def test_logits_are_float32_on_half_precision_features(method):
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = METHODS[method](make_network())
    images, _ = make_data()
    logits = network(images)
    assert logits.dtype == tf.float32
    assert (logits != tf.cast(tf.cast(logits, tf.bfloat16), tf.float32)).numpy().any()


@pytest.mark.parametrize(
    "layer",
    [ClassScale(name="mine"), NearestClassMean(4, dtype="float64")],
)
def test_layers_round_trip(layer):
    config = json.dumps(keras.saving.serialize_keras_object(layer))
    again = keras.saving.deserialize_keras_object(json.loads(config))
    assert type(again) is type(layer)
    assert json.dumps(keras.saving.serialize_keras_object(again)) == config


def saved_logits(size=400, seed=1):
    """Logits that are better the smaller the norms' influence, up to a point, with biases."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, size)
    norms = np.array([4.0, 2.0, 1.0, 0.5])
    bias = np.array([1.0, 0.5, -0.5, -1.0])
    scores = 2 * np.eye(CLASSES)[labels] + rng.normal(size=(size, CLASSES)) + 1
    return scores * norms**1.1 + bias, labels, bias, norms


def accuracy_at(tau, logits, labels, bias, norms):
    return np.mean(((logits - bias) / norms**tau).argmax(axis=1) == labels)


def test_the_chosen_tau_has_the_highest_accuracy():
    sample = saved_logits()
    accuracies = [accuracy_at(tau, *sample) for tau in np.linspace(0, 2, 21)]
    best = decoupled.choose_tau(*sample)
    assert best == np.linspace(0, 2, 21)[np.argmax(accuracies)] and 0.8 < best < 1.4
    assert accuracy_at(best, *sample) > accuracy_at(0, *sample) + 0.1


def test_of_equal_taus_the_smallest_is_chosen():
    logits, labels, bias, _ = saved_logits()
    assert decoupled.choose_tau(logits, labels, bias, np.ones(4), taus=[1.5, 0.5, 1.0]) == 0.5


def test_each_half_is_scored_with_the_tau_of_the_other():
    logits, labels, bias, norms = saved_logits(41)
    fitted, (tau_a, tau_b) = decoupled.cross_fitted_logits(logits, labels, bias, norms, seed=3)
    first, second = decoupled.stratified_halves(labels, seed=3)
    assert tau_a != tau_b
    assert tau_a == decoupled.choose_tau(logits[first], labels[first], bias, norms)
    assert tau_b == decoupled.choose_tau(logits[second], labels[second], bias, norms)
    np.testing.assert_allclose(fitted[first], (logits[first] - bias) / norms**tau_b)
    np.testing.assert_allclose(fitted[second], (logits[second] - bias) / norms**tau_a)


def test_halves_part_every_class_evenly():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [50, 7, 1, 3]))
    first, second = decoupled.stratified_halves(labels, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(61))
    counts = [np.bincount(labels[half], minlength=4) for half in (first, second)]
    assert np.abs(counts[0] - counts[1]).max() <= 1 and abs(len(first) - len(second)) <= 1
    np.testing.assert_array_equal(decoupled.stratified_halves(labels, seed=0)[0], first)
    assert set(decoupled.stratified_halves(labels, seed=1)[0]) != set(first)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


class Halved(keras.layers.Dense):
    pass


def followed_by(operation):
    network = linear_network()
    return keras.Model(network.inputs[0], operation(network.outputs[0]))


def two_inputs():
    inputs = keras.Input((3,)), keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(inputs[0] + inputs[1]))


def of_layer(layer, shape=(3,)):
    return keras.Sequential([keras.Input(shape), layer])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Subclassed, "network must be a functional keras.Model of one input"),
        (lambda: keras.Sequential([keras.layers.Dense(4)]), "must be a functional keras.Model"),
        (two_inputs, "network must be a functional keras.Model of one .* 2 inputs and 1 outputs"),
        (lambda: linear_network(activation="softmax"), "network must end in a keras.layers.Dense"),
        (lambda: followed_by(keras.layers.Softmax()), "network must end in .*<Softmax"),
        (lambda: followed_by(lambda logits: logits * 2), "network must end in a keras.layers.Den"),
        (lambda: of_layer(linear_network()), "network must end in .*<Functional"),
        (lambda: of_layer(Halved(4)), "network must end in .*<Halved"),
        (lambda: of_layer(keras.layers.Dense(4), (2, 3)), "network must end in a keras.layers"),
    ],
)
def test_other_networks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        decoupled.split(make())


def ncm(labels, num_classes=CLASSES):
    inputs = np.zeros((len(labels), 3), np.float32)
    return decoupled.nearest_class_mean(linear_network(), [(inputs, labels)], num_classes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decoupled.normalize_classifier(linear_network(), -0.1), "tau must be .*got -0.1"),
        (lambda: decoupled.normalize_classifier(linear_network(), np.inf), "tau must be a finite"),
        (
            lambda: decoupled.normalize_classifier(linear_network(kernel_initializer="zeros"), 1),
            "norms .* must be finite numbers > 0; got 0 at class 0",
        ),
        (lambda: ncm([0, 1, 3]), "batches must hold images of every class; class 2 has none"),
        (lambda: ncm([0]), r"class 1 has none \(3 such classes\)"),
        (lambda: ncm([0, 4]), r"labels must be in 0\.\.3; got values from 0 to 4"),
        (lambda: ncm([0, 1], 2.0), "num_classes must be an integer >= 1; got 2.0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taus": [0.5, -1]}, "tau must be a finite number >= 0; got -1"),
        ({"taus": []}, "taus must hold at least one candidate"),
        ({"logits": np.zeros(4)}, r"logits must have shape \[samples, classes\]; got shape \(4,\)"),
        ({"bias": np.zeros(3)}, "bias must hold 4 finite numbers"),
        ({"norms": np.ones(5)}, r"norms must hold 4 numbers; got shape \(5,\)"),
        ({"norms": [1, 1, 0, 1]}, "norms .* > 0; got 0 at class 2"),
        ({"labels": np.zeros(3, int)}, "labels must hold 400 samples; got 3"),
        ({"labels": np.full(400, 4)}, r"labels must be in 0\.\.3"),
        ({"seed": -1}, "seed must be an integer >= 0; got -1"),
        ({"logits": np.zeros((1, 4)), "labels": [0]}, "at least 2 samples to be halved; got 1"),
    ],
)
def test_bad_saved_logits_are_refused(changes, message):
    logits, labels, bias, norms = saved_logits()
    arguments = dict(logits=logits, labels=labels, bias=bias, norms=norms)
    with pytest.raises(ValueError, match=message):
        decoupled.cross_fitted_logits(**{**arguments, **changes})


def test_a_network_stays_as_it_was_when_an_argument_is_refused():
    network = make_network()
    with pytest.raises(ValueError, match="tau"):
        decoupled.normalize_classifier(network, -1)
    with pytest.raises(ValueError, match="class 3 has none"):
        decoupled.nearest_class_mean(network, [(make_data()[0][:3], [0, 1, 2])], CLASSES)
    assert len(network.trainable_variables) == 11
