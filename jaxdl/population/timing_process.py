"""Timing of arms in several processes, one after the other.

Where a process has its memory, and what the kernel and the compiler decide when it starts, makes
all of its times longer or shorter alike. Rounds within a process do not show that: two programs can
differ in every round of one process, and the other way round in the next.
"""

import json
import logging
import os
import pathlib
import sys
from collections.abc import Mapping

import jax
import numpy as np

from jaxdl import data
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, one_line
from jaxdl.population import environment, timing
from jaxdl.population.timing import MemberTimings, Timings
from jaxdl.store import interrupts

_LOGGER = logging.getLogger("jaxdl")
_DATA, _SPEC, _RESULT = "data.npz", "spec.json", "timings.json"


def time_in_processes(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  *,
  processes: int,
  train_rounds: int,
  inference_rounds: int,
  root_seed: int = 0,
  slice_size: int | None = None,
) -> MemberTimings:
  """Returns what `timing.time_members` measures in each of P fresh processes.

  Args:
    dataset: the dataset to train on; inference predicts its test set.
    arms: name -> arm, A of them.
    processes: P, at least 1.
    train_rounds: timed rounds of training in each process, at least 1.
    inference_rounds: timed rounds of inference in each process, at least 1.
    root_seed: seed of all randomness.
    slice_size: examples that pass through a model at once; None chooses by model and backend.

  Raises:
    InputError: a setting is out of range, an arm has no text that another process can read, or a
      process fails.
  """
  check_integer("processes", processes, 1)
  check_integer("train_rounds", train_rounds, 1)
  check_integer("inference_rounds", inference_rounds, 1)
  for name, arm in arms.items():
    if not arm.is_text:
      raise InputError(f"arm {name!r} cannot be timed in other processes: define it in a module")
  spec = {
    "arms": {name: arm.to_json() for name, arm in arms.items()},
    "resample": None if dataset.resampling is None else dataset.resampling.scheme,
    "cache": jax.config.jax_compilation_cache_dir,
    "settings": {
      "train_rounds": train_rounds,
      "inference_rounds": inference_rounds,
      "root_seed": root_seed,
      "slice_size": slice_size,
    },
  }
  measured = []
  with interrupts.temporary_folder("jaxdl-timing-") as name:
    folder = pathlib.Path(name)
    data.save(dataset, folder / _DATA)
    (folder / _SPEC).write_text(json.dumps(spec), encoding="utf-8")
    for number in range(1, processes + 1):
      _LOGGER.info("timing one run of each arm alone: process %d of %d", number, processes)
      status = interrupts.run_child([sys.executable, "-m", __name__, name], env=_environment())
      if status == interrupts.EXIT_STATUS:
        raise interrupts.Interrupted("SIGTERM")
      if status:
        raise InputError(f"timing the arms failed with exit status {status}; see above")
      measured.append(json.loads((folder / _RESULT).read_text(encoding="utf-8")))
  train_epoch, inference = (
    Timings(tuple(arms), np.concatenate([process[kind] for process in measured]))
    for kind in ("train_epoch", "inference")
  )
  return MemberTimings(train_epoch, inference, measured[0]["compile_seconds"])


def _environment() -> dict[str, str]:
  """Returns environment variables that give a process the settings of JAX that this one has."""
  names = ("jax_platforms", "jax_default_matmul_precision")
  settings = {name.upper(): getattr(jax.config, name) for name in names}
  # This process holds most of an accelerator's memory, and the other one needs some.
  settings["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
  return {**os.environ, **{name: value for name, value in settings.items() if value is not None}}


def _time(folder: pathlib.Path):
  """Measures what the spec in a folder says, and writes the times there."""
  spec = json.loads((folder / _SPEC).read_text(encoding="utf-8"))
  if spec["cache"] is not None:
    environment.cache_programs(pathlib.Path(spec["cache"]))
  arms = {name: Arm(**settings) for name, settings in spec["arms"].items()}
  dataset = data.read(folder / _DATA)
  if spec["resample"] is not None:
    dataset = data.resample(dataset, spec["resample"])
  measured = timing.time_members(dataset, arms, **spec["settings"])
  result = {
    "train_epoch": measured.train_epoch.seconds.tolist(),
    "inference": measured.inference.seconds.tolist(),
    "compile_seconds": dict(measured.compile_seconds),
  }
  (folder / _RESULT).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
  interrupts.install()
  try:
    _time(pathlib.Path(sys.argv[1]))
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(2)
