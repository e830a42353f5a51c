"""The published figures that the repository holds, and tables that need no run."""

import json
import pathlib
import re

import pytest
from paper import tables
from paper.table_formats import Exact

FOLDER = pathlib.Path(__file__).parents[2] / "third_party/published"
PUBLISHED = json.loads((FOLDER / "lade_cvpr2021.json").read_text())["tables"]
SETTINGS = json.loads((FOLDER / "lade_cvpr2021_settings.json").read_text())["tables"]


def test_the_published_tables_have_their_shapes_and_agree_where_they_overlap():
    shapes = {number: (len(t["rows"]), len(t["columns"])) for number, t in PUBLISHED.items()}
    assert shapes == {
        "2": (8, 3), "3": (9, 4), "4": (15, 4), "5": (11, 1), "6": (7, 11), "8": (6, 3),
        "9": (7, 11), "10": (5, 5), "11": (5, 5),
    }  # fmt: skip
    for table in PUBLISHED.values():
        assert all(len(row["values"]) == len(table["columns"]) for row in table["rows"])
        assert len(table["decimals"]) == len(table["columns"])
        assert {row["mark"] for row in table["rows"] if "mark" in row} == set(table["borrowed"])
    at = {
        (number, row["name"], row.get("epochs")): dict(
            zip(table["columns"], row["values"], strict=True)
        )
        for number, table in PUBLISHED.items()
        for row in table["rows"]
    }
    for name in ("Causal Norm", "Balanced Softmax", "Softmax", "PC Softmax", "LADE"):
        imagenet = at["4", name, 180]["all"]
        assert imagenet == at["6", name, None]["uniform"] == at["11", name, None]["accuracy %"]
        assert at["9", name, None]["uniform"] == at["10", name, None]["accuracy %"]
        if name != "Causal Norm":  # table 2 borrows it
            assert at["2", name, None]["50"] == at["9", name, None]["uniform"]
    assert at["8", "CIFAR-100-LT (IB 100)", None]["LADE"] == at["2", "LADE", None]["100"] == 45.4
    assert at["8", "Places-LT", None]["LADE"] == at["3", "LADE", None]["all"] == 38.8
    assert at["8", "iNaturalist 2018", None]["LADE"] == at["5", "LADE", None]["all"] == 70.0
    assert at["6", "PC Balanced Softmax", None]["backward 50"] == 49.0
    assert at["11", "Causal Norm", None]["classwise ECE"] == 0.000461


def test_the_published_figures_are_those_of_the_paper(shared_data):
    text = (shared_data / "paper" / "lade_cvpr2021.txt").read_text()
    for number, table in PUBLISHED.items():
        printed = text.split(f"\nTable {number}: ")[1].lstrip().split("\n\n")[1]
        figures = [line.split("\t")[1:] for line in printed.splitlines() if "\t" in line]
        figures = [[float(cell) for cell in row] for row in figures if _are_numbers(row)]
        assert figures[-len(table["rows"]) :] == [row["values"] for row in table["rows"]]


def _are_numbers(cells):
    return all(re.fullmatch(r"[\d.]+", cell) for cell in cells)


def test_table_1_counts_the_training_sets(tmp_path):
    folder = tmp_path / "Places_LT_v2"
    folder.mkdir()
    for split in ("train", "val", "test"):
        lines = [
            f"data_256/a/{name}/{split}{i}.jpg {c}" for c, (name, n) in CLASSES for i in range(n)
        ]
        (folder / f"Places_LT_{split}.txt").write_text("\n".join(lines))
    rows = {row.name: row.values for row in tables.training_sets(tmp_path).rows}
    for ratio, images in ((10, 19573), (50, 12608), (100, 10847)):
        assert rows[f"CIFAR-100-LT (IB {ratio})"] == (100, images, ratio)
    assert rows["Places-LT"] == (3, 13, 3.5)
    assert rows["ImageNet-LT"] == (1000, 115846, None)
    assert rows["iNaturalist 2018"] == (8142, 437513, None)
    notes = tables.training_sets(tmp_path).notes
    assert len(notes) == 3 and "ImageNet_LT_train.txt does not exist" in notes[1]
    assert len(tables.training_sets().notes) == 4
    row = next(row for row in tables.training_sets().rows if row.name == "ImageNet-LT")
    assert row.lines()[1] == ["", "ours", "1,000", "115,846", ""]


CLASSES = list(enumerate((("barn", 7), ("attic", 4), ("cliff", 2))))


def test_table_1_counts_the_real_places_lists(shared_data):
    rows = {row.name: row for row in tables.training_sets(shared_data / "data/splits").rows}
    assert rows["Places-LT"].values == rows["Places-LT"].published == (365, 62500, 996)


def test_the_recipes_have_the_published_settings():
    rows = tables.lade_settings().rows
    assert len(rows) == 6
    assert all(row.values == row.published for row in rows)
    assert rows[2].lines()[1] == ["", "ours", "0.01", "0.1", "256"]


def test_exact_numbers_are_shown_in_full_and_unknown_ones_left_blank():
    row = Exact("a", (0.005, 50000), (0.01, None))
    assert row.lines() == [["a", "paper", "0.005", "50,000"], ["", "ours", "0.01", ""]]
    (first, second) = row.records(("x", "y"))
    assert first[3:6] == ["x", 0.005, 0.01] and first[8] == pytest.approx(0.005)
    assert second[3:6] == ["y", 50000, None] and second[8] is None


def test_the_published_settings_are_those_of_the_paper(shared_data):
    text = (shared_data / "paper" / "lade_cvpr2021.txt").read_text()
    lines = [line.split("\t") for line in text.split("\nTable 7: ")[1].splitlines()[3:9]]
    printed = [[float(cell) for cell in line[1:]] for line in lines]
    assert printed == [row["values"] for row in SETTINGS["7"]["rows"]]
    assert "\nCIFAR-100-LT\t100\t50K\t{10, 50, 100}\n" in text
    for row in SETTINGS["1"]["rows"][3:]:
        classes, images, ratio = row["values"]
        shown = f"{classes // 1000}K" if classes >= 1000 else str(classes)
        assert f"\n{row['name']}\t{shown}\t{images / 1000:g}K\t{ratio}\n" in text
