"""The claims of `ml_collections_configs/textbook.py`, as comparisons of finished runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import stats
from jaxdl.population.results import EPOCHS_TO_TARGET, RATES
from jaxdl.stats import ledger
from jaxdl.stats.ledger import Claim, Part

from .coursework_claims import Run

EVIDENCE = "A common claim of textbooks; no source is quoted."

_SPREAD = "spread of "


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
      [_part(setting, name, runs, part) for part in claimed.parts],
    )
    for claimed in setting.claims
  ]


def _part(setting: Any, name: str, runs: Mapping[str, Run], claimed: Sequence[Any]) -> Part:
  metric, arm, asserts, other, margin = claimed
  plain = metric.removeprefix(_SPREAD)
  if isinstance(other, float):
    alone = _scores(setting, runs[name], plain, arm)
    scores = ledger.against_number(alone, arm, f"{other:g}", other)
  else:
    where, colon, of = other.rpartition(":")
    if colon:
      two = _scores(setting, runs[name], plain, arm), _scores(setting, runs[where], plain, of)
      scores = _beside(*two, name=other)
    else:
      scores = _scores(setting, runs[name], plain, arm, other)
  if plain != metric:
    scores = _spread(scores)
  shown = {"unit": "epochs"} if plain == EPOCHS_TO_TARGET else {}
  if plain in RATES:
    shown = {"unit": "points", "scale": 100.0}
  return Part(scores, asserts, margin, **shown)


def _beside(left: stats.Scores, right: stats.Scores, name: str) -> stats.Scores:
  """Returns the scores of an arm beside those of an arm of another run, on the seeds of both."""
  seeds = tuple(seed for seed in left.seeds if seed in right.seeds)
  values = [[s.values[s.seeds.index(seed), 0] for seed in seeds] for s in (left, right)]
  arms = (left.arms[0], name)
  return dataclasses.replace(left, values=np.transpose(values), seeds=seeds, arms=arms)


def _spread(scores: stats.Scores) -> stats.Scores:
  """Returns how far each run is from the median of its arm.

  Brown & Forsythe (1974), Journal of the American Statistical Association 69:364.
  """
  distances = np.abs(scores.values - np.median(scores.values, axis=0))
  return dataclasses.replace(
    scores, metric=_SPREAD + scores.metric, values=distances, higher_is_better=True
  )


def _scores(setting: Any, run: Run, metric: str, *arms: str) -> stats.Scores:
  """Returns the scores of some arms on the seeds with which all of them were trained."""
  never = max(arm.num_epochs for arm in run.experiment.arms.values()) + 1
  diverged = setting.chance if metric in RATES else never if metric == EPOCHS_TO_TARGET else np.nan
  return run.scores(metric, *arms, diverged=diverged)
