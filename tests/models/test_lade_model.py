import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

import lade_tf
from lade_tf import priors

COUNTS = [40, 20, 8, 4]


def make_network(**kwargs):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, **kwargs)])


def make_data(size=64, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size, p=np.array(COUNTS) / sum(COUNTS))
    images = np.eye(4)[labels] + rng.normal(0, 0.3, (size, 4))
    return images.astype(np.float32), labels


def make_model(**kwargs):
    model = lade_tf.LADEModel(make_network(), COUNTS, alpha=0.5, remine_lambda=0.1, **kwargs)
    model.compile(keras.optimizers.SGD(0.5), metrics=["accuracy"])
    return model


def test_one_step_is_gradient_descent_on_equation_20():
    images, labels = make_data(16)
    model = make_model()
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.network.weights)

    def loss(kernel, bias):
        return oracles.lade(images @ kernel + bias, labels, COUNTS, 0.5, 0.1, "paper")

    logs = model.train_on_batch(images, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(loss(kernel, bias), rel=1e-5)
    step = 1e-6
    for index in np.ndindex(kernel.shape):
        shift = np.zeros_like(kernel)
        shift[index] = step
        slope = (loss(kernel + shift, bias) - loss(kernel - shift, bias)) / (2 * step)
        moved = model.network.weights[0].numpy()[index]
        assert moved == pytest.approx(kernel[index] - 0.5 * slope, abs=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_two_terms_are_shown_and_make_up_the_loss(weighted):
    weight = np.random.default_rng(1).integers(0, 4, 64) if weighted else None
    logs = make_model().evaluate(
        *make_data(), batch_size=16, sample_weight=weight, verbose=0, return_dict=True
    )
    assert set(logs) == {"loss", "cross_entropy", "lader", "accuracy"}
    assert logs["loss"] == pytest.approx(logs["cross_entropy"] + 0.5 * logs["lader"], rel=1e-5)


def test_the_model_and_the_plain_loss_train_alike():
    images, labels = make_data()
    model = make_model()
    plain = keras.models.clone_model(model.network)
    plain.set_weights(model.network.get_weights())
    plain.compile(keras.optimizers.SGD(0.5), lade_tf.losses.LADE(COUNTS, 0.5, 0.1))
    weight = np.random.default_rng(1).integers(0, 3, len(labels)).astype(np.float32)
    for trained in (model, plain):
        trained.fit(
            images, labels, sample_weight=weight, batch_size=16, shuffle=False, epochs=3, verbose=0
        )
    for actual, expected in zip(model.network.weights, plain.weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_losses_of_the_network_are_added():
    images, labels = make_data(8)
    networks = make_network(), make_network(activity_regularizer=keras.regularizers.L2(1.0))
    networks[1].set_weights(networks[0].get_weights())
    losses = []
    for network in networks:
        model = lade_tf.LADEModel(network, COUNTS)
        model.compile("sgd")
        losses.append(model.evaluate(images, labels, verbose=0, return_dict=True)["loss"])
    expected = np.square(networks[0](images)).sum() / len(images)
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)


def test_metrics_and_predictions_follow_the_target_prior():
    images, labels = make_data(200)
    model = make_model()
    model.fit(images, labels, epochs=5, verbose=0)
    raw = model.network(images).numpy()
    for prior in (None, [0.0, 0.0, 0.1, 0.9], [0.97, 0.01, 0.01, 0.01]):
        model.set_target_prior(prior)
        with np.errstate(divide="ignore"):
            expected = raw + np.log(np.full(4, 0.25) if prior is None else prior)
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-5)
        accuracy = model.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"]
        assert accuracy == pytest.approx((expected.argmax(axis=1) == labels).mean(), abs=1e-6)


def test_the_target_prior_is_passed_for_one_call():
    images, _ = make_data(6)
    model = make_model()
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    expected = model.network(images) + np.log(prior).astype(np.float32)
    np.testing.assert_allclose(model(images, target_prior=prior), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.target_prior, np.full(4, 0.25))


def test_a_network_built_only_when_it_sees_data(tmp_path):
    images, labels = make_data()
    model = lade_tf.LADEModel(keras.Sequential([keras.layers.Dense(4)]), COUNTS)
    model.compile("sgd", metrics=["accuracy"])
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))


@pytest.mark.parametrize("estimator", ["paper", "reference"])
def test_loss_and_its_gradient_are_float32_under_a_bfloat16_policy(estimator):
    keras.config.set_dtype_policy("mixed_bfloat16")
    images, labels = make_data()
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, activation="relu", activity_regularizer="l2")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(4, dtype="float32")(hidden))
    model = lade_tf.LADEModel(network, COUNTS, 0.5, 0.1, estimator)
    model.compile("sgd")
    model.train_on_batch(images, labels)  # half-precision losses of the network are no obstacle
    logits = model.raw_logits(images)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = model.lade(labels, logits)
    gradient = tape.gradient(loss, logits)
    assert hidden.dtype == "bfloat16" and logits.dtype == gradient.dtype == tf.float32
    expected = oracles.lade(logits, labels, COUNTS, 0.5, 0.1, estimator)
    assert loss.numpy() == pytest.approx(expected, rel=1e-5)
    _, regulariser = oracles.lader(logits, labels, COUNTS, 0.1, estimator)
    posterior = np.exp(logits.numpy().astype(np.float64)) * priors.class_prior(COUNTS)
    posterior /= posterior.sum(axis=1, keepdims=True)
    expected = (posterior - np.eye(4)[labels]) / len(labels) + 0.5 * regulariser
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_like_float32(policy):
    images, labels = make_data(200)
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(4, dtype="float32")(hidden))
    model = lade_tf.LADEModel(network, COUNTS)
    model.compile(lade_tf.optimizers.SGD(0.1), metrics=["accuracy"])
    model.fit(images, labels, epochs=15, batch_size=20, verbose=0)
    assert model(images).dtype == tf.float32
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"] > 0.9


def test_xla_and_no_xla_agree():
    images, labels = make_data()
    models = make_model(), make_model()
    models[1].network.set_weights(models[0].network.get_weights())
    models[1].compile(keras.optimizers.SGD(0.5), jit_compile=True)
    for model in models:
        model.fit(images, labels, batch_size=16, shuffle=False, epochs=2, verbose=0)
    for plain, compiled in zip(*(model.network.weights for model in models), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-6)


def test_steps_per_execution_changes_nothing():
    images, labels = make_data()
    models = make_model(), make_model()
    models[1].network.set_weights(models[0].network.get_weights())
    models[1].compile(keras.optimizers.SGD(0.5), steps_per_execution=4)
    for model in models:
        model.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
    for one, four in zip(*(model.network.weights for model in models), strict=True):
        np.testing.assert_allclose(four, one, rtol=1e-6)


def test_two_replicas_train_like_one(two_replicas):
    images, labels = make_data()

    def train():
        keras.utils.set_random_seed(0)
        model = lade_tf.LADEModel(make_network(), COUNTS, alpha=0.5)
        model.compile(keras.optimizers.SGD(0.5), metrics=["accuracy"])
        logs = model.fit(images, labels, batch_size=16, shuffle=False, epochs=2, verbose=0).history
        return [weight.numpy() for weight in model.network.weights], logs["loss"]

    weights, losses = train()
    with two_replicas.scope():
        replica_weights, replica_losses = train()
    np.testing.assert_allclose(replica_losses, losses, rtol=1e-5)
    for actual, expected in zip(replica_weights, weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_class_weight_is_refused():
    images, labels = make_data(8)
    model = make_model()
    with pytest.raises(ValueError, match="class_weight must not be given"):
        model.fit(images, labels, class_weight={0: 1.0})
    positional = (images, labels, 8, 1, 0, None, 0.0, None, False, {0: 1.0})
    with pytest.raises(ValueError, match="class_weight must not be given"):
        model.fit(*positional)
    with pytest.raises(ValueError, match="class_weight must not be given"):
        model.train_on_batch(images, labels, class_weight={0: 1.0})


def test_a_network_that_ends_in_a_softmax_is_refused():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "softmax")])
    with pytest.raises(ValueError, match="network must give logits; its last layer is a softmax"):
        lade_tf.LADEModel(network, COUNTS)


def test_xla_is_decided_anew_where_a_model_is_loaded():
    assert make_model().get_compile_config()["jit_compile"] == "auto"


def test_a_loss_and_gradient_accumulation_are_refused():
    model = make_model()
    with pytest.raises(ValueError, match="loss must not be given to LADEModel"):
        model.compile("sgd", loss="mse")
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    for wrapped in (optimizer, keras.optimizers.LossScaleOptimizer(optimizer)):
        with pytest.raises(ValueError, match="gradient_accumulation_steps must not be set"):
            model.compile(wrapped)
    fresh = lade_tf.LADEModel(make_network(), COUNTS)
    with pytest.raises(ValueError, match="gradient_accumulation_steps must not be set"):
        fresh.compile(optimizer)
    assert not fresh.compiled


def test_labels_out_of_range_stop_fit():
    images, labels = make_data(8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be integers in 0..3"):
        make_model().fit(images, labels + 4, verbose=0)


@pytest.mark.parametrize(
    ("network", "counts", "message"),
    [
        (make_network, [3, 2, 1], r"\[batch, 3\] logits.*output shape is \(None, 4\)"),
        (make_network, [3, 2, 1, 0], "counts must hold numbers > 0"),
        (lambda: keras.layers.Dense(4), [4, 3, 2, 1], "network must be a keras.Model"),
    ],
)
def test_bad_networks_and_counts_are_refused(network, counts, message):
    with pytest.raises(ValueError, match=message):
        lade_tf.LADEModel(network(), counts)


def test_a_bad_prior_is_refused_and_the_stored_one_stays():
    model = make_model()
    model.set_target_prior([0.1, 0.2, 0.3, 0.4])
    for bad in ([0.5, 0.5], [0.9, 0.9, 0.1, 0.1], [1.5, -0.5, 0, 0]):
        with pytest.raises(ValueError, match="target_prior must"):
            model.set_target_prior(bad)
    np.testing.assert_allclose(model.target_prior, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_training_prior_is_that_of_the_counts():
    np.testing.assert_array_equal(make_model().training_prior, priors.class_prior(COUNTS))


def test_fit_without_labels_says_so():
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model = lade_tf.LADEModel(network, [7, 2, 1])
    model.compile("sgd")
    with pytest.raises(ValueError, match="labels must be given, integers of shape"):
        model.fit(np.zeros((4, 5), np.float32), verbose=0)


def test_weights_of_another_shape_are_refused_in_a_graph():
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model = lade_tf.LADEModel(network, [7, 2, 1])
    model.compile("sgd")
    weight = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \[batch\] or"):
        model.fit(np.zeros((4, 5), np.float32), np.zeros(4, int), sample_weight=weight, verbose=0)
