"""prepare.py as a user calls it, on good and on broken folders."""

import hashlib
import io
import shutil

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from binaries import run
from PIL import Image
from reproduction import prepared, tfds_images

from lade_tf.data.files import records
from lade_tf.data.sets import places

HEADER = "split  images  classes  largest  smallest  many  medium  few"


def write_image(path, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    color = hashlib.sha256(str(path).encode()).digest()  # every image its own content
    Image.frombytes("RGB", (3, 3), color[:27]).resize((4, 4)).save(path, **kwargs)


@pytest.fixture
def folder(tmp_path):
    """A good folder: 101 images of a, 2 of b, and 2 to test; one photograph lies on its side."""
    for index in range(101):
        write_image(tmp_path / f"train/a/{index}.jpg")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    write_image(tmp_path / "train/b/1.jpg", exif=rotated)
    for path in ("train/b/2.jpg", "test/a/1.jpg", "test/b/1.jpg"):
        write_image(tmp_path / path)
    return tmp_path


def test_a_good_folder(folder):
    output = run("prepare.py", "--dataset=folder", f"--data_dir={folder}", cwd=folder)
    assert output.splitlines() == [
        HEADER,
        "train     103        2      101         2     1       0    1",
        " test       2        2        1         1",
        "1 images are turned upright as their EXIF orientation says",
        "2 classes with fewer than 5 test images, whose accuracies say little: a (1), b (1)",
        "no image is there twice",
        "train.py needs --batch_size=103 or less with --image_size=64 or less: the recipe's "
        "batches have 256 images, and there are 103 for training",
        "folder is ready: nothing is missing",
    ]


def test_what_is_there_twice_is_shown_and_written(folder):
    shutil.copy(folder / "train/a/0.jpg", folder / "test/a/copy.jpg")
    (folder / "train/b/link.jpg").symlink_to(folder / "train/a/1.jpg")
    output = run("prepare.py", "--dataset=folder", f"--data_dir={folder}", cwd=folder)
    assert "of test, in train too                        1                 0" in output
    assert "train/b/link.jpg (train) is train/a/1.jpg (train)" in output
    assert "train.py needs --allow_duplicates" in output
    assert "train/a/0.jpg" in (folder / "duplicates.json").read_text()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"counts": [{"split": "test"}]}', '{"counts": 3}']
)
def test_damaged_duplicates(tmp_path, content):
    path = tmp_path / prepared.DUPLICATES
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} .*: delete it, or call prepare.py again"):
        prepared.summary(path, {})


def test_a_broken_folder(folder):
    (folder / "test/bee").mkdir()
    errors = run("prepare.py", "--dataset=folder", f"--data_dir={folder}", cwd=folder, fails=True)
    assert f"prepare.py: {folder}/test/bee must hold an image" in errors
    assert "Traceback" not in errors


def test_classes_without_a_test_image_and_files_that_are_no_images(folder):
    shutil.rmtree(folder / "test/b")
    (folder / "train/a/picture.tiff").touch()
    output = run("prepare.py", "--dataset=folder", f"--data_dir={folder}", cwd=folder)
    assert "1 class without a test image, left out of every label distribution: b\n" in output
    assert f"1 files have other endings than images: {folder}/train/a/picture.tiff" in output


def places_lists(folder, **changes):
    """Lists of four images; --unpack and the checks need no more."""
    lists = {
        "train": ["data_256/a/attic/1.jpg 0", "data_256/b/bar/1.jpg 1"],
        "val": ["data_256/a/attic/2.jpg 0"],
        "test": ["val_256/Places365_val_00000001.jpg 1"],
        **changes,
    }
    for split, lines in lists.items():
        (folder / f"Places_LT_{split}.txt").write_text("\n".join(lines))
    return [line.split()[0] for lines in lists.values() for line in lines]


def test_broken_lists(tmp_path):
    places_lists(tmp_path, val=["data_256/b/bar/1.jpg 1", "data_256/a/attic/2.jpg 7"])
    write_image(tmp_path / "data_256/b/bar/1.jpg")
    errors = run("prepare.py", "--dataset=places_lt", f"--data_dir={tmp_path}", cwd=".", fails=True)
    train, val = (f"{tmp_path}/Places_LT_{split}.txt" for split in ("train", "val"))
    for line in (
        f"- {train} has 2 images, as published 62,500",
        "- there are 2 classes, as published 365",
        f"- {val} must have labels 0 to 1, those of the training images; got 7 for",
        f"- {val} names images a second time: data_256/b/bar/1.jpg (also in {train})",
        f"- 1 of the 2 images of {train} are missing in {tmp_path}: data_256/a/attic/1.jpg",
        "Where to get places_lt: images: train_256_places365standard.tar and val_256.tar",
        "https://github.com/zhmiao/OpenLongTailRecognition-OLTR",
    ):
        assert line in errors


@pytest.mark.parametrize("dataset", ["places_lt", "imagenet_lt", "inaturalist2018", "folder"])
def test_an_empty_folder_says_where_to_get_it(tmp_path, dataset):
    flags = (f"--dataset={dataset}", f"--data_dir={tmp_path}")
    errors = run("prepare.py", *flags, cwd=tmp_path, fails=True)
    assert (f"Where to get {dataset}: " in errors) == (dataset != "folder")
    assert str(tmp_path) in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_sets_in_memory(tmp_path):
    output = run("prepare.py", "--dataset=digits_lt", cwd=tmp_path)
    assert "train     405       10      120         6     1       5    4" in output
    assert "digits_lt is ready" in output
    flags = ("--dataset=cifar10_lt", f"--data_dir={tmp_path}")
    errors = run("prepare.py", *flags, cwd=tmp_path, fails=True)
    assert f"cifar10 is not prepared in {tmp_path}; this command downloads" in errors


def store_as_tfds(folder, name, feature, images):
    """Makes a real prepared tensorflow-datasets folder, {what tells an image: content}."""
    features = {feature: tfds.features.Text(), "image": tfds.features.Image()}
    rows = [{feature: key, "image": io.BytesIO(content)} for key, content in images.items()]
    tfds.dataset_builders.AdhocBuilder(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": list(enumerate(rows))},
        data_dir=folder,
        disable_shuffling=True,
    ).download_and_prepare()


def test_unpack(tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    paths = places_lists(data_dir)
    content = tf.io.encode_png(tf.zeros([2, 3, 3], tf.uint8)).numpy()
    images = {path: content for path in [*paths, "data_256/b/bar/unlisted.jpg"]}
    store_as_tfds(tmp_path / "tfds", "places365_small", "filename", images)
    write_image(data_dir / paths[0])
    before = (data_dir / paths[0]).read_bytes()
    flags = ("--dataset=places_lt", f"--data_dir={data_dir}", f"--unpack={tmp_path / 'tfds'}")
    errors = run("prepare.py", *flags, cwd=tmp_path, fails=True)
    assert "as published 62,500" in errors and "missing" not in errors
    files = {str(p.relative_to(data_dir)): p for p in data_dir.rglob("*") if p.is_file()}
    assert sorted(path for path in files if not path.endswith(".txt")) == sorted(paths)
    assert files[paths[0]].read_bytes() == before, "what is there stays"
    assert [Image.open(files[path]).size for path in paths[1:]] == [(3, 2)] * 3


def test_unpack_takes_the_bytes_as_they_are(tmp_path, folder):
    name = "data_256/b/bar/1.jpg"
    content = (folder / "train/b/1.jpg").read_bytes()
    (tmp_path / "data").mkdir()
    places_lists(tmp_path / "data")
    _, splits = places.read(tmp_path / "data")
    store_as_tfds(tmp_path / "tfds", "places365_small", "filename", {name: content})
    assert tfds_images.unpack("places_lt", splits, tmp_path / "tfds") == 1
    assert tfds_images.unpack("places_lt", splits, tmp_path / "tfds") == 0
    assert (tmp_path / "data" / name).read_bytes() == content
    records.write(tmp_path / "data", {"train": ([name], [1])})
    _, splits = places.read(tmp_path / "data")
    (tmp_path / "data" / name).unlink()
    assert tfds_images.unpack("places_lt", splits, tmp_path / "tfds") == 0, "it is packed"


def test_unpack_without_a_prepared_set(tmp_path):
    with pytest.raises(ValueError, match="must hold imagenet_lt, prepared by tensorflow-datasets"):
        tfds_images.unpack("imagenet_lt", {}, tmp_path)
    flags = ("--dataset=folder", f"--data_dir={tmp_path}", f"--unpack={tmp_path}")
    errors = run("prepare.py", *flags, cwd=tmp_path, fails=True)
    assert "--unpack is for places_lt, imagenet_lt, inaturalist2018" in errors


@pytest.mark.parametrize(
    ("dataset", "path", "told"),
    [
        ("places_lt", "data_256/a/attic/1.jpg", "data_256/a/attic/1.jpg"),
        ("imagenet_lt", "train/n01440764/n01440764_190.JPEG", "n01440764_190.JPEG"),
        ("inaturalist2018", "train_val2018/Aves/2761/3b60c9486d.jpg", "3b60c9486d"),
    ],
)
def test_how_tensorflow_datasets_tells_an_image(dataset, path, told):
    _, _, key = tfds_images.SETS[dataset]
    assert key(path) == told


def test_decode(folder):
    flags = ("--dataset=folder", f"--data_dir={folder}")
    (folder / "train/a/7.jpg").write_bytes(b"")
    output = run("prepare.py", *flags, "--nodecode", cwd=folder)
    assert output.endswith("nothing is missing, but images weren't decoded; --decode does\n")
    errors = run("prepare.py", *flags, cwd=folder, fails=True)
    assert f"- {folder}/train/a/7.jpg can't be decoded: " in errors
    assert errors.count("can't be decoded") == 1


def test_few_training_images(folder):
    for index in range(50):
        (folder / f"train/a/{index}.jpg").unlink()
    output = run("prepare.py", "--dataset=folder", f"--data_dir={folder}", cwd=folder)
    assert (
        "\ntrain.py needs --batch_size=53 or less: the recipe's batches have 64 images, and there "
        "are 53 for training\n"
    ) in output


def test_tfrecords(folder):
    for split, names in {"train": ("1", "2", "7"), "test": ("1",)}.items():
        lines = [f"{split}/a/{name}.jpg,a" for name in names] + [f"{split}/b/1.jpg,b"]
        (folder / f"{split}.csv").write_text("\n".join(["path,label", *lines]))
    flags = ("--dataset=folder", f"--data_dir={folder}")
    good = (folder / "train/a/7.jpg").read_bytes()
    (folder / "train/a/7.jpg").write_bytes(good[:300])
    errors = run("prepare.py", *flags, "--tfrecords", cwd=folder, fails=True)
    assert "train/a/7.jpg can't be decoded" in errors and not (folder / "tfrecords").exists()
    (folder / "train/a/7.jpg").write_bytes(good)
    output = run("prepare.py", *flags, "--tfrecords", cwd=folder)
    assert "6 images packed into 2 TFRecords; their files aren't needed any more" in output
    for split in ("train", "test"):
        shutil.rmtree(folder / split)
    output = run("prepare.py", *flags, "--decode", cwd=folder)
    assert "1 images are turned upright" in output and "folder is ready" in output
    assert "delete it to write it anew" in run(
        "prepare.py", *flags, "--tfrecords", cwd=folder, fails=True
    )


def test_tfrecords_need_lists(folder):
    flags = ("--dataset=folder", f"--data_dir={folder}", "--tfrecords")
    errors = run("prepare.py", *flags, cwd=folder, fails=True)
    assert "--tfrecords needs train.csv and test.csv (or val.csv) in --data_dir" in errors
    assert not (folder / "tfrecords").exists()
    errors = run("prepare.py", "--dataset=digits_lt", "--tfrecords", cwd=folder, fails=True)
    assert "--tfrecords is for places_lt, imagenet_lt, inaturalist2018, folder" in errors
