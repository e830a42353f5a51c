"""A network with one output judges two classes, (negative, positive)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.models import adaptation
from lade_tf.models.outputs import as_logits

COUNTS = [90, 10]
SOURCE = np.array(COUNTS) / 100
TARGET = np.array([0.3, 0.7])
BINARY = keras.losses.BinaryCrossentropy
FOCAL = keras.losses.BinaryFocalCrossentropy
LABELS = np.array([0, 1, 1, 0, 0, 1, 0])
Z = np.linspace(-3, 4, 7)


def images():
    return Z[:, None].astype(np.float32)


def network(activation=None, loss=None, kind="sequential"):
    """Returns a network whose one output is the log odds z = input, or their sigmoid."""
    ones = {"kernel_initializer": "ones"}
    inputs, dense = keras.Input((1,)), keras.layers.Dense(1, activation, **ones)
    plain = keras.layers.Dense(1, **ones)

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = dense

        def call(self, inputs):
            return self.dense(inputs)

    model = {
        "sequential": lambda: keras.Sequential([inputs, dense]),
        "unbuilt": lambda: keras.Sequential([dense]),
        "functional": lambda: keras.Model(inputs, dense(inputs)),
        "layer": lambda: keras.Sequential([inputs, plain, keras.layers.Activation(activation)]),
        "operation": lambda: keras.Model(inputs, keras.ops.sigmoid(plain(inputs))),
        "cast": lambda: keras.Sequential([inputs, dense, keras.layers.Activation("linear")]),
        "nested": lambda: keras.Sequential([inputs, keras.Sequential([keras.Input((1,)), dense])]),
        "squeezed": lambda: keras.Model(inputs, keras.ops.squeeze(dense(inputs), -1)),
        "subclassed": Subclassed,
    }[kind]()
    if loss is not None:
        model.compile(keras.optimizers.SGD(0.5), loss)
    return model


def posterior(z, target, source=SOURCE):
    """Returns [samples, 2] float64 of log odds z that carry a source prior."""
    odds = np.exp(np.asarray(z, np.float64)) * target[1] / source[1] * source[0] / target[0]
    return np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)


@pytest.mark.parametrize(
    ("activation", "loss", "kind"),
    [
        ("sigmoid", "binary_crossentropy", "sequential"),
        ("sigmoid", None, "functional"),
        ("sigmoid", [BINARY()], "unbuilt"),
        (tf.nn.sigmoid, "BinaryCrossentropy", "sequential"),
        ("sigmoid", FOCAL(), "layer"),
        ("sigmoid", "bce", "operation"),
        ("sigmoid", "mse", "cast"),
        ("sigmoid", keras.losses.binary_crossentropy, "squeezed"),
        ("sigmoid", BINARY(), "subclassed"),
        # Keras finds the logits of its sigmoid, and says so.
        ("sigmoid", BINARY(from_logits=True), "nested"),
        (None, BINARY(from_logits=True), "sequential"),
        (None, [FOCAL(from_logits=True)], "unbuilt"),
        (None, None, "nested"),
        (None, BINARY(from_logits=True), "subclassed"),
        (None, BINARY(from_logits=True, label_smoothing=0.1), "squeezed"),
    ],
)
def test_one_output_is_taken_as_two_classes(activation, loss, kind):
    model = network(activation, loss, kind)
    adapted = lade_tf.adapt(model, COUNTS)
    assert adapted.from_logits is (activation is None)
    for prior in (SOURCE, TARGET):
        adapted.set_target_prior(prior)
        found = tf.nn.softmax(adapted(images()))
        np.testing.assert_allclose(found, posterior(Z, prior), rtol=2e-6)
    np.testing.assert_allclose(adapted.raw_logits(images()), np.stack([0 * Z, Z], 1), atol=1e-5)


def test_what_a_sigmoid_cant_say_any_more_is_taken_from_its_logits():
    z = np.array([-200, -80, -20, 20, 80, 200], np.float32)
    found = lade_tf.adapt(network("sigmoid"), COUNTS).raw_logits(z[:, None])
    np.testing.assert_array_equal(found[:, 1], z)


@pytest.mark.parametrize(
    ("dtype", "nearest", "lowest"),
    [("float32", 2.0**-25, 2.0**-126), ("float16", 2.0**-12, 2.0**-24), ("bfloat16", 2.0**-9, 0)],
)
def test_probabilities_that_are_rounded_stand_for_the_next_ones(dtype, nearest, lowest):
    probabilities = tf.cast([0.0, 0.25, 0.5, 1.0], dtype)
    found = as_logits(probabilities, from_logits=False)[:, 1].numpy()
    expected = [np.log(max(lowest, 2.0**-126)), np.log(1 / 3), 0, -np.log(nearest)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_predicted_logits_are_those_of_a_call():
    adapted = lade_tf.adapt(network("sigmoid"), COUNTS)
    z = np.array([[-30], [0], [30]], np.float32)
    found = [
        adaptation.predicted_logits(adapted, x, 2) for x in (z, tf.data.Dataset.from_tensors(z))
    ]
    for logits in found:
        np.testing.assert_array_equal(logits, adapted.raw_logits(z))
    first, again = (adaptation.raw_predictor(adapted) for _ in range(2))
    assert first is again  # it isn't traced again
    assert [layer.name for layer in adapted.layers] == [adapted.network.name, "prior_adapt"]


SPARSE = keras.losses.SparseCategoricalCrossentropy


@pytest.mark.parametrize(
    ("activation", "loss", "labels"),
    [
        ("sigmoid", BINARY(from_logits=True), LABELS[:, None].astype("float32")),
        ("sigmoid", SPARSE(from_logits=True), LABELS[:, None]),
        (None, [BINARY(from_logits=True)], LABELS),
        (None, FOCAL(from_logits=True, gamma=0.0), LABELS.astype(bool)),
    ],
)
def test_training_goes_on_as_before(activation, loss, labels):
    alone = network(activation, BINARY(from_logits=activation is None))
    alone.train_on_batch(images(), LABELS[:, None])
    adapted = lade_tf.adapt(network(activation), COUNTS)
    adapted.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
    logs = adapted.evaluate(images(), labels, verbose=0, return_dict=True)
    entropy = -np.log(posterior(Z, SOURCE)[np.arange(7), LABELS]).mean()
    right = (posterior(Z, np.full(2, 0.5)).argmax(1) == LABELS).mean()
    np.testing.assert_allclose([logs["loss"], logs["accuracy"]], [entropy, right], rtol=1e-5)
    adapted.train_on_batch(images(), labels)
    for found, wanted in zip(adapted.network.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_losses_that_free_two_logits_free_one_output():
    model = lade_tf.AdaptedModel(network(), COUNTS)
    model.compile("sgd", lade_tf.losses.BalancedSoftmax(COUNTS))
    entropy = -np.log(posterior(Z, SOURCE, np.full(2, 0.5))[np.arange(7), LABELS]).mean()
    assert model.evaluate(images(), LABELS, verbose=0) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_it_is_saved_and_exported(activation, tmp_path):
    adapted = lade_tf.adapt(network(activation), COUNTS)
    adapted.set_target_prior(TARGET)
    adapted.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_config()["source_prior"] == SOURCE.tolist()
    np.testing.assert_array_equal(again(images()), adapted(images()))
    adapted.export(tmp_path / "served", class_names=["healthy", "ill"])
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    outputs = served(images=tf.constant(images()))
    expected = posterior(Z, TARGET)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=2e-6)
    np.testing.assert_array_equal(outputs["label"], expected.argmax(1))


def gaussians(share, size, seed):
    """Returns z of two Gaussians at ∓1 and their labels, [size, 1] float32 as Keras' sets give."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < share).astype(np.float32)
    return rng.normal(2 * labels - 1, 1.0)[:, None].astype(np.float32), labels[:, None]


def test_calibrate_and_adapt_to_take_labels_of_a_column():
    # z is twice the input less log 9 at counts of 90 and 10; here it is three times that.
    model = network()
    model.layers[0].set_weights([np.full((1, 1), 6, np.float32), np.full(1, -3 * np.log(9))])
    adapted = lade_tf.adapt(model, COUNTS)
    source, labels = gaussians(0.4, 6000, 0)
    yielded = tf.data.Dataset.from_tensor_slices((source, labels)).batch(1000)
    assert adapted.calibrate(source, labels) == pytest.approx(3, rel=0.1)
    assert adapted.calibrate(yielded) == pytest.approx(3, rel=0.1)
    adapted.adapt_to(gaussians(0.7, 6000, 1)[0], yielded)
    np.testing.assert_allclose(adapted.target_prior, [0.3, 0.7], atol=0.03)


def dense(units, activation=None, loss=None):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, activation)])
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: lade_tf.adapt(network("sigmoid"), [70, 20, 10]), "one output is two classes"),
        (lambda: lade_tf.LADEModel(network(), COUNTS), "AdaptedModel and .*BalancedSoftmax"),
        (lambda: lade_tf.LADEModel(network(kind="unbuilt"), COUNTS), "two outputs.*adapt"),
        (lambda: lade_tf.LADEModel(network(kind="subclassed"), COUNTS)(images()), "two outputs"),
        (lambda: lade_tf.AdaptedModel(network("sigmoid"), COUNTS), "sigmoid. Leave .*adapt"),
        (lambda: lade_tf.adapt(dense(1, "softmax"), COUNTS), "softmax of one output is always 1"),
        (lambda: lade_tf.adapt(dense(1, "tanh"), COUNTS), "model must give logits.* tanh"),
        (
            lambda: lade_tf.AdaptedModel(dense(1, "tanh"), COUNTS, from_logits=False),
            "probabilities of a sigmoid; .* tanh",
        ),
        (lambda: lade_tf.adapt(dense(2, "sigmoid"), COUNTS), "judge each class by itself"),
        (lambda: lade_tf.adapt(dense(2, None, BINARY(True)), COUNTS), "each of its outputs by"),
        (lambda: lade_tf.adapt(dense(3, None, ["bce"]), [7, 2, 1]), "each of its outputs by"),
        (
            lambda: lade_tf.adapt(dense(1, "sigmoid", "sparse_categorical_crossentropy"), COUNTS),
            "BinaryCrossentropy; .* is 0 there",
        ),
        (lambda: lade_tf.adapt(dense(1, None, "bce"), COUNTS), "loss expects probabilities"),
    ],
)
def test_what_cant_be_two_classes_is_refused_with_the_way_out(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_losses_are_refused_that_dont_fit_the_outputs():
    both = [BINARY(from_logits=True), keras.losses.SparseCategoricalCrossentropy(True)]
    per_class = [lade_tf.losses.LADE(COUNTS), lade_tf.losses.ClassBalancedFocal(COUNTS)]
    cases = [("throughout", both), ("must expect logits", BINARY())]
    cases += [("one of each class", loss) for loss in per_class]
    for message, loss in cases:
        with pytest.raises(ValueError, match=message):
            lade_tf.AdaptedModel(network(), COUNTS).compile("sgd", loss)
    with pytest.raises(ValueError, match="against each other"):
        lade_tf.AdaptedModel(dense(3), [7, 2, 1]).compile("sgd", BINARY(from_logits=True))


def test_metrics_of_one_output_are_refused():
    adapted = lade_tf.adapt(network(), COUNTS)
    metrics = keras.metrics
    for metric in (metrics.AUC(from_logits=True), "BinaryAccuracy", "binary_accuracy", "AUC"):
        for given in ({"metrics": [metric]}, {"weighted_metrics": ["accuracy", metric]}):
            with pytest.raises(ValueError, match="logits of both classes.*predict"):
                adapted.compile("sgd", **given)
    adapted.compile("sgd", metrics=["accuracy", lade_tf.metrics.MacroF1(2)])
    lade_tf.AdaptedModel(dense(2), COUNTS).compile("sgd", metrics=[metrics.AUC(from_logits=True)])


@pytest.mark.parametrize("labels", [np.full(7, 2), np.eye(2)[LABELS], np.full(7, 0.3)])
def test_labels_are_refused_that_arent_0_or_1(labels):
    adapted = lade_tf.adapt(network(), COUNTS)
    adapted.compile("sgd", BINARY(from_logits=True))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="labels must be integ"):
        adapted.evaluate(images(), labels, verbose=0)
