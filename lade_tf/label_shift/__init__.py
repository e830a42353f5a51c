"""Estimators of an unknown target prior from unlabelled target predictions, and how far to trust
them.

The assumption everywhere is label shift: p(x|y) is the same in source and target, p(y) is not.
"""

from lade_tf.label_shift.bbse import SingularConfusionError, bbse
from lade_tf.label_shift.calibration import (
    BiasCorrectedTemperature,
    fit_bias_corrected_temperature,
    fit_temperature,
)
from lade_tf.label_shift.carried_prior import CarriedPrior, fit_carried_prior
from lade_tf.label_shift.confusion import confusion_matrix
from lade_tf.label_shift.diagnostics import (
    LabelShiftTest,
    condition_number,
    effective_sample_size,
    label_shift_test,
)
from lade_tf.label_shift.em import EMFit, em, fit_em
from lade_tf.label_shift.estimate import METHODS, PriorEstimate, estimate
from lade_tf.label_shift.estimators import ESTIMATORS, Estimator, register_estimator
from lade_tf.label_shift.hierarchical import HierarchicalFit, fit_hierarchical, hierarchical
from lade_tf.label_shift.rlls import rlls
from lade_tf.label_shift.shrunk_calibration import ShrunkCalibration, fit_shrunk_calibration
from lade_tf.numerics import project_to_simplex

__all__ = [
    "ESTIMATORS",
    "METHODS",
    "BiasCorrectedTemperature",
    "CarriedPrior",
    "EMFit",
    "Estimator",
    "HierarchicalFit",
    "LabelShiftTest",
    "PriorEstimate",
    "ShrunkCalibration",
    "SingularConfusionError",
    "bbse",
    "condition_number",
    "confusion_matrix",
    "effective_sample_size",
    "em",
    "estimate",
    "fit_bias_corrected_temperature",
    "fit_carried_prior",
    "fit_em",
    "fit_hierarchical",
    "fit_shrunk_calibration",
    "fit_temperature",
    "hierarchical",
    "label_shift_test",
    "project_to_simplex",
    "register_estimator",
    "rlls",
]
