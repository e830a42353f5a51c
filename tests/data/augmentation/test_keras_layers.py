import hashlib
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf.data import ImageData, Split, image_data
from lade_tf.data.augmentation.keras_layers import (
    KERAS_CV_LAYERS,
    KERAS_LAYERS,
    keras_cv_randaugment,
    seeded,
)
from lade_tf.data.augmentation.policies import policy

SIZE = 12
SHAPE = (6, SIZE, SIZE, 3)
RANGE = (0, 255)
FIXED = (
    *("AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization"),
    *("Equalization", "Grayscale", "Posterization", "Resizing"),
)
# Layers with two or few outcomes, so that images of a batch may agree.
FEW_OUTCOMES = (
    *("ChannelShuffle", "RandomApply", "RandomFlip", "RandomGrayscale", "RandomInvert"),
    *("RandomPosterization", "RandomCrop"),
)


def normal_factor():
    import keras_cv

    return keras_cv.core.NormalFactorSampler(0.5, 0.3, 0, 1)


def keras_layer(name):
    arguments = {
        "CenterCrop": (SIZE, SIZE),
        "RandomBrightness": (0.3,),
        "RandomColorDegeneration": (0.8,),
        "RandomColorJitter": (RANGE, 0.2, 0.3, 0.4, 0.2),
        "RandomContrast": (0.4,),
        "RandomCrop": (SIZE - 4, SIZE - 4),
        "RandomElasticTransform": ((1.0, 1.0), 0.9),
        "RandomErasing": ((1.0, 1.0),),
        "RandomGaussianBlur": ((1.0, 1.0), 5, (0.3, 2.0)),
        "RandomHue": (0.5,),
        "RandomInvert": (0.5,),
        "RandomPerspective": ((1.0, 1.0),),
        "RandomPosterization": ((1, 7),),
        "RandomRotation": (0.3,),
        "RandomSaturation": ((0.1, 0.9),),
        "RandomSharpness": (0.9,),
        "RandomShear": (0.3, 0.3),
        "RandomTranslation": (0.3, 0.3),
        "RandomZoom": ((-0.4, 0.4),),
        "Resizing": (SIZE, SIZE),
        "Solarization": (0.5, 0.5),
    }
    return getattr(keras.layers, name)(*arguments.get(name, ()))


def keras_cv_layers():
    import keras_cv  # Takes longer than collecting all tests.

    return keras_cv.layers


def keras_cv_layer(name):
    layers = keras_cv_layers()
    arguments = {
        "AutoContrast": lambda: (RANGE,),
        "Equalization": lambda: (RANGE,),
        "Grayscale": lambda: (3,),
        "JitteredResize": lambda: ((SIZE, SIZE), (0.5, 1.5)),
        "Posterization": lambda: (RANGE, 4),
        "RandAugment": lambda: (RANGE, 1),
        "RandomApply": lambda: (layers.RandomHue(0.5, RANGE),),
        "RandomAugmentationPipeline": lambda: ([layers.RandomHue(0.5, RANGE)], 2),
        "RandomBrightness": lambda: (0.3,),
        "RandomChannelShift": lambda: (RANGE, 0.3),
        "RandomChoice": lambda: ([layers.RandomHue(0.5, RANGE), layers.RandomShear(0.3, 0.3)],),
        "RandomColorDegeneration": lambda: (0.8,),
        "RandomColorJitter": lambda: (RANGE, 0.2, 0.3, 0.4, 0.2),
        "RandomContrast": lambda: (RANGE, 0.4),
        "RandomCrop": lambda: (SIZE - 4, SIZE - 4),
        "RandomCropAndResize": lambda: ((SIZE, SIZE), (0.3, 1.0), (0.75, 1.33)),
        "RandomCutout": lambda: (0.5, 0.5),
        "RandomGaussianBlur": lambda: (3, (0.2, 2.0)),
        "RandomHue": lambda: (0.5, RANGE),
        "RandomRotation": lambda: (0.3,),
        "RandomSaturation": lambda: (0.4,),
        "RandomSharpness": lambda: (normal_factor(), RANGE),
        "RandomShear": lambda: (0.3, 0.3),
        "RandomTranslation": lambda: (0.3, 0.3),
        "RandomZoom": lambda: ((-0.4, 0.4),),
        "Resizing": lambda: (SIZE, SIZE),
        "Solarization": lambda: (RANGE, (0.0, 100.0), (0.0, 200.0)),
    }
    return getattr(layers, name)(*arguments.get(name, tuple)())


# Half of the time of all; eleven_layers has some of them.
SLOW = (
    *("Equalization", "GridMask", "RandAugment", "RandomApply", "RandomAugmentationPipeline"),
    *("RandomColorJitter", "RandomCropAndResize", "RandomElasticTransform", "RandomGaussianBlur"),
)


def allowed(make, library, names):
    for name in names:
        marks = [pytest.mark.slow] if name in SLOW else []
        yield pytest.param(make, name, id=f"{library}-{name}", marks=marks)


ALLOWED = [
    *allowed(keras_layer, "keras", KERAS_LAYERS),
    *allowed(keras_cv_layer, "keras_cv", KERAS_CV_LAYERS),
]


def same_images():
    """One image, smooth and in colour, as often as a batch has images."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([40 + 9 * x + 5 * y, 200 - 10 * y, 90 + 60 * np.sin(x)], axis=-1)
    return tf.constant(np.repeat(image[None], SHAPE[0], axis=0), tf.float32)


def outcomes(images):
    return len({image.tobytes() for image in images})


@pytest.mark.parametrize(("make", "name"), ALLOWED)
def test_the_seed_alone_decides(make, name):
    layer = make(name)
    layers = [layer, keras.layers.Resizing(SIZE, SIZE)] if name == "RandomCrop" else [layer]
    images = same_images()
    augment = seeded(layers, SHAPE)
    first = augment(images, [1, 2]).numpy()
    np.testing.assert_array_equal(augment(images, [1, 2]), first)
    others = [augment(images, seed).numpy() for seed in ([1, 3], [2, 2])]
    assert first.shape == SHAPE and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 255 and np.isfinite(first).all()
    assert np.ptp(first) > 20, "hardly anything of the image is left"
    if name in FIXED:
        assert outcomes(first) == 1
        np.testing.assert_array_equal(others, [first, first])
        return
    assert all((other != first).any() for other in others)
    assert outcomes(first) >= (2 if name in FEW_OUTCOMES else SHAPE[0]), "images share their draws"


def eleven_layers():
    cv, own = keras_cv_layers(), keras.layers
    return [
        *(cv.RandomFlip(seed=7), own.RandomTranslation(0.1, 0.1, seed=7), cv.RandomRotation(0.1)),
        *(cv.RandomShear(0.2, 0.2), own.RandomZoom((-0.2, 0.2)), cv.RandomHue(0.3, RANGE)),
        *(own.RandomBrightness(0.2), cv.RandomChannelShift(RANGE, 0.2), cv.RandomCutout(0.3, 0.3)),
        *(own.RandomCrop(10, 10), own.Resizing(SIZE, SIZE)),
    ]


def make_data(**changes):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (24, SIZE, SIZE, 3)).astype(np.uint8)
    split = Split(images, generator.permutation(np.arange(24, dtype=np.int32) % 3))
    arguments = dict(
        **dict(name="toy", class_names=("a", "b", "c"), train=split, test=split),
        **dict(mean=(0.5,) * 3, std=(0.2,) * 3, pixel_max=255, padding=1, flip=True),
    )
    return ImageData(**(arguments | changes))


AUGMENTS = {"layers": eleven_layers, "randaugment": lambda: "keras_cv_randaugment"}


def hashes(augment, **arguments):
    """The hash of every batch, images and labels, of two epochs of four steps or what is left."""
    stream = make_data().train_batches(
        6, epochs=2, seed=5, augment=AUGMENTS[augment](), **arguments
    )
    return [
        hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
        for images, labels in stream
    ]


@pytest.mark.parametrize("augment", ["layers", pytest.param("randaugment", marks=pytest.mark.slow)])
def test_resumed_serial_and_uninterrupted_streams_agree(augment, monkeypatch):
    assert image_data.PARALLEL_BATCHES == 2
    whole = hashes(augment)
    assert len(set(whole)) == 8
    monkeypatch.setattr(image_data, "PARALLEL_BATCHES", 1)
    assert hashes(augment, initial_epoch=1) == whole[4:]


@pytest.mark.slow
@pytest.mark.parametrize("augment", AUGMENTS)
def test_another_process_sees_the_same_pixels(augment):
    program = f"import {pathlib.Path(__file__).stem} as test; print(*test.hashes({augment!r}))"
    paths = [*(path for path in sys.path if path), str(pathlib.Path(__file__).parent)]
    environment = os.environ | {"PYTHONHASHSEED": "17", "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert process.stdout.split() == hashes(augment)


def test_layers_come_after_the_standard_augmentation_and_leave_labels_alone():
    batches = make_data().train_batches(6, epochs=1, seed=5)
    layers = [keras.layers.RandomInvert((1.0, 1.0))]
    changed = make_data().train_batches(6, epochs=1, seed=5, augment=layers)
    assert changed.element_spec == batches.element_spec
    for (images, labels), (inverted, same_labels) in zip(batches, changed, strict=True):
        np.testing.assert_array_equal(inverted, 255 - images)
        np.testing.assert_array_equal(same_labels, labels)


def test_steps_epochs_and_seeds_have_draws_of_their_own():
    split = make_data().train
    split.images[:] = split.images[:1]
    data = make_data(train=split, padding=0, flip=False)
    layers = [keras.layers.RandomRotation(0.5)]
    streams = [data.train_batches(6, epochs=2, seed=seed, augment=layers) for seed in (0, 1)]
    images = np.concatenate([images for stream in streams for images, _ in stream])
    assert outcomes(images) == len(images) == 2 * 2 * 24


def test_layers_see_255_as_white_and_integers_are_rounded():
    grey = np.random.default_rng(0).integers(0, 17, (4, 5, 5, 1))
    invert, posterize = keras.layers.RandomInvert((1.0, 1.0)), keras.layers.RandomPosterization(1)
    change = policy([invert], grey.shape, [8.0], pixel_max=16)
    for dtype in (np.uint8, np.float32):
        changed = change(tf.constant(grey.astype(dtype)), [1, 2])
        assert changed.dtype == dtype
        np.testing.assert_allclose(changed, 16 - grey, rtol=1e-6)
    change = policy([posterize], grey.shape, [8.0], pixel_max=16)  # Leaves 0 and 128 of 255.
    bright = tf.constant(grey.astype(np.uint8))
    np.testing.assert_array_equal(change(bright, [1, 2]), np.where(grey > 8, 8, 0))
    exact = change(tf.cast(bright, tf.float32), [1, 2])
    np.testing.assert_allclose(exact, np.where(grey > 8, 128 * 16 / 255, 0), rtol=1e-6)


def test_values_beyond_the_range_are_cut_off():
    cubic = keras.layers.Resizing(SIZE, SIZE, interpolation="bicubic")
    half = keras.layers.Resizing(SIZE // 2, SIZE // 2, interpolation="nearest")
    images = np.zeros(SHAPE, np.uint8)
    images[:, ::4], images[:, 1::4] = 255, 255
    changed = policy([half, cubic], SHAPE, [0.0] * 3)(tf.constant(images), [1, 2]).numpy()
    assert changed[0, :, 0, 0].tolist() == changed[0, :, 5, 2].tolist()
    assert abs(np.diff(changed[0, :, 0, 0].astype(int))).max() < 200, "255 + 1 became 0"
    assert changed.min() == 0 and changed.max() == 255


def test_a_batch_may_hold_one_image():
    image = same_images()[:1]
    for make in (keras_cv_layer, keras_layer):
        changed = seeded([make("RandomRotation"), make("RandomHue")], image.shape)(image, [1, 2])
        assert changed.shape == image.shape and (changed.numpy() != image.numpy()).any()


def test_the_same_layer_twice_draws_twice():
    layer = keras.layers.RandomRotation(0.5)
    images = same_images()
    once, twice = (seeded([layer] * times, SHAPE)(images, [1, 2]).numpy() for times in (1, 2))
    both = seeded([layer], SHAPE)(tf.constant(once), [1, 2]).numpy()
    assert (twice != both).any()


def test_every_draw_of_a_layer_is_its_own():
    shift = keras_cv_layer("RandomChannelShift")
    shifted = seeded([shift], SHAPE)(tf.fill(SHAPE, 128.0), [1, 2]).numpy()[:, 0, 0]
    assert (abs(np.diff(shifted)) > 1e-3).any(axis=0).all(), "channels are shifted alike"


@pytest.mark.slow
def test_randaugment_keeps_grey_images_grey():
    shape = (32, SIZE, SIZE, 1)
    grey = tf.constant(np.random.default_rng(0).integers(0, 256, shape), tf.float32)
    changed = keras_cv_randaugment(shape)(grey, [1, 2]).numpy()
    assert changed.shape == shape and outcomes(changed) == 32
    assert (changed != grey.numpy()).any(axis=(1, 2, 3)).mean() > 0.5
    coloured = keras_cv_randaugment((*shape[:3], 3))(tf.repeat(grey, 3, axis=3), [1, 2]).numpy()
    np.testing.assert_allclose(coloured, np.repeat(changed, 3, axis=3), atol=0.1)


@pytest.mark.slow
def test_randaugment_stays_in_float32_under_a_mixed_policy():
    images, expected = same_images(), keras_cv_randaugment(SHAPE)(same_images(), [1, 2])
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras_cv_randaugment.cache_clear()
    np.testing.assert_array_equal(keras_cv_randaugment(SHAPE)(images, [1, 2]), expected)


def test_layers_of_a_mixed_policy_are_refused():
    keras.config.set_dtype_policy("mixed_bfloat16")
    with pytest.raises(ValueError, match=r"augment\[0\], .*RandomFlip.*float32.*bfloat16"):
        seeded([keras.layers.RandomFlip()], SHAPE)
    seeded([keras.layers.RandomFlip(dtype="float32")], SHAPE)


def drawn_from(layer):
    names = ("generator", "_random_generator", "factor")
    return [id(vars(part).get(name)) for part in layer._flatten_layers() for name in names]


def test_layers_are_themselves_again_afterwards():
    cv = keras_cv_layers()
    chosen = cv.RandomChoice([cv.RandomHue(0.5, RANGE), cv.RandomFlip()])
    for layer in (chosen, keras.layers.RandomRotation(0.3)):
        before = drawn_from(layer)
        seeded([layer], SHAPE)
        assert drawn_from(layer) == before
    before = drawn_from(chosen)
    with pytest.raises(ValueError, match=r"RandomChoice, fails on images of shape \(12, 12, 1\)"):
        seeded([chosen], (*SHAPE[:3], 1))
    assert drawn_from(chosen) == before


class OtherRotation(keras.layers.RandomRotation):
    pass


def other_sampler():
    import keras_cv

    class Sampler(keras_cv.core.FactorSampler):
        def __call__(self, shape=(), dtype="float32"):
            return tf.random.uniform(shape, dtype=dtype)

    return Sampler()


UNSEEDED = [
    *(("keras", name) for name in ("AugMix", "CutMix", "MixUp", "RandAugment", "Rescaling")),
    *(("keras_cv", name) for name in ("AugMix", "CutMix", "FourierMix", "MixUp")),
]
UNSEEDED_ARGUMENTS = {"keras_cv.AugMix": (RANGE,), "keras.Rescaling": (0.5,)}


@pytest.mark.parametrize(("library", "name"), UNSEEDED)
def test_layers_that_draw_from_elsewhere_are_refused(library, name):
    module = keras.layers if library == "keras" else keras_cv_layers()
    layer = getattr(module, name)(*UNSEEDED_ARGUMENTS.get(f"{library}.{name}", ()))
    with pytest.raises(ValueError) as error:
        make_data().train_batches(6, 1, 0, augment=[keras.layers.RandomFlip(), layer])
    message = str(error.value)
    assert message.startswith("augment[1]") and f"got {library}.layers.{name}." in message
    assert "RandomTranslation" in message and "RandomChannelShift" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda own, cv: "cutmix", "augment must be one of 'standard'.*got 'cutmix'"),
        (lambda own, cv: own.RandomFlip(), "augment must be a name or a list.*RandomFlip"),
        (lambda own, cv: None, "augment must be a name or a list.*None"),
        (lambda own, cv: [tf.image.flip_up_down], r"augment\[0\] must.*got builtins.function"),
        (lambda own, cv: [own.Dense(3)], "got keras.layers.Dense"),
        (lambda own, cv: [OtherRotation(0.3)], "got test_keras_layers.OtherRotation"),
        (lambda own, cv: [cv.RandomChoice([cv.MixUp()])], "got keras_cv.layers.MixUp"),
        (lambda own, cv: [cv.RandomChoice([], batchwise=True)], "batchwise=False; got True"),
        (lambda own, cv: [own.RandomBrightness(0.1, (0, 1))], r"value_range.*255.*got \[0, 1\]"),
        (lambda own, cv: [cv.RandomHue(0.1, (0, 1))], r"value_range.*255.*got \(0, 1\)"),
        (lambda own, cv: [own.RandomFlip(data_format="channels_first")], "data_format=.*_last"),
        (lambda own, cv: [own.RandomCrop(8, 8)], r"shape \(12, 12, 3\); got \(8, 8, 3\)"),
        (lambda own, cv: [cv.RandomHue(other_sampler(), RANGE)], "draw factor from a constant"),
        (
            lambda own, cv: [cv.RandomCutout(0.5, 0.5, fill_mode="gaussian_noise")],
            r"augment\[0\], keras_cv.layers.RandomCutout, must draw.*RandomStandardNormal",
        ),
    ],
)
def test_bad_augment(make, message):
    augment = make(keras.layers, keras_cv_layers())
    with pytest.raises(ValueError, match=message):
        make_data().train_batches(6, epochs=1, seed=0, augment=augment)


def test_randaugment_of_two_channels_is_refused():
    with pytest.raises(ValueError, match=r"keras_cv_randaugment.*1 or 3 channels.*\(12, 12, 2\)"):
        policy("keras_cv_randaugment", (*SHAPE[:3], 2), [0.0] * 2)
