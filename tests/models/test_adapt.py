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


def test_a_bare_linear_activation_tells_nothing():
    # The mixed-precision idiom: a softmax, and after it a cast.
    model = keras.Sequential([sequential("softmax"), keras.layers.Activation("linear")])
    with pytest.raises(ValueError, match="from_logits must be given"):
        lade_tf.adapt(model, COUNTS)


def test_a_loss_that_expects_probabilities_is_refused():
    adapted = lade_tf.adapt(sequential("softmax"), COUNTS)
    for loss in ("sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()):
        with pytest.raises(ValueError, match="loss must expect logits"):
            adapted.compile("sgd", loss)


def test_an_adapted_model_is_saved_before_its_first_call(tmp_path):
    adapted = lade_tf.adapt(sequential("softmax"), COUNTS)
    adapted.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(make_images()), adapted(make_images()))


def test_other_activations_need_to_say_what_they_give():
    with pytest.raises(ValueError, match="from_logits must be given"):
        lade_tf.adapt(sequential("relu"), COUNTS)


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
