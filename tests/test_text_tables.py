"""Columns of text, flush left and flush right."""

from lade_tf.text_tables import align


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("name", "n", "share"), ("a", "100", "0.5"), ("longest of all",)]
    assert align(rows) == ["name              n  share", "a               100    0.5", rows[2][0]]
    assert align(rows[:2], left=0)[1] == "   a  100    0.5"
    assert align(rows[:2], left=3)[1] == "a     100  0.5"
    assert align([]) == [] and align([("a", "")]) == ["a"]
