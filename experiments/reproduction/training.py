"""The training of a configuration: what is built of it, its batches, and how it goes on."""

import sys

import keras
import tensorflow as tf

from lade_tf import evaluation, layers, optimizers
from lade_tf.checks import check_integer
from lade_tf.files import replacing, write_json
from lade_tf.training import checkpoints
from lade_tf.training.callbacks import Checkpoint, StopOnNaN, StopOnSignal
from reproduction import builders, device_loop, strategies
from reproduction.methods import POLICIES
from reproduction.run_folder import RunFolder

PROBE_IMAGES = 32
# What a result holds metrics under.
REPORTED = ("test", "forward:50", "forward:10", "uniform", "backward:10", "backward:50")
# The paths of the variables that --backbone_learning_rate is for: all but those of the heads.
BODY = "^(?!logits/|class_scale/|modulated_attention/|meta_embedding/)"


def build_trainee(config, data):
    """Returns the `Trainee` of a run, initialised from its seed, compiled, optimizer built."""
    keras.config.set_dtype_policy(POLICIES[config.precision])
    check_integer(config.seed, "--seed", minimum=0)
    keras.utils.set_random_seed(config.seed)
    steps = 1
    if config.num_epochs:
        steps = data.steps_per_epoch(config.batch_size)
        train_batches(config, data, initial_epoch=0)  # refuses what can't be drawn
    start = [first_stage(config, data)] if config.method.second_stage else []
    trainee = config.method.build(config, data, *start)
    slower = config.backbone_learning_rate
    optimizer = optimizers.SGD(
        _schedule(config, steps),
        momentum=config.momentum,
        l2=config.l2,
        learning_rate_factors=[] if slower is None else [(BODY, slower / config.learning_rate)],
        use_ema=bool(config.ema),
        ema_momentum=config.ema or 0.0,
    )
    trainee.model.compile(optimizer=optimizer, loss=trainee.loss, metrics=["accuracy"])
    trainee.model.optimizer.build(trainee.model.trainable_variables)
    return trainee


def first_stage(config, data):
    """Returns the softmax run that a second stage starts from, or refuses another.

    Of a folder of images the configuration doesn't say which, so the data themselves are compared.
    """
    if config.init_from is None:
        raise ValueError(
            f"--loss={config.loss} starts from a finished softmax run: give --init_from=RUN"
        )
    run = RunFolder(config.init_from)
    run.test_logits()  # refuses what isn't a finished run
    if differences := config.first_stage_differences(run.config):
        raise ValueError(
            f"--init_from={run.path} must be a softmax run with the same data, backbone and "
            f"recipe: {differences}"
        )
    if other_data := run.data_differences(data):
        raise ValueError(
            f"--init_from={run.path} was trained on other data than --data_dir has ({other_data}): "
            "give a softmax run on the same"
        )
    return run


def _schedule(config, steps_per_epoch):
    if config.schedule == "cosine":
        epochs = max(1, config.num_epochs)
        return optimizers.CosineByEpoch(config.learning_rate, steps_per_epoch, epochs)
    return optimizers.WarmupStepDecay(
        config.learning_rate,
        steps_per_epoch,
        milestones=config.milestones,
        factor=config.factor,
        warmup_epochs=config.warmup_epochs,
    )


def train_batches(config, data, initial_epoch):
    """Streams the training batches of a configuration from an epoch on."""
    samplers = ("instance", "reversed") if config.method.paired else (config.sampler,)
    streams = [
        data.train_batches(
            config.batch_size,
            config.num_epochs,
            config.seed,
            initial_epoch,
            sampler=sampler,
            augment=config.augment,
            mixup_alpha=config.mixup,
        )
        for sampler in samplers
    ]
    if not config.method.paired:
        return streams[0]
    return tf.data.Dataset.zip(*streams).map(
        tf.autograph.experimental.do_not_convert(lambda *pair: tuple(zip(*pair, strict=True)))
    )


def recompute_statistics(model, config, data):
    """Gives averaged weights the batch statistics that belong to them, as in SWA.

    One epoch of training batches goes through the network, which notes their statistics.
    """
    epoch = config.num_epochs - 1
    forward = tf.function(lambda x: model.network(x, training=True), autograph=False)
    for images, _ in train_batches(config, data, initial_epoch=epoch):
        forward(images)


def method_callbacks(config):
    """Returns the Keras callbacks that the method itself needs."""
    if config.loss == "causal_norm" and builders.follows_learning_rate(config):
        return [layers.CausalNormMomentum()]
    return []


def train(config, data, run, model, strategy, loop="steps", keep_every=0):
    """Trains from the last checkpoint, or the start, to the last epoch.

    Args:
        config: of the run.
        data: its data set.
        run: its `RunFolder`.
        model: compiled, its optimizer built.
        strategy: that it was built under.
        loop: "steps", or "device" for epochs that are one XLA program each.
        keep_every: of every how manieth epoch the checkpoint is kept; 0 for none.
    """
    epochs = config.num_epochs
    while (progress := restore(run, model, strategy)).epoch < epochs:
        # An epoch that was broken off comes to its end on its own, then the rest.
        until = progress.epoch + 1 if progress.step else epochs
        fit(config, data, run, model, strategy, progress, until, loop, keep_every)


def restore(run, model, strategy):
    progress = checkpoints.restore(run, model)
    done = progress.epoch
    if len(run.read_history()) < done:
        raise ValueError(f"{run.file('history.csv')} must have a row for each of {done} epochs")
    strategies.check_agreed(strategy, [done, progress.step], "checkpoint (epoch, step)")
    return progress


def fit(config, data, run, model, strategy, progress, epochs, loop, keep_every):
    """Trains from `progress` until `epochs` are done; else as `train`."""
    steps = data.steps_per_epoch(config.batch_size)
    probe, _ = next(iter(data.test_batches(PROBE_IMAGES)))
    is_chief = strategies.is_chief(strategy)
    checkpoint = Checkpoint(
        run if is_chief else None, steps, probe, progress, keep_every, batch_size=config.batch_size
    )
    callbacks = [
        *method_callbacks(config),
        StopOnNaN(run, steps, progress),
        checkpoint,
        StopOnSignal(checkpoint, inside_epochs=not strategies.is_multi_worker(strategy)),
    ]
    if is_chief:
        callbacks.append(keras.callbacks.TensorBoard(run.file("tensorboard"), write_graph=False))
    validation = validation_batches(config, data)
    verbose = (1 if sys.stdout.isatty() else 2) if is_chief else 0
    # What is left of an epoch that was broken off goes step by step.
    if loop == "device" and not progress.step:
        start = progress.epoch
        device_loop.fit(config, data, run, model, start, epochs, callbacks, validation, verbose)
        return
    model.fit(
        train_batches(config, data, progress.epoch).skip(progress.step),
        initial_epoch=progress.epoch,
        epochs=epochs,
        steps_per_epoch=steps - progress.step,
        validation_data=validation,
        shuffle=False,
        verbose=verbose,
        callbacks=callbacks,
    )
    strategies.wait_for_all(strategy)  # for the last checkpoint


def validation_batches(config, data):
    """Returns the validation images, None where there are none: then the last epoch is selected.

    Averaged weights are selected at the end too: they aren't what an epoch is validated with.
    """
    if data.val is None or config.ema:
        return None
    return data.plain_batches("val", config.batch_size)


def finish(config, data, run, trainee, more):
    """Writes the model, its test logits and, last of all, the result with `more`; returns it."""
    model, history = trainee.model, run.read_history()
    selected = {}
    if run.file(checkpoints.BEST).exists():
        best = checkpoints.load(run.file(checkpoints.BEST), model)
        selected = {"selected_epoch": best.epoch}
    if config.ema:
        # The averages take the weights' place; a second time changes nothing.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        recompute_statistics(model, config, data)
    with replacing(run.file("best.keras")) as temporary:
        model.save(temporary)
    saved = trainee.test_logits(model, data)
    saved.save(run.file("test_logits.npz"))
    remarks = evaluation.remarks(evaluation.tested_counts(saved), saved.class_names)
    result = {
        "config": config.to_json(),
        **selected,
        **({"trained_on": run.trained_on()} if run.trained_on() else {}),
        **({"chosen": trainee.chosen} if trainee.chosen else {}),
        **summarise(saved),
        **({"remarks": remarks} if remarks else {}),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in history), 1),
        "hashes": run.hashes(),
        **more,
    }
    write_json(run.file("result.json"), result)
    return result


def summarise(saved):
    """Returns the metrics at the uniform prior, those of the unadapted logits, and all reported."""
    uniform = evaluation.prior_for(saved, "uniform")
    return {
        "metrics": evaluation.evaluate(saved, uniform, uniform),
        "metrics_unadapted": evaluation.evaluate(saved, saved.source_prior, uniform),
        "metrics_shifted": evaluation.evaluate_shifts(saved, REPORTED),
    }
