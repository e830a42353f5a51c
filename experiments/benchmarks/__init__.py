"""Ratios measured in one run, each a program: cd experiments && python -m benchmarks.NAME."""

import reproduction  # noqa: F401  first: it quiets TensorFlow
