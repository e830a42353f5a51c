import numpy as np
import pytest
from sklearn.datasets import load_digits

from lade_tf import data
from lade_tf.data.sets import digits


def image_set(split):
    return {image.tobytes() for image in split.images}


def test_sizes():
    loaded = digits.load(imbalance_ratio=20, data_seed=0)
    expected = [int(120 * (1 / 20) ** (c / 9)) for c in range(10)]
    assert expected[0] == 120 and expected[-1] == 6
    np.testing.assert_array_equal(loaded.class_counts, expected)
    np.testing.assert_array_equal(np.bincount(loaded.test.labels), [50] * 10)
    assert loaded.image_shape == (8, 8, 1)
    assert loaded.train.images.max() == loaded.pixel_max == 16
    assert loaded.class_names == tuple("0123456789")
    assert not loaded.flip


def test_images_are_scikit_learns_with_their_labels():
    images, labels = load_digits(return_X_y=True)
    label_of = {
        image.astype(np.uint8).tobytes(): label for image, label in zip(images, labels, strict=True)
    }
    loaded = digits.load()
    for split in (loaded.train, loaded.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert label_of[image.tobytes()] == label


@pytest.mark.parametrize("imbalance_ratio", [1, 20])
def test_no_test_image_is_trained_on(imbalance_ratio):
    loaded = digits.load(imbalance_ratio)
    assert len(image_set(loaded.test)) == 500  # No image of the set occurs twice.
    assert not image_set(loaded.train) & image_set(loaded.test)


def test_the_data_seed_alone_decides():
    first, again, other = digits.load(), digits.load(), digits.load(data_seed=1)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert image_set(first.train) != image_set(other.train)
    assert image_set(first.test) != image_set(other.test)
    assert image_set(first.test) == image_set(digits.load(imbalance_ratio=5).test)


def test_statistics_are_those_of_the_pixels():
    images, _ = load_digits(return_X_y=True)
    loaded = digits.load()
    np.testing.assert_allclose(loaded.mean, [images.mean() / 16], atol=1e-4)
    np.testing.assert_allclose(loaded.std, [images.std() / 16], atol=1e-4)


def test_load_by_name():
    loaded = data.load("digits_lt")
    assert loaded.name == "digits_lt"
    np.testing.assert_array_equal(loaded.train.images, digits.load().train.images)
    chosen = data.load("digits_lt", imbalance_ratio=4, data_seed=2)
    np.testing.assert_array_equal(chosen.train.images, digits.load(4, 2).train.images)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="name must be one of 'digits_lt', 'cifar10_lt', 'cifar"):
        data.load("digits")


@pytest.mark.parametrize("imbalance_ratio", [0.5, float("nan"), float("inf")])
def test_a_wrong_imbalance_ratio(imbalance_ratio):
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1"):
        data.load("digits_lt", imbalance_ratio=imbalance_ratio)


def test_a_data_dir_is_refused(tmp_path):
    with pytest.raises(ValueError, match="data_dir must be None for digits_lt"):
        data.load("digits_lt", data_dir=tmp_path)
