"""--strategy: on which devices of this machine a run trains."""

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored")


def make(name, replicas=None):
    """Returns the tf.distribute strategy.

    Args:
        name: "one_device", "mirrored", or "auto" for mirrored where there are several GPUs or
            `replicas` is more than 1.
        replicas: how many devices, default all GPUs. Without a GPU the CPU is split into so many,
            which is no faster, but computes the same.

    Raises:
        ValueError: for more replicas than GPUs, or several on one device.
    """
    gpus = tf.config.list_physical_devices("GPU")
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
