"""What the generated blocks say; tests/test_readme.py asserts that they are up to date."""

import pytest
from paper import page_numbers, suites, sweeps


def test_every_run_of_the_suites_has_a_label_of_its_own():
    flags = [flags for suite in suites.SUITES.values() for flags in suite()] + suites.grid()
    flags += [{**flags[0], "l2": 0.1}, {**flags[0], "batch_size": 64}]
    planned = sweeps.plan(flags, {}, "runs", "results")
    labels = [page_numbers.describe(run.config) for run in planned]
    assert len(set(labels)) == len(labels) > 150
    assert "LADE (paper), 200 epochs, float32, seed 0" in labels
    other = "LADE (paper), 200 epochs, float32, seed 0, imbalance_ratio 50, remine_lambda 0"
    assert other in labels


def test_an_estimate_is_shown_by_what_it_misses():
    def found(accuracy):
        return {"known": {"accuracy": [0.6, 0.4]}, "EM": {"accuracy": accuracy}}

    content = {
        "results": {
            run: {"500": {"400": found([0.58, a])}} for run, a in (("r", 0.41), ("s", 0.43))
        }
    }
    settings = page_numbers._settings(content)
    assert list(settings) == [("500", "400")] and len(settings["500", "400"]) == 2
    assert page_numbers._gaps(settings["500", "400"], "EM") == pytest.approx([-2, 2])


def test_the_column_of_ratios_does_not_call_them_medians():
    header, rule, *rows = page_numbers.speed().splitlines()
    assert header == "| what | ratio | |" and rows
    assert any("quartiles" in row for row in rows)
