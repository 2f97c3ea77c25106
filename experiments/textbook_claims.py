"""The claims of `ml_collections_configs/textbook.py`, put as comparisons of finished runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl import stats
from jaxdl.population.results import EPOCHS_TO_TARGET, RATES
from jaxdl.stats import ledger
from jaxdl.stats.ledger import Claim, Part

from .coursework_claims import Run

EVIDENCE = "Stated in textbooks; no figure of one is tested."


def claims(setting: Any, name: str, runs: Mapping[str, Run]) -> list[Claim]:
  """Returns the claims of a setting.

  Args:
    setting: a `Setting` of the list.
    name: its name.
    runs: name of a setting -> its finished run. Of the seeds of a run, a claim counts those with
      which both arms were trained: an arm stops once all of its comparisons are decided.

  Raises:
    InputError: a run has no such arm or metric.
  """
  return [
    Claim(
      claimed.name,
      claimed.sentence,
      EVIDENCE,
      [_part(setting, name, runs, *part) for part in claimed.parts],
    )
    for claimed in setting.claims
  ]


def _part(
  setting: Any,
  name: str,
  runs: Mapping[str, Run],
  metric: str,
  arm: str,
  asserts: str,
  other: str | float,
  margin: float,
) -> Part:
  shown = {"unit": "points", "scale": 100.0} if metric in RATES else {}
  if metric == EPOCHS_TO_TARGET:
    shown = {"unit": "epochs"}
  if isinstance(other, float):
    scores = ledger.against_number(
      _scores(setting, runs[name], metric, arm), arm, f"{other:g}", other
    )
    return Part(scores, asserts, margin, **shown)
  where, colon, of = other.rpartition(":")
  if not colon:
    return Part(_scores(setting, runs[name], metric, arm, other), asserts, margin, **shown)
  left, right = (_scores(setting, runs[run], metric, a) for run, a in ((name, arm), (where, of)))
  seeds = tuple(seed for seed in left.seeds if seed in right.seeds)
  values = [[s.values[s.seeds.index(seed), 0] for seed in seeds] for s in (left, right)]
  both = dataclasses.replace(left, values=np.transpose(values), seeds=seeds, arms=(arm, other))
  return Part(both, asserts, margin, **shown)


def _scores(setting: Any, run: Run, metric: str, *arms: str) -> stats.Scores:
  """Returns the scores of some arms on the seeds with which all of them were trained."""
  never = max(arm.num_epochs for arm in run.experiment.arms.values()) + 1
  diverged = setting.chance if metric in RATES else never if metric == EPOCHS_TO_TARGET else np.nan
  return run.scores(metric, *arms, diverged=diverged)
