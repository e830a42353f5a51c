"""The exported model is served by TensorFlow alone, in an environment without this package."""

import json
import os
import subprocess
import sys
import venv

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf

PRIOR = [0.28] + [0.08] * 9

# Whatever this package asks for beside TensorFlow: none of it may be needed.
FOREIGN = ("lade_tf", "sklearn", "scipy", "tensorflow_datasets", "PIL", "tensorboard", "matplotlib")
ALONE = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import importlib.util
importlib.util.find_spec = lambda name: None
"""
SERVE = """
import importlib.util, json, sys
import numpy as np
import tensorflow as tf

assert importlib.util.find_spec("lade_tf") is None
served = tf.saved_model.load(sys.argv[1])
images = tf.constant(np.load(sys.argv[2]))
prior = tf.constant(json.loads(sys.argv[3]), tf.float32)
stored = served.signatures["serving_default"](images=images)["probabilities"]
passed = served.signatures["serve_with_prior"](images=images, target_prior=prior)["probabilities"]
one = served.signatures["serving_default"](images=images[:1])["probabilities"]
np.savez(sys.argv[4], stored=stored, passed=passed, one=one)
try:
    served.signatures["serve_with_prior"](images=images, target_prior=2 * prior)
except tf.errors.InvalidArgumentError as error:
    assert "target_prior must hold probabilities >= 0 that sum to 1" in str(error), error
else:
    raise AssertionError("a prior that sums to 2 was served")
"""


@pytest.mark.slow
def test_tensorflow_alone_serves_the_same_probabilities(lade_run, tmp_path):
    check_served(sys.executable, ALONE + SERVE, lade_run, tmp_path)


@pytest.mark.nightly
def test_a_clean_environment_serves_the_same_probabilities(lade_run, tmp_path):
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", f"tensorflow=={tf.__version__}"], check=True
    )
    check_served(python, SERVE, lade_run, tmp_path)


def check_served(python, code, lade_run, tmp_path):
    """Asserts that the code, in a process of its own, serves what the model of the run predicts."""
    images = lade_tf.data.load("digits_lt").test.images.astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [
            python, "-c", code, lade_run / "saved_model", tmp_path / "images.npy",
            json.dumps(PRIOR), tmp_path / "served.npz",
        ],
        check=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    model = keras.saving.load_model(lade_run / "best.keras")
    with np.load(tmp_path / "served.npz") as served:
        stored = tf.nn.softmax(model.predict(images, verbose=0))
        np.testing.assert_allclose(served["stored"], stored, atol=1e-6)
        np.testing.assert_allclose(served["one"], stored[:1], atol=1e-6)
        passed = tf.nn.softmax(model(images, target_prior=np.array(PRIOR)))
        np.testing.assert_allclose(served["passed"], passed, atol=1e-6)
