"""What the README shows works, and its numbers are those of the committed files."""

import pathlib
import re

import numpy as np
import pytest
from paper import page_numbers

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_examples_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = code_blocks("python")
    assert len(blocks) == 8
    names = {}
    exec("\n".join(blocks), names)
    np.testing.assert_allclose(names["adapted"].target_prior, [0.2, 0.3, 0.5], atol=0.07)
    assert names["adapted"].temperature != 1
    assert (tmp_path / "saved_model" / "saved_model.pb").exists()
    assert len(names["saved"].logits) == 1000 and (tmp_path / "page.html").exists()


def test_the_first_example_is_short():
    assert len(code_blocks("python")[0].splitlines()) <= 20


def test_two_commands_set_up_from_nothing_but_python():
    setup = [block for block in code_blocks("bash") if "venv" in block]
    assert len(setup) == 2
    assert all(block.startswith("python3 -m venv .venv && .venv/bin/pip") for block in setup)


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page, blocks in page_numbers.PAGES.items() for block in blocks],
)
def test_the_numbers_are_those_of_the_committed_files(page, block):
    assert f"<!-- {block.__name__} -->\n{block()}\n<!-- end -->" in page.read_text()


@pytest.mark.parametrize("page", page_numbers.PAGES)
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"[\w`]\]\(([\w./-]+)(?:#[\w-]+)?\)", page.read_text())
    assert links and all((page.parent / link).exists() for link in links), links
