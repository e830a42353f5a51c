"""A user's own images, in folders or listed in CSVs."""

import os

import numpy as np
import pytest
from PIL import Image

from lade_tf import data
from lade_tf.data.files import exif
from lade_tf.data.sets import folder


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
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg")
    loaded = data.load("folder", data_dir=tmp_path)
    assert relative(loaded.test, tmp_path) == ["val/a/1.jpg"] and loaded.val is None


def test_class_folders_may_be_links(tmp_path):
    make(tmp_path, "elsewhere/1.jpg", "data/test/a/1.jpg", "data/train/b/1.jpg")
    (tmp_path / "data/train/a").symlink_to(tmp_path / "elsewhere")
    loaded = data.load("folder", data_dir=tmp_path / "data")
    assert relative(loaded.train, tmp_path / "data") == ["train/a/1.jpg", "train/b/1.jpg"]


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
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/bee/1.jpg")
    with pytest.raises(ValueError, match=f"{tmp_path}/test must have classes .*; got 'bee'"):
        data.load("folder", data_dir=tmp_path)


def test_a_class_without_images(tmp_path):
    make(tmp_path, "train/a/1.jpg", "test/a/1.jpg")
    (tmp_path / "train/bee").mkdir()
    (tmp_path / "train/bee/notes.txt").touch()
    with pytest.raises(ValueError, match=f"{tmp_path}/train/bee must hold an image"):
        data.load("folder", data_dir=tmp_path)


def test_no_class_at_all(tmp_path):
    make(tmp_path, "test/a/1.jpg")
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train must hold a subfolder of images for each class"):
        data.load("folder", data_dir=tmp_path)


def test_a_csv_that_leads_out(tmp_path):
    make(tmp_path, "secret.jpg", "data/1.jpg")
    for split, path in (("train", "../secret.jpg"), ("test", "1.jpg")):
        (tmp_path / f"data/{split}.csv").write_text(f"path,label\n{path},a\n2.jpg,b\n")
    with pytest.raises(ValueError, match="train.csv must name files inside .*'../secret.jpg'"):
        data.load("folder", data_dir=tmp_path / "data")


def test_a_csv_with_test_images_in_training(tmp_path):
    make(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "train.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
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
    with pytest.raises(ValueError, match=r"second time: val/.* .which is train/"):
        data.load("folder", data_dir=tmp_path)
    loaded = data.load("folder", data_dir=tmp_path, allow_duplicates=True)
    assert len(loaded.class_names) == 250 and loaded.class_names[0] == "n01440764"
    assert loaded.train.labels.tolist() == list(range(250)) == loaded.test.labels.tolist()
    assert loaded.train.paths[0] == f"{tmp_path}/train/n01440764/n01440764_tench.JPEG"


def test_bad_images_are_skipped(tmp_path):
    make(tmp_path, "train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "test/a/1.png")
    (tmp_path / "train/a/1.jpg").write_bytes(b"")
    assert len(data.load("folder", data_dir=tmp_path).train.paths) == 3
    loaded = data.load("folder", data_dir=tmp_path, on_bad_image="skip")
    assert relative(loaded.train, tmp_path) == ["train/a/2.jpg", "train/b/1.jpg"]
    assert [path for path, _ in loaded.bad_images] == [f"{tmp_path}/train/a/1.jpg"]
    assert loaded.bad_images[0][1] and len(loaded.train.orientations) == 2


def test_files_with_other_endings_are_told(tmp_path):
    make(tmp_path, "train/a/1.jfif", "train/a/2.jpg", "train/b/1.jpg", "test/a/1.jpg")
    for name in ("train/notes.txt", "test/a/3.tiff", "test/a/.hidden", "test/a/Thumbs.db"):
        (tmp_path / name).touch()
    assert folder.ignored(tmp_path) == [f"{tmp_path}/train/notes.txt", f"{tmp_path}/test/a/3.tiff"]
    loaded = data.load("folder", data_dir=tmp_path)
    assert relative(loaded.train, tmp_path) == ["train/a/1.jfif", "train/a/2.jpg", "train/b/1.jpg"]


def test_orientations_of_images_too_large_for_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    write_image(tmp_path / "large.jpg", orientation=6, size=(8, 8))
    assert exif.orientations([tmp_path / "large.jpg"]).tolist() == [6]
    assert Image.MAX_IMAGE_PIXELS == 10


# Links, names and duplicates.
BASE = ("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg")


@pytest.mark.parametrize(
    ("links", "passed_over"),
    [
        ({"train/a/up": ".."}, 1),
        ({"train/a/up": "../..", "train/b/up": "../.."}, 2),  # the folder of all: the test images
        ({"train/a/up": ".", "train/a/again": "."}, 2),
        ({"train/up": ".."}, 1),
        ({"train/a/up": "../../elsewhere"}, 1),  # a link there leads back
        ({"train/a/one": "sub", "train/a/two": "sub"}, 2),  # sub itself is read
    ],
)
def test_each_real_folder_is_read_once(tmp_path, links, passed_over):
    make(tmp_path, *BASE)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/back").symlink_to("../train")
    (tmp_path / "train/a/sub").mkdir()
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    with pytest.warns(UserWarning, match="is passed over: it leads to") as caught:
        loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.class_counts.tolist() == [1, 1] and len(loaded.test.paths) == 2
    named = {str(warning.message).split(" is passed over")[0] for warning in caught}
    assert len(named) == passed_over
    if "elsewhere" not in str(links):
        assert named == {f"{tmp_path}/{link}" for link in links}


def test_a_loop_below_a_split_that_is_a_link(tmp_path):
    make(tmp_path, "far/a/1.jpg", "far/b/1.jpg", "data/test/a/1.jpg")
    (tmp_path / "data/train").symlink_to(tmp_path / "far")
    (tmp_path / "far/a/up").symlink_to(tmp_path / "data")
    with pytest.warns(UserWarning, match="train/a/up is passed over"):
        loaded = data.load("folder", data_dir=tmp_path / "data")
    assert loaded.class_counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        ("symlink", "test/a/2.jpg", "train/a/1.jpg"),
        ("hard link", "test/a/2.jpg", "train/a/1.jpg"),
        ("symlink", "train/b/2.jpg", "train/a/1.jpg"),
        ("hard link", "train/a/2.jpg", "train/a/1.jpg"),
        ("symlink", "test/a/more", "train/a"),
    ],
)
def test_a_file_that_is_there_twice(tmp_path, kind, name, target):
    make(tmp_path, *BASE)
    link = tmp_path / name
    if kind == "symlink":
        link.symlink_to(tmp_path / target)
    else:
        link.hardlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=f"second time: {name}.*allow_duplicates"):
        data.load("folder", data_dir=tmp_path)
    loaded = data.load("folder", data_dir=tmp_path, allow_duplicates=True)
    assert len(loaded.train.paths) + len(loaded.test.paths) == 5


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *((name, "val") for name in ("valid", "validation", "Val", "dev")),
        *((name, "val") for name in ("val_set", "images-dev2017", "ValImages", "Validation Data")),
        ("Training", "train"),
    ],
)
def test_another_name_of_a_split(tmp_path, name, wanted):
    make(tmp_path, *BASE, f"{name}/a/1.jpg")
    with pytest.raises(ValueError, match=f"/{name} must be renamed to {wanted}, or go elsewhere"):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize(
    "name", ["TEST2/a/1.jpg", "train_images/1.jpg", "unlabelled/deep/1.png", "a/1.jpg", "sheet.png"]
)
def test_images_beside_the_splits_are_told(tmp_path, name):
    make(tmp_path, *BASE, name)
    place = name.split("/")[0]
    with pytest.warns(UserWarning, match=rf"beside train and test: in 1 places, {place}"):
        loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.val is None and loaded.class_counts.tolist() == [1, 1]


def test_what_holds_no_images_is_no_matter(tmp_path, recwarn):
    make(tmp_path, *BASE, ".cache/1.jpg", "@eaDir/1.jpg", "runs/.thumbs/1.jpg")
    for name in ("README.md", "val_masks/1.npy", "results.json", "duplicates.json", "labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    data.load("folder", data_dir=tmp_path)
    assert not recwarn.list


def test_splits_that_all_have_other_names(tmp_path):
    make(tmp_path, "train_set/a/1.jpg", "train_set/b/1.jpg", "test_set/a/1.jpg")
    with pytest.raises(ValueError, match="/test_set must be renamed to test, or go elsewhere"):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.tsv", "train.tsv must be train.csv with the header path,label, or go elsewhere"),
        ("val_list.txt", "val_list.txt must go elsewhere: without a train.csv no list is read"),
    ],
)
def test_a_list_that_is_not_read(tmp_path, name, message):
    make(tmp_path, "test/a/1.jpg", *(BASE if name[0] == "v" else ()))
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["val.tsv", "Valid_Files.json", "val_set.csv"])
def test_a_list_beside_lists(tmp_path, name):
    make(tmp_path, "images/1.jpg", "images/2.jpg", "images/3.jpg")
    (tmp_path / "train.csv").write_text("path,label\nimages/1.jpg,a\nimages/2.jpg,b\n")
    (tmp_path / "test.csv").write_text("path,label\nimages/3.jpg,b\n")
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name} must be val.csv with the header path,label"):
        data.load("folder", data_dir=tmp_path)
    other = name.lower().replace("valid", "test").replace("val", "test")
    (tmp_path / name).rename(tmp_path / other)
    with pytest.warns(UserWarning, match=f"{other} is passed over: lists .* test.csv is there"):
        assert data.load("folder", data_dir=tmp_path).val is None


def test_files_that_are_not_read_are_told_by_their_endings(tmp_path):
    make(tmp_path, *BASE)
    for name in ("2.tif", "3.TIFF", "notes.txt"):
        (tmp_path / "train/b" / name).touch()
    with pytest.warns(UserWarning, match=r"train/b that are passed over: 2, .*/2\.tif first"):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["val.csv", "test.csv", "valid.csv"])
def test_a_list_beside_folders(tmp_path, name):
    make(tmp_path, *BASE)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name} must have a train.csv beside it"):
        data.load("folder", data_dir=tmp_path)


def test_names_beside_lists(tmp_path):
    make(tmp_path, "valid/1.jpg", "valid/2.jpg", "valid/3.jpg", "new/1.jpg")
    for name in ("train", "test"):
        number = 1 if name == "train" else 3
        rows = f"path,label\nvalid/{number}.jpg,a\n"
        (tmp_path / f"{name}.csv").write_text(rows + "valid/2.jpg,b\n" * (name == "train"))
    assert len(data.load("folder", data_dir=tmp_path).train.paths) == 2, "they are listed"
    make(tmp_path, "dev/1.jpg")
    with pytest.raises(ValueError, match="/dev must be listed in val.csv, or go elsewhere"):
        data.load("folder", data_dir=tmp_path)
    (tmp_path / "Validation.csv").write_text("path,label\ndev/1.jpg,a\n")
    with pytest.raises(ValueError, match="/Validation.csv must be renamed to val.csv"):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["train/1.jpg", "test/9.PNG"])
def test_loose_images(tmp_path, name):
    make(tmp_path, *BASE, name)
    with pytest.raises(ValueError, match=f"{name} must lie in the folder of a class"):
        data.load("folder", data_dir=tmp_path)


def test_one_class(tmp_path):
    make(tmp_path, "train/a/1.jpg", "test/a/1.jpg")
    with pytest.raises(ValueError, match="train must hold at least two classes; got only 'a'"):
        data.load("folder", data_dir=tmp_path)
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"path,label\n{split}/a/1.jpg,a\n")
    with pytest.raises(ValueError, match="train.csv must hold at least two classes"):
        data.load("folder", data_dir=tmp_path)


def test_what_systems_leave_is_no_class_and_no_image(tmp_path):
    make(tmp_path, *BASE, "train/@eaDir/1.jpg", "train/a/@eaDir/1.jpg/thumb.jpg")
    make(tmp_path, "train/__MACOSX/1.jpg", "test/a/#recycle/1.jpg")
    loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.class_names == ("a", "b") and loaded.class_counts.tolist() == [1, 1]
    assert len(loaded.test.paths) == 2 and folder.ignored(tmp_path) == []


@pytest.mark.parametrize("place", [b"train/a/caf\xe9.jpg", b"train/caf\xe9/1.jpg"])
def test_names_that_are_not_utf_8(tmp_path, place):
    make(tmp_path, *BASE)
    path = os.path.join(os.fsencode(tmp_path), place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write((tmp_path / "train/a/1.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"names of files must be UTF-8; got .*caf\\xe9"):
        data.load("folder", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"data_dir: .* must be UTF-8; got .*caf\\xe9"):
        data.load("folder", data_dir=os.fsdecode(os.path.dirname(path) + b"caf\xe9"))


def test_images_elsewhere(tmp_path):
    make(tmp_path, "store/1.jpg", "store/2.jpg", "other/3.jpg", "data/4.jpg")
    lists = {
        "train": f"{tmp_path}/store/1.jpg,a\n../store/./2.jpg,b\n",
        "test": f"{tmp_path}/data/4.jpg,a\n",
    }
    for split, rows in lists.items():
        (tmp_path / f"data/{split}.csv").write_text(f"path,label\n{rows}")
    arguments = {"name": "folder", "data_dir": tmp_path / "data"}
    with pytest.raises(ValueError, match="image_root=FOLDER allows those below it"):
        data.load(**arguments)
    with pytest.raises(ValueError, match="must name files inside .* or image_root="):
        data.load(**arguments, image_root=tmp_path / "other")
    with pytest.raises(ValueError, match="image_root must be an existing folder"):
        data.load(**arguments, image_root=tmp_path / "none")
    loaded = data.load(**arguments, image_root=tmp_path / "store")
    assert relative(loaded.train, tmp_path / "store") == ["1.jpg", "2.jpg"]
    assert relative(loaded.test, tmp_path) == ["data/4.jpg"]
    # A root that is a link means what it leads to as well.
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert len(data.load(**arguments, image_root=tmp_path / "link").train.paths) == 2
    # The name of another folder that begins like the root's isn't below it.
    (tmp_path / "stor").mkdir()
    with pytest.raises(ValueError, match="must name files inside"):
        data.load(**arguments, image_root=tmp_path / "stor")


def test_what_is_of_folders_alone(tmp_path):
    for name, value in {"max_pixel": 4095, "image_root": "/x", "allow_duplicates": True}.items():
        with pytest.raises(ValueError, match=f"{name} must be None for digits_lt; got"):
            data.load("digits_lt", **{name: value})
    make(tmp_path, *BASE)
    with pytest.raises(ValueError, match="image_root must be None where there is no train.csv"):
        data.load("folder", data_dir=tmp_path, image_root=tmp_path)
    for value in (0, 65_536, 4095.5):
        with pytest.raises(ValueError, match="max_pixel must be"):
            data.load("folder", data_dir=tmp_path, max_pixel=value)


@pytest.mark.parametrize("image_size", [8, 72])
def test_max_pixel_reaches_the_batches(tmp_path, image_size):
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        level = 4095 if "/a/" in name else 1023
        pixels = np.full((80, 80), level, np.uint16)
        Image.fromarray(pixels).save(tmp_path / name)
    loaded = data.load("folder", data_dir=tmp_path, max_pixel=4095, image_size=image_size)
    images, _ = next(iter(loaded.plain_batches("train", 2)))
    np.testing.assert_allclose(images.numpy().mean((1, 2, 3)), [255, 64], atol=0.5)
    if image_size == 72:
        images, labels = next(iter(loaded.train_batches(2, 1, seed=0)))
        assert images.numpy()[labels.numpy() == 0].max() > 150  # jittered, and not nearly black
