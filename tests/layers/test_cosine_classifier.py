import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf.layers import CosineClassifier

FEATURES = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def make(**kwargs):
    layer = CosineClassifier(3, scale=10.0, **kwargs)
    layer(FEATURES)
    return layer


def test_logits_are_scaled_cosines():
    layer = make()
    features, kernel = FEATURES.astype(np.float64), layer.kernel.numpy().astype(np.float64)
    for i, x in enumerate(features):
        for c, w in enumerate(kernel.T):
            cosine = x @ w / np.sqrt((x @ x) * (w @ w))
            assert layer(FEATURES)[i, c].numpy() == pytest.approx(10 * cosine, abs=1e-5)


def test_lengths_of_features_and_weights_do_not_matter():
    layer = make()
    before = layer(FEATURES)
    layer.kernel.assign(3 * layer.kernel)
    np.testing.assert_allclose(layer(7 * FEATURES), before, rtol=1e-5, atol=1e-6)


def test_a_feature_of_zeros_has_a_finite_gradient():
    layer, features = make(), tf.zeros([2, 6])
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = tf.reduce_sum(layer(features) ** 2 + layer(features))
    assert np.isfinite(tape.gradient(value, features)).all()


def test_it_computes_in_float32_under_a_mixed_policy():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert make()(FEATURES).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "units must be an integer >= 1; got 0"), ((3, -1), "scale must be .* > 0; got -1")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CosineClassifier(*arguments)
