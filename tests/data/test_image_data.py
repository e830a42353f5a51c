import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lade_tf.data import ImageData, Split

COUNTS = [30, 12, 5]
BATCH_SIZE = 8  # 47 training images: 5 steps, 7 images dropped.


def make_split(counts, height=6, width=5):
    """Images that carry their own position in every pixel, counted from 1."""
    size = sum(counts)
    images = np.ones((size, height, width, 2), np.uint8)
    images *= np.arange(1, size + 1, dtype=np.uint8)[:, None, None, None]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return Split(images, labels.astype(np.int32))


def make_data(**changes):
    arguments = dict(
        name="toy",
        class_names=("a", "b", "c"),
        train=make_split(COUNTS),
        test=make_split([4, 4, 4]),
        mean=(0.5, 0.5),
        std=(0.2, 0.2),
        pixel_max=255,
        padding=1,
        flip=True,
    )
    return ImageData(**(arguments | changes))


def collect(stream):
    return [(images.numpy(), labels.numpy()) for images, labels in stream]


def positions(batches):
    return np.concatenate([images.max(axis=(1, 2, 3)) for images, _ in batches]).astype(int) - 1


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for array, expected in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_properties():
    data = make_data()
    assert data.num_classes == 3
    assert data.image_shape == (6, 5, 2)
    assert data.class_counts.dtype == np.int64
    np.testing.assert_array_equal(data.class_counts, COUNTS)
    assert data.steps_per_epoch(BATCH_SIZE) == 5
    assert data.steps_per_epoch(47) == 1


def test_a_class_without_training_images_is_counted():
    data = make_data(train=make_split([5, 3]))
    np.testing.assert_array_equal(data.class_counts, [5, 3, 0])


def test_train_batches():
    data = make_data()
    stream = data.train_batches(BATCH_SIZE, epochs=3, seed=0)
    batches = collect(stream)
    assert len(batches) == stream.cardinality() == 15
    for images, labels in batches:
        assert images.shape == (8, 6, 5, 2) and images.dtype == np.float32
        assert labels.shape == (8,) and labels.dtype == np.int32
    np.testing.assert_array_equal(
        np.concatenate([labels for _, labels in batches]), data.train.labels[positions(batches)]
    )


def test_batch_shapes_are_static():
    images, labels = make_data().train_batches(BATCH_SIZE, epochs=1, seed=0).element_spec
    assert images.shape == (8, 6, 5, 2) and labels.shape == (8,)


def test_an_epoch_repeats_no_image_and_epochs_differ_in_order():
    batches = collect(make_data().train_batches(BATCH_SIZE, epochs=2, seed=0))
    first, second = positions(batches[:5]), positions(batches[5:])
    assert len(set(first)) == len(set(second)) == 40
    assert (first != second).any() and (first != np.sort(first)).any()


def test_pixels_are_those_of_the_image_or_black():
    images, _ = collect(make_data().train_batches(BATCH_SIZE, epochs=1, seed=0))[0]
    for image in images:
        assert set(np.unique(image)) <= {0, image.max()}
    assert (images == 0).any()


def test_padding_and_flip_reach_the_batches():
    ramp = np.broadcast_to(np.arange(1, 6, dtype=np.uint8)[:, None], (47, 6, 5, 2)).copy()
    train = Split(ramp, make_split(COUNTS).labels)
    plain = make_data(train=train, padding=0, flip=False)
    mirrored = make_data(train=train, padding=0, flip=True)
    (images, _), *_ = collect(plain.train_batches(BATCH_SIZE, epochs=1, seed=0))
    np.testing.assert_array_equal(images, ramp[:8])
    (images, _), *_ = collect(mirrored.train_batches(BATCH_SIZE, epochs=1, seed=0))
    left_to_right = images[:, 0, 0, 0] < images[:, 0, -1, 0]
    assert left_to_right.any() and not left_to_right.all()


def test_a_resumed_stream_equals_the_uninterrupted_one():
    data = make_data()
    whole = collect(data.train_batches(BATCH_SIZE, epochs=4, seed=5))
    resumed = collect(data.train_batches(BATCH_SIZE, epochs=4, seed=5, initial_epoch=2))
    assert_same(resumed, whole[10:])
    assert_same(collect(data.train_batches(BATCH_SIZE, epochs=4, seed=5)), whole)
    assert not collect(data.train_batches(BATCH_SIZE, epochs=4, seed=5, initial_epoch=4))


def test_seeds_and_steps_differ_in_order_and_crops():
    same = Split(np.repeat(make_split([1]).images, 47, axis=0), make_split(COUNTS).labels)
    same.images[:, 2:4, 1] += np.uint8(100)  # A mark, so that crops and flips can be told apart.
    data = make_data(train=same)
    first = collect(data.train_batches(BATCH_SIZE, epochs=2, seed=0))
    second = collect(data.train_batches(BATCH_SIZE, epochs=2, seed=1))
    assert (first[0][0] != second[0][0]).any(), "seeds share their crops"
    assert (first[0][0] != first[1][0]).any(), "steps share their crops"
    assert (first[0][0] != first[5][0]).any(), "epochs share their crops"
    order = positions(collect(make_data().train_batches(BATCH_SIZE, epochs=1, seed=0)))
    other = positions(collect(make_data().train_batches(BATCH_SIZE, epochs=1, seed=1)))
    assert (order != other).any()


def test_every_test_image_once_in_stored_order():
    data = make_data()
    batches = collect(data.test_batches(5))
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert images.dtype == np.float32 and labels.dtype == np.int32
    np.testing.assert_array_equal(images, data.test.images)
    np.testing.assert_array_equal(labels, data.test.labels)


@pytest.mark.parametrize("batch_size", [0, 48])
def test_train_batch_size_out_of_range(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be 1 to 47, .*got {batch_size}"):
        make_data().train_batches(batch_size, epochs=1, seed=0)


def test_test_batch_size_out_of_range():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        make_data().test_batches(0)


@pytest.mark.parametrize("initial_epoch", [-1, 4])
def test_initial_epoch_out_of_range(initial_epoch):
    with pytest.raises(ValueError, match=f"initial_epoch must be 0 to epochs=3; .*{initial_epoch}"):
        make_data().train_batches(8, epochs=3, seed=0, initial_epoch=initial_epoch)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            np.zeros((2, 4, 4, 1)),
            np.zeros(2, np.int32),
            "images must be .* uint8, .any, any, any, any",
        ),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32), "images must be .* any, any\\]"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2), "labels must be .* int32, \\[any\\]"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0, 1], "labels must be .* got list"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int32), "each of the 2 .* got 3"),
    ],
)
def test_split_refuses(images, labels, message):
    with pytest.raises(ValueError, match=message):
        Split(images, labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a", "b")}, "train labels must be 0 to 1; got 2"),
        ({"test": make_split([1, 1, 1, 1])}, "test labels must be 0 to 2; got 3"),
        ({"test": make_split([2, 2, 2], height=7)}, "test must hold images of shape"),
        ({"mean": (0.5,)}, "mean must have one entry for each of the 2 channels"),
        ({"std": (0.5,) * 3}, "std must have one entry for each of the 2 channels"),
    ],
)
def test_image_data_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        make_data(**changes)


def test_data_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_data().padding = 2


DRAWN_BY_CLASS = ("class_balanced", "progressively_balanced")


@pytest.mark.parametrize(
    "sampler",
    ["instance", *(pytest.param(s, marks=pytest.mark.slow) for s in DRAWN_BY_CLASS)],
)
@pytest.mark.parametrize("mixup_alpha", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_the_functions_of_a_stream_give_its_batches_under_xla(sampler, mixup_alpha):
    data = make_data()
    options = dict(sampler=sampler, mixup_alpha=mixup_alpha)
    epoch_indices, make_batch = data.batch_functions(BATCH_SIZE, 3, seed=5, **options)

    @tf.function(jit_compile=True)
    def batch_of(images, labels, epoch, step):
        return make_batch(images, labels, epoch, step, epoch_indices(epoch)[step])

    stream = data.train_batches(BATCH_SIZE, epochs=3, seed=5, initial_epoch=1, **options)
    for index, (images, labels) in enumerate(stream):
        position = tf.constant([1 + index // 5, index % 5], tf.int64)
        batch, its_labels = batch_of(data.train.images, data.train.labels, *position)
        np.testing.assert_allclose(batch, images, rtol=1e-6)
        for found, expected in zip(
            tf.nest.flatten(its_labels), tf.nest.flatten(labels), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    assert index == 9
