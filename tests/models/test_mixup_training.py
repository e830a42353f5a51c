import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf

COUNTS = [40, 20, 8]
rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(12, 5)).astype(np.float32)
LABELS, OTHERS = rng.integers(0, 3, (2, 12)).astype(np.int32)


def make(lade=False):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    if lade:
        model, loss = lade_tf.LADEModel(network, COUNTS), None
    else:
        model = lade_tf.AdaptedModel(network, COUNTS)
        loss = lade_tf.losses.BalancedSoftmax(COUNTS)
    model.compile(lade_tf.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def mixed(share):
    labels = (LABELS, OTHERS, np.full(12, share, np.float32))
    return tf.data.Dataset.from_tensors((IMAGES, labels))


@pytest.mark.parametrize("lade", [False, True])
def test_the_loss_is_that_of_both_labels_by_their_share(lade):
    losses = [make(lade).fit(mixed(share), verbose=0).history["loss"][0] for share in (1, 0, 0.3)]
    assert losses[2] == pytest.approx(0.3 * losses[0] + 0.7 * losses[1], rel=1e-5)
    alone = make(lade).train_on_batch(IMAGES, LABELS, return_dict=True)["loss"]
    assert losses[0] == pytest.approx(alone, rel=1e-6)


def test_the_gradient_is_mixed_too():
    steps = []
    for share in (1, 0, 0.3):
        model = make()
        before = model.network.get_weights()[0]
        model.fit(mixed(share), verbose=0)
        steps.append(model.network.get_weights()[0] - before)
    np.testing.assert_allclose(steps[2], 0.3 * steps[0] + 0.7 * steps[1], atol=1e-6)


def test_accuracy_is_that_of_the_first_labels():
    model = make()
    shown = model.fit(mixed(0.3), verbose=0).history["accuracy"][0]
    expected = (make().predict(IMAGES, verbose=0).argmax(axis=1) == LABELS).mean()
    assert shown == pytest.approx(expected)


def test_mixed_labels_are_not_evaluated():
    with pytest.raises(ValueError, match="are for training: evaluate on plain ones"):
        make().evaluate(mixed(0.3), verbose=0)
