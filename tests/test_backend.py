"""Keras on another backend is refused in one sentence, when lade_tf is imported."""

import importlib
import os
import subprocess
import sys

import keras
import pytest

import lade_tf


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_another_backend_is_refused_before_keras_looks_for_it(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", "import lade_tf"], capture_output=True, text=True, env=environment
    )
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and last.startswith("ImportError: lade_tf needs Keras on Tensor")
    assert f"on {backend}: set KERAS_BACKEND=tensorflow before" in last


def test_what_counts_is_where_an_imported_keras_runs(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # set too late to mean anything
    importlib.reload(lade_tf)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ImportError, match="this Keras is to run on jax: set KERAS_BACKEND"):
        importlib.reload(lade_tf)
