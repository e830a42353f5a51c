"""Studies of their own, each a program: cd experiments && python -m studies.NAME."""

import reproduction  # noqa: F401  first: it quiets TensorFlow
