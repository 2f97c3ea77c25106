"""The devices of this machine, as a population wants them."""

import os

import jax


def num_cores() -> int:
  """Returns how many CPU cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def use_every_core():
  """Shows JAX every CPU core as a device of its own, so that members train on all of them.

  One member's small arrays do not keep several cores busy, members on cores of their own do. Has
  to be called before JAX is first used, and raises RuntimeError after. On an accelerator it changes
  nothing.
  """
  jax.config.update("jax_num_cpu_devices", num_cores())
