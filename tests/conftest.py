"""Shared by all tests: a quiet TensorFlow with two CPU devices, and a fresh global state each."""

import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

# One CPU as two devices, so that replicas can be tested anywhere. TensorFlow refuses to change
# its devices once it has started, hence here and not in a fixture.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_collection_finish():
    """What TensorFlow and Keras made while they were imported is no garbage: don't search it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """The graphs of a module end with it; their cycles would live until a worker holds 4 GB."""
    yield
    keras.utils.clear_session()
    gc.collect()


@pytest.fixture(autouse=True)
def fresh_global_state():
    """Every test starts from seed 0 and leaves the dtype policy as it found it."""
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy of two replicas on one machine; of two in one process the all-reduces collide."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data beside the repository."""
    path = pathlib.Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the shared data, and {path} does not exist")
    return path
