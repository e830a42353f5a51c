"""Time and memory of LADE and its gradient, as ratios measured in one run.

    cd experiments && python -m benchmarks.loss --output=FILE.json

The value of LADE and its gradient with respect to the logits, estimator "paper", in turns with two
others on the same logits:

    pytorch          the same maths as equations are written, with C × N masks and autograd
    cross-entropy    TensorFlow's sparse softmax cross-entropy, its mean and its gradient

LADE and cross-entropy run as a `tf.function`, "graph", and with `jit_compile=True`, "xla". The
ratios are those of the faster of the two on both sides, and below them each with its like. "in a
graph" chains the steps inside one `tf.function`, where a training step has its loss: the logits of
each are the gradient of the one before. "called from Python" is a call for each, as PyTorch's are;
"empty call" is how long TensorFlow takes for one that only writes an array of the logits' size.

The least to move is N·C logits read and N·C gradients written: `bandwidth_share` is the share of a
plain copy's rate at which the fastest in a graph does that.

The extra memory is by how much a step raises the peak of resident memory, in units of the logits'
size; it holds the gradient. It is measured with as many rows as make the logits 200 MB, and is the
median of three processes: in a graph it depends on what happens to run first.
"""

import concurrent.futures
import os
import time
from importlib import metadata

import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance

import lade_tf
from benchmarks import peak_memory
from lade_tf import priors

FLAGS = flags.FLAGS
ALPHA, REMINE_LAMBDA = 0.1, 0.01
COPIED_FLOATS = 64 * 2**20
MEASURED_FLOATS = 50_000_000
WARM_UP_ROWS = 16
CHAIN = 8  # steps in a block
VARIANTS = ("pytorch", "lade, graph", "lade, xla", "cross-entropy, graph", "cross-entropy, xla")
EMPTY = "empty call"


def make_batch(batch_size, num_classes):
    """Returns random logits [batch, classes] float32, labels [batch] and counts [classes]."""
    rng = np.random.default_rng(0)
    counts = priors.exponential_counts(1280, num_classes, 256)
    labels = rng.choice(num_classes, batch_size, p=priors.class_prior(counts))
    return rng.standard_normal((batch_size, num_classes), np.float32), labels, counts


def pytorch_step(logits, labels, counts):
    """Returns a function that gives LADE and its gradient as arrays, written plainly in PyTorch."""
    import torch

    prior = torch.tensor(priors.class_prior(counts), dtype=torch.float32)
    num_classes = len(counts)
    logits, labels = torch.tensor(logits, requires_grad=True), torch.tensor(labels)

    def lade():
        cross_entropy = torch.nn.functional.cross_entropy(logits + prior.log(), labels)
        is_class = labels[None, :] == torch.arange(num_classes)[:, None]  # [classes, batch]
        in_batch = is_class.sum(dim=1)
        positive = (logits.T * is_class).sum(dim=1) / in_batch.clamp(min=1)
        weighted = logits.T - (num_classes * prior).log()[labels]
        t = torch.logsumexp(weighted, dim=1) - np.log(len(labels))
        class_loss = t + REMINE_LAMBDA * t**2 - positive
        return cross_entropy + ALPHA * (prior * class_loss)[in_batch > 0].sum()

    def step():
        logits.grad = None
        value = lade()
        value.backward()
        return value.detach().numpy(), logits.grad.numpy()

    return step


def tensorflow_step(loss, logits, labels, jit_compile, chain=1):
    """Returns a function that gives the loss, of (labels, logits), and its gradient.

    Of a chain of steps each has the gradient of the one before for its logits.
    """

    @tf.function(jit_compile=jit_compile)
    def steps(labels, logits):
        for _ in range(chain):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(labels, logits)
            logits = tape.gradient(value, logits)
        return value, logits

    batch = tf.constant(labels), tf.constant(logits)
    return lambda: steps(*batch)


def cross_entropy(labels, logits):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def empty_step(logits, labels):
    """Returns a function that takes and gives what a step does, and computes next to nothing."""
    call = tf.function(lambda labels, logits: (logits[0, 0], 2 * logits), jit_compile=True)
    batch = tf.constant(labels), tf.constant(logits)
    return lambda: call(*batch)


def make_step(name, logits, labels, counts, chain=1):
    if name == "pytorch":
        return pytorch_step(logits, labels, counts)
    if name == EMPTY:
        return empty_step(logits, labels)
    lade = lade_tf.losses.LADE(counts, ALPHA, REMINE_LAMBDA)
    loss = lade if name.startswith("lade") else cross_entropy
    return tensorflow_step(loss, logits, labels, name.endswith("xla"), chain)


def check_same(batch):
    """Raises an AssertionError unless LADE is what PyTorch computes."""
    value, gradient = make_step("pytorch", *batch)()
    for name in ("lade, graph", "lade, xla"):
        other_value, other_gradient = make_step(name, *batch)()
        np.testing.assert_allclose(other_value, value, rtol=1e-5)
        np.testing.assert_allclose(other_gradient, gradient, rtol=1e-3, atol=1e-7)


def measure_times(batch, turns, chain):
    """Returns {name: seconds a step [turns]}; the variants take turns of `CHAIN` steps."""
    names = VARIANTS if chain > 1 else (*VARIANTS, EMPTY)
    steps = {name: make_step(name, *batch, chain) for name in names}
    seconds = {name: [] for name in names}
    for _ in range(turns + 1):
        for name, step in steps.items():
            calls = CHAIN if name == "pytorch" else CHAIN // chain
            step()  # wakes up its threads
            started = time.perf_counter()
            for _ in range(calls):
                step()
            seconds[name].append((time.perf_counter() - started) / CHAIN)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def ratios(seconds):
    """Returns the medians in milliseconds, and of the turns' ratios."""
    lade, plain = (
        [name for name in VARIANTS if name.startswith(kind)] for kind in ("lade", "cross-entropy")
    )
    return {
        "milliseconds": {n: round(1e3 * float(np.median(s)), 3) for n, s in seconds.items()},
        "lade / pytorch": ratio(seconds, lade, ["pytorch"]),
        "lade / cross-entropy": ratio(seconds, lade, plain),
        **{
            f"{n} / pytorch": ratio(seconds, [n], ["pytorch"])
            for n in (*lade, EMPTY)
            if n in seconds
        },
        **{f"{n} / {m}": ratio(seconds, [n], [m]) for n, m in zip(lade, plain, strict=True)},
    }


def ratio(seconds, names, others):
    """Returns the median of the turns' ratios of the fastest of `names` and of `others`."""
    name, other = (min(some, key=lambda n: np.median(seconds[n])) for some in (names, others))
    return round(float(np.median(seconds[name] / seconds[other])), 3)


def copy_rate():
    """Returns the bytes a second that a plain copy by all cores reads and writes."""
    cores = os.cpu_count()
    parts = [
        (np.ones(COPIED_FLOATS // cores, np.float32), np.zeros(COPIED_FLOATS // cores, np.float32))
        for _ in range(cores)
    ]
    seconds = []
    with concurrent.futures.ThreadPoolExecutor() as executor:
        for _ in range(7):
            started = time.perf_counter()
            list(executor.map(lambda part: np.copyto(part[1], part[0]), parts))
            seconds.append(time.perf_counter() - started)
    return 2 * sum(source.nbytes for source, _ in parts) / np.median(seconds)


def extra_memory(name, num_classes, floats):
    """Returns the growth of the peak by one step, in units of the logits' size."""
    make_step(name, *make_batch(WARM_UP_ROWS, num_classes))()
    batch = make_batch(-(-floats // num_classes), num_classes)
    return peak_memory.growth(make_step(name, *batch)) / batch[0].nbytes


def median_memory(name, num_classes):
    arguments = extra_memory, name, num_classes, FLAGS.memory_floats
    measured = [peak_memory.in_a_process(*arguments) for _ in range(FLAGS.processes)]
    return round(float(np.median(measured)), 2)


def measure(batch_size, num_classes, bandwidth):
    """Returns the row of one size."""
    batch = make_batch(batch_size, num_classes)
    check_same(batch)
    chained = measure_times(batch, FLAGS.turns, CHAIN)
    least_bytes = 2 * batch[0].nbytes
    fastest = min(float(np.median(chained[name])) for name in ("lade, graph", "lade, xla"))
    return {
        "in a graph": ratios(chained),
        "called from Python": ratios(measure_times(batch, FLAGS.turns, 1)),
        "least_bytes": least_bytes,
        "bandwidth_share": round(least_bytes / fastest / bandwidth, 3),
        "extra_memory": {name: median_memory(name, num_classes) for name in VARIANTS},
    }


def main():
    cli.check_new_file(FLAGS.output)
    tf.get_logger().setLevel("ERROR")  # that so many functions are traced is on purpose
    started = time.monotonic()
    bandwidth = copy_rate()
    print(f"a plain copy moves {bandwidth / 1e9:.1f} GB/s")
    sizes = {}
    for size in FLAGS.sizes:
        batch_size, num_classes = map(int, size.split("x"))
        sizes[size] = measure(batch_size, num_classes, bandwidth)
        print(size, *(f"    {name:32}{value}" for name, value in sizes[size].items()), sep="\n")
    if FLAGS.output:
        result = {
            "estimator": "paper",
            "pytorch": metadata.version("torch"),
            "copy_bytes_per_second": round(bandwidth),
            "sizes": sizes,
            "seed": 0,
        }
        provenance.write_measured(FLAGS.output, result, started)


if __name__ == "__main__":
    flags.DEFINE_list("sizes", "256x100,128x365,256x1000,256x8142", "Batches, examples × classes.")
    flags.DEFINE_integer("turns", 25, "Turns of each variant, 8 steps a turn.", lower_bound=1)
    flags.DEFINE_integer("processes", 3, "Processes that measure memory.", lower_bound=1)
    flags.DEFINE_integer("memory_floats", MEASURED_FLOATS, "Logits that memory is measured with.")
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
