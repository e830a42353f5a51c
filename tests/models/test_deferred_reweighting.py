import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf.losses import LDAM, effective_number_weights
from lade_tf.models import DeferredReweightingModel
from lade_tf.optimizers import SGD

COUNTS = [60, 30, 8, 2]
rng = np.random.default_rng(0)
FEATURES, LABELS = rng.normal(size=(12, 6)).astype(np.float32), rng.integers(0, 4, 12)


def make(start_step, beta=0.9, loss=None):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model = DeferredReweightingModel(network, COUNTS, start_step, beta)
    model.compile(SGD(0.1), loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def take_steps(model, number):
    for _ in range(number):
        model.train_on_batch(FEATURES, LABELS)
    return model.get_weights()


def weighted_mean(model, weights):
    logits = model.network(FEATURES).numpy().astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.average(-log_probabilities[range(12), LABELS], weights=weights[LABELS])


def test_the_loss_is_the_plain_mean_before_and_the_weighted_one_after():
    model = make(start_step=1)
    plain, weighted = np.ones(4), effective_number_weights(COUNTS, 0.9)
    for weights in (plain, weighted):
        expected = weighted_mean(model, weights)
        assert model.train_on_batch(FEATURES, LABELS) == pytest.approx(expected, rel=1e-5)


def test_it_begins_at_the_given_step_and_not_before():
    never, from_third = make(start_step=100), make(start_step=2)
    for equal in (True, True, False):
        pair = take_steps(never, 1)[0], take_steps(from_third, 1)[0]
        assert np.array_equal(*pair) == equal


def test_a_resumed_training_knows_that_it_has_begun(tmp_path):
    whole, part = make(start_step=2), make(start_step=2)
    take_steps(whole, 4)
    take_steps(part, 3)
    part.save_weights(tmp_path / "part.weights.h5")
    resumed = make(start_step=2)
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(tmp_path / "part.weights.h5")
    np.testing.assert_array_equal(take_steps(resumed, 1)[0], whole.get_weights()[0])


def test_evaluation_is_not_weighted():
    model = make(start_step=0)
    expected = weighted_mean(model, np.ones(4))
    assert model.evaluate(FEATURES, LABELS, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_two_replicas_train_like_one(two_replicas):
    whole = make(start_step=0)
    take_steps(whole, 2)
    with two_replicas.scope():
        parts = make(start_step=0)
    data = tf.data.Dataset.from_tensors((FEATURES, LABELS)).repeat(2)
    history = parts.fit(data, shuffle=False, verbose=0).history
    np.testing.assert_allclose(parts.get_weights()[0], whole.get_weights()[0], rtol=1e-5, atol=1e-6)
    assert history["loss"][0] > 0


def test_a_replica_without_examples_ruins_nothing(two_replicas):
    with two_replicas.scope():
        model = make(start_step=0)
    model.fit(FEATURES[:9], LABELS[:9], batch_size=8, verbose=0)  # the last batch is of one
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_weights_of_the_user_have_any_shape_and_type(shape):
    weights = np.arange(12.0)  # float64
    expected = make(start_step=0).train_on_batch(FEATURES, LABELS, weights.astype(np.float32))
    loss = make(start_step=0).train_on_batch(FEATURES, LABELS, weights.reshape(shape))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_a_label_out_of_range_is_told():
    model = make(start_step=0)
    model.run_eagerly = True
    with pytest.raises(ValueError, match=r"labels must be integers in 0\.\.3; got labels from -1"):
        model.train_on_batch(FEATURES, np.where(LABELS == 0, -1, LABELS))


def test_weights_of_the_user_multiply():
    model = make(start_step=0)
    mine = np.arange(12, dtype=np.float32)
    own = effective_number_weights(COUNTS, 0.9)[LABELS]
    own /= own.mean()
    logits = model.network(FEATURES)
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits).numpy()
    loss = model.train_on_batch(FEATURES, LABELS, sample_weight=mine)
    assert loss == pytest.approx((own * mine * values).mean(), rel=1e-5)


def test_it_goes_with_ldam_under_xla():
    model = make(start_step=0, loss=LDAM(COUNTS))
    model.compile(SGD(0.1), LDAM(COUNTS), jit_compile=True)
    assert np.isfinite(model.train_on_batch(FEATURES, LABELS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_step": -1}, "start_step must be an integer >= 0; got -1"),
        ({"start_step": 0, "beta": 1.0}, r"beta must be a number in \[0, 1\); got 1.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
