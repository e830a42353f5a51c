import numpy as np
import pytest
import tensorflow as tf

from lade_tf.data.augmentation.crop_flip import crop_flip, random_crop_flip, random_offsets

SEED = [3, 4]


def random_images(batch=64, height=6, width=5, channels=3):
    generator = np.random.default_rng(0)
    return generator.integers(1, 256, (batch, height, width, channels), dtype=np.uint8)


def crop_oracle(images, tops, lefts, mirrored, padding):
    height, width = images.shape[1:3]
    crops = []
    for image, top, left, mirror in zip(images, tops, lefts, mirrored, strict=True):
        padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
        crop = padded[top : top + height, left : left + width]
        crops.append(crop[:, ::-1] if mirror else crop)
    return np.stack(crops)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crops_are_those_of_the_offsets(padding, flip):
    images = random_images()
    offsets = random_offsets(len(images), SEED, padding, flip)
    expected = crop_oracle(images, *[value.numpy() for value in offsets], padding)
    np.testing.assert_array_equal(random_crop_flip(images, SEED, padding, flip), expected)


def test_the_border_is_black_and_the_type_stays():
    images, zero = tf.constant(random_images(batch=1)), tf.constant([0])
    corner = crop_flip(images, zero, zero, tf.constant([False]), padding=2)
    assert corner.dtype == tf.uint8
    assert not corner[0, :2].numpy().any() and not corner[0, :, :2].numpy().any()
    assert corner[0, 2:, 2:].numpy().all()


def test_every_offset_occurs_and_nothing_beyond():
    tops, lefts, mirrored = (value.numpy() for value in random_offsets(20000, SEED, 4, True))
    for offsets in (tops, lefts):
        np.testing.assert_allclose(np.bincount(offsets) / 20000, np.full(9, 1 / 9), atol=0.01)
    assert abs(mirrored.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(np.stack([tops, lefts, mirrored]))[np.triu_indices(3, 1)]).max() < 0.03


def test_no_flip_mirrors_nothing():
    assert not random_offsets(100, SEED, 1, False)[2].numpy().any()


def test_each_image_has_its_own_crop():
    same = np.repeat(random_images(batch=1), 64, axis=0)
    crops = random_crop_flip(same, SEED, 4, True).numpy()
    assert len({crop.tobytes() for crop in crops}) > 30


def test_the_seed_decides():
    images = random_images()
    first = random_crop_flip(images, SEED, 4, True).numpy()
    np.testing.assert_array_equal(random_crop_flip(images, SEED, 4, True), first)
    assert (random_crop_flip(images, [3, 5], 4, True).numpy() != first).any()
    assert (random_crop_flip(images, [4, 4], 4, True).numpy() != first).any()
