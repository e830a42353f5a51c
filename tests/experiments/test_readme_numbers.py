"""What the generated blocks say; tests/test_readme.py asserts that they are up to date."""

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


def test_a_single_estimate_has_no_spread():
    score = {"accuracy": 0.5, "l1": 0.25}
    assert page_numbers._told({**score, "accuracy_sd": 0.01}) == "50.0 ± 1.0 (0.25)"
    assert page_numbers._told({**score, "accuracy_sd": None}) == "50.0 (0.25)"
    assert page_numbers._told(None) == "singular"


def test_the_column_of_ratios_does_not_call_them_medians():
    header, rule, *rows = page_numbers.speed().splitlines()
    assert header == "| what | ratio | |" and rows
    assert any("quartiles" in row for row in rows)
