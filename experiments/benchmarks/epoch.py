"""Images a second of whole training epochs, as ratios to PyTorch measured in one run.

    cd experiments && python -m benchmarks.epoch --output=FILE.json

ResNet-32 (BBN variant), batches of 256 and CIFAR-100-LT's sizes with random pixels, in float32 and
bfloat16, crops and flips included on both sides. Here it is the recipe with LADE, one stream of
batches for all epochs as in `fit`; in PyTorch the same network in channels-last with plain softmax
cross-entropy, bfloat16 by autocast. Each variant has a process of its own and they take turns. All
get the same allocator settings, which help both: freed memory is kept, in huge pages.

Then, where the time of our operations goes, by TensorFlow's profiler.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import tempfile
import time
from importlib import metadata

import numpy as np
import tensorflow as tf
from absl import flags
from reproduction import cli, provenance, training
from reproduction.config import RunConfig

from benchmarks.cifar_sized import make_data
from benchmarks.turns import ratio

FLAGS = flags.FLAGS
PRECISIONS = ("float32", "bfloat16")
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
SHOWN_OPERATIONS = 12
PARAMETERS = 550_388  # of both networks
PADDING = 4


def our_epoch(precision, batch_size, steps):
    """Returns a function that trains an epoch of so many steps, and the number of parameters."""
    data = make_data()
    given = {"precision": precision, "batch_size": batch_size}
    config = RunConfig.resolve("cifar100_lt", "lade", **given)
    model = training.build_trainee(config, data).model
    model.make_train_function()
    batches = iter(training.train_batches(config, data, initial_epoch=0))

    def epoch():
        for _ in range(steps):
            model.train_function(batches)

    return epoch, sum(weight.shape.num_elements() for weight in model.trainable_weights)


def pytorch_network(num_classes):
    """Returns the BBN variant of ResNet-32 with a linear classifier."""
    import torch
    from torch.nn import functional

    def conv_bn(inputs, channels, stride=1):
        conv = torch.nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(channels))

    class Block(torch.nn.Module):
        def __init__(self, inputs, channels):
            super().__init__()
            self.stride = 1 if inputs == channels else 2
            self.padding = (channels - inputs) // 2
            self.first = conv_bn(inputs, channels, self.stride)
            self.second = conv_bn(channels, channels)

        def forward(self, x):
            y = self.second(functional.relu(self.first(x), inplace=True))
            if self.stride > 1:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
            return functional.relu(y + x, inplace=True)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            widths = [16] * 6 + [32] * 5 + [64] * 4
            self.stem = conv_bn(3, widths[0])
            blocks = [Block(*pair) for pair in zip(widths, widths[1:], strict=False)]
            self.body = torch.nn.Sequential(*blocks)
            self.branches = torch.nn.ModuleList([Block(64, 64), Block(64, 64)])
            self.logits = torch.nn.Linear(128, num_classes)

        def forward(self, x):
            x = self.body(functional.relu(self.stem(x), inplace=True))
            x = torch.cat([branch(x) for branch in self.branches], dim=1)
            return self.logits(x.mean(dim=(2, 3)))

    return Network()


def pytorch_epoch(precision, batch_size, steps):
    """Returns what `our_epoch` does, with crops and flips too."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    data = make_data()
    size = data.train.images.shape[1]
    images = torch.tensor(data.train.images)
    images = torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    labels = torch.tensor(data.train.labels, dtype=torch.long)
    network = pytorch_network(data.num_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

    def augmented(chosen):
        tops, lefts = torch.randint(0, 2 * PADDING + 1, (2, len(chosen), 1))
        columns = torch.arange(size)
        columns = torch.where(torch.rand(len(chosen), 1) < 0.5, columns.flip(0), columns) + lefts
        rows = tops + torch.arange(size)
        crops = images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        # [batch, height, width, channels] seen as channels first is channels-last.
        return (crops.float() / 64 - 2).permute(0, 3, 1, 2)

    def epoch():
        for chosen in torch.randperm(len(images))[: steps * batch_size].split(batch_size):
            x = augmented(chosen)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = network(x)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch, sum(parameter.numel() for parameter in network.parameters())


MAKERS = {"lade_tf": our_epoch, "pytorch": pytorch_epoch}
prepared = None  # the epoch of this process


def prepare(maker, *arguments):
    """Makes the epoch of this process, runs it once and returns the network's parameters."""
    global prepared
    prepared, parameters = MAKERS[maker](*arguments)
    prepared()
    return parameters


def timed_epoch():
    started = time.perf_counter()
    prepared()
    return time.perf_counter() - started


def profiled():
    """Returns {operation: share of the time of all}, of the slowest, in an epoch of ours."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        prepared()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(pathlib.Path(folder).rglob("*.xplane.pb")).read_bytes())
    total = collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            # "name:Operation"; the executor's own events, which hold these, have "::".
            name, _, operation = plane.event_metadata[event.metadata_id].name.partition(":")
            if name and operation.isidentifier():
                total[operation] += event.duration_ps
    whole = sum(total.values())
    return {name: round(t / whole, 3) for name, t in total.most_common(SHOWN_OPERATIONS)}


@contextlib.contextmanager
def processes(variants):
    """Gives {variant: executor of one process}, with `ENVIRONMENT` in place."""
    os.environ.update(ENVIRONMENT)
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        yield {
            variant: stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
            )
            for variant in variants
        }


def measure(precision, size):
    """Returns ({variant: images a second [turns]}, shares of our operations)."""
    batch_size, steps, turns = size
    images = batch_size * steps
    speeds = {name: [] for name in MAKERS}
    with processes(MAKERS) as workers:
        parameters = {
            worker.submit(prepare, name, precision, batch_size, steps).result()
            for name, worker in workers.items()
        }
        if parameters != {PARAMETERS}:
            raise AssertionError(f"both networks must have {PARAMETERS:,} parameters: {parameters}")
        for _ in range(turns):
            for name, worker in workers.items():
                speeds[name].append(images / worker.submit(timed_epoch).result())
        shares = workers["lade_tf"].submit(profiled).result()
    return {name: np.array(values) for name, values in speeds.items()}, shares


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    results = {}
    for precision in FLAGS.precisions:
        size = FLAGS.batch_size, FLAGS.epoch_steps, FLAGS.turns
        speeds, shares = measure(precision, size)
        results[precision] = {
            "images a second": {n: round(float(np.median(s)), 1) for n, s in speeds.items()},
            "lade_tf / pytorch": ratio(speeds, "lade_tf", "pytorch"),
            "share of our operations' time": shares,
        }
        print(precision, *(f"    {n:32}{v}" for n, v in results[precision].items()), sep="\n")
    if FLAGS.output:
        result = {
            "batch_size": FLAGS.batch_size,
            "steps": FLAGS.epoch_steps,
            "parameters": PARAMETERS,
            "precisions": results,
            "environment": ENVIRONMENT,
            "pytorch": metadata.version("torch"),
            "seed": 0,
        }
        provenance.write_measured(FLAGS.output, result, started)


if __name__ == "__main__":
    flags.DEFINE_integer("batch_size", 256, "Images in a step.", lower_bound=1)
    flags.DEFINE_integer("epoch_steps", 42, "Steps of an epoch.", lower_bound=1, upper_bound=42)
    flags.DEFINE_integer("turns", 5, "Epochs of each that are timed.", lower_bound=1)
    flags.DEFINE_multi_enum("precisions", PRECISIONS, PRECISIONS, "Precisions to compare in.")
    flags.DEFINE_string("output", None, "JSON file to write; must be new.")
    cli.run(main)
