"""predictions.npz: what is committed of a finished run in the place of its test logits.

A run folder has the test logits in float32, 4 MB of CIFAR-100. Tables, figures and paired
bootstraps need a thirtieth of that: what the model predicts when it is told its own prior or one of
section 4.3, with confidences where the paper shows them, at its own and at the uniform prior.

    version           1; another number when a key changes its meaning
    labels            [N] true classes of the test images, in the order of the test set
    counts            [C] training images of every class
    source_prior      [C] float64, the prior that the logits carry
    class_names       [C] strings
    told_names        [V] what the model is told, first the S that have confidences: "source", which
                      is source_prior, left out where that is uniform, and "uniform"; then
                      forward:RATIO and backward:RATIO, and "test" unless that is uniform
    told_priors       [V, C] float64, the priors of these names
    predicted         [V, N] predicted classes
    confidence        [S, N] float32, probability of the predicted class
    likelihood        [S, N] float32, probability of the true class
    class_squares     [S, C] float64, mean over a class's test images of the sum of the squared
                      probabilities, 0 without one; the Brier score is the mean of it
                      - 2 likelihood + 1
    classwise_ece     [S] float64, at uniform test labels
    mean_probability  [S, C] float64, over the test set
    positive_logits   [C, 2] float64, mean and standard deviation of each class's raw logit over its
                      own test images
    negative_logits   [C, 2] float64, the same over the others'

All of it is computed from the float32 logits, so tables and figures are what they were with these.
What needs more, another prior say, needs the logits: those of `suites.KEPT_LOGITS` are committed in
float16.
"""

import dataclasses
import pathlib

import numpy as np

from lade_tf import evaluation, metrics, priors
from lade_tf.array_checks import check_class_counts, check_class_indices
from lade_tf.files import replacing
from lade_tf.metrics import calibration
from lade_tf.metrics.moments import class_logit_moments
from reproduction.run_folder import RunFolder

FILE, LOGITS = "predictions.npz", "test_logits.npz"
VERSION = 1
SOURCE, UNIFORM, TEST = "source", "uniform", "test"
ROUNDING = 1e-9  # what two computations of the same prior may differ by


@dataclasses.dataclass(frozen=True)
class SavedPredictions:
    """The arrays of a predictions.npz; its classes are int64, in the file of the smallest type.

    Attributes:
        path: of the file, None where there is none.
    """

    labels: np.ndarray
    counts: np.ndarray
    source_prior: np.ndarray
    class_names: np.ndarray
    told_names: np.ndarray
    told_priors: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    likelihood: np.ndarray
    class_squares: np.ndarray
    classwise_ece: np.ndarray
    mean_probability: np.ndarray
    positive_logits: np.ndarray
    negative_logits: np.ndarray
    path: pathlib.Path | None = None

    @classmethod
    def of(cls, saved):
        """Reduces `SavedLogits`."""
        names = (UNIFORM, *evaluation.SHIFTS, TEST)
        told = {name: evaluation.prior_for(saved, name) for name in names}
        uniform, scored = told[UNIFORM], 1
        if _same(uniform, told[TEST]):
            del told[TEST]
        if not _same(uniform, saved.source_prior):
            told, scored = {SOURCE: saved.source_prior, **told}, 2
        predicted, scores = [], []
        for prior in told.values():
            outcome = saved.adapted_to(prior)
            predicted.append(outcome.predicted)
            if len(scores) < scored:
                scores.append(_scores(outcome, uniform))
        positive, negative = class_logit_moments(saved.logits, saved.labels)
        return cls(
            labels=saved.labels.astype(np.int64),
            counts=saved.counts,
            source_prior=saved.source_prior,
            class_names=saved.class_names,
            told_names=np.array(list(told)),
            told_priors=np.stack(list(told.values())),
            predicted=np.stack(predicted),
            **{name: np.stack([score[name] for score in scores]) for name in scores[0]},
            positive_logits=positive,
            negative_logits=negative,
        )

    def save(self, path):
        arrays = {name: getattr(self, name) for name in _KEYS}
        for name in ("labels", "predicted"):
            arrays[name] = arrays[name].astype(np.min_scalar_type(len(self.counts) - 1))
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, version=VERSION, **arrays)

    @classmethod
    def load(cls, path):
        try:
            with np.load(path) as file:
                version = int(file["version"])
                if version != VERSION:
                    raise ValueError(f"its version is {version}, this code reads {VERSION}")
                arrays = {name: file[name] for name in _KEYS}
            for name in ("labels", "predicted"):
                if np.issubdtype(arrays[name].dtype, np.integer):
                    arrays[name] = arrays[name].astype(np.int64)
            saved = cls(**arrays, path=pathlib.Path(path))
            saved.check()
        except Exception as error:
            raise ValueError(f"{path} isn't a predictions.npz of a run: {error}") from error
        return saved

    def check(self):
        """Raises a ValueError unless the arrays are what they should be."""
        samples, classes, scored = len(self.labels), len(self.counts), len(self.confidence)
        check_class_indices("labels", self.labels, num_classes=classes)
        check_class_counts(self.counts)
        priors.check_prior(self.source_prior, classes, allow_zero=False, name="source_prior")
        told = len(self.told_names)
        if not 0 < scored <= told:
            raise ValueError(f"confidence must have 1 to {told} rows; it has {scored}")
        shapes = {
            "class_names": (classes,),
            "told_priors": (told, classes),
            "predicted": (told, samples),
            **dict.fromkeys(("confidence", "likelihood"), (scored, samples)),
            **dict.fromkeys(("class_squares", "mean_probability"), (scored, classes)),
            "classwise_ece": (scored,),
            **dict.fromkeys(("positive_logits", "negative_logits"), (classes, 2)),
        }
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must have shape {list(shape)}; got {list(found)}")
        check_class_indices("predicted", self.predicted.ravel(), num_classes=classes)
        for name in ("confidence", "likelihood"):
            values = getattr(self, name)
            if not np.all((values >= 0) & (values <= 1)):
                raise ValueError(f"{name} must lie in [0, 1]")

    def keeps(self, target_prior):
        """Whether it is known what the model predicts when it is told a prior, [C]."""
        return any(_same(prior, target_prior) for prior in self.told_priors)

    def adapted_to(self, target_prior):
        """Returns the `KeptOutcome` of the model told a prior, [C], one of `told_priors`."""
        same = [_same(prior, target_prior) for prior in self.told_priors]
        if not any(same):
            where = self.path.with_name(LOGITS) if self.path else LOGITS
            raise ValueError(
                f"the target prior must be one of {', '.join(self.told_names)}, of which the "
                f"predictions are kept; another needs {where}, which isn't there"
            )
        return KeptOutcome(self, same.index(True))


_KEYS = tuple(field.name for field in dataclasses.fields(SavedPredictions) if field.name != "path")


@dataclasses.dataclass(frozen=True)
class KeptOutcome:
    """What `SavedPredictions` hold of a model that is told a prior; as `evaluation.Outcome`.

    Attributes:
        saved: the `SavedPredictions`.
        index: of the prior among those told.
    """

    saved: SavedPredictions
    index: int

    @property
    def predicted(self):
        """The predicted classes, [samples]."""
        return self.saved.predicted[self.index]

    @property
    def correct(self):
        """Whether they are right, [samples]."""
        return self.predicted == self.saved.labels

    @property
    def confidence(self):
        """Their probabilities, float64 [samples]."""
        return self.saved.confidence[self.index].astype(np.float64)

    @property
    def mean_probability(self):
        """The probability of every class over the test set, [C]."""
        return self.saved.mean_probability[self.index]

    def report(self, test_prior):
        """Returns what `metrics.classification_report` does, None for what isn't kept."""
        weights = evaluation.class_weights(self.saved.labels, test_prior)
        given = self.predicted, self.saved.labels
        return {
            "accuracy": metrics.accuracy(*given, weights),
            **metrics.shot_accuracy(*given, self.saved.counts, weights),
            **self._calibration(weights, test_prior),
        }

    def _calibration(self, weights, test_prior):
        saved, index = self.saved, self.index
        if index >= len(saved.confidence):
            return dict.fromkeys(("ece", "classwise_ece", "brier", "nll"))
        likelihood = saved.likelihood[index].astype(np.float64)
        uniform = evaluation.prior_for(saved, UNIFORM)
        at_uniform = float(saved.classwise_ece[index]) if _same(test_prior, uniform) else None
        squares = saved.class_squares[index][saved.labels]
        return {
            "ece": calibration.binned_gap(self.confidence, self.correct, weights),
            "classwise_ece": at_uniform,
            "brier": calibration.brier_of(squares, likelihood, weights),
            "nll": calibration.nll_of(likelihood, weights),
        }


def _scores(outcome, uniform):
    """Returns {key: what is kept of the probabilities of an `evaluation.Outcome`}."""
    probabilities, labels = outcome.probabilities, outcome.labels
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    squares = np.bincount(labels, calibration.squares(probabilities), classes)
    weights = evaluation.class_weights(labels, uniform)
    return {
        "confidence": probabilities.max(axis=1).astype(np.float32),
        "likelihood": probabilities[rows, labels].astype(np.float32),
        "class_squares": squares / np.maximum(np.bincount(labels, minlength=classes), 1),
        "classwise_ece": calibration.classwise_ece(probabilities, labels, weights),
        "mean_probability": probabilities.mean(axis=0, dtype=np.float64),
    }


def _same(prior, other):
    return np.shape(prior) == np.shape(other) and np.abs(prior - other).max() < ROUNDING


def load(folder):
    """Returns the `SavedPredictions` of a finished run, of its logits where there is no file."""
    folder = pathlib.Path(folder)
    if (folder / FILE).exists():
        return SavedPredictions.load(folder / FILE)
    return SavedPredictions.of(RunFolder(folder).test_logits())


def load_logits(folder):
    """Returns the `SavedLogits` of a finished run."""
    folder = pathlib.Path(folder)
    if is_reduced(folder):
        raise ValueError(
            f"{folder / LOGITS} isn't there, and this needs it: only {FILE} is kept of that run"
        )
    return RunFolder(folder).test_logits()


def is_reduced(folder):
    """Whether of a run's logits nothing but the predictions is kept."""
    folder = pathlib.Path(folder)
    return (folder / FILE).exists() and not (folder / LOGITS).exists()


def reduce(folder, copy, keep_logits=False):
    """Writes what is committed of the logits in the run folder `folder` to the folder `copy`.

    Args:
        folder, copy: the folders.
        keep_logits: whether the logits are kept in float16.

    Raises:
        ValueError: for logits that can't be read, or too large for float16; nothing is written.
    """
    folder, copy = map(pathlib.Path, (folder, copy))
    saved = RunFolder(folder).test_logits()
    predictions = SavedPredictions.of(saved)
    if keep_logits:
        try:
            saved.save(copy / LOGITS, dtype=np.float16)
        except ValueError as error:
            raise ValueError(f"{folder / LOGITS}: {error}") from error
    predictions.save(copy / FILE)
