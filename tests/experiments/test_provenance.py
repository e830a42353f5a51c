"""How a result came about."""

import importlib.machinery
import sys
import types

from reproduction import provenance


def test_the_command_is_that_of_a_script_or_of_a_module(monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["experiments/train.py", "--run_dir=a b"])
    assert provenance.gather()["command"] == "python experiments/train.py '--run_dir=a b'"
    main.__spec__ = importlib.machinery.ModuleSpec("studies.gaussian_toy", None)
    assert provenance.gather()["command"] == "python -m studies.gaussian_toy '--run_dir=a b'"
