"""The devices of this machine, as a population wants them."""

import math
import os
import pathlib

import jax


def num_cores() -> int:
  """Returns how many CPU cores this process may use."""
  affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  try:
    # A container may have many cores in sight and the time of a few.
    quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))
  except (OSError, ValueError):  # no such file, or "max": no quota
    return affinity or 1


def use_every_core():
  """Shows JAX every CPU core as a device of its own, so that members train on all of them.

  One member's small arrays do not keep several cores busy, members on cores of their own do. Has
  to be called before JAX is first used, and raises RuntimeError after. On an accelerator it changes
  nothing.
  """
  jax.config.update("jax_num_cpu_devices", num_cores())
