"""Accuracy by shot group and calibration: functions of saved predictions, and Keras metrics."""

from lade_tf.metrics.accuracy import (
    accuracy,
    expected_accuracy,
    macro_f1,
    per_class_accuracy,
    shot_accuracy,
)
from lade_tf.metrics.calibration import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
)
from lade_tf.metrics.report import classification_report
from lade_tf.metrics.streaming import (
    BrierScore,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    MacroF1,
    NegativeLogLikelihood,
    PerClassAccuracy,
    ShotAccuracy,
)

__all__ = [
    "BrierScore",
    "ClasswiseCalibrationError",
    "ExpectedCalibrationError",
    "MacroF1",
    "NegativeLogLikelihood",
    "PerClassAccuracy",
    "ShotAccuracy",
    "accuracy",
    "brier_score",
    "classification_report",
    "classwise_calibration_error",
    "expected_accuracy",
    "expected_calibration_error",
    "macro_f1",
    "negative_log_likelihood",
    "per_class_accuracy",
    "shot_accuracy",
]
