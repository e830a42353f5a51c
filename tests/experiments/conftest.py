"""The run that several tests look at."""

import pytest
from binaries import TINY, run


@pytest.fixture(scope="session")
def lade_run(tmp_path_factory):
    """A finished run of LADE on the digits, with an export."""
    folder = tmp_path_factory.mktemp("runs")
    flags = ("--loss=lade", "--run_dir=lade", "--export")
    output = run("train.py", *TINY, *flags, cwd=folder)
    (folder / "output.txt").write_text(output)
    return folder / "lade"
