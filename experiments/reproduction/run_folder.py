"""A run folder: what lies in it, how it is written, how it is read again.

    config.json             everything that determines the run, but the data
    data.json               by which its data are known again
    history.csv             a row for each finished epoch
    trained_on.json         which epochs other machines trained (studies.export_program)
    tensorboard/            the same, for TensorBoard
    *.weights.h5            checkpoints (`lade_tf.training.checkpoints`)
    best.keras              the selected model, whole (without a validation set: the last)
    test_logits.npz         raw logits, labels, counts and source_prior of the balanced test set
    saved_model/            the export, where it was asked for
    result.json             metrics, config, seconds, hashes and what `provenance` tells

Every file but the TensorBoard logs is replaced in one step: a kill leaves the old or the new one.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil

import keras

import lade_tf
from lade_tf.evaluation import SavedLogits
from lade_tf.files import TEMPORARY, alone, hash_of, read_json, write_json
from lade_tf.models import export
from lade_tf.training import checkpoints
from reproduction.config import RunConfig

RUN_FILES = {
    "config.json",
    "data.json",
    "history.csv",
    "trained_on.json",
    "tensorboard",
    "best.keras",
    "test_logits.npz",
    "result.json",
    "saved_model",
}
# What result.json holds the hashes of.
HASHED = ("test_logits.npz", "best.keras")
METRICS = ("metrics", "metrics_unadapted", "metrics_shifted")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of a run and the rules by which they are written."""

    path: pathlib.Path

    def __post_init__(self):
        object.__setattr__(self, "path", pathlib.Path(self.path))

    def __fspath__(self):
        return str(self.path)

    def file(self, name):
        return self.path / name

    @property
    def config(self):
        """The `RunConfig` in config.json."""
        path = self.file("config.json")
        return RunConfig.from_json(read_json(path), path)

    @property
    def finished(self):
        return self.file("result.json").exists()

    def check(self, config):
        """Refuses a folder that isn't free or this configuration's; writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--run_dir={self.path} must be a folder; it is a file")
        if self.file("config.json").exists():
            self._refuse_other(config)
        elif self.path.is_dir() and not self._is_empty():
            raise ValueError(
                f"--run_dir={self.path} holds other files and no config.json: give an empty or a "
                "new folder"
            )

    def check_data(self, data):
        """Refuses data that aren't the run's."""
        if other_data := self.data_differences(data):
            raise ValueError(
                f"--run_dir={self.path} holds a run on other data ({other_data}): give another "
                "folder"
            )

    def data_differences(self, data):
        """Returns how data differ from the run's, "" if they don't or it has no data.json."""
        path = self.file("data.json")
        return _differences(read_json(path), fingerprint(data)) if path.exists() else ""

    def claim(self, config, data):
        """Makes the folder this configuration's and these data's, or refuses as the checks do."""
        self.check(config)
        self.check_data(data)
        self._sweep()
        self.path.mkdir(parents=True, exist_ok=True)
        contents = {"config.json": config.to_json(), "data.json": fingerprint(data)}
        for name, content in contents.items():
            if not self.file(name).exists():
                write_json(self.file(name), content)

    def _is_empty(self):
        """Whether nothing lies in the folder but what a killed write left."""
        return all(path.name.startswith(TEMPORARY) for path in self.path.iterdir())

    def _sweep(self):
        """Removes what a killed write left: files, and folders of an export."""
        for left in self.path.glob(f"{TEMPORARY}*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()

    def _refuse_other(self, config):
        if differences := self.config_differences(config):
            raise ValueError(
                f"--run_dir={self.path} holds a run of another configuration ({differences}): "
                "give another folder"
            )

    def config_differences(self, config):
        """Returns how a configuration differs from the folder's, "" if it doesn't.

        A first stage may have been moved or copied, but not be another of the same name.
        """
        if differences := self.config.differences(config):
            return differences
        stages = [RunFolder(of.init_from) for of in (self.config, config) if of.init_from]
        if not (stages and all(stage.file("config.json").exists() for stage in stages)):
            return ""
        differences = stages[0].config_differences(stages[1].config)
        return differences and f"of the first stage {differences}"

    def delete(self):
        """Deletes the folder, if there is one and it holds nothing but a run."""
        if not self.path.exists():
            return
        names = {path.name for path in self.path.iterdir()}
        foreign = sorted(name for name in names - RUN_FILES if not _is_written_by_a_run(name))
        if foreign or not self.file("config.json").exists():
            raise ValueError(
                f"--overwrite: {self.path} isn't a run folder ({', '.join(foreign[:3]) or 'empty'})"
                ", it is left as it is"
            )
        with self.alone():
            shutil.rmtree(self.path)

    def alone(self):
        """Keeps other processes from writing into the folder, which is made if there is none."""
        return alone(self.path)

    def test_logits(self):
        """Returns the `SavedLogits` of a finished run."""
        if not (self.finished or self.file("config.json").exists()):
            raise ValueError(f"{self.path} isn't a run folder: it holds no config.json")
        if not self.finished:
            raise ValueError(
                f"the run in {self.path} isn't finished: call its train.py command again to go on"
            )
        self.result(("test_logits.npz",))
        return SavedLogits.load(self.file("test_logits.npz"))

    def load_model(self):
        """Returns the `AdaptedModel` of a finished run."""
        self.result(("best.keras",))
        return load_model(self.file("best.keras"))

    def result(self, files=HASHED, needed=("config",)):
        """Returns the content of result.json, which must be of this run and of these files of it.

        Results from before have no hashes, and a file may have been left out where it was copied:
        then there is nothing to compare.

        Raises:
            ValueError: if it lacks one of `needed`, is another run's, or one of `files` is.
        """
        path = self.file("result.json")
        result = read_json(path)
        again = "put the run's own back, or remove result.json and call its train.py command again"
        if missing := [name for name in needed if not isinstance(result.get(name), dict)]:
            raise ValueError(f"{path} isn't the result of a run, it lacks {missing[0]}: {again}")
        if differences := self._differences_of_result(result["config"]):
            raise ValueError(f"{path} is another run's ({differences}): {again}")
        hashes = result.get("hashes")
        for name in files if isinstance(hashes, dict) else ():
            file = self.file(name)
            if name in hashes and file.exists() and hash_of(file) != hashes[name]:
                raise ValueError(f"{file} isn't what result.json was written for: {again}")
        return result

    def _differences_of_result(self, config):
        path = self.file("config.json")
        if not path.exists() or config == read_json(path):  # only the first is copied to results
            return ""
        return self.config_differences(RunConfig.from_json(config, self.file("result.json")))

    def hashes(self):
        """Returns {name: hash} of the files that a result belongs to."""
        return {name: hash_of(self.file(name)) for name in HASHED}

    def check_exportable(self):
        """Refuses a saved_model that is no export and that none may replace."""
        try:
            export.check_replaceable(self.file("saved_model"))
        except ValueError as error:
            raise ValueError(
                f"--export: {self.file('saved_model')} isn't an exported model: remove it"
            ) from error

    def export(self):
        """Writes saved_model of a finished run, unless it is there already."""
        self.check_exportable()
        # Copied in part, it is written anew.
        parts = ("saved_model.pb", "variables/variables.index")
        if all((self.file("saved_model") / part).exists() for part in parts):
            return
        class_names = self.test_logits().class_names.tolist()
        self.write_export(self.load_model(), self.file("saved_model"), class_names)

    def write_export(self, model, output, class_names):
        """Exports the run's model to a folder, perhaps of its own; there nobody else may write."""
        is_inside = pathlib.Path(output).resolve().parent == self.path.resolve()
        with self.alone() if is_inside else contextlib.nullcontext():
            if is_inside:
                self._sweep()
            model.export(output, class_names=class_names)

    def read_history(self):
        """Returns the rows of history.csv as dicts of floats, one an epoch."""
        return checkpoints.read_history(self.path)

    def trained_on(self):
        """Returns [{"device", "first_epoch", "last_epoch"}] of what other machines trained."""
        path = self.file("trained_on.json")
        return read_json(path)["trained_on"] if path.exists() else []

    def note_trained_on(self, device, first_epoch, last_epoch):
        """Notes which epochs, counted from 1, a device trained, in the place of later ones."""
        before = [part for part in self.trained_on() if part["last_epoch"] < first_epoch]
        part = {"device": device, "first_epoch": first_epoch, "last_epoch": last_epoch}
        write_json(self.file("trained_on.json"), {"trained_on": [*before, part]})

    def write_history(self, rows):
        checkpoints.write_history(self.path, rows)


def fingerprint(data):
    """Returns by what a data set is known again: its sizes, and a hash of its names and labels.

    Not of the pixels, nor of where the images lie: they may move, or be packed into TFRecords.
    """
    digest = hashlib.sha256(json.dumps(data.class_names).encode())
    labels = {split: getattr(data, split).labels for split in data.splits}
    for split in data.splits:
        digest.update(labels[split].astype("<i4").tobytes())
    sizes = {f"{split} images": len(labels[split]) for split in data.splits}
    return {"classes": data.num_classes, **sizes, "names and labels": digest.hexdigest()[:16]}


def _differences(there, now):
    return "; ".join(
        f"{name} is {there.get(name)!r} there and {now.get(name)!r} now"
        for name in sorted({*there, *now})
        if there.get(name) != now.get(name)
    )


def _is_written_by_a_run(name):
    return name.startswith(TEMPORARY) or name.endswith(".weights.h5")


def load_model(path):
    """Returns the `AdaptedModel` in a .keras file."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        # Keras makes a text of many lines of it.
        if why := re.search("^the stored .* must .*$", str(error), re.MULTILINE):
            raise ValueError(f"{path} can't be used: {why[0]}") from error
        raise ValueError(f"{path} can't be read as a Keras model: {error}") from error
    if not isinstance(model, lade_tf.AdaptedModel):
        raise ValueError(
            f"{path} must hold an AdaptedModel or LADEModel; it holds a {type(model).__name__}: "
            "lade_tf.adapt(model, class_counts) makes it one"
        )
    return model
