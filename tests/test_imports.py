"""Imports go one way: between packages as setup.cfg has it, and scripts import no other script."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
SCRIPTS = sorted(EXPERIMENTS.glob("*.py"))
PACKAGES = {path.parent.name for path in EXPERIMENTS.glob("*/__init__.py")}


def imported(source):
    """Returns the first part of the name of every module that a source imports, also late."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what a script needs"
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_packages_import_only_what_is_below_them():
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    config = str(EXPERIMENTS.parent / "setup.cfg")
    found = subprocess.run(
        [sys.executable, "-c", lint, config, "--no-cache"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_no_other_script(path):
    source, others = path.read_text(), {script.stem for script in SCRIPTS}
    assert not imported(source) & others
    assert source.count("\n") <= 150, "what is more belongs in reproduction/ or paper/"


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_imports_no_script_and_changes_no_path(package):
    assert {"reproduction", "paper", "studies", "benchmarks"} <= PACKAGES
    for path in (EXPERIMENTS / package).glob("*.py"):
        source = path.read_text()
        assert not imported(source) & {script.stem for script in SCRIPTS}, path
        assert "sys.path" not in source, path


def test_late_and_nested_imports_are_seen():
    source = "def f():\n    import train.x\n    from sweep import y\n"
    assert imported(source) == {"train", "sweep"}
