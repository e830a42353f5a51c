"""What tests of replicas run in a process of their own.

TensorFlow fixes its devices when it starts, and the collectives of two strategies in one process
collide.
"""

import concurrent.futures
import os
import signal

import binaries
import keras
import numpy as np
import tensorflow as tf

import lade_tf

COUNTS = [60, 30, 8, 2]


def in_a_process(function, *args):
    """Returns `function(*args)`, computed in a fresh process."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=binaries.server) as executor:
        return executor.submit(function, *args).result()


def make_strategy(replicas):
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, devices)
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])


def make_batch(size, sort=False):
    """Returns logits [size, 4], labels and weights; `sort` puts a class on few replicas."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size)
    labels = np.sort(labels) if sort else labels
    logits = rng.normal(0, 8, (size, 4)).astype(np.float32)
    return logits, labels, rng.integers(0, 3, size).astype(np.float32)


def laders(number, cases):
    """Returns what `lader` gives of each case, of so many replicas."""
    strategy, sent = make_strategy(number), []
    context = tf.distribute.ReplicaContext
    all_gather = context.all_gather

    def recorded(self, value, axis):
        sent.append(tuple(value.shape))
        return all_gather(self, value, axis)

    context.all_gather = recorded
    results = []
    for case in cases:
        sent.clear()
        results.append((*lader(strategy, *case), list(sent)))
    return results


def lader(strategy, sizes, estimator, weighted, sort):
    """Returns LADER and its gradient, of replicas with `sizes` examples each.

    Both are the sums over replicas, weighted with their shares.
    """
    logits, labels, weights = make_batch(sum(sizes), sort)

    def part(array):
        parts = np.split(array, np.cumsum(sizes)[:-1])
        return strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(parts[replica.replica_id_in_sync_group])
        )

    @tf.function
    def step(logits, labels, weights):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value, share = lade_tf.ops.lader_and_share(
                logits, labels, COUNTS, 0.3, estimator, weights if weighted else None
            )
        return share * value, share * tape.gradient(value, logits)

    values, gradients = strategy.run(step, args=tuple(map(part, (logits, labels, weights))))
    parts = strategy.experimental_local_results(gradients)
    total = sum(value.numpy() for value in strategy.experimental_local_results(values))
    return total, np.concatenate([part.numpy() for part in parts])


def trainings(number, cases):
    """Returns what `train` gives of each case, of so many replicas."""
    strategy = make_strategy(number) if number > 1 else tf.distribute.get_strategy()
    return [train(strategy, *case) for case in cases]


def train(strategy, kind, estimator, epochs, jit_compile=False):
    """Returns the weights and the losses of a training on 22 images in batches of 8.

    The last batch has 6: four replicas get 2, 2, 2 and none.

    Args:
        strategy: of one or more replicas.
        kind: "model" for LADEModel, "loss" for the loss in a Keras model of the user's.
        jit_compile: whether to use XLA, with layer instead of batch normalisation.
    """
    replicas = strategy.num_replicas_in_sync
    rng = np.random.default_rng(1)
    images = rng.normal(size=(22, 6)).astype(np.float32)
    labels = rng.permutation(np.repeat([0, 1, 2, 3], [10, 7, 4, 1]))
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(5),
                keras.layers.LayerNormalization()
                if jit_compile
                else keras.layers.BatchNormalization(momentum=0.9, synchronized=replicas > 1),
                keras.layers.ReLU(),
                keras.layers.Dense(4),
            ]
        )
        parameters = (COUNTS, 0.5, 0.1, estimator)
        model, loss = network, lade_tf.losses.LADE(*parameters)
        if kind == "model":
            model, loss = lade_tf.LADEModel(network, *parameters), None
        model.compile(lade_tf.optimizers.SGD(0.05, l2=1e-3), loss, jit_compile=jit_compile)
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
        history = model.fit(data, epochs=epochs, shuffle=False, verbose=0).history
    return network.get_weights(), history


def train_on_unequal_first_batches(replicas):
    """Returns {kind: losses of fit and evaluate} of batches of 9, the first of which is unequal."""
    strategy = make_strategy(replicas) if replicas > 1 else tf.distribute.get_strategy()
    rng = np.random.default_rng(1)
    images = rng.normal(size=(9, 5)).astype(np.float32)
    labels, others = rng.integers(0, 4, (2, 9)).astype(np.int32)
    mixed = labels, others, np.full(9, 0.3, np.float32)
    losses = {}
    for kind in ("LADEModel", "AdaptedModel"):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
            own_loss = kind == "LADEModel"
            model = getattr(lade_tf, kind)(network, COUNTS)
            loss = None if own_loss else lade_tf.losses.BalancedSoftmax(COUNTS)
            model.compile(lade_tf.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        data = tf.data.Dataset.from_tensor_slices((images, mixed)).batch(9)
        trained = model.fit(data, epochs=2, verbose=0).history["loss"]
        measured = [model.evaluate(images[:n], labels[:n], batch_size=n, verbose=0) for n in (9, 1)]
        losses[kind] = np.array([*trained, *(values[0] for values in measured)])
    return losses


def show_weighted_losses(replicas):
    """Returns {kind: what fit and evaluate show} of weighted batches of 7 and 4 examples.

    The weights of the replicas' parts differ, one part has none at all.
    """
    strategy = make_strategy(replicas) if replicas > 1 else tf.distribute.get_strategy()
    rng = np.random.default_rng(1)
    images = rng.normal(size=(11, 5)).astype(np.float32)
    labels = rng.integers(0, 4, 11).astype(np.int32)
    weights = np.array([5, 0, 2, 0.5, 0, 0, 0, 3, 1, 0.1, 7], np.float32)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy
    losses = {
        "LADEModel": None,
        "LADE": lade_tf.losses.LADE(COUNTS, 0.5, 0.1),
        **{
            reduction: cross_entropy(from_logits=True, reduction=reduction)
            for reduction in ("sum_over_batch_size", "mean_with_sample_weight", "sum")
        },
    }
    shown = {}
    for kind, loss in losses.items():
        keras.utils.set_random_seed(0)
        with strategy.scope():
            dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1))
            network = keras.Sequential([keras.Input((5,)), dense])
            model = (
                lade_tf.LADEModel(network, COUNTS, 0.5, 0.1)
                if loss is None
                else lade_tf.AdaptedModel(network, COUNTS)
            )
            # Trained weights aren't what is compared here.
            model.compile(keras.optimizers.SGD(0.0), loss)
        data = tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(7)
        trained = model.fit(data, shuffle=False, verbose=0).history
        shown[kind] = {name: values[0] for name, values in trained.items()}
        measured = model.evaluate(data, verbose=0, return_dict=True)
        shown[kind] |= {f"val_{name}": value for name, value in measured.items()}
    return shown


def compiled_ops(replicas):
    """Returns the operations of a training step that XLA compiles, and the names of the others."""
    strategy = make_strategy(replicas)
    model, batch = small_lade_model(strategy)
    step = tf.function(lambda *batch: strategy.run(model.train_step, args=(batch,)))
    graph = step.get_concrete_function(*batch).graph.as_graph_def()
    functions = {function.signature.name: function for function in graph.library.function}
    compiled, others = set(), set()

    def walk(nodes, into):
        for node in nodes:
            called = [attr.func.name for attr in node.attr.values() if attr.HasField("func")]
            for function in map(functions.get, called):
                walk(function.node_def, compiled if _must_compile(function) else into)
            if not called:
                into.add(node.op)

    walk(graph.node, others)
    return compiled, others


def _must_compile(function):
    return function.attr["_XlaMustCompile"].b


def small_lade_model(strategy):
    """Returns a compiled LADEModel with XLA, and a batch."""
    with strategy.scope():
        layers = [keras.Input((5,)), keras.layers.Dense(7, "relu"), keras.layers.Dense(4)]
        model = lade_tf.LADEModel(keras.Sequential(layers), COUNTS)
        model.compile(lade_tf.optimizers.SGD(0.1), jit_compile=True)
        model.optimizer.build(model.trainable_variables)
    return model, (tf.zeros([8, 5]), tf.zeros([8], tf.int32))


def resumed(folder, replicas=2):
    """Returns the variables after a training that was broken off, and after one that wasn't."""
    strategy, results = make_strategy(replicas), []

    def batches(epoch):
        rng = np.random.default_rng([0, epoch])
        for _ in range(3):
            yield rng.normal(size=(9, 6)).astype(np.float32), rng.integers(0, 4, 9)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (1, 0):
                os.kill(os.getpid(), signal.SIGTERM)

    for name, callbacks in (("whole", []), ("cut", [Stop()]), ("cut", [])):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            layers = [keras.Input((6,)), keras.layers.Dropout(0.3), keras.layers.Dense(4)]
            model = lade_tf.LADEModel(keras.Sequential(layers), COUNTS)
            model.compile(keras.optimizers.Adam(0.01), metrics=["accuracy"])
        options = {"epochs": 2, "steps_per_epoch": 3, "callbacks": callbacks, "verbose": 0}
        try:
            lade_tf.training.fit(model, batches, f"{folder}/{name}", **options)
        except SystemExit:
            continue
        variables = [*model.variables, *model.optimizer.variables]
        results.append([keras.ops.convert_to_numpy(variable) for variable in variables])
    return results
