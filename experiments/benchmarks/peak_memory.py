"""How much memory a step takes beyond what is there before it.

Allocators keep what is freed and hide what a step takes: so it is measured in a process of its own
that gives every large array back to the system at once, as growth of the peak of resident memory.
"""

import concurrent.futures
import multiprocessing
import os
import pathlib

# glibc: arrays of this many bytes and more are mapped, and unmapped when freed.
MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024)}


def in_a_process(function, *arguments, environment=None):
    """Returns `function(*arguments)`, computed in a new process."""
    environment = MAPPED if environment is None else environment
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)  # glibc reads it when the process starts
    try:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            return executor.submit(function, *arguments).result()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def growth(step):
    """Returns by how many bytes a call of `step` raises the peak; Linux only.

    The first call that is as large: later ones find what TensorFlow's own allocator has kept. What
    a first call needs besides (libraries, threads) should have been done for a smaller one before.
    """
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    before = _peak()
    result = step()
    after = _peak()
    del result
    return after - before


def _peak():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM")
