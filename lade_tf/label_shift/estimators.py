"""The estimators of a target prior by name, for `estimate` and `AdaptedModel.adapt_to`.

Another one is a file with an `Estimator` of its own, given to `register_estimator`.
"""

import dataclasses
import inspect
from collections.abc import Callable

from lade_tf.checks import check_choice
from lade_tf.label_shift.bbse import bbse, solve_bbse
from lade_tf.label_shift.em import fit_em, solve_em
from lade_tf.label_shift.hierarchical import fit_hierarchical
from lade_tf.label_shift.rlls import rlls, solve_rlls

NUM_SAMPLES = 3  # source probabilities, source labels, target probabilities
PSEUDO_COUNT, TRAINING_PRIOR = "pseudo_count", "training_prior"


@dataclasses.dataclass(frozen=True)
class Estimator:
    """A method that estimates a target prior.

    Attributes:
        name: What `method` is called.
        fit: The function (source_probs, source_labels, target_probs, **options) that checks what it
            is given and returns the prior [classes], or an object with that as `prior`. One with an
            option `training_prior` is handed the model's, one with `pseudo_count` is told it.
        solve: The same for checked arrays; the bootstrap calls it. None with `has_intervals`.
        has_intervals: Whether the object that `fit` returns has `low` and `high`, [classes] each,
            and takes `confidence`: nothing is resampled, mixed or shrunk then.
        is_soft: Whether it uses probabilities; else the predicted classes.
    """

    name: str
    fit: Callable
    solve: Callable | None = None
    has_intervals: bool = False
    is_soft: bool = False

    @property
    def options(self):
        """The names of the options that `fit` takes."""
        return tuple(list(inspect.signature(self.fit).parameters)[NUM_SAMPLES:])


ESTIMATORS = {}


def register_estimator(estimator):
    """Makes an `Estimator` known by its name.

    Raises:
        ValueError: There is one of that name.
    """
    if estimator.name in ESTIMATORS:
        raise ValueError(f"name must be new; {estimator.name!r} is an estimator already")
    ESTIMATORS[estimator.name] = estimator


def find(method):
    """Returns the `Estimator` of a name.

    Raises:
        ValueError: There is none.
    """
    check_choice(method, tuple(ESTIMATORS), "method")
    return ESTIMATORS[method]


register_estimator(Estimator("hierarchical", fit_hierarchical, has_intervals=True, is_soft=True))
register_estimator(Estimator("em", fit_em, solve_em, is_soft=True))
register_estimator(Estimator("rlls", rlls, solve_rlls))
register_estimator(Estimator("bbse", bbse, solve_bbse))
