"""The page without a browser: what it holds, and what is refused."""

import json
import re

import numpy as np
import pytest

from lade_tf import evaluation
from lade_tf.evaluation import SavedLogits

COUNTS = np.array([300, 60, 10])


def make_saved(per_class=12, counts=COUNTS, **more):
    labels = np.repeat(np.arange(3), per_class)
    logits = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
    return SavedLogits(logits, labels, counts, **more)


def embedded(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*)</script>', page)[1]
    )


def test_logits_alone_make_a_page(tmp_path):
    saved = make_saved()
    evaluation.write_page({"<mine>": saved}, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = embedded(text)
    assert data["class_names"] == ["class 0", "class 1", "class 2"]
    assert data["runs"][0]["name"] == "<mine>" and "&lt;mine&gt;" in text
    assert data["runs"][0]["description"] == evaluation.describe(saved)
    assert data["runs"][0]["description"]["logits carry"] == "the uniform prior"
    assert [stop["name"] for stop in data["stops"]][::10] == ["backward 50", "forward 50"]
    assert data["as_it_is"] == pytest.approx([1 / 3] * 3) and "test images, " not in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_test_set_may_be_as_it_is():
    labels = np.repeat([0, 1], [30, 4])
    logits = np.random.default_rng(0).normal(size=(34, 3))
    names = ["<ant>", "{{TABLE}}", "fly"]
    saved = SavedLogits(logits, labels, COUNTS, class_names=names)
    text = evaluation.page_html({"mine": saved})
    data = embedded(text)
    assert data["as_it_is"] == pytest.approx([30 / 34, 4 / 34, 0])
    for stop in data["stops"]:
        assert stop["prior"][2] == 0
    ratio = data["stops"][0]["prior"][1] / data["stops"][0]["prior"][0]
    assert ratio == pytest.approx(50)
    assert evaluation.describe(saved)["test images"] == "30 to 0 a class, 34 in all"
    assert "1 class without a test image, left out of every label distribution: fly<" in text
    assert "say little: {{TABLE}} (4)<" in text and "<ant>" not in text
    for name in ("test", "uniform"):
        accuracy = evaluation.evaluate_shifts(saved, [name])[name]["accuracy"]
        assert re.search(rf"^mine +{100 * accuracy:.2f} ", text, re.MULTILINE)


def test_a_description_takes_the_place_of_what_the_logits_tell():
    classifiers = {"one": make_saved(), "two": make_saved()}
    runs = embedded(evaluation.page_html(classifiers, {"two": {"epochs": "9"}}))["runs"]
    assert runs[0]["description"] == evaluation.describe(classifiers["one"])
    assert runs[1]["description"] == {"epochs": "9"}


@pytest.mark.parametrize(
    ("classifiers", "message"),
    [
        ({}, "classifiers must hold at least one"),
        ({"a": make_saved(), "b": make_saved(13)}, "tested on the same images; 'b' and 'a'"),
        (
            {"a": make_saved(), "b": make_saved(class_names=["x", "y", "z"])},
            "tested on the same images",
        ),
        ({"a": make_saved(), "b": make_saved(counts=COUNTS[::-1])}, "must rank the classes alike"),
    ],
)
def test_what_does_not_belong_on_one_page_is_refused(classifiers, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluation.write_page(classifiers, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path):
    path, classifiers = tmp_path / "page.html", {"a": make_saved()}
    path.write_text("mine")
    with pytest.raises(ValueError, match="path must be a new file, or overwrite=True given"):
        evaluation.write_page(classifiers, path)
    with pytest.raises(ValueError, match="path must lie in an existing folder"):
        evaluation.write_page(classifiers, tmp_path / "no" / "page.html")
    with pytest.raises(ValueError, match="descriptions must be of the classifiers; 'b' is none"):
        evaluation.write_page(classifiers, path, {"b": {}}, overwrite=True)
    assert path.read_text() == "mine"
    evaluation.write_page(classifiers, path, overwrite=True)
    assert "mine" not in path.read_text(encoding="utf-8")[:100]
