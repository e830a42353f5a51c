"""What can be measured of a classifier without it, from its logits on a test set.

>>> saved = lade_tf.evaluation.SavedLogits(logits, labels, class_counts)
>>> print(lade_tf.evaluation.format_table(lade_tf.evaluation.evaluate_shifts(saved)))
>>> lade_tf.evaluation.write_page({"LADE": saved}, "report.html")
"""

from lade_tf.evaluation.page import describe, page_html, write_page
from lade_tf.evaluation.paired import (
    check_same_images,
    compare,
    correct,
    format_comparison,
    paired_bootstrap,
)
from lade_tf.evaluation.saved_logits import Outcome, SavedLogits, adapted_probabilities
from lade_tf.evaluation.shifted_metrics import (
    evaluate,
    evaluate_shifts,
    format_table,
    prior_for,
    tested_counts,
)
from lade_tf.evaluation.shifts import (
    PRIOR_NAMES,
    SHIFTS,
    STANDARD_PRIORS,
    check_prior_name,
    class_weights,
    draw,
    drawn_counts,
    named_prior,
    remarks,
)

__all__ = [
    "PRIOR_NAMES",
    "SHIFTS",
    "STANDARD_PRIORS",
    "Outcome",
    "SavedLogits",
    "adapted_probabilities",
    "check_prior_name",
    "check_same_images",
    "class_weights",
    "compare",
    "correct",
    "describe",
    "draw",
    "drawn_counts",
    "evaluate",
    "evaluate_shifts",
    "format_comparison",
    "format_table",
    "named_prior",
    "page_html",
    "paired_bootstrap",
    "prior_for",
    "remarks",
    "tested_counts",
    "write_page",
]
