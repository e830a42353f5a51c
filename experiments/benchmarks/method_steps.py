"""What a training step of every method costs, and how many parameters it adds to softmax.

    cd experiments && python -m benchmarks.method_steps --output=FILE.json

ResNet-32 on CIFAR-100-LT's sizes with random pixels, the recipe of each method, a batch resident in
memory. Blocks of steps of softmax and of the methods take turns; the median of the ratios to
softmax's block of the same turn is shown. A step is the recipe's: BBN's has two batches of 128
images, the others' one of 256, and a second stage's is one of its own training.
"""

import tempfile
import time

import tensorflow as tf
from absl import flags
from reproduction import cli, methods, provenance, training
from reproduction.config import RunConfig
from reproduction.run_folder import RunFolder

from benchmarks.cifar_sized import make_data
from benchmarks.turns import ratio, take_turns
from lade_tf.files import write_json

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 5, "Steps in a block.", lower_bound=1)
flags.DEFINE_integer("blocks", 9, "Blocks of each method.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write; must be new.")


def save_first_stage(data, folder):
    """Makes `folder` a finished softmax run of an untrained network."""
    run = RunFolder(folder)
    config = RunConfig.resolve("cifar100_lt", "softmax")
    trainee = training.build_trainee(config, data)
    run.claim(config, data)
    trainee.model.save(run.file("best.keras"))
    trainee.test_logits(trainee.model, data).save(run.file("test_logits.npz"))
    write_json(run.file("result.json"), {"config": config.to_json()})


def configuration(loss, folder):
    first = {"init_from": str(folder)} if methods.METHODS[loss].second_stage else {}
    return RunConfig.resolve("cifar100_lt", loss, **first)


def make_block(config, model, data):
    """Returns a function that takes a block of training steps of a compiled model."""
    batch = next(iter(training.train_batches(config, data, initial_epoch=0)))
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()
    return lambda: [model.train_function(iterator) for _ in range(FLAGS.steps)]


def main():
    cli.check_new_file(FLAGS.output)
    started = time.monotonic()
    data = make_data()
    with tempfile.TemporaryDirectory() as folder:
        save_first_stage(data, folder)
        configs = {loss: configuration(loss, folder) for loss in methods.METHODS}
        models = {loss: training.build_trainee(c, data).model for loss, c in configs.items()}
    trained = [loss for loss, config in configs.items() if config.num_epochs]
    blocks = {loss: make_block(configs[loss], models[loss], data) for loss in trained}
    seconds = take_turns(blocks, FLAGS.blocks)
    size = models["softmax"].network.count_params()
    results = {
        loss: {
            "extra_parameters": model.network.count_params() - size,
            "step / softmax": ratio(seconds, loss, "softmax") if loss in trained else None,
        }
        for loss, model in models.items()
    }
    for loss, result in results.items():
        print(f"{loss:20}{result}")
    if FLAGS.output:
        provenance.write_measured(FLAGS.output, {"methods": results, "seed": 0}, started)


if __name__ == "__main__":
    cli.run(main)
