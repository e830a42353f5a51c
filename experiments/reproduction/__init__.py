"""What the scripts of experiments/ share: recipes, methods, training, run folders."""

import os

# TensorFlow reads it when it is imported: here, for all that starts with an import of this package.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
