import json

import numpy as np
import pytest

from lade_tf import metrics

COUNTS = [500, 60, 5]


def example():
    probabilities = np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], size=50)
    return probabilities, np.random.default_rng(1).integers(3, size=50)


@pytest.mark.parametrize("weighted", [False, True])
def test_report_holds_what_the_single_functions_return(weighted):
    p, y = example()
    weight = np.random.default_rng(2).uniform(size=len(y)) if weighted else None
    predictions = p.argmax(axis=1)
    assert metrics.classification_report(p, y, COUNTS, weight) == {
        "accuracy": metrics.accuracy(predictions, y, weight),
        **metrics.shot_accuracy(predictions, y, COUNTS, weight),
        "ece": metrics.expected_calibration_error(p, y, sample_weight=weight),
        "classwise_ece": metrics.classwise_calibration_error(p, y, sample_weight=weight),
        "brier": metrics.brier_score(p, y, weight),
        "nll": metrics.negative_log_likelihood(p, y, weight),
    }


def test_integer_weights_repeat_samples_in_every_entry():
    p, y = example()
    weight = np.random.default_rng(3).integers(4, size=len(y))
    repeated = metrics.classification_report(np.repeat(p, weight, 0), np.repeat(y, weight), COUNTS)
    weighted = metrics.classification_report(p, y, COUNTS, weight)
    assert weighted == pytest.approx(repeated, rel=1e-12)


def test_report_is_json_of_plain_floats():
    p, y = example()
    report = metrics.classification_report(p.astype(np.float32), y, [500, 500, 500])
    assert report["medium"] is None and report["few"] is None
    assert all(type(v) is float for v in report.values() if v is not None)
    assert json.loads(json.dumps(report)) == report


def test_accuracy_of_a_target_prior_is_its_mean_of_class_accuracies():
    p, y = example()
    target = np.array([0.5, 0.3, 0.2])
    weight = (target / np.bincount(y))[y]
    class_accuracy = metrics.per_class_accuracy(p.argmax(1), y, 3)
    report = metrics.classification_report(p, y, COUNTS, weight)
    assert report["accuracy"] == pytest.approx(target @ class_accuracy, rel=1e-12)
    assert report["many"] == pytest.approx(class_accuracy[0], rel=1e-12)


def test_bad_input_is_refused():
    p, y = example()
    with pytest.raises(ValueError, match="class_counts must hold 3 classes; got 2"):
        metrics.classification_report(p, y, [500, 60])
    with pytest.raises(ValueError, match="probabilities must lie in"):
        metrics.classification_report(np.log(p), y, COUNTS)
    with pytest.raises(ValueError, match="labels must hold 50 samples"):
        metrics.classification_report(p, y[:-1], COUNTS)
