"""Scores from long tables: a row per run, from any tracker or spreadsheet."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import InputError, show, unknown_name


class _Row(NamedTuple):
  """What a row says."""

  number: int  # counted from 1, below the header
  task: str
  arm: str
  seed: int
  score: float


class Table(NamedTuple):
  """The runs of one task, as `[S, A]`."""

  values: np.ndarray  # [S, A]
  seeds: tuple[int, ...]
  arms: tuple[str, ...]
  paired: bool  # whether arms share their seeds


def read(
  frame: Any,
  *,
  metric: str,
  arm: str,
  seed: str,
  task: str | None = None,
  resolution: float | None = None,
) -> dict[str, Table]:
  """Returns task -> its runs; without a task, one that is called "".

  Arms and seeds keep the order in which they first occur. Arms are paired if all have the same
  seeds, and unpaired if no two share one; row s of an arm is then its s-th run.

  Args:
    frame: a pandas data frame.
    metric: column of the scores; empty or NaN where a run diverged.
    arm: column of the arms' names.
    seed: column of the seeds, integers.
    task: column of the tasks' names; None: one task.
    resolution: scores are rounded to multiples of it, so that equal ones are equal numbers.

  Raises:
    InputError: a column is missing or has something else than it should, a run occurs twice, or
      arms have different numbers of runs; it names the row.
  """
  names = [metric, arm, seed, *([] if task is None else [task])]
  columns = [_column(frame, name) for name in names]
  if len(set(names)) < len(names):
    raise InputError(f"metric, arm, seed and task must be different columns, not {show(names)}")
  if not len(frame):
    raise InputError("the table has no row")
  tasks = columns[3] if task is not None else [""] * len(frame)
  rows = [
    _Row(
      number,
      _name(number, "task", task_name) if task is not None else "",
      _name(number, "arm", arm_name),
      _seed(number, seed_number),
      _score(number, metric, score),
    )
    for number, (score, arm_name, seed_number, task_name) in enumerate(
      zip(*columns[:3], tasks, strict=True), 1
    )
  ]
  if resolution is not None:
    if not 0 < resolution < math.inf:
      raise InputError(f"the resolution must be positive and finite, not {show(resolution)}")
    rows = [row._replace(score=_rounded(row.score, resolution)) for row in rows]
  elif _is_float32([row.score for row in rows]):
    raise InputError(
      f"column {show(metric)} has numbers of 32 bits, whose rounding takes ties apart: give the "
      "resolution of the metric, one over the number of test examples, or 1e-6 for a loss"
    )
  arms = tuple(dict.fromkeys(row.arm for row in rows))
  groups: dict[str, list[_Row]] = {}
  for row in rows:
    groups.setdefault(row.task, []).append(row)
  return {name: _table(group, arms) for name, group in groups.items()}


def _column(frame: Any, name: str) -> list[Any]:
  found = [column for column in frame.columns if column == name]
  if not found:
    raise unknown_name("column", name, map(str, frame.columns))
  if len(found) > 1:
    raise InputError(f"the table has {len(found)} columns called {show(name)}")
  return frame[name].tolist()


def _is_float32(scores: Sequence[float]) -> bool:
  """Whether all scores are float32 numbers, and some have more digits than one would write."""
  finite = [score for score in scores if not math.isnan(score)]
  long = any(_digits(score) > 9 for score in finite)
  return long and all(float(np.float32(score)) == score for score in finite)


def _digits(score: float) -> int:
  return len(repr(abs(score)).partition("e")[0].replace(".", "").strip("0"))


def _rounded(score: float, resolution: float) -> float:
  return score if math.isnan(score) else round(score / resolution) * resolution


def _is_missing(value: Any) -> bool:
  # NaN, and pandas' NA and NaT, which do not equal themselves or cannot say.
  return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _name(number: int, what: str, value: Any) -> str:
  if _is_missing(value) or not str(value).strip():
    raise InputError(f"row {number} has no {what}")
  return str(value)


def _seed(number: int, value: Any) -> int:
  is_integer = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if is_integer and not _is_missing(value) and float(value).is_integer():
    return int(value)
  raise InputError(f"the seed in row {number} must be an integer, not {show(value)}")


def _score(number: int, metric: str, value: Any) -> float:
  if _is_missing(value):
    return math.nan
  if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isinf(value):
    raise InputError(
      f"the score {show(metric)} in row {number} must be a finite number, or empty where the run "
      f"diverged, not {show(value)}"
    )
  return float(value)


def _table(rows: Sequence[_Row], arms: tuple[str, ...]) -> Table:
  """Returns the runs of one task, or raises InputError where they are not balanced."""
  by_arm: dict[str, dict[int, _Row]] = {arm: {} for arm in arms}
  for row in rows:
    before = by_arm[row.arm].setdefault(row.seed, row)
    if before is not row:
      raise InputError(
        f"row {row.number} repeats arm {show(row.arm)} with seed {row.seed}, of row "
        f"{before.number}{_of_task(row)}"
      )
  for arm, own in by_arm.items():
    if not own:
      raise InputError(
        f"arm {show(arm)} has no row{_of_task(rows[0])}, which row {rows[0].number} is"
      )
  seeds = list(dict.fromkeys(row.seed for row in rows))
  if sum(map(len, by_arm.values())) == len(seeds) and len(arms) > 1:
    _check_equal_numbers(by_arm)
    values = [[row.score for row in own.values()] for own in by_arm.values()]
    return Table(np.array(values).T, tuple(range(len(values[0]))), arms, paired=False)
  for row in rows:
    for arm in arms:
      if row.seed not in by_arm[arm]:
        raise InputError(
          f"row {row.number} has seed {row.seed} of arm {show(row.arm)}, and no row has it of arm "
          f"{show(arm)}{_of_task(row)}; a run that failed needs a row without a score"
        )
  values = [[by_arm[arm][seed].score for arm in arms] for seed in seeds]
  return Table(np.array(values), tuple(seeds), arms, paired=True)


def _check_equal_numbers(by_arm: Mapping[str, Mapping[int, _Row]]) -> None:
  fewest = min(by_arm, key=lambda arm: len(by_arm[arm]))
  most = max(by_arm, key=lambda arm: len(by_arm[arm]))
  if len(by_arm[fewest]) < len(by_arm[most]):
    last = list(by_arm[most].values())[-1]
    raise InputError(
      f"arm {show(most)} has {len(by_arm[most])} runs, the last in row {last.number}, and arm "
      f"{show(fewest)} has {len(by_arm[fewest])}{_of_task(last)}; a run that failed needs a row "
      "without a score"
    )


def _of_task(row: _Row) -> str:
  return f" in task {show(row.task)}" if row.task else ""
