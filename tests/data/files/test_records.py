import csv

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lade_tf.data.files import image_lists, records
from lade_tf.data.files.file_reading import explained
from lade_tf.data.sets import folder


@pytest.fixture
def data_dir(tmp_path):
    """Nine photographs of noise, every other one on its side, with lists."""
    rng = np.random.default_rng(0)
    rows = {"train": [], "test": []}
    for number in range(9):
        split, name = ("test", "train")[number < 6], f"{'ab'[number % 2]}/é {number}.jpg"
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 1 + 5 * (number % 2)
        image = Image.fromarray(rng.integers(0, 256, (80, 100 + number, 3), np.uint8))
        image.save(path, exif=exif)
        rows[split].append((name, "ab"[number % 2]))
    for split, listed in rows.items():
        with open(tmp_path / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label"), *listed])
    return tmp_path


def pack(data_dir):
    """Packs the images and deletes their files."""
    _, splits = folder.read(data_dir)
    content = {split: (images.paths, images.labels) for split, images in splits.items()}
    shards = records.write(data_dir, content)
    for images in splits.values():
        for path in images.paths:
            (data_dir / path).unlink()
    return shards


def batches(data_dir):
    data = folder.load(data_dir, image_size=65)
    train = data.train_batches(2, epochs=2, seed=3)
    return [*train.as_numpy_iterator(), *data.test_batches(2).as_numpy_iterator()]


def test_the_same_batches_come_from_records(data_dir, monkeypatch):
    from_files = batches(data_dir)
    monkeypatch.setattr(records, "SHARD_BYTES", 10_000)
    assert pack(data_dir) == 5
    from_records = batches(data_dir)
    assert len(from_records) == len(from_files) == 8
    for (images, labels), (other_images, other_labels) in zip(
        from_records, from_files, strict=True
    ):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_they_are_records_like_any(data_dir):
    content = {path: (data_dir / path).read_bytes() for path in ("a/é 0.jpg", "b/é 1.jpg")}
    assert pack(data_dir) == 2
    [first, second, *_] = tf.data.TFRecordDataset(str(data_dir / "tfrecords/train-00000.tfrecord"))
    for record, (path, image), label in zip((first, second), content.items(), (0, 1), strict=True):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        assert feature["image/filename"].bytes_list.value == [path.encode()]
        assert feature["image/class/label"].int64_list.value == [label]
        assert feature["image/encoded"].bytes_list.value == [image]


def test_a_damaged_record_is_named(data_dir):
    pack(data_dir)
    places = records.read_index(data_dir)
    shard, _, offset = places["a/é 2.jpg"].rpartition("@")
    with open(shard, "r+b") as file:
        file.seek(int(offset) + 200)
        file.write(b"damaged")
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        batches(data_dir)
    assert f"train-00000.tfrecord@{offset}): " in explained(error.value.message)
    data = folder.load(data_dir, "skip", image_size=65)
    [(place, reason)] = data.bad_images
    assert place == places["a/é 2.jpg"] and "corrupted record" in reason
    assert len(data.train.paths) == 5


def test_what_the_index_names_must_be_there(data_dir):
    pack(data_dir)
    (data_dir / "tfrecords/test-00000.tfrecord").unlink()
    _, splits = folder.read(data_dir)
    [problem] = image_lists.find_problems(splits, 2)
    assert problem.startswith("3 of the 3 images of ") and "missing" in problem


@pytest.mark.parametrize(
    "index",
    [
        "",
        "path,offset\na.jpg,0\n",
        "path,shard,offset\na.jpg,train-0.tfrecord\n",
        "path,shard,offset\na.jpg,../train-0.tfrecord,0\n",
        "path,shard,offset\na.jpg,train-0.tfrecord,-1\n",
    ],
)
def test_an_index_of_another_form(tmp_path, index):
    (tmp_path / "tfrecords").mkdir()
    (tmp_path / "tfrecords/index.csv").write_text(index)
    with pytest.raises(ValueError, match="index.csv must have the columns path,shard,offset"):
        records.read_index(tmp_path)


def test_all_or_nothing_is_written(data_dir):
    with pytest.raises(FileNotFoundError):
        records.write(data_dir, {"train": (("a/é 0.jpg", "absent.jpg"), (0, 0))})
    assert records.read_index(data_dir) == {}
    pack(data_dir)
    before = records.read_index(data_dir)
    with pytest.raises(ValueError, match="tfrecords exists already: delete it"):
        records.write(data_dir, {"train": ((), ())})
    assert records.read_index(data_dir) == before


def test_a_place_is_described_by_the_image_that_lies_there(data_dir):
    content = (data_dir / "a/é 2.jpg").read_bytes()
    pack(data_dir)
    place = records.read_index(data_dir)["a/é 2.jpg"]
    assert records.described(place) == f"a/é 2.jpg ({place})"
    with records.open_image(place) as packed:
        assert packed.read() == content
    assert records.described("/somewhere/é.jpg") == "/somewhere/é.jpg"
    nowhere = place.replace("train-0", "train-1")
    assert records.described(nowhere) == nowhere
