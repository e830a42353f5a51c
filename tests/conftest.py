"""Shared by all tests: a quiet TensorFlow with two CPU devices, and a fresh global state each."""

import ctypes
import gc
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

# One CPU as two devices, so that replicas can be tested anywhere. TensorFlow refuses to change
# its devices once it has started, hence here and not in a fixture.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def free_memory():
    """Frees what nothing uses any more, and gives it back to the system.

    What is left, TensorFlow and Keras themselves first of all, is no garbage and stays so: later
    searches for garbage leave it out, which are a sixth of the tests' time otherwise.
    """
    keras.utils.clear_session()
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def pytest_collection_finish():
    free_memory()


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """The graphs of a module end with it; a worker would hold 4 GB of them in the end."""
    yield
    free_memory()


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
