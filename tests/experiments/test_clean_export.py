"""The exported model is served by TensorFlow alone, in an environment without this package."""

import json
import subprocess
import venv

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf

PRIOR = [0.28] + [0.08] * 9

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
def test_a_clean_environment_serves_the_same_probabilities(lade_run, tmp_path):
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", f"tensorflow=={tf.__version__}"], check=True
    )
    images = lade_tf.data.load("digits_lt").test.images.astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [
            python, "-c", SERVE, lade_run / "saved_model", tmp_path / "images.npy",
            json.dumps(PRIOR), tmp_path / "served.npz",
        ],
        check=True,
        cwd=tmp_path,
    )  # fmt: skip
    model = keras.saving.load_model(lade_run / "best.keras")
    with np.load(tmp_path / "served.npz") as served:
        stored = tf.nn.softmax(model.predict(images, verbose=0))
        np.testing.assert_allclose(served["stored"], stored, atol=1e-6)
        np.testing.assert_allclose(served["one"], stored[:1], atol=1e-6)
        passed = tf.nn.softmax(model(images, target_prior=np.array(PRIOR)))
        np.testing.assert_allclose(served["passed"], passed, atol=1e-6)
