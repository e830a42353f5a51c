"""Time and memory of LADER and its gradient against the number of classes and of replicas.

    cd experiments && python -m benchmarks.scaling --output=FILE.json

A batch of 256 and 100 to 100,000 classes, value and gradient, each size in a process of its own;
beside it softmax cross-entropy with its gradient on the same logits, in turns. Memory is what a
step adds to the peak, in units of the logits' size, and holds the gradient; it is measured in whole
pages, which are coarse for small logits. Then 10,000 classes on 1, 2 and 4 replicas, parts of this
CPU, with the floats that each sends. LADER reads the logits and writes their gradient, N·C floats
each: growth should be linear in N·C.
"""

import time

import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

import lade_tf
from benchmarks import peak_memory
from benchmarks.turns import take_turns

BATCH_SIZE = 256
CLASSES = (100, 1_000, 10_000, 100_000)
REPLICAS = (1, 2, 4)
REPLICA_CLASSES = 10_000
TURNS = 9
WARM_UP_ROWS = 16


def make_batch(num_classes):
    rng = np.random.default_rng(0)
    counts = np.maximum(1, 1280 * 0.01 ** (np.arange(num_classes) / (num_classes - 1))).astype(int)
    labels = rng.choice(num_classes, BATCH_SIZE, p=counts / counts.sum())
    return rng.normal(size=(BATCH_SIZE, num_classes)).astype(np.float32), labels, counts


def make_steps(counts):
    """Returns {name: function of labels and logits that gives the loss and its gradient}."""

    def with_gradient(loss):
        # One trace for batches of any size: tracing takes memory too.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None])])
        def step(labels, logits):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(labels, logits)
            return value, tape.gradient(value, logits)

        return step

    def cross_entropy(labels, logits):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    def lader(labels, logits):
        return lade_tf.ops.lader(logits, labels, counts, 0.01)

    return {"cross_entropy": with_gradient(cross_entropy), "lader": with_gradient(lader)}


def measure_classes(num_classes):
    """Returns {"lader", "cross_entropy": [turns] seconds}."""
    logits, labels, counts = make_batch(num_classes)
    batch = tf.constant(labels), tf.constant(logits)
    steps = make_steps(counts)
    work = {name: lambda step=step: step(*batch) for name, step in steps.items()}
    return take_turns(work, TURNS, warm_up=2)


def measure_memory(name, num_classes):
    """Returns what a step takes beyond what was there, in units of the logits' size."""
    logits, labels, counts = make_batch(num_classes)
    step = make_steps(counts)[name]
    step(labels[:WARM_UP_ROWS], logits[:WARM_UP_ROWS])
    batch = tf.constant(labels), tf.constant(logits)
    return round(peak_memory.growth(lambda: step(*batch)) / logits.nbytes, 2)


def measure_replicas(replicas):
    """Returns the seconds of LADER with its gradient on so many parts of the CPU, [turns]."""
    parts = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    logits, labels, counts = make_batch(REPLICA_CLASSES)

    def part(array):
        pieces = np.split(array, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(pieces[context.replica_id_in_sync_group])
        )

    batch = part(logits), part(labels)

    @tf.function
    def step(logits, labels):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = lade_tf.ops.lader(logits, labels, counts, 0.01)
        return value, tape.gradient(value, logits)

    whole_step = tf.function(lambda *arguments: strategy.run(step, args=arguments))
    return take_turns({"step": lambda: whole_step(*batch)}, TURNS, warm_up=2)["step"]


def main():
    cli.check_new_file(flags.FLAGS.output)
    started = time.monotonic()
    by_classes = {}
    for num_classes in CLASSES:
        measured = peak_memory.in_a_process(measure_classes, num_classes, environment={})
        lader, cross_entropy = (np.array(measured[name]) for name in ("lader", "cross_entropy"))
        size = BATCH_SIZE * num_classes
        by_classes[num_classes] = {
            "milliseconds": round(1e3 * float(np.median(lader)), 3),
            "ratio to cross-entropy": round(float(np.median(lader / cross_entropy)), 2),
            "nanoseconds per logit": round(1e9 * float(np.median(lader)) / size, 2),
            "extra memory / logits": {
                name: peak_memory.in_a_process(measure_memory, name, num_classes)
                for name in measured
            },
        }
        print(f"{num_classes:8} classes   {by_classes[num_classes]}")
    by_replicas, one = {}, None
    for replicas in REPLICAS:
        seconds = float(
            np.median(peak_memory.in_a_process(measure_replicas, replicas, environment={}))
        )
        one = one or seconds
        sent = 3 * REPLICA_CLASSES if replicas > 1 else 0
        by_replicas[replicas] = {
            "ratio to one": round(seconds / one, 2),
            "floats sent by each": sent,
        }
        print(f"{replicas:8} replicas  {by_replicas[replicas]}")
    if flags.FLAGS.output:
        sizes = {"batch_size": BATCH_SIZE, "seed": 0}
        results = {"classes": by_classes, "replicas": by_replicas}
        provenance.write_measured(flags.FLAGS.output, {**sizes, **results}, started)


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
