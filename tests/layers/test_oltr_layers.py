"""OLTR's layers against float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from lade_tf.layers.cosine_norm_classifier import CosineNormClassifier
from lade_tf.layers.meta_embedding import MetaEmbedding
from lade_tf.layers.modulated_attention import ModulatedAttention


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def randomise(layer, seed=5):
    """Sets every weight to normal numbers and returns them by name, float64."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return {
        weight.path.split("/", 1)[1]: weight.numpy().astype(np.float64) for weight in layer.weights
    }


def meta_embedding(x, weights, scale=10.0):
    memory = weights["centroids"]
    rows = []
    for row in x:
        o = softmax(row @ weights["hallucinator/kernel"] + weights["hallucinator/bias"])
        e = np.tanh(row @ weights["selector/kernel"] + weights["selector/bias"])
        nearest = min(np.linalg.norm(row - centroid) for centroid in memory)
        rows.append(scale / nearest * (row + e * (o @ memory)))
    return np.array(rows)


def test_modulated_attention_is_its_formula():
    feature_map = normal(2, 3, 2, 4)
    layer = ModulatedAttention()
    layer.build(feature_map.shape)
    weights = randomise(layer)

    def linear(x, name):
        return x @ weights[f"{name}/kernel"] + weights.get(f"{name}/bias", 0.0)

    expected = np.zeros_like(feature_map)
    for image, f in enumerate(feature_map):
        pixels = f.reshape(6, 4)
        theta, phi, g = (linear(pixels, name) for name in ("theta", "phi", "g"))
        attention = np.array([softmax([t @ p for p in phi]) @ g for t in theta])
        location_weights = softmax(linear(pixels.reshape(-1), "spatial"))
        attended = pixels + location_weights[:, None] * linear(attention, "back")
        expected[image] = attended.reshape(3, 2, 4)
    np.testing.assert_allclose(layer(feature_map), expected, rtol=1e-4, atol=1e-5)
    assert {name: weight.shape for name, weight in weights.items()}["theta/kernel"] == (4, 2)
    assert "back/bias" not in weights


def test_modulated_attention_starts_as_the_identity_and_can_leave_it():
    feature_map = normal(2, 3, 3, 4).astype(np.float32)
    layer = ModulatedAttention()
    with tf.GradientTape() as tape:
        outputs = layer(feature_map)
        loss = tf.reduce_sum(outputs**2)
    np.testing.assert_array_equal(outputs, feature_map)
    assert np.abs(tape.gradient(loss, layer.back.kernel)).max() > 0


def test_initial_spreads_are_those_of_the_released_code():
    attention = ModulatedAttention()
    attention.build((None, 4, 4, 64))
    assert np.std(attention.theta.kernel) == pytest.approx(np.sqrt(2 / 64), rel=0.1)
    assert np.abs(attention.spatial.kernel).max() == pytest.approx(1 / np.sqrt(16 * 64), rel=0.01)
    embedding, classifier = MetaEmbedding(10), CosineNormClassifier(10)
    for layer in (embedding, classifier):
        layer.build((None, 64))
    assert np.std(embedding.centroids) == pytest.approx(1, rel=0.2)
    for kernel in (embedding.selector.kernel, embedding.hallucinator.kernel, classifier.kernel):
        assert np.abs(kernel).max() == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("scale", [10.0, 2.0])
def test_meta_embedding_is_its_formula(scale):
    x = normal(6, 5)
    layer = MetaEmbedding(4, scale)
    layer.build(x.shape)
    expected = meta_embedding(x, randomise(layer), scale)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_distance_small_beside_the_features_is_still_exact():
    centroids = 100 + normal(4, 5)
    x = (centroids + 0.01).astype(np.float32)
    layer = MetaEmbedding(4)
    layer.build(x.shape)
    weights = randomise(layer)
    layer.centroids.assign(centroids)
    weights["centroids"] = layer.centroids.numpy().astype(np.float64)
    expected = meta_embedding(x.astype(np.float64), weights)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-3)


def test_without_selector_and_reachability_the_head_is_a_cosine_classifier():
    x = normal(6, 5).astype(np.float32)
    embedding, classifier = MetaEmbedding(4), CosineNormClassifier(4)
    embedding.build(x.shape)
    randomise(embedding)
    for weight in embedding.selector.weights:
        weight.assign(np.zeros(weight.shape))
    embedding.centroids.assign(np.tile(1e4 * np.eye(5)[:1], (4, 1)))
    embedding.scale = 1e4  # all features are 10,000 from the centroids
    np.testing.assert_allclose(classifier(embedding(x)), classifier(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [16.0, 3.0])
def test_cosine_norm_classifier_is_its_formula(scale):
    x = normal(6, 5) * np.array([[1e-4], [0.1], [1], [1], [10], [1e4]])
    layer = CosineNormClassifier(4, scale)
    layer.build(x.shape)
    kernel = randomise(layer)["kernel"]
    expected = np.zeros((6, 4))
    for i, c in np.ndindex(6, 4):
        norm, direction = np.linalg.norm(x[i]), kernel[:, c] / np.linalg.norm(kernel[:, c])
        expected[i, c] = scale * norm / (1 + norm) * (x[i] / norm) @ direction
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_at_a_feature_of_zeros_is_that_of_the_linear_map(jit_compile):
    layer = CosineNormClassifier(2)
    x = tf.zeros([1, 3])
    layer.build(x.shape)

    @tf.function(jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logit = layer(x)[0, 0]
        return tape.gradient(logit, x)

    direction = layer.kernel[:, 0] / np.linalg.norm(layer.kernel[:, 0])
    np.testing.assert_allclose(gradient(x)[0], 16 * direction, rtol=1e-4)


def test_no_gradient_reaches_the_centroids():
    embedding = MetaEmbedding(3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(embedding(tf.ones([2, 4])))
    gradients = tape.gradient(loss, [embedding.centroids, embedding.hallucinator.kernel])
    assert gradients[0] is None and gradients[1] is not None


def test_a_feature_on_a_centroid_has_a_large_finite_embedding_and_finite_gradients():
    x = tf.constant([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    embedding, classifier = MetaEmbedding(2), CosineNormClassifier(2)
    embedding.build(x.shape)
    embedding.centroids.assign(x)
    for weight in embedding.selector.weights:
        weight.assign(tf.zeros(weight.shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = embedding(x)
        loss = tf.reduce_sum(classifier(outputs)[:, 0])
    np.testing.assert_allclose(outputs, 1e4 * x, rtol=1e-5)
    variables = [x, *embedding.hallucinator.weights, *embedding.selector.weights, classifier.kernel]
    for gradient in tape.gradient(loss, variables):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_all_are_float32_under_mixed_policies(policy):
    feature_map = normal(2, 2, 2, 4).astype(np.float32)
    layers = ModulatedAttention, lambda: MetaEmbedding(3), lambda: CosineNormClassifier(3)
    inputs = feature_map, feature_map[:, 0, 0], feature_map[:, 0, 0]
    for make, x in zip(layers, inputs, strict=True):
        half = x.astype(np.float16)
        plain = make()
        plain.build(x.shape)
        weights = randomise(plain).values()
        expected = plain(half.astype(np.float32))
        keras.config.set_dtype_policy(policy)
        mixed = make()
        mixed.build(x.shape)
        mixed.set_weights(list(weights))
        keras.config.set_dtype_policy("float32")
        actual = mixed(tf.constant(half))
        assert actual.dtype == tf.float32
        assert all(weight.dtype == "float32" for weight in mixed.weights)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModulatedAttention(name="mine"),
        lambda: MetaEmbedding(3, 2.5, name="mine"),
        lambda: CosineNormClassifier(3, 2.5, name="mine"),
    ],
)
def test_saved_inside_a_model(make, tmp_path):
    layer = make()
    inputs = keras.Input((2, 2, 4) if isinstance(layer, ModulatedAttention) else (4,))
    model = keras.Model(inputs, layer(inputs))
    randomise(layer)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[-1].get_config() == layer.get_config()
    x = normal(3, *inputs.shape[1:]).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))


def test_bad_arguments():
    for make in (MetaEmbedding, CosineNormClassifier):
        with pytest.raises(ValueError, match="must be an integer >= 1; got 0"):
            make(0)
        with pytest.raises(ValueError, match="scale must be a finite number > 0; got 0"):
            make(3, scale=0)
    for shape in ((None, None, None, 4), (None, 4), (None, 2, 2, 1), (None, 2, 2, None)):
        with pytest.raises(ValueError, match="feature map must be .* got shape"):
            ModulatedAttention().build(shape)
