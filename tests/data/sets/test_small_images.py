"""Small images from files into memory."""

import numpy as np
import pytest
from PIL import Image

from lade_tf import data
from lade_tf.data import ImageData


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        split, name = ("train", "val", "test")[number % 3], "ab"[number // 4]
        write(tmp_path / split / name / f"{number}.png", image)
    return tmp_path, pixels


def test_pixels_are_the_files(folder):
    path, pixels = folder
    loaded = data.load("folder", data_dir=path, image_size=32)
    assert isinstance(loaded, ImageData) and loaded.class_names == ("a", "b")
    for split, numbers in {"train": [0, 3, 6], "val": [1, 4, 7], "test": [2, 5]}.items():
        part = getattr(loaded, split)
        np.testing.assert_array_equal(part.images, pixels[numbers])
        assert part.labels.tolist() == [number // 4 for number in numbers]
    assert (loaded.padding, loaded.flip, loaded.splits) == (4, True, ("train", "val", "test"))
    assert sum(len(labels) for _, labels in loaded.plain_batches("val", 2)) == 3


def test_larger_ones_are_resized_and_cut(tmp_path):
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = np.repeat(np.repeat(np.arange(32, dtype=np.uint8), 2)[:, None], 3, 1) * 8
    for split in ("train", "test"):
        write(tmp_path / split / "a" / "wide.png", wide)
        write(tmp_path / split / "b" / "same.png", wide[:32, :32])
    image = data.load("folder", data_dir=tmp_path, image_size=32).train.images[0]
    expected = np.tile(np.arange(32)[:, None] * 8, (32, 1, 3)).reshape(32, 32, 3)
    # The ramp's ends mix with the black beside it.
    np.testing.assert_allclose(image[:, 1:-1].astype(int), expected[:, 1:-1], atol=3)


def test_orientations_are_undone(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[274] = 3
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        pixels[:8] = 255 - number  # no two alike
        write(tmp_path / place / "turned.jpg", pixels, exif=exif)
    image = data.load("folder", data_dir=tmp_path, image_size=16).train.images[0]
    assert image[:6].max() < 30 and image[-6:].min() > 225


def test_a_bad_file_is_named_or_left_out(folder):
    path, _ = folder
    bad = path / "train" / "a" / "0.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match="a/0.png: .*nknown image file format"):
        data.load("folder", data_dir=path, image_size=32)
    loaded = data.load("folder", data_dir=path, image_size=32, on_bad_image="skip")
    assert loaded.class_counts.tolist() == [1, 1] and loaded.bad_images[0][0] == str(bad)
