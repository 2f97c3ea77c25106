"""The rows of results of the benchmark, and how a system compares with the best peer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import benchmark_report
from .benchmark_systems import System
from .peers import process
from .workloads import Workload

# A peer's loss agrees if it differs from the mean of jaxdl's members by at most this many of their
# standard deviations plus this share of the mean, because few members give the deviation.
_DEVIATIONS, _SHARE = 4, 0.1


def training_row(
  label: str,
  system: System,
  team: process.Team,
  first: float,
  times: Sequence[float],
  answers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the results of one system, without comparisons.

  Args:
    label: name of the workload.
    system: the system that was timed.
    team: the processes of the system.
    first: time of the first epoch, in seconds, which includes compilation.
    times: time of one epoch of all members in each round, in seconds.
    answers: the answers of the processes in the last round.
  """
  seconds = np.array(times)
  return {
    "workload": label,
    "system": system.name,
    "variant": system.variant,
    "device": team.workers[0].ready["device"],
    "num_members": system.num_members,
    "num_processes": len(team.workers),
    "batch_size": system.specs[0]["batch_size"],
    "seconds_per_member_epoch": summarize(seconds / system.num_members),
    "seconds_of_rounds": (seconds / system.num_members).tolist(),
    "start_seconds": max(worker.start_seconds for worker in team.workers),
    "first_epoch_seconds": first,
    "compile_seconds": max(0.0, first - float(np.median(seconds))),
    "peak_memory_mb": sum(answer["peak_memory_mb"] for answer in answers),
    "train_loss": [loss for answer in answers for loss in answer["train_loss"]],
    "is_peer": system.is_peer,
  }


def add_rates(workload: Workload, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Adds rates, which depend on the size of the workload, and whether the losses agree."""
  # From the system with the most members, which has the best estimate of the spread.
  ours = max((r["train_loss"] for r in rows if r["system"].startswith("jaxdl")), key=len)
  for row in rows:
    rate = len(workload.dataset.train) / row["seconds_per_member_epoch"]["median"]
    row["examples_per_second"] = rate
    row["model_flops_per_second"] = rate * workload.flops
    row["loss_agrees"] = bool(_agrees(row["train_loss"], ours))
  return rows


def compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Adds each system's speed as a multiple of the best peer's: median and range over rounds."""
  peers = [row for row in rows if row["is_peer"]]
  best = min(peers, key=lambda row: benchmark_report.seconds(row)["median"], default=None)
  for row in rows:
    if best is None:
      row |= {"ratio_to_best_peer": None, "ratio_range": None, "best_peer": None}
      continue
    ratios = np.array(best["seconds_of_rounds"]) / np.array(row["seconds_of_rounds"])
    row["ratio_to_best_peer"] = float(np.median(ratios))
    row["ratio_range"] = [float(ratios.min()), float(ratios.max())]
    row["best_peer"] = best["system"]
  return rows


def _agrees(loss: Sequence[float], ours: Sequence[float]) -> bool:
  """Whether a final training loss agrees with those of jaxdl's members."""
  mean = np.mean(ours)
  allowed = _DEVIATIONS * (np.std(ours, ddof=1) if len(ours) > 1 else 0.0) + _SHARE * abs(mean)
  return abs(np.mean(loss) - mean) <= allowed


def summarize(seconds: Sequence[float] | np.ndarray) -> dict[str, float]:
  """Returns the median and the range of the times of several rounds."""
  return {
    "median": float(np.median(seconds)),
    "min": float(np.min(seconds)),
    "max": float(np.max(seconds)),
  }
