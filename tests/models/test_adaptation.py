"""What an AdaptedModel makes of samples; `calibrate` and `adapt_to` are tested in test_adapt.py."""

import keras
import numpy as np
import pytest

import lade_tf

IMAGES = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
TRAINING = np.array([0.7, 0.2, 0.1])


@pytest.mark.parametrize("target", [[0.2, 0.3, 0.5], [0.6, 0.0, 0.4]])
def test_probabilities_are_those_at_the_stored_prior(target):
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model = lade_tf.AdaptedModel(network, 100 * TRAINING, "training", target_prior=target)
    model.prior_adapt.set_temperature(1.7)
    kernel, bias = (weight.astype(np.float64) for weight in network.get_weights())
    scores = np.exp((IMAGES @ kernel + bias) / 1.7) / TRAINING * target
    found = model.predict_proba(IMAGES, batch_size=3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scores / scores.sum(axis=1, keepdims=True), rtol=1e-5)


def test_one_output_gives_the_probabilities_of_two_classes():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Activation("sigmoid")])
    model = lade_tf.adapt(network, [50, 50])
    np.testing.assert_allclose(model.predict_proba(np.log([[3.0]])), [[0.25, 0.75]], rtol=1e-6)


def test_no_samples_have_no_probabilities_and_bad_arguments_are_refused():
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model = lade_tf.AdaptedModel(network, [7, 2, 1])
    assert model.predict_proba(IMAGES[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="^batch_size must be"):
        model.predict_proba(IMAGES, batch_size=0)
    model.prior_adapt.target_prior.assign([0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="the stored target prior"):
        model.predict_proba(IMAGES)
