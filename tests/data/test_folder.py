"""A user's own images, in folders or listed in CSVs."""

import numpy as np
import pytest
from PIL import Image

from lade_tf import data
from lade_tf.data import exif, folder


def write_image(path, orientation=None, size=(4, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=tags)


def make(folder, *paths):
    for path in paths:
        write_image(folder / path)
    return folder


def relative(split, folder):
    return [path.removeprefix(f"{folder}/") for path in split.paths]


def test_folders(tmp_path):
    make(tmp_path, "train/cat/b.JPG", "train/cat/a.png", "train/cat/more/c.jpeg", "train/ape/1.bmp")
    make(tmp_path, "val/cat/1.gif", "test/ape/1.webp", "test/cat/2.jpg")
    make(tmp_path, "train/cat/.hidden.jpg", "train/cat/.trash/1.jpg", "train/.git/1.jpg")
    (tmp_path / "train/cat/notes.txt").touch()
    (tmp_path / "train/README.md").touch()
    loaded = data.load("folder", data_dir=tmp_path)
    assert (loaded.name, loaded.class_names) == ("folder", ("ape", "cat"))
    expected = ["ape/1.bmp", "cat/a.png", "cat/b.JPG", "cat/more/c.jpeg"]
    assert relative(loaded.train, tmp_path / "train") == expected
    assert loaded.train.labels.tolist() == [0, 1, 1, 1]
    assert relative(loaded.val, tmp_path) == ["val/cat/1.gif"] and loaded.val.labels.tolist() == [1]
    assert relative(loaded.test, tmp_path) == ["test/ape/1.webp", "test/cat/2.jpg"]
    assert loaded.train.orientations.tolist() == [1, 1, 1, 1]
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert loaded.jitter == 0.4


def test_val_is_the_test_set_where_there_is_none(tmp_path):
    loaded = data.load("folder", data_dir=make(tmp_path, "train/a/1.jpg", "val/a/1.jpg"))
    assert relative(loaded.test, tmp_path) == ["val/a/1.jpg"] and loaded.val is None


def test_class_folders_may_be_links(tmp_path):
    make(tmp_path, "elsewhere/1.jpg", "data/test/a/1.jpg")
    (tmp_path / "data/train").mkdir()
    (tmp_path / "data/train/a").symlink_to(tmp_path / "elsewhere")
    loaded = data.load("folder", data_dir=tmp_path / "data")
    assert relative(loaded.train, tmp_path / "data") == ["train/a/1.jpg"]


def test_csvs(tmp_path):
    make(tmp_path, "images/1.jpg", "images/2.jpg", "images/3.png", "train/ignored/1.jpg")
    write_image(tmp_path / "images/4.jpg", orientation=6)
    (tmp_path / "train.csv").write_text("path,label\nimages/2.jpg,sea lion\nimages/4.jpg,ant\n")
    (tmp_path / "val.csv").write_text("path,label\nimages/1.jpg,ant\n")
    (tmp_path / "test.csv").write_text("label,path\nsea lion,images/3.png\n")
    loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.class_names == ("ant", "sea lion")
    assert relative(loaded.train, tmp_path / "images") == ["2.jpg", "4.jpg"]
    assert loaded.train.labels.tolist() == [1, 0]
    assert loaded.train.orientations.tolist() == [1, 6]
    assert relative(loaded.val, tmp_path / "images") == ["1.jpg"]
    assert relative(loaded.test, tmp_path / "images") == ["3.png"]


@pytest.mark.parametrize(
    ("paths", "got"),
    [(["x/a.jpg"], "other things"), (["train/a/1.jpg"], "train"), (["val/a/1.jpg"], "val")],
)
def test_a_missing_part(tmp_path, paths, got):
    with pytest.raises(
        ValueError, match=rf"must hold train/ and test/ \(or val/\).*got only {got}"
    ):
        data.load("folder", data_dir=make(tmp_path, *paths))


def test_a_class_that_is_not_trained(tmp_path):
    make(tmp_path, "train/a/1.jpg", "test/a/1.jpg", "test/bee/1.jpg")
    with pytest.raises(ValueError, match=f"{tmp_path}/test must have classes .*; got 'bee'"):
        data.load("folder", data_dir=tmp_path)


def test_a_class_without_images(tmp_path):
    make(tmp_path, "train/a/1.jpg", "test/a/1.jpg")
    (tmp_path / "train/bee").mkdir()
    (tmp_path / "train/bee/notes.txt").touch()
    with pytest.raises(ValueError, match=f"{tmp_path}/train/bee must hold an image"):
        data.load("folder", data_dir=tmp_path)


def test_no_class_at_all(tmp_path):
    make(tmp_path, "train/1.jpg", "test/a/1.jpg")
    with pytest.raises(ValueError, match="train must hold a subfolder of images for each class"):
        data.load("folder", data_dir=tmp_path)


def test_a_csv_that_leads_out(tmp_path):
    make(tmp_path, "secret.jpg", "data/1.jpg")
    for split, path in (("train", "../secret.jpg"), ("test", "1.jpg")):
        (tmp_path / f"data/{split}.csv").write_text(f"path,label\n{path},a\n")
    with pytest.raises(ValueError, match="train.csv must name files inside .*'../secret.jpg'"):
        data.load("folder", data_dir=tmp_path / "data")


def test_a_csv_with_test_images_in_training(tmp_path):
    make(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "train.csv").write_text("path,label\n1.jpg,a\n2.jpg,a\n")
    (tmp_path / "test.csv").write_text("path,label\n./2.jpg,a\n")
    with pytest.raises(
        ValueError, match="test.csv names images a second time: 2.jpg .also in .*tr"
    ):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_orientations(tmp_path, ending):
    values = [1, 2, 3, 4, 5, 6, 7, 8, None, 0, 9]
    files = [tmp_path / f"{index}.{ending}" for index in range(len(values))]
    for file, value in zip(files, values, strict=True):
        write_image(file, value)
    read = exif.orientations(files)
    assert read.dtype == np.uint8 and read.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1]


def test_orientations_of_bad_images(tmp_path):
    """They are bad for whoever decodes them; here they are upright, and no pixel is decoded."""
    write_image(tmp_path / "truncated.jpg", orientation=6, size=(64, 64))
    content = (tmp_path / "truncated.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(content[:-20])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    write_image(tmp_path / "png.jpg.png")
    (tmp_path / "png.jpg.png").rename(tmp_path / "png.jpg")
    names = ("truncated.jpg", "empty.jpg", "text.jpg", "png.jpg", "absent.jpg")
    assert exif.orientations([tmp_path / name for name in names]).tolist() == [6, 1, 1, 1, 1]


def test_a_large_image_is_no_warning(tmp_path, recwarn, monkeypatch):
    write_image(tmp_path / "large.jpg", orientation=3, size=(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    assert exif.orientations([tmp_path / "large.jpg"]).tolist() == [3]
    assert not recwarn.list


def test_real_images(shared_data, tmp_path):
    samples = shared_data / "data/imagenet_samples"
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(samples)
    loaded = data.load("folder", data_dir=tmp_path)
    assert len(loaded.class_names) == 250 and loaded.class_names[0] == "n01440764"
    assert loaded.train.labels.tolist() == list(range(250)) == loaded.test.labels.tolist()
    assert loaded.train.paths[0] == f"{tmp_path}/train/n01440764/n01440764_tench.JPEG"


def test_bad_images_are_skipped(tmp_path):
    make(tmp_path, "train/a/1.jpg", "train/a/2.jpg", "test/a/1.png")
    (tmp_path / "train/a/1.jpg").write_bytes(b"")
    assert len(data.load("folder", data_dir=tmp_path).train.paths) == 2
    loaded = data.load("folder", data_dir=tmp_path, on_bad_image="skip")
    assert relative(loaded.train, tmp_path) == ["train/a/2.jpg"]
    assert [path for path, _ in loaded.bad_images] == [f"{tmp_path}/train/a/1.jpg"]
    assert loaded.bad_images[0][1] and len(loaded.train.orientations) == 1


def test_files_with_other_endings_are_told(tmp_path):
    make(tmp_path, "train/a/1.jfif", "train/a/2.jpg", "test/a/1.jpg")
    for name in ("train/notes.txt", "test/a/3.tiff", "test/a/.hidden"):
        (tmp_path / name).touch()
    assert folder.ignored(tmp_path) == [f"{tmp_path}/train/notes.txt", f"{tmp_path}/test/a/3.tiff"]
    loaded = data.load("folder", data_dir=tmp_path)
    assert relative(loaded.train, tmp_path) == ["train/a/1.jfif", "train/a/2.jpg"]


def test_orientations_of_images_too_large_for_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    write_image(tmp_path / "large.jpg", orientation=6, size=(8, 8))
    assert exif.orientations([tmp_path / "large.jpg"]).tolist() == [6]
    assert Image.MAX_IMAGE_PIXELS == 10
