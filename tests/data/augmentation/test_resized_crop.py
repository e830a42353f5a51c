import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from lade_tf.data.augmentation import resized_crop
from lade_tf.data.augmentation.resized_crop import (
    draw_crops,
    mirrored,
    random_window,
    resize,
    resize_centre,
    upright,
)

DRAWS = 4000


def oracle_window(height, width, rng):
    """Torchvision's definition, in its words: attempts, then the central crop."""
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * 4 / 3), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def windows(height, width, seed=0):
    @tf.function
    def all_windows(draws):
        return tf.map_fn(
            lambda draw: random_window(tf.constant(height), tf.constant(width), draw),
            draws,
            fn_output_signature=tf.int32,
        )

    return all_windows(draw_crops(DRAWS, [seed, 7])).numpy()


def ks_distance(a, b):
    """The largest distance of two empirical distribution functions."""
    points = np.concatenate([a, b])
    ranks = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (a, b)]
    return np.abs(ranks[0] - ranks[1]).max()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (64, 200), (900, 300)])
def test_windows_are_distributed_as_defined(height, width):
    ours = windows(height, width).astype(float)
    rng = np.random.default_rng(1)
    theirs = np.array([oracle_window(height, width, rng) for _ in range(4 * DRAWS)], float)
    # At this distance one in 10,000 equal pairs is told apart.
    limit = 2.23 * np.sqrt(1 / DRAWS + 1 / (4 * DRAWS))

    def statistics(top, left, h, w):
        free_rows, free_columns = np.maximum(height - h, 1), np.maximum(width - w, 1)
        return {
            "area": h * w,
            "aspect": w / h,
            "top": top,
            "left": left,
            "relative top": top / free_rows,
            "relative left": left / free_columns,
        }

    expected = statistics(*theirs.T)
    for name, values in statistics(*ours.T).items():
        assert ks_distance(values, expected[name]) < limit, name


def test_the_definition_itself():
    """In a square of many pixels every attempt of any area up to 3/4 fits: no selection there."""
    _, _, h, w = windows(2000, 2000).T
    share, aspect = h * w / 2000**2, w / h
    small = share < 0.75
    assert share.min() >= 0.079 and share.max() <= 1
    assert aspect.min() >= 0.749 and aspect.max() <= 1.335
    uniform = np.linspace(0.08, 0.75, 4001)
    assert ks_distance(share[small], uniform) < 0.04
    log_uniform = np.exp(np.linspace(np.log(3 / 4), np.log(4 / 3), 4001))
    assert ks_distance(aspect[small], log_uniform) < 0.04


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1, 1, (0, 0, 1, 1)),
        (10, 1000, (0, 493, 10, 13)),
        (1000, 10, (493, 0, 13, 10)),
        (1, 10_000, (0, 4999, 1, 1)),
    ],
)
def test_extreme_images_get_the_central_window(height, width, expected):
    draws = draw_crops(50, [3, 4])
    for draw in draws:
        window = random_window(tf.constant(height), tf.constant(width), draw)
        np.testing.assert_array_equal(window, expected)


def test_fallback_within_the_aspect_ratios_is_the_whole_image():
    # As large as the image, and 4/3 wide.
    never_fits = tf.constant([[0.75**0.5, 0.75**-0.5, 0.999, 0.999]] * 10)
    window = random_window(tf.constant(300), tf.constant(300), never_fits)
    np.testing.assert_array_equal(window, (0, 0, 300, 300))


def test_windows_lie_in_the_image():
    for height, width in [(1, 2), (3, 2), (10_000, 10_000), (7, 9)]:
        top, left, h, w = windows(height, width).T
        assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
        assert (top + h <= height).all() and (left + w <= width).all()


def photograph(height, width, seed=0):
    """Smooth colours with fine noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).resize((width, height))
    noisy = np.asarray(coarse, int) + rng.integers(-30, 31, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def rows_first(image):
    return np.transpose(image, [2, 0, 1])


@pytest.mark.parametrize("shape", [(61, 83), (20, 17), (1, 1), (300, 24), (32, 32)])
def test_resize_matches_pillow(shape):
    image = photograph(*shape)
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
    resized = resize(tf.constant(image), 32)
    assert resized.shape == (32, 3, 32)
    # Pillow rounds after each of its two passes.
    np.testing.assert_allclose(rows_first(resized), np.asarray(expected, float), atol=1.1)


@pytest.mark.parametrize("shape", [(101, 150), (150, 101), (256, 256), (40, 30), (1, 1), (5, 400)])
def test_centre_matches_pillow(shape):
    image, size = photograph(*shape), 28
    height, width = shape
    short = 32
    w, h = (short, short * height // width) if width <= height else (short * width // height, short)
    resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
    left, top = round((w - size) / 2), round((h - size) / 2)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)), float)
    centre = rows_first(resize_centre(tf.constant(image), size))
    np.testing.assert_allclose(centre, expected, atol=1.1)


def test_evaluation_resizes_to_256_for_224():
    assert resized_crop.shorter_side(224) == 256


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_match_pillow(orientation):
    stored = photograph(16, 16)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    shown = upright(tf.constant(stored.transpose(1, 2, 0)), tf.constant(orientation))
    np.testing.assert_array_equal(shown, expected)
    mirror = mirrored(tf.constant(orientation), tf.constant(True))
    shown = upright(tf.constant(stored.transpose(1, 2, 0)), mirror)
    np.testing.assert_array_equal(shown, expected[:, ::-1])
    assert mirrored(tf.constant(orientation), tf.constant(False)) == orientation
