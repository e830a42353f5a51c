"""Places-LT, ImageNet-LT and iNaturalist 2018: their real lists, and small ones with images."""

import json

import numpy as np
import pytest

from lade_tf import data
from lade_tf.data.files import image_lists
from lade_tf.data.sets import imagenet, inaturalist, places
from lade_tf.metrics.accuracy import shot_groups

IMAGENET_TEST = "ILSVRC2012_val_00000293.JPEG"


def lay_out(folder, lists, images=()):
    """Writes lists {name: lines} and empty images: those of the lists unless given."""
    for name, lines in lists.items():
        write(folder / name, "".join(f"{line}\n" for line in lines))
    paths = [line.rpartition(" ")[0] for lines in lists.values() for line in lines]
    for path in images or paths:
        write(folder / path, "")
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def real_lists(shared_data):
    return shared_data / "data/splits/Places_LT_v2"


@pytest.fixture
def real_folder(real_lists, tmp_path):
    """The real lists where they belong, without an image."""
    (tmp_path / "Places_LT_v2").symlink_to(real_lists)
    return tmp_path


def shortened(real_lists, classes=3):
    """The first two images of the first classes in each real list."""
    lists = {}
    for file in sorted(real_lists.glob("*.txt")):
        lines = file.read_text().splitlines()
        of_class = [[line for line in lines if line.endswith(f" {c}")] for c in range(classes)]
        lists[f"Places_LT_v2/{file.name}"] = [line for some in of_class for line in some[:2]]
    return lists


def test_real_places_lists(real_folder, shared_data):
    class_names, splits = places.read(real_folder)
    assert {split: len(images.paths) for split, images in splits.items()} == places.SIZES
    assert len(class_names) == places.CLASSES == 365
    assert class_names[:2] == ("airfield", "airplane_cabin") and class_names[-1] == "zen_garden"
    assert "apartment_building/outdoor" in class_names
    counts = np.bincount(splits["train"].labels)
    expected = json.loads((shared_data / "data/counts/places_lt_train.json").read_text())
    assert counts.tolist() == expected and (counts.max(), counts.min()) == (4980, 5)
    assert [group.sum() for group in shot_groups(counts).values()] == [131, 163, 71]
    np.testing.assert_array_equal(np.bincount(splits["val"].labels), [20] * 365)
    np.testing.assert_array_equal(np.bincount(splits["test"].labels), [100] * 365)
    # All that is wrong is that no image is there.
    problems = image_lists.find_problems(splits, len(class_names))
    assert len(problems) == 3 and problems[0].startswith("62,500 of the 62,500 images of")


def test_real_lists_without_images(real_folder):
    with pytest.raises(ValueError, match="62,500 of the 62,500.*36,500 of the 36,500 images"):
        data.load("places_lt", data_dir=real_folder)


def test_real_lists_shortened(real_lists, tmp_path):
    lay_out(tmp_path, shortened(real_lists))
    loaded = data.load("places_lt", data_dir=tmp_path)
    assert loaded.class_names == ("airfield", "airplane_cabin", "airport_terminal")
    assert loaded.train.paths[0] == f"{tmp_path}/data_256/a/airfield/00004851.jpg"
    assert loaded.test.paths[0] == f"{tmp_path}/val_256/Places365_val_00003597.jpg"
    for split in (loaded.train, loaded.val, loaded.test):
        assert split.labels.tolist() == [0, 0, 1, 1, 2, 2] and split.orientations is None
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (loaded.jitter, loaded.size) == (0.4, 224)


def test_lists_beside_the_images(tmp_path):
    lists = {
        "Places_LT_train.txt": ["data_256/b/bar/1.jpg 1", "data_256/a/attic/1.jpg 0"],
        "Places_LT_val.txt": ["data_256/b/bar/2.jpg 1"],
        "Places_LT_test.txt": ["val_256/1.jpg 1"],
    }
    assert data.load("places_lt", data_dir=lay_out(tmp_path, lists)).class_names == ("attic", "bar")


@pytest.mark.parametrize("name", ["places_lt", "imagenet_lt", "inaturalist2018", "folder"])
def test_what_sets_of_files_refuse(name, tmp_path):
    with pytest.raises(ValueError, match=f"imbalance_ratio must be None for {name}, which has its"):
        data.load(name, imbalance_ratio=100)
    with pytest.raises(ValueError, match="data_dir must be the folder that holds .*; got None"):
        data.load(name)
    with pytest.raises(ValueError, match="data_dir must be an existing folder; got '.*absent'"):
        data.load(name, data_dir=tmp_path / "absent")
    with pytest.raises(ValueError, match="on_bad_image must be one of 'error', 'skip'; got 'hide'"):
        data.load(name, data_dir=tmp_path, on_bad_image="hide")


@pytest.mark.parametrize(
    ("name", "tfds_name"),
    [
        ("places_lt", "places365_small"),
        ("imagenet_lt", "imagenet_lt"),
        ("inaturalist2018", "i_naturalist2018"),
    ],
)
def test_what_a_folder_lacks(name, tfds_name, tmp_path):
    with pytest.raises(ValueError, match=r"(txt|json) does not exist"):
        data.load(name, data_dir=tmp_path)
    write(tmp_path / tfds_name / "1.0.0" / "dataset_info.json", "{}")
    with pytest.raises(ValueError, match=f"keeps {tfds_name} inside TFRecords"):
        data.load(name, data_dir=tmp_path)


def imagenet_lists(test_path):
    return {
        "ImageNet_LT/ImageNet_LT_train.txt": [
            "train/n01440764/n01440764_190.JPEG 0",
            "train/n01443537/n01443537_1.JPEG 1",
        ],
        "ImageNet_LT/ImageNet_LT_val.txt": ["train/n01443537/n01443537_2.JPEG 1"],
        "ImageNet_LT/ImageNet_LT_test.txt": [f"{test_path} 1"],
    }


LAYOUTS = (f"val/{IMAGENET_TEST}", f"val/n01443537/{IMAGENET_TEST}")


@pytest.mark.parametrize("listed", LAYOUTS)
@pytest.mark.parametrize("on_disk", LAYOUTS)
def test_imagenet_lt(tmp_path, listed, on_disk):
    lists = imagenet_lists(listed)
    lay_out(tmp_path, imagenet_lists(on_disk))
    (tmp_path / "ImageNet_LT/ImageNet_LT_test.txt").write_text(
        lists["ImageNet_LT/ImageNet_LT_test.txt"][0]
    )
    loaded = data.load("imagenet_lt", data_dir=tmp_path)
    assert loaded.class_names == ("n01440764", "n01443537")
    assert loaded.train.paths[0] == f"{tmp_path}/train/n01440764/n01440764_190.JPEG"
    assert loaded.val.paths == (f"{tmp_path}/train/n01443537/n01443537_2.JPEG",)
    assert loaded.test.paths == (f"{tmp_path}/{on_disk}",) and loaded.test.labels.tolist() == [1]
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert loaded.jitter == 0.4


def test_imagenet_lt_without_test_images(tmp_path):
    lists = imagenet_lists(LAYOUTS[0])
    lay_out(tmp_path, lists)
    (tmp_path / LAYOUTS[0]).unlink()
    with pytest.raises(ValueError, match=f"1 of the 1 images of .*test.txt .*: {LAYOUTS[0]}"):
        data.load("imagenet_lt", data_dir=tmp_path)


def annotations(paths, category_ids, names):
    """The form of iNaturalist's JSON; images and annotations are ordered differently."""
    rows = list(enumerate(zip(paths, category_ids, strict=True)))
    return {
        "images": [{"id": 100 + i, "file_name": path, "width": 8} for i, (path, _) in rows],
        "annotations": [
            {"id": i, "image_id": 100 + i, "category_id": c} for i, (_, c) in reversed(rows)
        ],
        "categories": [
            {"id": c, "name": name, "supercategory": "Aves"} for c, name in reversed(names)
        ],
    }


@pytest.fixture
def inaturalist_folder(tmp_path):
    def make(train_ids, val_ids):
        names = [(0, "Turdus merula"), (1, "Sturnus vulgaris"), (2, "Parus major")]
        for split, ids in (("train", train_ids), ("val", val_ids)):
            paths = [f"train_val2018/Aves/{c}/{split}{i}.jpg" for i, c in enumerate(ids)]
            content = json.dumps(annotations(paths, ids, names))
            lay_out(tmp_path, {}, images=paths)
            (tmp_path / f"{split}2018.json").write_text(content)
        return tmp_path

    return make


def test_inaturalist(inaturalist_folder):
    folder = inaturalist_folder([2, 0, 1, 0], [1, 2])
    loaded = data.load("inaturalist2018", data_dir=folder)
    assert loaded.class_names == ("Turdus merula", "Sturnus vulgaris", "Parus major")
    assert loaded.train.labels.tolist() == [2, 0, 1, 0]
    assert loaded.train.paths[0] == f"{folder}/train_val2018/Aves/2/train0.jpg"
    assert loaded.val is loaded.test and loaded.test.labels.tolist() == [1, 2]
    assert (loaded.mean, loaded.std) == ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192))
    assert loaded.jitter == 0


def test_inaturalist_with_a_class_without_images(inaturalist_folder):
    folder = inaturalist_folder([2, 0, 0], [1, 2])
    with pytest.raises(ValueError, match="train2018.json must have an image of every class 0 to 2"):
        data.load("inaturalist2018", data_dir=folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}'])
def test_inaturalist_with_other_annotations(inaturalist_folder, text):
    folder = inaturalist_folder([0, 1, 2], [0])
    (folder / "train2018.json").write_text(text)
    with pytest.raises(ValueError, match="must be the annotations of iNaturalist 2018"):
        data.load("inaturalist2018", data_dir=folder)


def test_published_sizes(shared_data):
    for name, reader in (("imagenet_lt", imagenet), ("inat2018", inaturalist)):
        counts = json.loads((shared_data / f"data/counts/{name}_train.json").read_text())
        assert (sum(counts), len(counts)) == (reader.SIZES["train"], reader.CLASSES)
