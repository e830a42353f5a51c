"""What AdaptedModel adds to a network: training state, the carried prior, options."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf

COUNTS = np.array([90, 10])
PRIOR = COUNTS / 100
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def gaussians(size, share=0.5, seed=0):
    """Returns samples [size, 1] of two classes at ∓1, and their labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < share).astype(np.int64)
    return rng.normal(2 * labels - 1, 1.0)[:, None].astype(np.float32), labels


def carrying(prior, temperature=2.0):
    """Returns a network whose logits carry a prior, right but for a temperature."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    weights = np.array([[-1.0, 1.0]]), np.log(prior)
    network.layers[0].set_weights([temperature * weight for weight in weights])
    return network


@pytest.mark.parametrize("told", [{}, {"source_prior": "training"}, {"class_weight": [1, 4]}])
def test_the_carried_prior_is_fitted_kept_and_used(told):
    carried = np.array([0.6, 0.4])
    model = lade_tf.AdaptedModel(carrying(carried), COUNTS, **told)
    inputs, labels = gaussians(4000)
    function = tf.function(lambda x: model(x))
    function(inputs)
    temperature = model.calibrate(inputs, labels, prior=True)
    assert temperature == pytest.approx(2, abs=0.15)
    assert model.temperature == pytest.approx(temperature)
    np.testing.assert_allclose(model.prior_adapt.source_prior, carried, atol=0.05)
    posteriors = tf.nn.softmax(function(inputs))
    expected = 1 / (1 + np.exp(-2 * inputs[:, 0]))
    np.testing.assert_allclose(posteriors[:, 1], expected, atol=0.05)
    assert function.experimental_get_tracing_count() == 1
    # Again, it starts from what the model was built with.
    assert model.calibrate(inputs, labels, prior=True) == temperature


def test_the_fitted_prior_is_saved_exported_and_of_its_weights_file(tmp_path):
    inputs, labels = gaussians(300)
    model = lade_tf.adapt(carrying([0.5, 0.5]), COUNTS)
    model.save_weights(tmp_path / "before.weights.h5")
    model.calibrate(inputs, labels, prior=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.prior_adapt.source_prior, model.prior_adapt.source_prior)
    np.testing.assert_array_equal(again(inputs), model(inputs))
    np.testing.assert_allclose(again.get_config()["source_prior"], PRIOR)
    model.export(tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    np.testing.assert_allclose(served(images=inputs)["logits"], model(inputs), atol=1e-6)
    model.load_weights(tmp_path / "before.weights.h5")
    assert model.temperature == 1
    assert model.prior_adapt.source_prior == model.get_config()["source_prior"]


@pytest.mark.parametrize(
    ("state", "value", "message"),
    [
        ("target_prior", [np.nan, 0.5], "target prior must hold finite numbers"),
        ("target_prior", [1.5, -0.5], "target prior must hold probabilities >= 0"),
        ("target_prior", [0.5, 0.4], "target prior must sum to 1"),
        ("temperature", np.inf, "temperature must be a finite number > 0; got "),
        ("temperature", 0.0, "temperature must be a finite number > 0; got "),
        ("_log_source_prior", [0.0, -np.inf], "source prior must hold finite probabilities > 0"),
    ],
)
def test_a_state_that_is_none_is_neither_loaded_nor_used(tmp_path, state, value, message):
    model = lade_tf.adapt(carrying(PRIOR), COUNTS)
    getattr(model.prior_adapt, state).assign(value)
    model.save(tmp_path / "bad.keras")
    model.save_weights(tmp_path / "bad.weights.h5")
    good = lade_tf.AdaptedModel(carrying(PRIOR), COUNTS, "training", [0.3, 0.7])
    for use in (
        lambda: model.predict(np.zeros([1, 1]), verbose=0),
        lambda: model.export(tmp_path / "served", verbose=False),
        lambda: keras.saving.load_model(tmp_path / "bad.keras"),
        lambda: good.load_weights(tmp_path / "bad.weights.h5"),
    ):
        with pytest.raises(ValueError, match=f"the stored {message}"):
            use()
    assert not (tmp_path / "served").exists()
    np.testing.assert_allclose(good.target_prior, [0.3, 0.7])
    good.save_weights(tmp_path / "good.weights.h5")
    model.load_weights(tmp_path / "good.weights.h5")
    assert np.isfinite(model.predict(np.zeros([1, 1]), verbose=0)).all()


def test_a_failed_fit_leaves_temperature_and_prior():
    inputs, labels = gaussians(300)
    model = lade_tf.adapt(carrying(PRIOR), COUNTS)
    with pytest.raises(ValueError, match="no better than chance"):
        model.calibrate(-inputs, labels, prior=True)
    assert model.temperature == 1 and model.prior_adapt.source_prior == PRIOR.tolist()


@pytest.mark.parametrize("size", [15, 300])
def test_calibrate_warns_where_data_contradict_the_prior(size):
    inputs, labels = gaussians(size)
    with pytest.warns(UserWarning, match=r"\[0.9, 0.1\] is taken.*data point to \[0\.") as caught:
        lade_tf.adapt(carrying([0.5, 0.5]), COUNTS).calibrate(inputs, labels)
    assert [one.filename for one in caught if one.category is UserWarning] == [__file__]
    fitted = lade_tf.adapt(carrying([0.5, 0.5]), COUNTS)
    fitted.calibrate(inputs, labels, prior=True)
    right = lade_tf.adapt(carrying(PRIOR), COUNTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted.calibrate(inputs, labels)
        right.calibrate(inputs, labels)
        lade_tf.AdaptedModel(carrying([0.5, 0.5]), COUNTS).calibrate(inputs, labels)


def test_training_goes_on_after_the_prior_was_fitted():
    inputs, labels = gaussians(300)
    model = lade_tf.AdaptedModel(carrying(PRIOR), COUNTS)
    model.calibrate(inputs, labels, prior=True)
    model.compile("sgd", lade_tf.losses.BalancedSoftmax(COUNTS))
    model.fit(inputs, labels, verbose=0)


def with_state():
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    return lade_tf.AdaptedModel(keras.Sequential([keras.Input((8,)), *layers]), COUNTS)


def test_the_network_is_trained_in_training_mode_and_evaluated_in_inference():
    images = np.random.default_rng(0).normal(3, 2, (32, 8)).astype(np.float32)
    labels = np.arange(32) % 2
    model = with_state()
    mean = model.network.layers[0].moving_mean
    assert not np.allclose(model.raw_logits(images, training=True), model.raw_logits(images))
    moved = mean.numpy().copy()
    assert np.all(moved != 0)
    model.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    model.fit(images, labels, batch_size=32, verbose=0)
    assert np.all(mean.numpy() != moved)
    moved = mean.numpy().copy()
    expected = CROSS_ENTROPY(labels, model.network(images, training=False))
    assert model.evaluate(images, labels, verbose=0) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_array_equal(mean.numpy(), moved)


def test_the_loss_that_is_shown_is_the_mean_over_the_examples():
    model = lade_tf.adapt(carrying(PRIOR), COUNTS)
    model.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    inputs, labels = gaussians(5)
    labels[4] = 1 - labels[4]  # the batch of one has another loss than that of four
    expected = CROSS_ENTROPY(labels, model.network(inputs))
    shown = model.evaluate(inputs, labels, batch_size=4, verbose=0)
    assert shown == pytest.approx(float(expected), rel=1e-5)
    history = model.fit(inputs, labels, batch_size=4, shuffle=False, verbose=0).history
    assert history["loss"][0] == pytest.approx(float(expected), rel=1e-5)


def test_adapt_to_draws_no_bootstrap_unless_told():
    inputs, labels = gaussians(300)
    model = lade_tf.AdaptedModel(carrying([0.5, 0.5], 1.0), COUNTS)
    estimate = model.adapt_to(inputs, inputs, labels, "em")
    assert estimate.low is None and estimate.high is None and estimate.p_value is None
    assert model.adapt_to(inputs, inputs, labels, "em", bootstrap=2).low.shape == (2,)


def test_inputs_keep_their_digits_whatever_the_policy_out_here():
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Rescaling(1.0, -4096.0), keras.layers.Dense(2)]
    )
    keras.config.set_dtype_policy("mixed_float16")
    model = lade_tf.AdaptedModel(network, COUNTS)
    images = np.array([[4097.5], [4096.25]], np.float32)  # float16 has neither
    expected = (images - 4096) @ network.layers[1].kernel
    np.testing.assert_allclose(model(images), expected - np.log(2), atol=1e-6)


def test_synchronised_batch_normalisation_with_xla_is_refused_on_replicas(two_replicas):
    with two_replicas.scope():
        layers = [keras.layers.BatchNormalization(synchronized=True), keras.layers.Dense(2)]
        model = lade_tf.AdaptedModel(keras.Sequential([keras.Input((3,)), *layers]), COUNTS)
        with pytest.raises(ValueError, match="jit_compile must be False on several replicas"):
            model.compile("sgd", CROSS_ENTROPY, jit_compile=True)
        model.compile("sgd", CROSS_ENTROPY, jit_compile="auto")
        model.compile("sgd", CROSS_ENTROPY, jit_compile=False)
