"""The devices of this machine: what kind they are, and how many workers can train on them."""

import math
import os
import pathlib
from typing import NamedTuple

import jax

from jaxdl.cpu import matmul
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError

# The value of `DeviceKind.kernels` for layers computed in C++.
CPP = "cpp"
# The environment variable that switches those kernels off.
SWITCH = matmul.SWITCH


class DeviceKind(NamedTuple):
  """The properties of a device, here or on another machine, that plans and results depend on."""

  platform: str  # as JAX calls it, e.g. "cpu"
  name: str  # model name, e.g. "NVIDIA H100"
  memory_bytes: int | None  # None: unknown
  kernels: str = ""  # `CPP`: layers can be computed in C++; empty: by XLA only


def kind_of(device: jax.Device) -> DeviceKind:
  """Returns the kind of a device."""
  in_cpp = device.platform == "cpu" and matmul.why_unavailable() is None
  memory = _memory_bytes(device)
  return DeviceKind(device.platform, device.device_kind, memory, CPP if in_cpp else "")


def _memory_bytes(device: jax.Device) -> int | None:
  return (device.memory_stats() or {}).get("bytes_limit")


def check_data_fit(dataset: Dataset, device: jax.Device):
  """Raises InputError if a dataset is larger than a device's memory, before anything is copied.

  Every device that trains holds all three splits. A CPU says nothing of its memory and is not
  checked.
  """
  memory = _memory_bytes(device)
  num_bytes = sum(split.inputs.nbytes + split.targets.nbytes for split in dataset.stored)
  if memory is not None and num_bytes > memory:
    count = sum(map(len, dataset.stored))
    raise InputError(
      f"{dataset.name} does not fit the memory of a device: {count:,} examples of "
      f"{num_bytes // count:,} bytes are {num_bytes:,} bytes, and {device.device_kind} has "
      f"{memory:,}; take fewer examples with num_train"
    )


def why_no_kernels() -> str | None:
  """Returns why the C++ kernels are unavailable in this process, or None if they are available."""
  return matmul.why_unavailable()


def num_cores() -> int:
  """Returns how many CPU cores this process may use."""
  has_affinity = hasattr(os, "sched_getaffinity")
  affinity = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
  try:
    # A container may see many cores but be limited to the time of a few.
    quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))
  except (OSError, ValueError):  # no such file, or "max": no quota
    return affinity


def workers() -> list[jax.Device]:
  """Returns one device for each worker that can train concurrently on this machine.

  There is one worker per accelerator, or one per CPU core: the small arrays of one member do not
  keep several cores busy, but members on separate cores do. The workers on a CPU are threads that
  share one device, because programs that one thread launches on several CPU devices run one after
  the other (measured with JAX 0.12), and each device would have to compile them again.
  """
  local = jax.local_devices()
  if local[0].platform != "cpu":
    return local
  return [local[place % len(local)] for place in range(max(num_cores(), len(local)))]
