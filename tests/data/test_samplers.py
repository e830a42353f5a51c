"""Samplers against their formulas and their own frequencies."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from lade_tf.data import ImageData, Split, samplers
from lade_tf.data.augmentation.crop_flip import random_crop_flip
from lade_tf.data.samplers import SAMPLERS, class_probabilities, epoch_seed

COUNTS = [90, 30, 9, 1]
BALANCING = [name for name in SAMPLERS if name != "instance"]
EPOCHS = 40


def make_data(counts=COUNTS):
    """Images whose first pixel is their own position; the others are random marks."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 255, (sum(counts), 4, 4, 2)).astype(np.uint8)
    images[..., 0] = np.arange(sum(counts))[:, None, None]
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    return ImageData(
        name="toy",
        class_names=tuple("abcd"),
        train=Split(images, labels),
        test=Split(images[:4], labels[:4]),
        mean=(0.5, 0.5),
        std=(0.2, 0.2),
        pixel_max=255,
        padding=1,
        flip=True,
    )


def collect(data, sampler, epochs=1, seed=0, batch_size=16, **options):
    """Returns images [steps, batch, ...] and labels [steps, batch] of a stream."""
    stream = data.train_batches(batch_size, epochs, seed, sampler=sampler, **options)
    batches = [(images.numpy(), labels.numpy()) for images, labels in stream]
    return tuple(np.stack(arrays) for arrays in zip(*batches, strict=True))


def positions(images):
    # A crop may lose the borders but never the middle of an image.
    return images[..., 1:3, 1:3, 0].max(axis=(-1, -2)).astype(int)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("instance", [90 / 130, 30 / 130, 9 / 130, 1 / 130]),
        ("class_balanced", [0.25, 0.25, 0.25, 0.25]),
        ("square_root", np.sqrt(COUNTS) / (np.sqrt(90) + np.sqrt(30) + 3 + 1)),
        ("reversed", np.array([1, 3, 10, 90]) / 104),
        ("progressively_balanced", 0.7 * np.array(COUNTS) / 130 + 0.3 * 0.25),
    ],
)
def test_probabilities_are_their_formulas(sampler, expected):
    probabilities = class_probabilities(sampler, COUNTS, progress=0.3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)


def test_progressively_balanced_goes_from_instance_to_class_balanced():
    for progress, sampler in ((0.0, "instance"), (1.0, "class_balanced")):
        np.testing.assert_allclose(
            class_probabilities("progressively_balanced", COUNTS, progress),
            class_probabilities(sampler, COUNTS),
        )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_class_without_images_is_never_drawn(sampler):
    counts = [20, 0, 6, 0]
    probabilities = class_probabilities(sampler, counts, progress=0.5)
    np.testing.assert_array_equal(probabilities > 0, [True, False, True, False])
    assert probabilities.sum() == pytest.approx(1)
    _, labels = collect(make_data(counts), sampler, epochs=10, batch_size=13)
    assert set(labels.ravel()) == {0, 2}


@pytest.mark.parametrize("sampler", BALANCING)
def test_a_single_class_is_all_that_is_drawn(sampler):
    _, labels = collect(make_data([0, 20, 0, 0]), sampler, batch_size=10)
    assert (labels == 1).all()


@pytest.mark.parametrize("sampler", BALANCING)
def test_frequencies_follow_the_probabilities(sampler):
    data = make_data()
    images, labels = collect(data, sampler, EPOCHS)
    np.testing.assert_array_equal(data.train.labels[positions(images)], labels)
    progress = np.arange(EPOCHS) / (EPOCHS - 1)
    by_epoch = np.stack([class_probabilities(sampler, COUNTS, t) for t in progress])
    expected = by_epoch.mean(axis=0) * labels.size
    assert stats.chisquare(np.bincount(labels.ravel()), expected).pvalue > 1e-3
    # Within a class, its images are equally likely.
    for index, count in enumerate(COUNTS[:3]):
        drawn = positions(images)[labels == index]
        members = np.flatnonzero(data.train.labels == index)
        observed = np.bincount(drawn, minlength=130)[members]
        assert observed.sum() == len(drawn)
        assert stats.chisquare(observed).pvalue > 1e-3, count


def test_progress_goes_from_0_in_the_first_epoch_to_1_in_the_last():
    streams = [collect(make_data(), "progressively_balanced", 3, seed) for seed in range(5)]
    by_epoch = np.stack([labels.reshape(3, -1) for _, labels in streams], axis=1)
    for drawn, progress in zip(by_epoch, (0, 0.5, 1), strict=True):
        expected = class_probabilities("progressively_balanced", COUNTS, progress) * drawn.size
        assert stats.chisquare(np.bincount(drawn.ravel()), expected).pvalue > 1e-3


def test_a_single_epoch_is_the_first():
    _, labels = collect(make_data(), "progressively_balanced", epochs=1)
    assert (np.bincount(labels.ravel(), minlength=4)[2:] < 25).all()


def test_instance_sorts_philox_numbers_of_seed_and_epoch():
    data = make_data()
    images, labels = collect(data, "instance", epochs=3, seed=7)
    for epoch in range(3):
        seed = tf.constant([7, epoch], tf.int64)
        keys = tf.random.stateless_uniform([130], seed, None, None, tf.uint32, alg="philox")
        order = np.argsort(keys, kind="stable")
        for step in range(8):
            chosen = order[16 * step : 16 * step + 16]
            step_seed = tf.random.fold_in(seed, tf.constant(step, tf.int64), alg="philox")
            expected = random_crop_flip(data.train.images[chosen], step_seed, 1, True)
            np.testing.assert_array_equal(images[8 * epoch + step], expected)
            np.testing.assert_array_equal(labels[8 * epoch + step], data.train.labels[chosen])
    default = [batch for batch, _ in data.train_batches(16, 3, 7)]
    np.testing.assert_array_equal(images, np.stack(default))


@pytest.mark.parametrize("sampler", BALANCING)
def test_a_resumed_stream_equals_the_uninterrupted_one(sampler):
    data = make_data()
    whole = collect(data, sampler, epochs=4, seed=5)
    resumed = collect(data, sampler, epochs=4, seed=5, initial_epoch=2)
    for arrays, expected in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(arrays, expected[16:])
    epochs = whole[1].reshape(4, -1)
    assert (epochs[0] != epochs[1]).any(), "epochs share their draws"
    assert (collect(data, sampler, seed=6)[1] != whole[1][:8]).any(), "seeds share their draws"


def crop_of(images, original):
    """Returns the (top, left, mirrored) that make each image out of the original."""
    padded = np.pad(original.astype(np.float32), [(1, 1), (1, 1), (0, 0)])
    crops = {
        (top, left, mirrored): padded[top : top + 4, left : left + 4][:, :: -1 if mirrored else 1]
        for top in range(3)
        for left in range(3)
        for mirrored in (False, True)
    }
    return [next(key for key, crop in crops.items() if (crop == image).all()) for image in images]


@pytest.mark.slow
def test_samplers_with_one_seed_share_neither_draws_nor_augmentation():
    images = np.repeat(make_data().train.images[:1], 130, axis=0)
    single = make_data()
    single = ImageData(**{**vars(single), "train": Split(images, single.train.labels)})
    draws, crops = {}, {}
    for sampler in SAMPLERS:
        # With classes of one size, two samplers that share their random numbers draw the same.
        draws[sampler] = positions(collect(make_data([33, 33, 32, 32]), sampler)[0]).ravel()
        batches, _ = collect(single, sampler)
        crops[sampler] = crop_of(batches.reshape(-1, 4, 4, 2), images[0])
    for index, name in enumerate(SAMPLERS):
        for other in SAMPLERS[:index]:
            same_images = np.mean(draws[name] == draws[other])
            assert same_images < 0.1, (name, other)  # 1 / 130 by chance
            same_crops = np.mean([a == b for a, b in zip(crops[name], crops[other], strict=True)])
            assert same_crops < 0.2, (name, other)  # 1 / 18 by chance


def test_no_step_of_instance_augments_with_the_seed_that_another_sampler_draws_with():
    epoch = tf.constant(3, tf.int64)
    stem = epoch_seed("instance", 0, epoch)
    numbers = tf.range(100, dtype=tf.int64)
    steps = {tuple(tf.random.fold_in(stem, k, alg="philox").numpy()) for k in numbers}
    seeds = {tuple(epoch_seed(sampler, 0, epoch).numpy()) for sampler in SAMPLERS}
    assert len(seeds) == len(SAMPLERS) and not seeds & steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("oversampled", COUNTS), "sampler must be one of 'instance', .*; got 'oversampled'"),
        (("instance", [0, 0]), "class_counts must hold an image of some class; got only zeros"),
        (("instance", [3, -1]), "class_counts must hold numbers >= 0; got -1 at class 1"),
        (("reversed", [3, np.nan]), "class_counts must hold finite numbers"),
        (("progressively_balanced", COUNTS, 1.5), r"progress must be .* in \[0, 1\]; got 1.5"),
        (("progressively_balanced", COUNTS, -0.5), r"progress must be .* in \[0, 1\]; got -0.5"),
        (("instance", COUNTS, np.nan), r"progress must be .* in \[0, 1\]; got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        class_probabilities(*arguments)


def test_an_unknown_sampler_is_refused_by_the_data():
    with pytest.raises(ValueError, match="sampler must be one of .*; got 'random'"):
        make_data().train_batches(16, 1, 0, sampler="random")


def test_a_number_on_the_edge_of_two_classes_is_the_second(monkeypatch):
    """So is 0 the first class: each has the numbers from its lower edge to below its upper one."""
    edges = tf.constant([[0.0, 0.25, 0.5, 0.75], [0.0] * 4], tf.float64)
    monkeypatch.setattr(samplers.random, "uniform", lambda *_: edges)
    labels = np.array([0, 1, 2, 3])
    draw = samplers.epoch_sampler("class_balanced", labels, [1] * 4, epochs=1, size=4)
    assert draw(tf.constant(0, tf.int64), None).numpy().tolist() == [0, 1, 2, 3]
