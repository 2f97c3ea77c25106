"""Versions, the rates of matrix products and of copies, and what a step of a loop costs."""

import importlib.metadata
import os
import platform
import subprocess

import jax
import jax.numpy as jnp

from .part import Part
from .timing import PRECISIONS, best_seconds, matmul_rate


def measure(part: Part):
  device = jax.local_devices()[0]
  packages = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "jax-cuda13-plugin")
  found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
  part.row("versions", python=platform.python_version(), **{p: found.get(p, "-") for p in packages})
  stats = device.memory_stats() or {}
  part.row(
    "device",
    kind=device.device_kind,
    number=len(jax.local_devices()),
    GiB_for_JAX=stats.get("bytes_limit", 0) / 2**30,
    in_use=device_memory(),
    XLA_FLAGS=os.environ.get("XLA_FLAGS", ""),
    preallocate=os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", ""),
  )
  size = 512 if part.is_tiny else 8192
  for precision in PRECISIONS:
    with part.trying("matrix products", precision=precision, size=size):
      rate = matmul_rate(precision, size, 0.2 if part.is_tiny else 1.0)
      part.row("matrix products", precision=precision, size=size, TFLOPs=rate / 1e12)
  x = jnp.ones(2**20 if part.is_tiny else 2**29)
  add = jax.jit(lambda x: x + 1)
  seconds = best_seconds(lambda: add(x))
  part.row("copies", what="read and write, GB/s", rate=2 * x.nbytes / seconds / 1e9)
  steps = jax.jit(lambda x: jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=1000)[0])
  seconds = best_seconds(lambda: steps(jnp.eye(64)))
  part.row("copies", what="a step of a loop with one small product, µs", rate=seconds * 1e3)


def device_memory() -> str:
  """Returns what `nvidia-smi` says of the memory in use, or an empty text."""
  query = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader"]
  try:
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return ""
