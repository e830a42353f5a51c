import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.layers.causal_norm import CausalNormClassifier

BATCH, SIZE, CLASSES = 6, 8, 3


def make_features(size=BATCH, seed=0):
    return np.random.default_rng(seed).normal(0.5, 1, (size, SIZE)).astype(np.float32)


def make_layer(feature_mean=None, **kwargs):
    layer = CausalNormClassifier(CLASSES, **kwargs)
    layer.build((None, SIZE))
    if feature_mean is not None:
        layer.feature_mean.assign(feature_mean)
    return layer


def oracle(features, kernel, mean=None, heads=2, scale=16.0, gamma=1 / 32, effect=1.5):
    """The formula by loops in float64; without a mean the training logits."""
    x, w = np.asarray(features, np.float64), np.asarray(kernel, np.float64)
    size = x.shape[1] // heads
    logits = np.zeros([len(x), w.shape[1]])
    for i, c, k in np.ndindex(len(x), w.shape[1], heads):
        part = slice(k * size, (k + 1) * size)
        x_k, w_k = x[i, part], w[part, c]
        x_norm, w_norm = np.linalg.norm(x_k), np.linalg.norm(w_k) + gamma
        logits[i, c] += scale / heads * (w_k @ x_k) / (w_norm * x_norm)
        if mean is not None:
            d_k = np.asarray(mean, np.float64)[part] / np.linalg.norm(mean[part])
            cosine = x_k @ d_k / x_norm
            logits[i, c] -= effect * scale / heads * cosine * (w_k @ d_k) / w_norm
    return logits


OPTIONS = [{}, {"num_heads": 1}, {"num_heads": 4, "scale": 3.0, "gamma": 0.5, "effect": 0.7}]


@pytest.mark.parametrize("options", OPTIONS)
def test_training_logits_and_total_direct_effect(options):
    features, mean = make_features(), make_features(1, seed=1)[0]
    layer = make_layer(mean, **options)
    options = {**options, "heads": options.get("num_heads", 2)}
    options.pop("num_heads", None)
    inference = layer(features)
    expected = oracle(features, layer.kernel, mean, **options)
    np.testing.assert_allclose(inference, expected, rtol=1e-5, atol=1e-5)
    expected = oracle(features, layer.kernel, **options)
    np.testing.assert_allclose(layer(features, training=True), expected, rtol=1e-5, atol=1e-5)


def test_without_effect_or_without_training_inference_gives_the_training_logits():
    features = make_features()
    for layer in (make_layer(make_features(1)[0], effect=0.0), make_layer()):
        np.testing.assert_array_equal(layer(features), layer(features, training=True))


def test_the_length_of_the_features_and_of_their_mean_says_nothing():
    features, mean = make_features(), make_features(1, seed=1)[0]
    layer = make_layer(mean)
    expected = layer(features)
    layer.feature_mean.assign(1e3 * mean)
    for length in (1e-8, 1e3):
        np.testing.assert_allclose(layer(length * features), expected, rtol=1e-4, atol=1e-5)


def test_features_along_the_common_direction_give_no_logits():
    mean = make_features(1)[0]
    layer = make_layer(mean, num_heads=1, effect=1.0)
    np.testing.assert_allclose(layer(3 * mean[None]), np.zeros([1, CLASSES]), atol=1e-5)
    assert np.abs(layer(3 * mean[None], training=True)).max() > 1


def test_each_head_loses_its_own_common_direction():
    features, mean = make_features(), make_features(1, seed=1)[0]
    # With as many classes as features, the logits tell the directions.
    layer = CausalNormClassifier(SIZE, effect=1.0, gamma=0.0, scale=2.0)
    layer.build((None, SIZE))
    layer.kernel.assign(np.eye(SIZE))
    layer.feature_mean.assign(mean)
    heads = layer(features).numpy().reshape([BATCH, 2, SIZE // 2])
    inner = np.einsum("bkd,kd->bk", heads, mean.reshape([2, SIZE // 2]))
    np.testing.assert_allclose(inner, np.zeros([BATCH, 2]), atol=1e-5)


def test_the_feature_mean_follows_training_only():
    layer, expected = make_layer(momentum=0.8), np.zeros(SIZE)
    for seed in range(4):
        features = make_features(seed=seed)
        layer(features)
        layer(features, training=True)
        expected = 0.8 * expected + features.mean(axis=0)
        np.testing.assert_allclose(layer.feature_mean, expected, rtol=1e-5)
    assert layer.feature_mean.dtype == "float32"
    assert [weight.name for weight in layer.trainable_weights] == ["kernel"]


def test_the_callback_lets_the_momentum_follow_the_learning_rate():
    layer = make_layer(momentum=None)
    model = keras.Sequential([keras.Input((SIZE,)), layer])
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.2, 0.01, 1e-4])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(lade_tf.optimizers.SGD(schedule), loss)
    features, labels = make_features(6), np.array([0, 1, 2, 0, 1, 2])
    follow = lade_tf.layers.CausalNormMomentum()
    model.fit(features, labels, batch_size=2, shuffle=False, callbacks=[follow], verbose=0)
    expected = np.zeros(SIZE)
    for momentum, batch in zip((0.9, 0.95, 0.9995), np.split(features, 3), strict=True):
        expected = momentum * expected + batch.mean(axis=0)
    np.testing.assert_allclose(layer.feature_mean, expected, rtol=1e-5)
    assert float(layer.current_momentum) == pytest.approx(0.9995)


def test_a_callback_without_its_layer_is_refused():
    model = make_model()
    with pytest.raises(ValueError, match=r"needs a CausalNormClassifier\(momentum=None\)"):
        model.fit(*make_data(8), callbacks=[lade_tf.layers.CausalNormMomentum()], verbose=0)


def test_weights_without_a_momentum_are_read(tmp_path):
    before, after = make_model(), make_model(momentum=None)
    before.network.layers[-1].feature_mean.assign(np.ones(SIZE))
    before.save_weights(tmp_path / "before.weights.h5")
    after.load_weights(tmp_path / "before.weights.h5")
    layer = after.network.layers[-1]
    np.testing.assert_array_equal(layer.feature_mean, np.ones(SIZE))
    np.testing.assert_array_equal(layer.kernel, before.network.layers[-1].kernel)
    assert float(layer.current_momentum) == pytest.approx(0.9)


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_formula(training):
    features, mean = make_features(2), make_features(1, seed=1)[0]
    layer = make_layer(mean)
    used = None if training else mean
    upstream = np.random.default_rng(2).normal(size=(2, CLASSES))
    inputs = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs, training=training) * upstream)
    gradients = tape.gradient(loss, [inputs, layer.kernel.value])
    arguments = [np.float64(features), layer.kernel.numpy().astype(np.float64)]
    for position, gradient in enumerate(gradients):
        for index in np.ndindex(*gradient.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [argument.copy() for argument in arguments]
                moved[position][index] += step
                ends.append((oracle(*moved, used) * upstream).sum())
            slope = (ends[0] - ends[1]) / 2e-6
            assert gradient.numpy()[index] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_zero_features_and_weights_stay_finite():
    layer = make_layer()
    layer.kernel.assign(np.zeros([SIZE, CLASSES]))
    inputs = tf.zeros([2, SIZE])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        logits = layer(inputs, training=True)
    gradients = tape.gradient(logits, [inputs, layer.kernel.value])
    assert np.all(logits.numpy() == 0) and all(np.isfinite(g).all() for g in gradients)
    assert np.all(layer(inputs).numpy() == 0)


def test_the_kernel_starts_uniform():
    layer = CausalNormClassifier(500)
    layer.build((None, 16))
    limit = 1 / 4
    assert np.abs(layer.kernel).max() <= limit and np.abs(layer.kernel).max() > 0.99 * limit
    assert np.std(layer.kernel) == pytest.approx(limit / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_everything_is_float32_under_any_policy(policy):
    keras.config.set_dtype_policy(policy)
    half = tf.cast(make_features(), policy.removeprefix("mixed_"))
    layer = make_layer(make_features(1, seed=1)[0])
    expected = oracle(tf.cast(half, tf.float32), layer.kernel, layer.feature_mean.numpy())
    assert layer(half).dtype == tf.float32
    np.testing.assert_allclose(layer(half), expected, rtol=1e-5, atol=1e-5)
    layer(half, training=True)
    assert layer.kernel.dtype == layer.feature_mean.dtype == "float32"


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_and_xla_agree_with_eager(jit_compile):
    features, mean = make_features(), make_features(1, seed=1)[0]
    for training in (True, False):
        layers = make_layer(mean), make_layer(mean)
        layers[1].kernel.assign(layers[0].kernel)
        compiled = tf.function(layers[1], jit_compile=jit_compile)
        expected = layers[0](features, training=training)
        np.testing.assert_allclose(
            compiled(tf.constant(features), training=training), expected, rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(layers[1].feature_mean, layers[0].feature_mean, rtol=1e-5)


def make_model(**kwargs):
    inputs = keras.Input((4,))
    features = keras.layers.Dense(SIZE, "tanh")(inputs)
    network = keras.Model(inputs, CausalNormClassifier(CLASSES, **kwargs)(features))
    model = lade_tf.AdaptedModel(network, [30, 20, 10])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(lade_tf.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def make_data(size=32):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, size)
    return (np.eye(4)[labels] + rng.normal(0, 0.2, (size, 4))).astype(np.float32), labels


def test_as_the_last_layer_it_trains_saves_and_exports(tmp_path):
    images, labels = make_data()
    model = make_model(num_heads=4, effect=1.0)
    model.fit(images, labels, epochs=10, verbose=0)
    layer = model.network.layers[-1]
    features = keras.Model(model.network.input, layer.input)(images).numpy()
    mean = layer.feature_mean.numpy()
    expected = oracle(features, layer.kernel, mean, heads=4, effect=1.0)
    logits = model.predict(images, verbose=0)
    np.testing.assert_allclose(logits + np.log(3), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(mean).max() > 0 and np.abs(logits - oracle(features, layer.kernel)).max() > 0.1

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.network.layers[-1].feature_mean, mean)
    np.testing.assert_array_equal(again.predict(images, verbose=0), logits)
    assert again.network.layers[-1].get_config() == layer.get_config()
    model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    outputs = served(images=tf.constant(images))
    np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-5, atol=1e-5)


def test_two_replicas_train_like_one(two_replicas):
    images, labels = make_data()

    def run():
        keras.utils.set_random_seed(0)
        model = make_model()
        model.fit(images, labels, batch_size=8, shuffle=False, epochs=2, verbose=0)
        return [weight.numpy() for weight in model.network.weights]

    weights = run()
    with two_replicas.scope():
        replica_weights = run()
    for actual, expected in zip(replica_weights, weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_an_empty_batch_leaves_the_feature_mean_as_it_is():
    layer = lade_tf.layers.CausalNormClassifier(3)
    layer(np.ones([4, 6], np.float32), training=True)
    before = layer.feature_mean.numpy()
    layer(np.zeros([0, 6], np.float32), training=True)
    np.testing.assert_array_equal(layer.feature_mean.numpy(), before)
    assert before.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "units must be an integer >= 1; got 0"),
        ({"num_heads": 0}, "num_heads must be an integer >= 1; got 0"),
        ({"scale": 0.0}, "scale must be a finite number > 0; got 0.0"),
        ({"gamma": -1.0}, "gamma must be a finite number >= 0; got -1.0"),
        ({"effect": -0.1}, "effect must be a finite number >= 0; got -0.1"),
        ({"momentum": -0.1}, r"momentum must be a number in \[0, 1\]; got -0.1"),
        ({"momentum": 1.1}, r"momentum must be a number in \[0, 1\]; got 1.1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CausalNormClassifier(**{"units": CLASSES, **arguments})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 7), "num_heads must divide the number of features, 7; got 2"),
        ((None, None), r"features must be \[batch, d\] with a known d; got shape \(None, None\)"),
        ((None, 4, 8), r"features must be \[batch, d\] with a known d; got shape \(None, 4, 8\)"),
    ],
)
def test_features_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        CausalNormClassifier(CLASSES).build(shape)
