import numpy as np
import pytest
import tensorflow as tf

from lade_tf.data.augmentation.crop_flip import random_crop_flip
from lade_tf.data.augmentation.image_ops import OPS, PIXEL_OPS, apply_ops, cutout
from lade_tf.data.augmentation.policies import (
    AUGMENTATIONS,
    CIFAR10_POLICY,
    RANDAUGMENT_OPS,
    autoaugment_cutout,
    draw_centres,
    draw_ops,
    draw_subpolicies,
    policy,
    randaugment,
)

SEED = [3, 4]
FILL = [10.0, 200.0, 90.0]
# keras-cv's is tested with the layers.
POLICIES = [name for name in AUGMENTATIONS if name not in ("standard", "keras_cv_randaugment")]
GREY = np.array([0.2989, 0.587, 0.114])


def random_images(batch=8, height=20, width=18, channels=3):
    generator = np.random.default_rng(0)
    return generator.integers(5, 240, (batch, height, width, channels), dtype=np.uint8)


def augment(name, images, seed, padding, flip, fill):
    """The standard augmentation and the policy, as streams apply them."""
    change = policy(name, images.shape, fill)
    return change(random_crop_flip(images, seed, padding, flip), seed)


def apply_one(name, images, strength):
    """One operation on float images, as [batch, height, width, channels] float64."""
    batch = len(images)
    ops, strengths = tf.fill([batch], OPS.index(name)), tf.fill([batch], strength)
    changed = apply_ops(tf.constant(images, tf.float32), ops, strengths, tf.constant(FILL))
    return changed.numpy().astype(np.float64)


def stretch_oracle(image):
    low, high = image.min((0, 1)), image.max((0, 1))
    return (image - low) * 255 / (high - low)


def equalize_oracle(image):
    equalized = np.empty_like(image)
    for channel in range(image.shape[2]):
        levels = image[..., channel].astype(int)
        step = (levels.size - (levels == levels.max()).sum()) // 255
        darker = [(levels < level).sum() for level in range(256)]
        table = [min((count + step // 2) // step, 255) for count in darker]
        equalized[..., channel] = np.take(table, levels)
    return equalized


def smooth_oracle(image):
    """Weighs the centre 5 and its neighbours 1; the border is left out."""
    height, width, _ = image.shape
    smooth = image.copy()
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            square = image[row - 1 : row + 2, column - 1 : column + 2].sum((0, 1))
            smooth[row, column] = (square + 4 * image[row, column]) / 13
    return smooth


def blend_oracle(image, blended_with, strength):
    factor = 1 + 0.9 * strength
    return np.clip(blended_with + factor * (image - blended_with), 0, 255)


def pixel_oracle(name, image, strength):
    bits = round(4 * abs(strength))
    grey = (image @ GREY)[..., None]
    return {
        "identity": lambda: image,
        "auto_contrast": lambda: stretch_oracle(image),
        "equalize": lambda: equalize_oracle(image),
        "invert": lambda: 255 - image,
        "solarize": lambda: np.where(image < 256 - 256 * abs(strength), image, 255 - image),
        "posterize": lambda: image - image % 2**bits,
        "brightness": lambda: blend_oracle(image, 0, strength),
        "contrast": lambda: blend_oracle(image, grey.mean(), strength),
        "color": lambda: blend_oracle(image, grey, strength),
        "sharpness": lambda: blend_oracle(image, smooth_oracle(image), strength),
    }[name]()


def source_oracle(name, strength, x, y, height, width):
    """Where pixel (x, y) of the result comes from."""
    if name == "shear_x":
        return x + 0.3 * strength * y, y
    if name == "shear_y":
        return x, y + 0.3 * strength * x
    if name == "translate_x":
        return x + 150 / 331 * strength * width, y
    if name == "translate_y":
        return x, y + 150 / 331 * strength * height
    centre = complex(width - 1, height - 1) / 2
    source = centre + (complex(x, y) - centre) * np.exp(1j * np.radians(30 * strength))
    return source.real, source.imag


def warp_oracle(name, image, strength):
    """Bilinear interpolation of the image inside an endless plane of the fill."""
    height, width, _ = image.shape
    warped, fill = np.empty_like(image), np.array(FILL)
    for y in range(height):
        for x in range(width):
            source_x, source_y = source_oracle(name, strength, x, y, height, width)
            left, top = int(np.floor(source_x)), int(np.floor(source_y))
            pixel = np.zeros(3)
            for row, row_share in ((top, top + 1 - source_y), (top + 1, source_y - top)):
                for column, share in ((left, left + 1 - source_x), (left + 1, source_x - left)):
                    inside = 0 <= row < height and 0 <= column < width
                    pixel += row_share * share * (image[row, column] if inside else fill)
            warped[y, x] = pixel
    return warped


@pytest.mark.parametrize("strength", [-0.7, 0.4, 1.0])
@pytest.mark.parametrize("name", OPS)
def test_each_operation_is_its_oracle(name, strength):
    images = random_images(batch=2).astype(np.float64)
    oracle = pixel_oracle if name in PIXEL_OPS else warp_oracle
    expected = np.stack([oracle(name, image, strength) for image in images])
    np.testing.assert_allclose(apply_one(name, images, strength), expected, atol=0.02)


def test_each_image_has_its_own_operation_and_strength():
    images = random_images(batch=len(OPS)).astype(np.float64)
    order = np.random.default_rng(1).permutation(len(OPS)).astype(np.int32)
    strengths = np.linspace(-0.9, 0.8, len(OPS)).astype(np.float32)
    changed = apply_ops(tf.constant(images, tf.float32), order, strengths, tf.constant(FILL))
    for image, op, strength, result in zip(images, order, strengths, changed, strict=True):
        oracle = pixel_oracle if OPS[op] in PIXEL_OPS else warp_oracle
        np.testing.assert_allclose(result, oracle(OPS[op], image, strength), atol=0.02)


@pytest.mark.parametrize("name", ["auto_contrast", "equalize"])
def test_a_channel_of_one_value_stays(name):
    images = random_images(batch=2).astype(np.float64)
    images[0, :, :, 1] = 77
    changed = apply_one(name, images, 0.0)
    np.testing.assert_array_equal(changed[0, :, :, 1], 77)
    assert (changed[0, :, :, 0] != images[0, :, :, 0]).any()


def test_equalisation_has_pillows_integer_steps():
    # 1,023 pixels are darker than the brightest: a step of 4.
    image = np.random.default_rng(2).integers(0, 250, [32, 32, 3]).astype(np.float64)
    image[3, 5] = 255
    changed = apply_one("equalize", image[None], 0.0)[0]
    np.testing.assert_array_equal(changed, equalize_oracle(image))
    assert changed.min() == 0 and changed[3, 5].min() == 255


def test_equalisation_leaves_small_images_alone():
    images = random_images(batch=2, height=8, width=8).astype(np.float64)
    np.testing.assert_array_equal(apply_one("equalize", images, 0.0), images)


@pytest.mark.parametrize("name", sorted(set(OPS) - {"auto_contrast", "equalize", "invert"}))
def test_strength_0_changes_nothing(name):
    images = random_images().astype(np.float64)
    np.testing.assert_allclose(apply_one(name, images, 0.0), images, atol=1e-4)


def test_cutout_covers_a_square_clipped_at_the_border():
    images = random_images(batch=3, height=32, width=32)
    rows, columns = [16, 0, 31], [10, 0, 20]
    covered = cutout(tf.constant(images, tf.float32), *tf.constant([rows, columns]), 16, FILL)
    expected = images.astype(np.float32)
    expected[0, 8:24, 2:18] = FILL
    expected[1, :8, :8] = FILL
    expected[2, 23:, 12:28] = FILL
    np.testing.assert_array_equal(covered, expected)


def test_the_policy_has_25_pairs_of_known_operations():
    assert len(CIFAR10_POLICY) == 25
    assert {len(row) for row in CIFAR10_POLICY} == {2}
    steps = [step for row in CIFAR10_POLICY for step in row]
    assert {name for name, _, _ in steps} <= set(OPS) - {"identity"}
    assert all(0 <= share <= 1 and magnitude in range(10) for _, share, magnitude in steps)
    # Sums of the published table.
    assert sum(share for _, share, _ in steps) == pytest.approx(26.5)
    assert sum(magnitude for _, _, magnitude in steps) == 267
    assert sum(name == "equalize" for name, _, _ in steps) == 9


def test_randaugment_has_14_operations():
    assert len(RANDAUGMENT_OPS) == 14
    assert set(RANDAUGMENT_OPS) == set(OPS) - {"invert"}


def test_subpolicies_are_uniform_and_take_place_at_their_probabilities():
    size = 100_000
    ops, strengths = (value.numpy() for value in draw_subpolicies(size, SEED))
    expected = np.zeros([2, len(OPS)])
    for row in CIFAR10_POLICY:
        for step, (name, share, _) in enumerate(row):
            expected[step, OPS.index(name)] += share / 25
    expected[:, OPS.index("identity")] += 1 - expected.sum(axis=1)
    for step in range(2):
        observed = np.bincount(ops[step], minlength=len(OPS)) / size
        np.testing.assert_allclose(observed, expected[step], atol=0.005)
    assert abs(np.sign(strengths[strengths != 0]).mean()) < 0.01


def test_probabilities_0_and_1_and_the_scale_of_magnitudes():
    policy = [[("invert", 0.0, 3), ("rotate", 1.0, 6)]]
    ops, strengths = (value.numpy() for value in draw_subpolicies(2000, SEED, policy))
    np.testing.assert_array_equal(ops[0], OPS.index("identity"))
    np.testing.assert_array_equal(ops[1], OPS.index("rotate"))
    np.testing.assert_allclose(np.unique(strengths[1]), [-6 / 9, 6 / 9], rtol=1e-6)


def test_both_operations_of_a_subpolicy_come_together():
    policy = [[("invert", 1.0, 0), ("rotate", 1.0, 1)], [("color", 1.0, 2), ("sharpness", 1.0, 3)]]
    ops, _ = draw_subpolicies(100, SEED, policy)
    pairs = {(OPS[first], OPS[second]) for first, second in ops.numpy().T}
    assert pairs == {("invert", "rotate"), ("color", "sharpness")}


def test_randaugment_draws_uniformly_and_independently():
    size = 100_000
    ops, strengths = (value.numpy() for value in draw_ops(size, SEED, 2, 4))
    for step in range(2):
        observed = np.bincount(ops[step], minlength=len(OPS)) / size
        expected = [(name in RANDAUGMENT_OPS) / 14 for name in OPS]
        np.testing.assert_allclose(observed, expected, atol=0.005)
    assert abs(np.corrcoef(np.concatenate([ops, strengths]))[np.triu_indices(4, 1)]).max() < 0.02
    np.testing.assert_allclose(np.unique(strengths), [-0.4, 0.4], rtol=1e-6)


def test_centres_are_uniform_over_the_image():
    rows, columns = (value.numpy() for value in draw_centres(60_000, SEED, 8, 8))
    np.testing.assert_allclose(np.bincount(rows) / 60_000, np.full(8, 1 / 8), atol=0.01)
    np.testing.assert_allclose(np.bincount(columns) / 60_000, np.full(8, 1 / 8), atol=0.01)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.02


def test_standard_is_crop_and_flip_to_the_bit():
    images = random_images(batch=32)
    expected = random_crop_flip(images, SEED, 4, True)
    np.testing.assert_array_equal(augment("standard", images, SEED, 4, True, FILL), expected)


@pytest.mark.parametrize("name", POLICIES)
def test_the_seed_decides(name):
    images = random_images()
    first = augment(name, images, SEED, 4, True, FILL).numpy()
    np.testing.assert_array_equal(augment(name, images, SEED, 4, True, FILL), first)
    assert (augment(name, images, [3, 5], 4, True, FILL).numpy() != first).any()
    assert (augment(name, images, [4, 4], 4, True, FILL).numpy() != first).any()


@pytest.mark.parametrize("name", POLICIES)
def test_a_graph_gives_the_pixels_of_eager_mode(name):
    images = random_images()
    seeds = tf.data.Dataset.from_tensors(tf.constant(SEED, tf.int64))
    stream = seeds.map(lambda seed: augment(name, tf.constant(images), seed, 4, True, FILL))
    assert stream.element_spec == tf.TensorSpec(images.shape, tf.uint8)
    [streamed] = list(stream)
    eager = augment(name, images, tf.constant(SEED, tf.int64), 4, True, FILL)
    np.testing.assert_array_equal(streamed, eager)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_come_after_the_crop_and_do_not_depend_on_it(name):
    # A single colour is the same after any crop without padding.
    images = np.full([64, 32, 32, 3], 100, np.uint8)
    changed = augment(name, images, SEED, 0, False, FILL).numpy()
    np.testing.assert_array_equal(augment(name, images, SEED, 0, True, FILL), changed)
    assert len({image.tobytes() for image in changed}) > 30


def test_autoaugment_always_ends_with_a_square_of_the_fill():
    fill = [3, 33, 133]
    changed = autoaugment_cutout(tf.constant(random_images(64, 24, 48)), SEED, fill).numpy()
    covered = (changed == fill).all(axis=3).sum(axis=(1, 2))
    assert covered.min() >= 8 * 8
    assert len(np.unique(covered)) > 10


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
@pytest.mark.parametrize("policy", [autoaugment_cutout, randaugment])
def test_type_shape_and_range_stay(policy, dtype):
    images = tf.cast(random_images(batch=64), dtype)
    changed = policy(images, SEED, FILL)
    assert changed.dtype == dtype and changed.shape == images.shape
    assert changed.numpy().min() >= 0 and changed.numpy().max() <= 255
    exact = policy(tf.cast(images, tf.float32), SEED, FILL).numpy()
    np.testing.assert_allclose(changed, exact, atol=0.5 if dtype == tf.uint8 else 0)


def test_randaugment_scales_grey_images_by_their_own_white():
    images = random_images(batch=128, height=8, width=8, channels=1) // 15
    changed = randaugment(tf.constant(images), SEED, [4], pixel_max=16).numpy()
    # 16 · 15.9375 is 255: a scale that loses nothing.
    expected = randaugment(tf.constant(images * 15.9375), SEED, [63.75]).numpy() / 15.9375
    np.testing.assert_allclose(changed, expected, atol=0.5001)
    assert changed.max() <= 16 and (changed != images).any(axis=(1, 2, 3)).mean() > 0.5


def test_bad_arguments_are_refused():
    images = tf.constant(random_images(batch=2))
    with pytest.raises(ValueError, match="augment must be one of 'standard'.*got 'cutmix'"):
        augment("cutmix", images, SEED, 4, True, FILL)
    with pytest.raises(ValueError, match=r"autoaugment_cutout.* 3 channels.*\(20, 18, 1\)"):
        policy("autoaugment_cutout", (2, 20, 18, 1), [1.0])
    with pytest.raises(ValueError, match=r"need 3 channels; got \(2, 20, 18, 1\)"):
        autoaugment_cutout(images[..., :1], SEED, [1.0])
    with pytest.raises(ValueError, match=r"images must be .* got \(20, 18, 3\)"):
        autoaugment_cutout(images[0], SEED, FILL)
    with pytest.raises(ValueError, match=r"1 or 3\]; got \(2, 20, 18, 2\)"):
        randaugment(images[..., :2], SEED, FILL[:2])
    with pytest.raises(ValueError, match=r"fill must have 3 entries.*got \[1\]"):
        randaugment(images, SEED, [1])
    with pytest.raises(ValueError, match="num_ops must be an integer >= 1; got 0"):
        randaugment(images, SEED, FILL, num_ops=0)
    with pytest.raises(ValueError, match="magnitude must be 0 to 10; got 10.5"):
        randaugment(images, SEED, FILL, magnitude=10.5)
    with pytest.raises(ValueError, match="pixel_max must be a finite number > 0; got 0"):
        autoaugment_cutout(images, SEED, FILL, pixel_max=0)


def test_solarising_inverts_the_threshold_itself():
    """256·(1 − strength) is inverted, what is darker by 1 isn't."""
    levels = tf.reshape(tf.constant([127.0, 128.0, 129.0]), [1, 1, 3, 1])
    solarized = PIXEL_OPS["solarize"](levels, tf.constant([0.5])).numpy()
    assert solarized.ravel().tolist() == [127, 127, 126]
