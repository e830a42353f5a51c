"""A run folder: what lies in it, how it is written, how it is read again.

    config.json             everything that determines the run, but the data
    data.json               by which its data are known again
    history.csv             a row for each finished epoch
    trained_on.json         which epochs other machines trained (export_program.py)
    tensorboard/            the same, for TensorBoard
    *.weights.h5            checkpoints (checkpoints.py)
    best.keras              the selected model, whole (without a validation set: the last)
    test_logits.npz         raw logits, labels, counts and source_prior of the balanced test set
    saved_model/            the export, where it was asked for
    result.json             metrics, config, seconds, hashes and what `provenance` tells

Every file but the TensorBoard logs is replaced in one step: a kill leaves the old or the new one.
"""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata

import evaluation
import keras
import numpy as np
import tensorflow as tf

import lade_tf
from lade_tf import priors
from lade_tf.metrics.checks import check_class_counts, check_class_indices
from lade_tf.models import export

TEST_BATCH_SIZE = 256
TEMPORARY = "tmp-"
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
# Environment variables that change the last bits of what is measured, or its speed.
NUMERICAL = ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of a run and the rules by which they are written."""

    path: pathlib.Path

    def __post_init__(self):
        object.__setattr__(self, "path", pathlib.Path(self.path))

    def file(self, name):
        return self.path / name

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
        for name, content in {"config.json": config, "data.json": fingerprint(data)}.items():
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

        Keys that recipes got since have the value that they meant then. A first stage may have been
        moved or copied, but not be another of the same name.
        """
        import recipes  # late: it imports this file

        configs = read_json(self.file("config.json")), config
        if differences := _differences(*map(recipes.comparable, configs)):
            return differences
        stages = [RunFolder(each["init_from"]) for each in configs if each.get("init_from")]
        files = [stage.file("config.json") for stage in stages]
        if not (stages and all(file.exists() for file in files)):
            return ""
        differences = stages[0].config_differences(read_json(files[1]))
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

    @contextlib.contextmanager
    def alone(self):
        """Keeps other processes from writing into the folder, which is made if there is none.

        Raises:
            ValueError: another process is inside.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                folder = os.open(self.path, os.O_RDONLY)
                stack.callback(os.close, folder)
                import fcntl  # late: Windows has none, and can't open a folder either

                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"another process is training in {self.path}: wait for it or end it, or give "
                    "another --run_dir"
                ) from error
            except OSError:
                pass  # a file system without locks
            yield

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
        return self.config_differences(config)

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
        if (self.file("saved_model") / "saved_model.pb").exists():
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
        path = self.file("history.csv")
        if not path.exists():
            return []
        try:
            with open(path, newline="") as file:
                return [
                    {name: float(value) for name, value in row.items()}
                    for row in csv.DictReader(file, strict=True)
                ]
        except (TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{path} can't be read, it may be cut short: {error}") from error

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
        with (
            replacing(self.file("history.csv")) as temporary,
            open(temporary, "w", newline="") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows({name: f"{value:.9g}" for name, value in row.items()} for row in rows)


@dataclasses.dataclass(frozen=True)
class SavedLogits:
    """Raw logits of a balanced test set and what is needed to adapt them.

    Attributes:
        logits: [samples, C] float32.
        labels: [samples] int32.
        counts: [C] training images of every class.
        source_prior: [C] float64, the prior that the logits carry.
        class_names: [C] strings.
    """

    logits: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    source_prior: np.ndarray
    class_names: np.ndarray

    def save(self, path):
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path):
        try:
            with np.load(path) as file:
                arrays = {field.name: file[field.name] for field in dataclasses.fields(cls)}
            if arrays["logits"].dtype == np.float16:  # as some committed results have them
                arrays["logits"] = arrays["logits"].astype(np.float32)
            saved = cls(**arrays)
            saved.check()
        except Exception as error:
            raise ValueError(f"{path} isn't a test_logits.npz of a run: {error}") from error
        return saved

    def told(self, target_prior):
        """Returns the `evaluation.Outcome` of a model that is told a prior, [C]."""
        probabilities = evaluation.adapt(self.logits, self.source_prior, target_prior)
        return evaluation.Outcome(probabilities, self.labels, self.counts)

    def check(self):
        """Raises a ValueError unless the arrays are what they should be."""
        if self.logits.ndim != 2 or len(self.logits) == 0:
            raise ValueError(f"logits must be [samples, classes]; got {list(self.logits.shape)}")
        num_samples, num_classes = self.logits.shape
        bad = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
        if bad.size:
            raise ValueError(f"logits must be finite; {bad.size} samples aren't, first {bad[0]}")
        check_class_indices("labels", self.labels, num_samples, num_classes)
        check_class_counts(self.counts, num_classes)
        priors.check_prior(self.source_prior, num_classes, allow_zero=False, name="source_prior")

    @classmethod
    def of(cls, raw_logits, data, counts, source_prior):
        """Runs `raw_logits`, a function of images, over the test set of an `ImageData`.

        A `source_prior` of None stands for disentangled logits, which carry the uniform one.
        """
        if len(counts) != data.num_classes:
            raise ValueError(
                f"the model must have the {data.num_classes} classes of {data.name}; "
                f"it has {len(counts)}"
            )
        batches = data.test_batches(TEST_BATCH_SIZE)
        return cls(
            logits=np.concatenate([raw_logits(images).numpy() for images, _ in batches]),
            labels=data.test.labels,
            counts=np.asarray(counts),
            source_prior=np.asarray(source_prior or priors.uniform_prior(data.num_classes)),
            class_names=np.asarray(data.class_names),
        )

    @classmethod
    def of_model(cls, model, data):
        """Runs an `AdaptedModel` over the test set of an `ImageData`."""
        raw_logits = tf.function(model.raw_logits, autograph=False)
        return cls.of(raw_logits, data, model.class_counts, model.prior_adapt.source_prior)


def hash_of(path):
    """Returns the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary name beside `path`; on success it takes the place of `path`."""
    path = pathlib.Path(path)
    # Keras looks at the file's endings, so they stay.
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, content):
    """Writes `content` in one step; the folder must exist."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_measured(path, content, start):
    """Writes what was measured since `start`, of time.monotonic, with seconds and provenance."""
    seconds = round(time.monotonic() - start, 1)
    write_json(path, {**content, "seconds": seconds, **provenance()})


def read_json(path):
    """Returns the JSON object in a file."""
    try:
        content = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object; it holds a {type(content).__name__}")
    return content


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


def provenance():
    """Returns how a result came about: command, environment, versions, hardware and git commit."""
    packages = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
    gpus = [
        tf.config.experimental.get_device_details(device).get("device_name", device.name)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "environment": {name: os.environ[name] for name in NUMERICAL if name in os.environ},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "hardware": {"cpu": _cpu_name(), "cores": os.cpu_count(), "gpus": gpus},
        "commit": _git_commit(),
    }


def _cpu_name():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_commit():
    """Returns the commit of this checkout, with "-dirty" if tracked files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
