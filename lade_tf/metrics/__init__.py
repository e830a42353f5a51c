"""Accuracy by shot group and calibration of classifiers, from saved predictions."""

from lade_tf.metrics.accuracy import accuracy, per_class_accuracy, shot_accuracy
from lade_tf.metrics.calibration import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
)
from lade_tf.metrics.report import classification_report

__all__ = [
    "accuracy",
    "brier_score",
    "classification_report",
    "classwise_calibration_error",
    "expected_calibration_error",
    "negative_log_likelihood",
    "per_class_accuracy",
    "shot_accuracy",
]
