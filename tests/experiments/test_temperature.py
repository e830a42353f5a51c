"""studies.temperature on a run whose logits are right but for a temperature."""

import dataclasses
import json

import numpy as np
import pytest
from binaries import run
from studies import temperature
from test_unknown_prior import make_run


def make_overconfident_run(folder, factor=2.0, **arguments):
    """Writes a run whose logits are `factor` times those that are exact for its classes."""
    saved = make_run(folder, **arguments)
    saved = dataclasses.replace(saved, logits=factor * saved.logits)
    saved.save(folder / "test_logits.npz")
    return saved


def test_the_factor_is_found_and_the_confidences_are_right_with_it(tmp_path):
    make_overconfident_run(tmp_path / "over", per_class=500, separation=1.5)
    flags = ("--runs=over", "--targets=uniform,backward:20", "--images=900", "--draws=2")
    output = run("studies.temperature", *flags, "--output=out.json", cwd=tmp_path)
    content = json.loads((tmp_path / "out.json").read_text())
    result = content["results"]["over"]
    assert f"temperature {result['temperature']:.2f}" in output and content["images"] == 900
    assert result["temperature"] == pytest.approx(2, abs=0.3) and result["temperature_sd"] < 0.5
    for target in ("uniform", "backward:20"):
        without, fitted = result["without"][target], result["with"][target]
        assert fitted["nll"] < without["nll"] and fitted["ece"] < without["ece"]


def test_scores_are_those_of_the_half_told_and_tested_alike(tmp_path):
    saved = make_overconfident_run(tmp_path / "over", per_class=50)
    half = np.arange(0, len(saved.labels), 2)
    ((accuracy, _, nll),) = temperature.scores(saved, half, 2.0, ["uniform"])
    scores = saved.logits[half] / 2 - np.log(saved.source_prior)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert accuracy == pytest.approx(np.mean(scores.argmax(axis=1) == saved.labels[half]))
    truth = np.arange(len(half)), saved.labels[half]
    assert nll == pytest.approx(-scores[truth].mean(), rel=1e-5)


def test_labels_are_never_scored_by_a_temperature_that_they_helped_to_fit(tmp_path, monkeypatch):
    saved, seen = make_overconfident_run(tmp_path / "over", per_class=20), []
    monkeypatch.setattr(
        temperature.label_shift, "fit_temperature", lambda logits, *_: seen.append(logits) or 1.0
    )
    monkeypatch.setattr(
        temperature, "scores", lambda saved, half, *_: seen.append(saved.logits[half]) or [[0] * 3]
    )
    temperature.measure(saved, ["uniform"], images=30, draws=1)
    for fitted, *scored in (seen[:3], seen[3:]):
        both = {row.tobytes() for row in fitted} & {row.tobytes() for row in np.concatenate(scored)}
        assert len(fitted) == 30 and not both


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--runs=nowhere",), "nowhere must hold a finished run"),
        (("--runs=over", "--targets=unifrom"), "a prior must be uniform"),
        (("--runs=over", "--images=21"), "--images must be at most 20, half of the test set of"),
        (("--runs=over", "--images=20", "--output=over/result.json"), "exists already"),
    ],
)
def test_bad_input_is_refused_in_one_message(tmp_path, flags, message):
    make_overconfident_run(tmp_path / "over", per_class=10)
    errors = run("studies.temperature", *flags, cwd=tmp_path, fails=True)
    assert message in errors and "Traceback" not in errors
