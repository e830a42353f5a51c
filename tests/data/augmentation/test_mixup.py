import numpy as np
import pytest
import tensorflow as tf

from lade_tf.data.augmentation.mixup import draw_share, mixup

SEED = [3, 4]


def random_batch(batch=16):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, 4, 5, 3), dtype=np.uint8)
    return images, np.arange(batch, dtype=np.int32)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 8.0])
def test_shares_are_beta(alpha):
    draws = tf.data.Dataset.range(4000).map(lambda seed: draw_share(tf.stack([seed, 7]), alpha))
    shares = np.stack(list(draws.as_numpy_iterator()))
    assert np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    np.testing.assert_allclose(shares.mean(), 0.5, atol=4 * np.sqrt(variance / 4000))
    np.testing.assert_allclose(shares.var(), variance, rtol=0.07)


def test_images_and_labels_are_mixed_with_the_same_partner():
    images, labels = random_batch()
    mixed, (first, second, share) = mixup(images, labels, SEED, 1.0)
    assert mixed.dtype == tf.float32 and share.dtype == tf.float32 and second.dtype == tf.int32
    np.testing.assert_array_equal(first, labels)
    assert sorted(second.numpy()) == sorted(labels) and (second.numpy() != labels).any()
    assert share.shape == [16] and len(np.unique(share)) == 1
    # Labels are positions here, so the other label is the partner.
    ratio = float(share[0])
    expected = ratio * images.astype(np.float64) + (1 - ratio) * images[second.numpy()]
    np.testing.assert_allclose(mixed, expected, atol=1e-3)


def test_the_seed_decides():
    images, labels = random_batch()
    mixed, (_, partners, share) = mixup(images, labels, SEED, 1.0)
    again, (_, same_partners, same_share) = mixup(images, labels, SEED, 1.0)
    np.testing.assert_array_equal(again, mixed)
    np.testing.assert_array_equal(same_partners, partners)
    np.testing.assert_array_equal(same_share, share)
    for seed in ([3, 5], [4, 4]):
        _, (_, other_partners, other_share) = mixup(images, labels, seed, 1.0)
        assert (other_partners.numpy() != partners.numpy()).any()
        assert other_share[0] != share[0]


def test_streams_have_the_pixels_of_eager_mode():
    images, labels = random_batch(10)
    stream = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    mixed = list(stream.map(lambda images, labels: mixup(images, labels, SEED, 0.5)))
    assert [len(batch) for batch, _ in mixed] == [4, 4, 2]
    expected, (_, partners, share) = mixup(images[:4], labels[:4], SEED, 0.5)
    np.testing.assert_array_equal(mixed[0][0], expected)
    np.testing.assert_array_equal(mixed[0][1][1], partners)
    np.testing.assert_array_equal(mixed[0][1][2], share)


@pytest.mark.parametrize("alpha", [0, -1.0, float("inf"), float("nan"), "big"])
def test_bad_alphas_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number > 0; got"):
        mixup(*random_batch(), SEED, alpha)
