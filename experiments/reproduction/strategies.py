"""--strategy: on which devices, of this machine or of several, a run trains."""

import json
import os

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
# What the others raise when a worker stops.
WORKER_GONE = tf.errors.UnavailableError, tf.errors.AbortedError


def make_deterministic():
    """Makes operations that can be deterministic so, at the price of speed."""
    tf.config.experimental.enable_op_determinism()


def make(name, replicas=None):
    """Returns the tf.distribute strategy. Nothing may have run on TensorFlow before.

    Args:
        name: "one_device", "mirrored", "multi_worker" for the machines in TF_CONFIG, or "auto" for
            mirrored where there are several GPUs or `replicas` is more than 1.
        replicas: how many devices, default all GPUs. Without a GPU the CPU is split into so many,
            which is no faster, but computes the same.

    Raises:
        ValueError: for more replicas than GPUs, several on one device, or a TF_CONFIG that doesn't
            name this worker.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        # The CPU only makes batches then, several images at a time. Threads inside an operation
        # get in their way: on two cores a pipeline of photographs is 1.2 times as fast as on one,
        # without them 1.7 times (benchmarks/input_pipeline.py).
        tf.config.threading.set_intra_op_parallelism_threads(1)
    if name == "multi_worker":
        return _multi_worker(replicas)
    wanted = replicas or len(gpus) or 1
    if name == "one_device" and (replicas or 1) > 1:
        raise ValueError(f"--replicas={replicas} needs --strategy=mirrored")
    if name == "one_device" or (name == "auto" and wanted == 1):
        return tf.distribute.get_strategy()
    if gpus and wanted > len(gpus):
        raise ValueError(f"--replicas={wanted} must be at most {len(gpus)}, the GPUs here")
    if not gpus:
        parts = [tf.config.LogicalDeviceConfiguration()] * wanted
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    kind = "GPU" if gpus else "CPU"
    return tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(wanted)])


def _multi_worker(replicas):
    if replicas is not None:
        raise ValueError(f"--replicas={replicas} means nothing with --strategy=multi_worker")
    text = os.environ.get("TF_CONFIG", "")
    try:
        machines = json.loads(text)
        workers, task = machines["cluster"]["worker"], machines["task"]
        named = task["type"] == "worker" and 0 <= int(task["index"]) < len(workers)
    except (ValueError, KeyError, TypeError):
        named = False
    if not named:
        raise ValueError(
            "--strategy=multi_worker needs the environment variable TF_CONFIG, all workers and "
            'which of them this is, such as {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            f'"task": {{"type": "worker", "index": 0}}}}; got {text!r}'
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_multi_worker(strategy):
    """Returns whether the replicas are on several machines."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Returns whether this process is the one that writes: of several workers the first."""
    return not is_multi_worker(strategy) or strategy.cluster_resolver.task_id == 0


def wait_for_all(strategy):
    """Returns when every worker has come here."""
    if is_multi_worker(strategy):
        _of_all(strategy, [0, 0])


def check_agreed(strategy, numbers, what):
    """Raises a ValueError if the workers have different numbers, such as epochs done."""
    if not is_multi_worker(strategy):
        return
    found = _of_all(strategy, numbers)
    if found != [numbers] * len(found):
        raise ValueError(
            f"all workers must find the same {what}; they found {found}. --run_dir must be one "
            "folder that all machines share"
        )


def _of_all(strategy, numbers):
    """Returns the numbers of every replica, as a list of lists."""
    gathered = _gather(strategy, tf.constant(numbers))
    return strategy.experimental_local_results(gathered)[0].numpy().tolist()


@tf.function(reduce_retracing=True)
def _gather(strategy, numbers):
    replica = tf.distribute.get_replica_context
    return strategy.run(lambda own: replica().all_gather(own[None], axis=0), args=(numbers,))
