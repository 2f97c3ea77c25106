"""The devices of this machine, as a population wants them."""

import math
import os
import pathlib
from typing import NamedTuple

import jax

from jaxdl.cpu import matmul

# Of `DeviceKind.kernels`: layers in C++.
CPP = "cpp"
# The environment variable that switches them off.
SWITCH = matmul.SWITCH


class DeviceKind(NamedTuple):
  """What a device is, as far as results and plans depend on it; also of another machine's."""

  platform: str  # as JAX calls it, e.g. "cpu"
  name: str  # of the model
  memory_bytes: int | None  # None: it does not say
  kernels: str = ""  # what computes layers besides XLA; empty: nothing


def kind_of(device: jax.Device) -> DeviceKind:
  """Returns what a device is."""
  memory = (device.memory_stats() or {}).get("bytes_limit")
  in_cpp = device.platform == "cpu" and matmul.why_unavailable() is None
  return DeviceKind(device.platform, device.device_kind, memory, CPP if in_cpp else "")


def why_no_kernels() -> str | None:
  """Returns why the kernels in C++ are unavailable in this process, or None if they are."""
  return matmul.why_unavailable()


def num_cores() -> int:
  """Returns how many CPU cores this process may use."""
  affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  try:
    # A container may have many cores in sight and the time of a few.
    quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))
  except (OSError, ValueError):  # no such file, or "max": no quota
    return affinity or 1


def workers() -> list[jax.Device]:
  """Returns the device of every worker that can train at the same time as the others.

  Each accelerator is one. A CPU is one per core: one member's small arrays do not keep several
  cores busy, members on cores of their own do. They are threads that share one device, because
  programs that one thread gives to several CPU devices run one after the other (measured with JAX
  0.12), and each device would have to compile them again.
  """
  local = jax.local_devices()
  if local[0].platform != "cpu":
    return local
  return [local[place % len(local)] for place in range(max(num_cores(), len(local)))]
