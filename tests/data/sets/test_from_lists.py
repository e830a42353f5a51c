import numpy as np
import pytest

from lade_tf.data.files import image_lists
from lade_tf.data.files.image_lists import image_list
from lade_tf.data.sets import from_lists

RECIPE = {"mean": (0.5,) * 3, "std": (0.2,) * 3}


@pytest.fixture
def splits(tmp_path):
    for name in "12345":
        (tmp_path / name).touch()
    return {
        "train": image_list("train.txt", tmp_path, ["1", "2", "3"], [1, 0, 1]),
        "test": image_list("test.txt", tmp_path, ["4", "5"], [0, 1]),
    }


@pytest.fixture
def find_bad(monkeypatch):
    """Sets which files are bad; returns the list of those that were looked at."""
    looked_at = []

    def set_bad(*names):
        def find_bad_images(paths, max_pixel=None):
            looked_at.extend(paths)
            return [(path, "truncated") for path in paths if path.endswith(names)]

        monkeypatch.setattr(image_lists, "find_bad_images", find_bad_images)
        return looked_at

    return set_bad


def test_what_is_built(splits, find_bad, tmp_path):
    looked_at = find_bad("1")
    loaded = from_lists.build("name", ["a", "b"], splits, "error", jitter=0.4, **RECIPE)
    assert looked_at == [], "decoding everything takes hours: only when asked"
    assert (loaded.name, loaded.class_names, loaded.jitter) == ("name", ("a", "b"), 0.4)
    assert loaded.train.paths == tuple(f"{tmp_path}/{name}" for name in "123")
    assert loaded.train.labels.tolist() == [1, 0, 1] and loaded.train.orientations is None
    assert loaded.test.labels.tolist() == [0, 1] and loaded.val is None
    assert loaded.bad_images == ()


def test_bad_images_are_left_out(splits, find_bad, tmp_path):
    looked_at = find_bad("/1", "/4")
    orientations = lambda paths: np.array([int(path[-1]) for path in paths], np.uint8)  # noqa: E731
    loaded = from_lists.build("name", ["a", "b"], splits, "skip", orientations, **RECIPE)
    assert looked_at == [f"{tmp_path}/{name}" for name in "12345"]
    assert loaded.train.paths == (f"{tmp_path}/2", f"{tmp_path}/3")
    assert loaded.train.labels.tolist() == [0, 1]
    assert loaded.train.orientations.tolist() == [2, 3]
    assert loaded.test.paths == (f"{tmp_path}/5",) and loaded.test.labels.tolist() == [1]
    bad = ((f"{tmp_path}/1", "truncated"), (f"{tmp_path}/4", "truncated"))
    assert loaded.bad_images == bad


def test_every_problem_is_said(splits, tmp_path):
    splits["test"] = image_list("test.txt", tmp_path, ["1", "gone"], [0, 1])
    with pytest.raises(ValueError, match="test.txt names images a second time.*; .*gone"):
        from_lists.build("name", ("a", "b"), splits, "error", **RECIPE)


def test_too_much_is_bad(splits, find_bad):
    find_bad("/2")
    with pytest.raises(ValueError, match="name: no image of class 'a' can be read"):
        from_lists.build("name", ["a", "b"], splits, "skip", **RECIPE)
    find_bad("/4", "/5")
    with pytest.raises(ValueError, match="test.txt: none of its 2 images can be read"):
        from_lists.build("name", ["a", "b"], splits, "skip", **RECIPE)


def test_an_unknown_treatment(splits):
    with pytest.raises(ValueError, match="on_bad_image must be one of 'error', 'skip'; got 'no'"):
        from_lists.build("name", ["a", "b"], splits, "no", **RECIPE)
