import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from lade_tf.data.file_data import FileData, FileSplit
from lade_tf.data.files.file_reading import explained

SIZE = 14  # 16 before the central crop.
COUNTS = [6, 4, 2]
BATCH_SIZE = 5  # 12 training images: 2 steps, 2 images dropped.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images 0 to 19, of red 10·(position + 1) and any green and blue."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for position in range(20):
        pixels = rng.integers(0, 256, (20 + position, 30, 3), np.uint8)
        pixels[..., 0] = 10 * (position + 1)
        Image.fromarray(pixels).save(folder / f"{position}.png")
    return folder


def make_split(folder, positions, labels, **changes):
    paths = tuple(str(folder / f"{position}.png") for position in positions)
    return FileSplit(paths, np.array(labels, np.int32), **changes)


def make_data(folder, **changes):
    arguments = dict(
        name="toy",
        class_names=("a", "b", "c"),
        train=make_split(folder, range(12), np.repeat([2, 0, 1], [2, 6, 4])),
        test=make_split(folder, range(13, 20), [0, 1, 2, 2, 1, 0, 1]),
        val=make_split(folder, [12], [1]),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        size=SIZE,
    )
    return FileData(**(arguments | changes))


def collect(stream):
    return [tuple(part.numpy() for part in batch) for batch in stream]


def positions(batches):
    """Which images a stream without jitter holds."""
    red = np.concatenate([images[..., 0].mean((1, 2)) for images, _ in batches])
    return np.round(red / 10).astype(int) - 1


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for array, expected in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_properties(folder):
    data = make_data(folder)
    assert data.num_classes == 3
    assert data.image_shape == (SIZE, SIZE, 3)
    assert data.pixel_max == 255
    assert data.class_counts.dtype == np.int64
    np.testing.assert_array_equal(data.class_counts, [6, 4, 2])
    assert data.steps_per_epoch(BATCH_SIZE) == 2
    assert data.splits == ("train", "val", "test")
    assert make_data(folder, val=None).splits == ("train", "test")


def test_train_batches(folder):
    data = make_data(folder, jitter=0.0)
    stream = data.train_batches(BATCH_SIZE, epochs=3, seed=0)
    assert stream.element_spec[0].shape == (5, SIZE, SIZE, 3)
    batches = collect(stream)
    assert len(batches) == stream.cardinality() == 6
    for images, labels in batches:
        assert images.dtype == np.float32 and labels.dtype == np.int32
    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(labels, data.train.labels[positions(batches)])
    for epoch in range(3):
        assert len(set(positions(batches[2 * epoch : 2 * epoch + 2]))) == 10
    assert (positions(batches[:2]) != positions(batches[2:4])).any()


@pytest.mark.parametrize(
    ("sampler", "augment", "mixup_alpha"),
    [
        ("instance", "standard", None),
        pytest.param("class_balanced", "randaugment", 0.4, marks=pytest.mark.slow),
        pytest.param("instance", "keras_cv_randaugment", None, marks=pytest.mark.slow),
        pytest.param("instance", "layers", None, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_stream_equals_the_uninterrupted_one(folder, sampler, augment, mixup_alpha):
    data = make_data(folder, jitter=0.4)
    if augment == "layers":
        augment = [keras.layers.RandomRotation(0.2), keras.layers.RandomErasing()]
    options = dict(sampler=sampler, augment=augment, mixup_alpha=mixup_alpha)

    def batches(**changes):
        stream = data.train_batches(BATCH_SIZE, epochs=3, seed=5, **options, **changes)
        return [[part.numpy() for part in tf.nest.flatten(batch)] for batch in stream]

    whole = batches()
    assert_same(batches(initial_epoch=1), whole[2:])
    assert batches(initial_epoch=3) == []


def test_seeds_epochs_steps_and_images_have_numbers_of_their_own(folder):
    same = FileSplit(
        (str(folder / "3.png"),) * 12, np.repeat([2, 0, 1], [2, 6, 4]).astype(np.int32)
    )
    data = make_data(folder, train=same, jitter=0.4)
    batches = collect(data.train_batches(BATCH_SIZE, epochs=2, seed=0))
    batches += collect(data.train_batches(BATCH_SIZE, epochs=1, seed=1))
    images = np.concatenate([images for images, _ in batches])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_mirroring_and_jitter_reach_the_batches(folder, tmp_path):
    ramp = np.repeat(np.arange(60, 200, 2, dtype=np.uint8)[None, :, None], 70, axis=0)
    Image.fromarray(np.repeat(ramp, 3, axis=2)).save(tmp_path / "ramp.png")
    split = FileSplit((str(tmp_path / "ramp.png"),) * 40, np.zeros(40, np.int32))
    for jitter in (0.0, 0.4):
        data = make_data(folder, train=split, jitter=jitter)
        ((images, _),) = collect(data.train_batches(40, epochs=1, seed=0))
        rising = images[:, 5, 0, 0] < images[:, 5, -1, 0]
        assert 10 < rising.sum() < 30
        outside = (images.min((1, 2, 3)) < 59) | (images.max((1, 2, 3)) > 199)
        assert outside.any() == bool(jitter)


def test_other_samplers_see_labels_of_their_images(folder):
    data = make_data(folder)
    batches = collect(data.train_batches(6, epochs=20, seed=0, sampler="class_balanced"))
    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(labels, data.train.labels[positions(batches)])
    counts = np.bincount(labels, minlength=3)
    assert (counts > 50).all(), "240 draws, 80 of each class"


def test_mixup_returns_triples(folder):
    stream = make_data(folder).train_batches(BATCH_SIZE, epochs=1, seed=0, mixup_alpha=1.0)
    images, (labels, others, shares) = next(iter(stream))
    assert images.shape == (5, SIZE, SIZE, 3)
    assert labels.shape == others.shape == shares.shape == (5,)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_image_once_in_stored_order(folder, split):
    data = make_data(folder)
    part = getattr(data, split)
    stream = data.plain_batches(split, 5)
    batches = collect(stream)
    sizes = {"train": [5, 5, 2], "val": [1], "test": [5, 2]}[split]
    assert [len(labels) for _, labels in batches] == sizes
    assert stream.cardinality() == len(sizes)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), part.labels)
    first = {"train": 0, "val": 12, "test": 13}[split]
    np.testing.assert_array_equal(positions(batches), first + np.arange(len(part.paths)))
    assert batches[0][0].dtype == np.float32 and batches[0][1].dtype == np.int32


def pillow_centre(path, orientation=None):
    image = Image.open(path).convert("RGB")
    if orientation:
        image.getexif()[0x0112] = orientation
        image = ImageOps.exif_transpose(image)
    shorter = min(image.size)
    size = tuple(16 * side // shorter for side in image.size)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - SIZE) / 2) for side in size)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)), float)


def test_evaluation_matches_pillow(folder):
    data = make_data(folder)
    ((images, _),) = collect(data.test_batches(7))
    expected = [pillow_centre(path) for path in data.test.paths]
    np.testing.assert_allclose(images, expected, atol=1.1)


def test_evaluation_of_photographs_matches_pillow(shared_data):
    """Real JPEGs, some grey: decoders and rounding differ a little."""
    paths = sorted(
        str(path) for path in pathlib.Path(shared_data).glob("data/imagenet_samples/*/*")
    )
    split = FileSplit(tuple(paths[:12]), np.zeros(12, np.int32))
    data = FileData("x", ("a",), split, split, None, (0.5,) * 3, (0.2,) * 3, size=SIZE)
    # Without a reduced decoding, which a result of 14 pixels would have.
    data = dataclasses.replace(data, size=224)
    ((images, _),) = collect(data.test_batches(12))
    for image, path in zip(images, paths, strict=False):
        with Image.open(path) as opened:
            opened = opened.convert("RGB")
        shorter = min(opened.size)
        size = tuple(256 * side // shorter for side in opened.size)
        left, top = (round((side - 224) / 2) for side in size)
        resized = opened.resize(size, Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), float)
        assert np.abs(image - expected).mean() < 0.5


def test_orientations_are_undone(folder, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "image.png")
    paths = (str(tmp_path / "image.png"),) * 8
    orientations = np.arange(1, 9, dtype=np.uint8)
    split = FileSplit(paths, np.zeros(8, np.int32), orientations)
    data = make_data(folder, train=split, test=split)
    ((images, _),) = collect(data.test_batches(8))
    expected = [pillow_centre(paths[0], orientation) for orientation in range(1, 9)]
    np.testing.assert_allclose(images, expected, atol=1.1)


def test_training_undoes_orientations_before_it_mirrors(folder, tmp_path):
    """The right half is red: stored turned to the left, it is shown at the right or mirrored."""
    shown = np.zeros((40, 40, 3), np.uint8)
    shown[:, 20:] = (255, 0, 0)
    Image.fromarray(np.rot90(shown, 1)).save(tmp_path / "turned.png")
    split = FileSplit(
        (str(tmp_path / "turned.png"),) * 60, np.zeros(60, np.int32), np.full(60, 6, np.uint8)
    )
    ((images, _),) = collect(make_data(folder, train=split).train_batches(60, epochs=1, seed=0))
    red = images[..., 0]
    np.testing.assert_allclose(red, np.broadcast_to(red[:, :1], red.shape), atol=1e-2)
    difference = red[:, 0, -1] - red[:, 0, 0]
    assert (difference > 100).any() and (difference < -100).any()


def test_paths_are_kept_once(folder):
    split = make_data(folder).train
    first = split.path_tensor
    assert split.path_tensor is first
    assert first.numpy()[3].decode() == split.paths[3]
    data = make_data(folder, train=split)
    next(iter(data.train_batches(2, epochs=1, seed=0)))
    assert split.path_tensor is first


@pytest.mark.parametrize(
    "position", [0, *(pytest.param(p, marks=pytest.mark.slow) for p in (3, 6))]
)
def test_errors_name_the_file(folder, tmp_path, position):
    paths = [str(folder / f"{index}.png") for index in range(7)]
    paths[position] = str(tmp_path / "bad.jpg")
    pathlib.Path(paths[position]).write_text("This is no image.")
    split = FileSplit(tuple(paths), np.zeros(7, np.int32))
    data = make_data(folder, train=split, test=split)
    for stream in (data.train_batches(7, epochs=1, seed=0), data.test_batches(2)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=paths[position]) as error:
            collect(stream)
        reason = explained(error.value.message)
        assert reason.startswith(f"{paths[position]}: ") and "format" in reason


def test_a_missing_file_is_named(folder):
    split = make_split(folder, [0, 99], [0, 1])
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        collect(make_data(folder, test=split).test_batches(2))
    assert explained(error.value.message) == f"{folder}/99.png: no such file"


def test_other_errors_are_not_explained():
    assert explained("assertion failed: [something else]") is None


def test_streams_reach_fit_on_two_replicas(folder, two_replicas):
    data = make_data(folder, jitter=0.4)
    stream = two_replicas.experimental_distribute_dataset(data.train_batches(4, 1, seed=0))
    sizes = [
        [len(part) for part in two_replicas.experimental_local_results(images)]
        for images, _ in stream
    ]
    assert sizes == [[2, 2]] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ()}, "paths must name at least one file"),
        ({"paths": ("/a", "b")}, "paths must be absolute; got 'b'"),
        (
            {"labels": np.zeros(3, np.int32)},
            r"labels must be an array of int32, \[2\]; got int32 \(3,\)",
        ),
        ({"labels": np.zeros(2, np.int64)}, "labels must be an array of int32"),
        ({"labels": [0, 1]}, "labels must be an array .*; got list"),
        ({"orientations": np.ones(2, np.int32)}, "orientations must be an array of uint8"),
        ({"orientations": np.array([1, 9], np.uint8)}, "orientations must be 1 to 8; got 9"),
        ({"orientations": np.array([0, 1], np.uint8)}, "orientations must be 1 to 8; got 0"),
    ],
)
def test_bad_splits(changes, message):
    arguments = dict(paths=("/a", "/b"), labels=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match=message):
        FileSplit(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a", "b")}, "train labels must be 0 to 1; got 2"),
        ({"mean": (0.5,)}, "mean must have one entry for each of the 3 channels"),
        ({"std": (0.5, 0.5)}, "std must have one entry for each of the 3 channels"),
        ({"jitter": -0.1}, "jitter must be"),
        ({"jitter": 1.5}, r"jitter must be a number in \[0, 1\]; got 1.5"),
        ({"size": 0}, "size must be an integer >= 1; got 0"),
    ],
)
def test_bad_data(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        make_data(folder, **changes)


def test_bad_validation_labels(folder):
    with pytest.raises(ValueError, match="val labels must be 0 to 2; got 3"):
        make_data(folder, val=make_split(folder, [0], [3]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 to 12, .*got 0"),
        ({"batch_size": 13}, "batch_size must be 1 to 12, .*got 13"),
        ({"initial_epoch": 3}, "initial_epoch must be 0 to epochs=2; got 3"),
        ({"sampler": "all"}, "sampler must be one of"),
        ({"augment": "autoaugment_cutout"}, "augment for images of 14 × 14 must be one of"),
        ({"augment": [keras.layers.MixUp()]}, "keras.layers.MixUp"),
        ({"mixup_alpha": 0}, "mixup_alpha must be"),
    ],
)
def test_bad_train_arguments(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_data(folder).train_batches(**(dict(batch_size=5, epochs=2, seed=0) | arguments))


def test_bad_plain_arguments(folder):
    with pytest.raises(ValueError, match="split must be one of 'train', 'test'; got 'val'"):
        make_data(folder, val=None).plain_batches("val", 5)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        make_data(folder).plain_batches("test", 0)


def test_streams_call_no_python(folder):
    """They work ahead: a process that ends while one calls Python may wait for ever."""
    data = make_data(folder, jitter=0.4)
    for stream in (data.train_batches(2, epochs=1, seed=0), data.test_batches(2)):
        assert b"PyFunc" not in stream._as_serialized_graph().numpy()
