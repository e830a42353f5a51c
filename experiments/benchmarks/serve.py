"""A served model under many threads and bad requests: answers, time and memory.

    cd experiments && python -m benchmarks.serve --output=FILE.json

A small convolutional network for 32 × 32 images is exported, loaded again and asked by
--threads threads at once, in one process, while another sets the stored target prior again and
again. A tenth of the requests is bad, in turn: another rank, another size, another dtype, a NaN
pixel, what is no prior. Every good answer is compared with the model's own at the prior that was
given, or at one of those that were stored; of the bad requests all must be refused, but for the
NaN pixel, which has NaN probabilities and the label −1.

--bad=0 leaves the bad requests out and asks what every model can answer: models exported before
images were checked end the process at a wrong rank. --model=FOLDER asks an export of this
script's (--keep=FOLDER) instead of making one, to compare two versions of the library.
"""

import collections
import pathlib
import resource
import tempfile
import threading
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

import lade_tf

FLAGS = flags.FLAGS
NUM_CLASSES = 10
IMAGES = 64
PRIORS = np.random.default_rng(1).dirichlet(np.ones(NUM_CLASSES), 4).astype(np.float32)
BAD = ("rank", "size", "dtype", "NaN", "prior")


def make_model():
    """Returns the model that is served; the same one in every process."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(NUM_CLASSES, kernel_initializer="random_normal"),
        ]
    )
    return lade_tf.LADEModel(network, np.arange(NUM_CLASSES, 0, -1), target_prior=PRIORS[0])


class Load:
    """The requests of all threads, and what came of them.

    Attributes:
        seconds: how long every request took.
        outcomes: how often each outcome came: "right", "refused" and what mustn't be.
        refused_seconds: how long the refused ones took.
    """

    def __init__(self, served, images, expected):
        self.served = served
        self.images = images  # [IMAGES, 32, 32, 3]
        self.expected = expected  # [priors, IMAGES, NUM_CLASSES] probabilities
        self.seconds, self.refused_seconds = [], []
        self.outcomes = collections.Counter()
        self.lock = threading.Lock()
        self.done = threading.Event()

    def set_priors(self):
        """Sets one stored prior after the other, until the requests are over."""
        number = 0
        while not self.done.wait(0.005):
            number += 1
            self.served.set_target_prior(tf.constant(PRIORS[number % len(PRIORS)]))

    def ask(self, numbers):
        """Sends the requests of a thread, which differ by their numbers."""
        rng = np.random.default_rng(numbers.start)
        for number in numbers:
            is_bad = FLAGS.bad and number % FLAGS.bad == FLAGS.bad - 1
            kind = BAD[number // FLAGS.bad % len(BAD)] if is_bad else "good"
            first = int(rng.integers(IMAGES - 4))
            rows = slice(first, first + int(rng.integers(1, 5)))
            given = int(rng.integers(len(PRIORS))) if kind == "prior" or number % 4 < 2 else None
            started = time.perf_counter()
            try:
                outputs = self._call(kind, rows, given)
            except (tf.errors.InvalidArgumentError, TypeError, ValueError):
                outputs = None
            seconds = time.perf_counter() - started
            outcome = self._judge(kind, rows, given, outputs)
            with self.lock:
                (self.seconds if outputs else self.refused_seconds).append(seconds)
                self.outcomes[outcome] += 1

    def _call(self, kind, rows, given):
        images = self.images[rows]
        if kind == "rank":
            images = images[0]
        elif kind == "size":
            images = np.zeros([1, 47, 91, 3], np.float32)
        elif kind == "dtype":
            images = images.astype(np.float64)
        elif kind == "NaN":
            images = np.where(np.arange(3) == 1, np.float32(np.nan), images)
        if given is None:
            return self.served.signatures["serving_default"](images=tf.constant(images))
        prior = 2 * PRIORS[given] if kind == "prior" else PRIORS[given]
        return self.served.signatures["serve_with_prior"](
            images=tf.constant(images), target_prior=tf.constant(prior)
        )

    def _judge(self, kind, rows, given, outputs):
        """Returns the outcome of a request."""
        if kind not in ("good", "NaN"):
            return "refused" if outputs is None else f"answered: {kind}"
        if outputs is None:
            return f"refused: {kind}"
        probabilities, label = outputs["probabilities"].numpy(), outputs["label"].numpy()
        if kind == "NaN":
            unanswered = np.isnan(probabilities).all() and (label == -1).all()
            return "NaN" if unanswered else "answered: NaN"
        # Any of the stored priors may have been the one, but one for the whole batch.
        possible = (
            self.expected[:, rows] if given is None else self.expected[given : given + 1, rows]
        )
        is_right = np.abs(possible - probabilities).max(axis=(1, 2)).min() < 1e-5
        return "right" if is_right and (label == probabilities.argmax(axis=1)).all() else "wrong"


def run_load(served, images, expected, requests):
    """Asks from all threads; returns the `Load` and MB of memory at a quarter and at the end."""
    load = Load(served, images, expected)
    setter = threading.Thread(target=load.set_priors)
    setter.start()
    memory = []
    for part in (1, 3):  # a quarter, after which memory mustn't grow, then the rest
        each = part * requests // 4 // FLAGS.threads
        threads = [
            threading.Thread(target=load.ask, args=(range(i * each, (i + 1) * each),))
            for i in range(FLAGS.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory.append(resident_megabytes())
    load.done.set()
    setter.join()
    return load, memory


def resident_megabytes():
    """Returns the memory of this process, in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    model = make_model()
    images = np.random.default_rng(0).normal(size=(IMAGES, 32, 32, 3)).astype(np.float32)
    expected = np.stack([tf.nn.softmax(model(images, target_prior=p)) for p in PRIORS])
    with tempfile.TemporaryDirectory() as folder:
        path = FLAGS.model or FLAGS.keep or str(pathlib.Path(folder, "model"))
        if not FLAGS.model:
            model.export(path)
        served = tf.saved_model.load(path)
        load, memory = run_load(served, images, expected, FLAGS.requests)
    low, high = np.percentile(1e3 * np.array(load.seconds), [50, 99])
    result = {
        "threads": FLAGS.threads,
        "requests": sum(load.outcomes.values()),
        "outcomes": dict(load.outcomes),
        "milliseconds": {"p50": round(float(low), 3), "p99": round(float(high), 3)},
        "megabytes": {"after a quarter": memory[0], "at the end": memory[1]},
    }
    if load.refused_seconds:
        low, high = np.percentile(1e3 * np.array(load.refused_seconds), [50, 99])
        refused = {"p50": round(float(low), 3), "p99": round(float(high), 3)}
        result["milliseconds of refusals"] = refused
    for name, value in result.items():
        print(f"{name:32}{value}")
    if bad := set(load.outcomes) - {"right", "refused", "NaN"}:
        raise ValueError(f"the served model must not do this: {', '.join(sorted(bad))}")
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, {**result, "seed": 0}, started)


if __name__ == "__main__":
    flags.DEFINE_integer("threads", 8, "Threads that ask at once.", lower_bound=1)
    flags.DEFINE_integer("requests", 20_000, "Requests of all threads.", lower_bound=32)
    flags.DEFINE_integer("bad", 10, "Every so manieth request is bad, 0 for none.", lower_bound=0)
    flags.DEFINE_string("keep", None, "New folder to export the model to.")
    flags.DEFINE_string("model", None, "Folder of an earlier --keep to ask.")
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
