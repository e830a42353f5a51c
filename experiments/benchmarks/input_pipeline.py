"""Images a second of the input pipeline at 224 pixels, and of the same work done with Pillow.

    cd experiments && python -m benchmarks.input_pipeline --images=FOLDER --output=FILE.json

Decoding alone, and the steps of training one by one: decoding of a random crop, then resizing too,
then colour jitter too, and all of it, with mirroring and making batches. Pillow does all of it, in
one thread of the same process, which is bound to one core; the variants take turns. Their speeds
are in seconds of that core's time, which other work on the machine hardly changes. Training batches
also come from two cores, in a process of their own, and are timed by the clock: that wants an idle
machine. Shown are the fastest turns. Operations have one thread each, as train.py has it where
there is a GPU. Memory is that of a process that only makes training batches. Linux only.
"""

import collections
import concurrent.futures
import multiprocessing
import os
import pathlib
import resource
import time

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image, ImageEnhance
from reproduction import cli, provenance

from lade_tf.data import FileData, FileSplit
from lade_tf.data.augmentation import color_jitter, resized_crop
from lade_tf.data.files import image_decoding, records

FLAGS = flags.FLAGS
flags.DEFINE_string("images", None, "Folder of JPEG images, in subfolders or not.", required=True)
flags.DEFINE_integer("turns", 9, "Turns of each variant.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")

BATCH_SIZE = 50
VARIANTS = (
    "decode",
    "decode and crop",
    "crop and resize",
    "crop, resize and jitter",
    "training",
    "Pillow",
)
SIZE = 224
JITTER = 0.4
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
# Batches that are ready, or nearly so, before a turn starts.
READY_BATCHES = 4
FOREVER = 1_000_000


def make_data(paths):
    split = FileSplit(tuple(paths), np.zeros(len(paths), np.int32))
    half = (0.5, 0.5, 0.5)
    return FileData("benchmark", ("image",), split, split, None, half, half, JITTER, SIZE)


def decode(contents, *_):
    return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


def decode_and_crop(contents, crop_draws, *_):
    def choose(height, width):
        return resized_crop.random_window(height, width, crop_draws)

    return image_decoding.decode_window(contents, choose, SIZE)


def crop_and_resize(contents, *draws):
    return resized_crop.resize(decode_and_crop(contents, *draws), SIZE)


def crop_resize_and_jitter(contents, crop_draws, factors, order):
    return color_jitter.color_jitter(crop_and_resize(contents, crop_draws), factors, order)


def single_pixels(paths, function):
    """Streams a number of each image that `function` makes of a file's contents and the draws."""
    names = image_decoding.path_tensor(paths)

    def draw(step):
        seed = tf.stack([tf.zeros_like(step), step])
        crops = resized_crop.draw_crops(len(paths), seed)
        return (crops, *color_jitter.draw_jitter(len(paths), seed, JITTER))

    def load(position, draws):
        # Not the shape, for which TensorFlow would leave out what can't change it.
        return function(records.read(names[position % len(paths)]), *draws)[0, 0, 0]

    numbers = tf.data.Dataset.range(FOREVER).map(draw).unbatch()
    elements = tf.data.Dataset.zip(tf.data.Dataset.range(FOREVER * len(paths)), numbers)
    pixels = elements.map(load, num_parallel_calls=image_decoding.PARALLEL_FILES)
    return pixels.batch(BATCH_SIZE)


def pillow_batches(paths):
    """Makes the training batches of an epoch with Pillow."""
    rng = np.random.default_rng()
    order = rng.permutation(paths)
    for start in range(0, len(paths) - BATCH_SIZE + 1, BATCH_SIZE):
        yield np.stack([pillow_image(path, rng) for path in order[start : start + BATCH_SIZE]])


def pillow_image(path, rng):
    image = Image.open(path).convert("RGB")
    draws = rng.random((resized_crop.ATTEMPTS, 4))
    top, left, height, width = pillow_window(image.height, image.width, draws)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for position in rng.permutation(len(ENHANCERS)):
        image = ENHANCERS[position](image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return np.asarray(image, np.float32)


def pillow_window(rows, columns, draws):
    for area, aspect, top, left in draws:
        area = rows * columns * (0.08 + 0.92 * area)
        aspect = (3 / 4) ** (1 - 2 * aspect)
        height, width = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        if 0 < height <= rows and 0 < width <= columns:
            return int(top * (rows - height + 1)), int(left * (columns - width + 1)), height, width
    return 0, 0, rows, columns


def make_run(stream, batches):
    """Returns a function that takes batches from a stream and leaves it at rest."""
    iterator = iter(stream.with_options(threads()))

    def take(count):
        for _ in range(count):
            next(iterator)

    def run():
        # Batches that were made before the turn are taken first.
        take(READY_BATCHES)
        seconds = timed(lambda: take(batches))
        # The next variant must not be slowed down by those that are made after it.
        while timed(lambda: time.sleep(0.2))["core"] > 0.02:
            pass
        return seconds

    return run


def threads():
    options = tf.data.Options()
    options.threading.private_threadpool_size = len(os.sched_getaffinity(0))
    return options


def timed(function):
    """Returns the seconds that a call takes: of this process' cores, and by the clock."""
    core, clock = time.process_time(), time.perf_counter()
    function()
    return {"core": time.process_time() - core, "clock": time.perf_counter() - clock}


def measure(paths, turns, names):
    """Returns {variant: {"core" or "clock": images a second of the fastest turn}}."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    batches = len(paths) // BATCH_SIZE
    training = make_data(paths).train_batches(BATCH_SIZE, FOREVER, seed=0)
    variants = {
        "decode": make_run(single_pixels(paths, decode), batches),
        "decode and crop": make_run(single_pixels(paths, decode_and_crop), batches),
        "crop and resize": make_run(single_pixels(paths, crop_and_resize), batches),
        "crop, resize and jitter": make_run(single_pixels(paths, crop_resize_and_jitter), batches),
        "training": make_run(training, batches),
        "Pillow": lambda: timed(lambda: collections.deque(pillow_batches(paths), maxlen=0)),
    }
    seconds = {name: [] for name in names}
    for _ in range(turns + 1):
        for name in names:
            seconds[name].append(variants[name]())
    # The first turn warms up.
    return {
        name: {
            kind: batches * BATCH_SIZE / min(turn[kind] for turn in seconds[name][1:])
            for kind in ("core", "clock")
        }
        for name in names
    }


def measure_memory(paths):
    """Returns the MiB that this process holds when TensorFlow has started, and at most."""
    tf.zeros([])
    before = max_memory()
    for _ in make_data(paths).train_batches(BATCH_SIZE, 4, seed=0):
        pass
    return before, max_memory()


def max_memory():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def in_process(cores, function, *arguments):
    """Calls a function in a new process that is bound to so many cores."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:cores])
    try:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.sched_setaffinity(0, all_cores)


def main():
    if len(os.sched_getaffinity(0)) < 2:
        raise ValueError("this benchmark needs two cores; this process may use one")
    cli.check_new_file(FLAGS.output)
    files = pathlib.Path(FLAGS.images).resolve().rglob("*")
    paths = sorted(str(path) for path in files if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(paths) < BATCH_SIZE:
        raise ValueError(f"--images={FLAGS.images} must hold {BATCH_SIZE} JPEGs; got {len(paths)}")
    started = time.monotonic()
    one = in_process(1, measure, paths, FLAGS.turns, VARIANTS)
    two = in_process(2, measure, paths, FLAGS.turns, ["training"])
    before, peak = in_process(2, measure_memory, paths)
    results = {
        "images": len(paths),
        "batch_size": BATCH_SIZE,
        "variants": {
            name: {
                "images_per_core_second": round(speed["core"]),
                "milliseconds": round(1e3 / speed["core"], 2),
                "ratio_to_pillow": round(speed["core"] / one["Pillow"]["core"], 2),
            }
            for name, speed in one.items()
        },
        "two_cores_over_one": round(two["training"]["clock"] / one["training"]["clock"], 2),
        "memory_mib": {"tensorflow_started": before, "peak": peak},
    }
    for name, result in results["variants"].items():
        print(f"{name:25}{result}")
    print(f"training on two cores over one: {results['two_cores_over_one']}")
    print(f"memory in MiB: {results['memory_mib']}")
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, results, started)


if __name__ == "__main__":
    cli.run(main)
