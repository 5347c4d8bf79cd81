"""TensorFlow, quiet and without accelerators: it only feeds images, JAX owns the devices.

Import `tf` from here, never directly.
"""

import os

# Both are read once, when TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

for _kind in ("GPU", "TPU"):
  tf.config.set_visible_devices([], _kind)

__all__ = ["tf"]
