"""Shared by every package: errors, files, command lines, progress. No JAX, nothing of chains."""

import os

# epath reaches buckets through TensorFlow wherever that is installed, which the training side must never import; it
# reads this variable at its first use of a path.
os.environ.setdefault("EPATH_USE_TF", "false")
