import numpy as np
import pytest

from lade_tf.data.files import image_lists
from lade_tf.data.files.image_lists import find_problems, folder_class_names, image_list


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def files(folder, *paths):
    for path in paths:
        write(folder / path, "")


def test_a_list(tmp_path):
    file = write(tmp_path / "list.txt", "\ufeffb/two words.jpg 1\r\n\na//./c.jpg 0\n")
    images = image_lists.read_list(file, tmp_path)
    assert images.paths == ("b/two words.jpg", "a/c.jpg")
    assert images.files == (f"{tmp_path}/b/two words.jpg", f"{tmp_path}/a/c.jpg")
    assert images.labels.dtype == np.int32 and images.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "line", ["a.jpg", "7", "a.jpg -1", "a.jpg 1.0", "a.jpg x", "a.jpg 9999999999"]
)
def test_a_line_of_another_form(tmp_path, line):
    file = write(tmp_path / "list.txt", f"a.jpg 0\n{line}\n")
    with pytest.raises(ValueError, match=f"{file}, line 2, must be 'path label'; got '{line}'"):
        image_lists.read_list(file, tmp_path)


@pytest.mark.parametrize("path", ["../a.jpg", "b/../../a.jpg", "b/..", "/etc/passwd"])
def test_a_path_that_leaves_the_folder(tmp_path, path):
    file = write(tmp_path / "list.txt", f"a.jpg 0\n{path} 0\n")
    with pytest.raises(ValueError, match=f"must name files inside {tmp_path}; got '{path}'"):
        image_lists.read_list(file, tmp_path)
    csv = write(tmp_path / "list.csv", f"path,label\n{path},cat\n")
    with pytest.raises(ValueError, match=f"list.csv must name files inside .* got '{path}'"):
        image_list(csv, tmp_path, image_lists.read_csv(csv)[0], [0])


def test_names_with_dots_stay_inside(tmp_path):
    images = image_list("list", tmp_path, ["..a/b..jpg", "...jpg"], [0, 0])
    assert images.paths == ("..a/b..jpg", "...jpg")


def test_a_link_may_lead_out(tmp_path):
    files(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    images = image_list("list", tmp_path / "data", ["link/a.jpg"], [0])
    assert find_problems({"train": images}, 1) == []


def test_files_that_are_no_lists(tmp_path):
    with pytest.raises(ValueError, match="absent.txt does not exist"):
        image_lists.read_list(tmp_path / "absent.txt", tmp_path)
    (tmp_path / "binary.txt").write_bytes(b"a\xff.jpg 0\n")
    with pytest.raises(ValueError, match="binary.txt must be UTF-8 text"):
        image_lists.read_list(tmp_path / "binary.txt", tmp_path)
    with pytest.raises(ValueError, match="empty.txt must name at least one image; got none"):
        image_lists.read_list(write(tmp_path / "empty.txt", "\n"), tmp_path)


def test_a_csv(tmp_path):
    text = '\ufefflabel, path,note\ncat,"a,b.jpg",x\n sea lion ,c.jpg,\n'
    paths, names = image_lists.read_csv(write(tmp_path / "train.csv", text))
    assert paths == ["a,b.jpg", "c.jpg"] and names == ["cat", "sea lion"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,cat\n", "must start with the header path,label; got"),
        ("", "must start with the header path,label; got None"),
        ("path,label\na.jpg,cat\nb.jpg\n", "line 3, must have a path, a label"),
        ("path,label\n,cat\n", "line 2, must have a path, a label"),
        ("path,label\na,b.jpg,cat\n", "line 2, must have a path, a label and no more"),
        ('path,label\na.jpg,cat\n"b.jpg,cat\nc.jpg,cat\n', "as a CSV at line 4: unexpected end"),
    ],
)
def test_a_csv_of_another_form(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        image_lists.read_csv(write(tmp_path / "train.csv", text))


def test_class_names_are_folders():
    paths = ["data/z/zoo/1.jpg", "data/a/arena/hockey/1.jpg", "data/z/zoo/2.jpg"]
    assert folder_class_names(image_list("list", "/d", paths, [1, 0, 1]), 2) == (
        "arena/hockey",
        "zoo",
    )


@pytest.mark.parametrize(
    ("paths", "labels", "culprit"),
    [
        (["d/a/1", "d/b/1", "d/a/2"], [0, 1, 1], "label 0, folder 'a'"),
        (["d/a/1", "d/a/2"], [0, 1], "label 0, folder 'a'"),
        (["d/a/1", "d/b/1", "d/c/1"], [0, 1, 1], "label 1, folder 'b'"),
    ],
)
def test_labels_and_folders_that_disagree(paths, labels, culprit):
    with pytest.raises(ValueError, match=f"one folder for each label.*{culprit}"):
        folder_class_names(image_list("list", "/d", paths, labels), 1)


@pytest.mark.parametrize(("labels", "gap"), [([1, 2], 0), ([0, 2], 1), ([0, 1], 2)])
def test_a_class_without_a_training_image(labels, gap):
    images = image_list("list", "/d", ["a", "b"], labels)
    with pytest.raises(ValueError, match=f"every class 0 to 2; got none of class {gap}"):
        image_lists.check_training_classes(images, 3)


def test_every_problem_is_found(tmp_path):
    files(tmp_path, "1", "2", "3")
    train = image_list("train.txt", tmp_path, ["1", "2", "./1", "absent"], [0, 1, 1, 0])
    val = image_list("val.txt", tmp_path, ["3", "2", "gone", "lost", "missed", "none"], [2] * 6)
    problems = find_problems({"train": train, "val": val}, 2)
    assert problems == [
        "train.txt names images a second time: 1 (also in train.txt)",
        f"1 of the 4 images of train.txt are missing in {tmp_path}: absent",
        "val.txt must have labels 0 to 1, those of the training images; got 2 for '3'",
        "val.txt names images a second time: 2 (also in train.txt)",
        f"4 of the 6 images of val.txt are missing in {tmp_path}: gone, lost, missed, …",
    ]


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "1").mkdir()
    problems = find_problems({"train": image_list("list", tmp_path, ["1"], [0])}, 1)
    assert "1 of the 1 images of list are missing" in problems[0]


@pytest.mark.parametrize("header", ["path,label,label", "path,label,path", "path,label, label "])
def test_a_column_that_is_there_twice(tmp_path, header):
    file = write(tmp_path / "train.csv", f"{header}\na.jpg,cat,dog\n")
    with pytest.raises(ValueError, match="must have one column"):
        image_lists.read_csv(file)
