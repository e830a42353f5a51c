"""All metrics of one test set at once."""

from lade_tf.array_checks import check_class_counts
from lade_tf.metrics.accuracy import accuracy, shot_accuracy
from lade_tf.metrics.calibration import brier, check_scored_samples, classwise_ece, ece, nll


def classification_report(probabilities, labels, class_counts, sample_weight=None):
    """Accuracy, shot accuracies and calibration of a classifier on one test set.

    To score under another label distribution than the test set's own, weight each sample by
    target prior / test prior of its class.

    Args:
        probabilities: Predicted probabilities [samples, classes].
        labels: True classes, integers [samples].
        class_counts: Training images of each class, [classes].
        sample_weight: How many times each sample occurs, [samples]; None means once.

    Returns:
        {"accuracy", "many", "medium", "few", "ece", "classwise_ece", "brier", "nll"}: Python
        floats, with None for a shot group without tested classes. Calibration errors use 20 bins;
        nll is in nats.

    Raises:
        ValueError: As `expected_calibration_error`; class_counts that are negative or not
            [classes].
    """
    samples = check_scored_samples(probabilities, labels, sample_weight)
    probabilities, labels, weight = samples
    class_counts = check_class_counts(class_counts, probabilities.shape[1])
    predictions = probabilities.argmax(axis=1)
    return {
        "accuracy": accuracy(predictions, labels, weight),
        **shot_accuracy(predictions, labels, class_counts, weight),
        "ece": ece(*samples),
        "classwise_ece": classwise_ece(*samples),
        "brier": brier(*samples),
        "nll": nll(*samples),
    }
