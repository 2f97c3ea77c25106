"""Assembles the results of a population from those of its chunks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError
from jaxdl.member import DIVERGED, RUNNING, STATUS_NAMES, EpochMetrics
from jaxdl.optim import metrics
from jaxdl.population import chunk_result
from jaxdl.population.chunk_result import ChunkResult
from jaxdl.population.local import Outcome
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.results import (
  CURVES,
  NOT_TRAINED,
  TEST_ERRORS,
  Population,
  confusion_metrics,
  has_threshold,
  own_metrics,
  validation_curves,
)


class _GroupResult(NamedTuple):
  """The joined results of one program's chunks; S and A are those of the program."""

  group: Group
  places: list[int]  # [S], indices of the seeds for which all arms are trained
  result: ChunkResult  # [S, A], without `sum_probabilities`
  mean_probabilities: np.ndarray  # [A, N, C]


def assemble(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  seeds: Sequence[int],
  groups: Sequence[Group],
  outcome: Outcome,
  ends: Mapping[str, int] | None = None,
) -> Population:
  """Assembles the population from trained chunks; it has the seeds for which all arms are trained.

  Args:
    dataset: the dataset that was trained on.
    arms: name -> arm, in the order that the population gets.
    seeds: the planned seeds.
    groups: the result of `jaxdl.population.plan.plan_groups`.
    outcome: the results and failures of the groups' chunks.
    ends: arm -> how many of the seeds it was to be trained with, if its question was decided then;
      None: all.

  Raises:
    InputError: no seed has all of its arms.
  """
  gathered = [_gather(group, outcome.results, len(seeds), ends) for group in groups]
  failures = {chunk.name: reason for chunk, reason in outcome.failures.items()}
  places = set(range(len(seeds))).intersection(*(g.places if g else () for g in gathered))
  if not places:
    failed = "".join(f"; chunk {name} failed: {reason}" for name, reason in failures.items())
    raise InputError(f"no seed has finished with all of its arms{failed[:500]}")
  some = [_select_seeds(result, sorted(places)) for result in gathered if result is not None]
  population = _assemble(dataset, arms, [seeds[place] for place in sorted(places)], some)
  missing = tuple(seed for place, seed in enumerate(seeds) if place not in places)
  return dataclasses.replace(
    population,
    compile_seconds=outcome.compile_seconds,
    num_workers=outcome.num_workers,
    split_chunks=tuple(outcome.split_chunks),
    missing_seeds=missing,
    failures=failures,
  )


def _gather(
  group: Group,
  results: Mapping[Chunk, ChunkResult],
  num_seeds: int,
  ends: Mapping[str, int] | None,
) -> _GroupResult | None:
  """Joins a program's chunks along arms and seeds; None if no seed has all of its arms."""
  rows: dict[int, list[Chunk]] = {}
  for chunk in group.chunks():
    if chunk.seed < num_seeds:
      rows.setdefault(chunk.seed, []).extend(group.parts(chunk, ends))
  whole = {s: parts for s, parts in rows.items() if all(part in results for part in parts)}
  found = {part: results[part] for parts in whole.values() for part in parts}
  if not found:
    return None
  size = group.layout.chunk_size
  places = [i for s in whole for i in range(s, min(s + size, group.num_seeds))]
  of_arms = [num_seeds if ends is None else ends[arm] for arm in group.layout.arms]
  joined = chunk_result.assemble(found, places, of_arms)
  num_valid = np.zeros(len(of_arms))
  for chunk, result in found.items():
    of_chunk = (result.status != DIVERGED).sum(axis=0)
    num_valid[chunk.arm : chunk.arm + chunk.num_arms] += of_chunk
  longest = int(joined.num_epochs.max())
  observations = {name: of[:, :, : longest + 1] for name, of in joined.observations.items()}
  return _GroupResult(
    group=group,
    places=places,
    result=joined._replace(observations=observations, sum_probabilities=None),
    mean_probabilities=(joined.sum_probabilities.T / np.maximum(num_valid, 1)).T,
  )


def _select_seeds(group: _GroupResult, places: list[int]) -> _GroupResult:
  """Returns the results for some of a program's seeds; `mean_probabilities` keeps all of them."""
  if group.places == places:
    return group
  rows = [group.places.index(place) for place in places]
  return group._replace(places=places, result=jax.tree.map(lambda leaf: leaf[rows], group.result))


def _assemble(dataset, arms, seeds, groups: list[_GroupResult]) -> Population:
  """Puts the arms of all groups side by side, in the order in which they were given."""
  of_arm = {
    name: _of_arm(group.result, place)
    for group in groups
    for place, name in enumerate(group.group.layout.arms)
  }
  order = [list(of_arm).index(name) for name in arms]
  of_arm = {name: of_arm[name] for name in arms}
  own = own_metrics(arms)
  tested = own if dataset.num_classes else [*dict.fromkeys([*TEST_ERRORS, *own])]
  num_epochs = max(int(group.result.num_epochs.max()) for group in groups)
  alike = [_alike(group.result, num_epochs, own, tested) for group in groups]
  whole = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, order], *alike)
  curves = _rates(whole.curves, dataset)
  values = _metrics(dataset, arms, whole, curves, tested)
  has_result = ~np.isin(whole.status, (DIVERGED, RUNNING))
  at_half = has_threshold(arms)
  num_params = np.array([g.group.num_params for g in groups for _ in g.group.layout.arms])[order]
  like = groups[0].result
  return Population(
    seeds=tuple(seeds),
    arms=dict(arms),
    class_names=dataset.class_names,
    test_targets=_test_targets(dataset, groups[0]),
    # A member that never began to run has the first status.
    status=np.array((NOT_TRAINED, *STATUS_NAMES[1:]))[whole.status],
    epochs=whole.num_epochs,
    best_epoch=whole.best_epoch,
    num_params=np.tile(num_params, (len(seeds), 1)),
    curves=curves,
    metrics={name: np.where(has_result, value, np.nan) for name, value in values.items()},
    confusion=whole.confusion,
    confusion_at_half=whole.confusion_at_half if at_half else None,
    mean_probabilities=np.concatenate([g.mean_probabilities for g in groups])[order],
    train_seconds=whole.train_seconds,
    compile_seconds=0.0,  # `assemble` sets it
    chunks=tuple(group.group.layout for group in groups),
    observations={
      name: {arm: of.observations[name] for arm, of in of_arm.items()} for name in like.observations
    },
    logits=None if like.logits is None else {arm: of.logits for arm, of in of_arm.items()},
    variables=_variables(of_arm),
    correct=whole.correct,
    correct_at_half=whole.correct_at_half if at_half else None,
    calibration=whole.calibration,
    resampling=dataset.resampling,
  )


def _of_arm(result: ChunkResult, place: int) -> ChunkResult:
  """Returns the results `[S, ...]` of one arm."""
  return jax.tree.map(lambda leaf: leaf[:, place], result)


def _alike(
  result: ChunkResult, num_epochs: int, own: Sequence[str], tested: Sequence[str]
) -> ChunkResult:
  """Returns what the results of all groups have, NaN where this one does not have it.

  Args:
    result: of one group.
    num_epochs: E, the epochs of the curves.
    own: the metrics that have a curve, those of any arm.
    tested: the metrics of the test set.
  """
  curves = jax.tree.map(lambda curve: chunk_result.pad_epochs(curve, num_epochs), result.curves)
  return result._replace(
    curves=curves._replace(val_metrics=_filled(own, curves.val_metrics, curves.val_loss)),
    metrics=_filled(tested, result.metrics, result.test_loss),
    observations={},
    logits=None,
    variables=None,
  )


def _filled(
  names: Sequence[str], values: Mapping[str, np.ndarray], like: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns an array for every name. Where `values` has none, it is NaN in the shape of `like`."""
  return {name: values.get(name, np.full(like.shape, np.nan)) for name in names}


def _rates(curves: EpochMetrics, dataset: Dataset) -> dict[str, np.ndarray]:
  """Returns name -> learning curve; numbers of correct predictions become accuracies."""
  num_validation = len(dataset.validation) or np.nan
  values = (
    curves.learning_rate,
    curves.train_loss,
    curves.train_correct.astype(np.float64) / dataset.num_train,
    curves.val_loss,
    curves.val_correct.astype(np.float64) / num_validation,
  )
  own = {f"val_{name}": values for name, values in curves.val_metrics.items()}
  return {**dict(zip(CURVES, values, strict=True)), **own}


def _metrics(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  whole: ChunkResult,
  curves: Mapping[str, np.ndarray],
  tested: Sequence[str],
) -> dict[str, np.ndarray]:
  """Returns name -> metric of the reported weights, `[S, A]`."""
  restored = np.array([arm.restore_best for arm in arms.values()])
  epoch = np.where(restored & (whole.best_epoch > 0), whole.best_epoch, whole.num_epochs)
  index = np.maximum(epoch - 1, 0)[..., None]
  validated = validation_curves(dataset.num_classes > 0, arms) if len(dataset.validation) else []
  values = {
    name: np.take_along_axis(curves[name], index, axis=-1)[..., 0]
    for name in ("train_loss", *validated)
  }
  values["test_loss"] = whole.test_loss
  if dataset.num_classes:
    values |= confusion_metrics(whole.confusion)
    if has_threshold(arms):
      at_half = confusion_metrics(whole.confusion_at_half)
      values |= {f"{name}_at_half": value for name, value in at_half.items()}
    ece = metrics.expected_calibration_error(whole.calibration)
    values |= {"auc": whole.auc, "ece": ece}
  return values | {name: whole.metrics[name] for name in tested}


def _test_targets(dataset: Dataset, group: _GroupResult) -> np.ndarray:
  if group.group.draw is None:
    return dataset.test.targets
  return dataset.test.targets[group.group.draw(group.places).test]  # [S, N, ...]


def _variables(of_arm: Mapping[str, ChunkResult]) -> dict[str, dict[str, np.ndarray]] | None:
  """Returns the variables of each arm's trained members, `[S, ...]`, by path; None if not kept."""
  found = {}
  for arm, result in of_arm.items():
    if result.variables is None:
      return None
    is_trained = result.status != RUNNING
    found[arm] = {path: leaf[is_trained] for path, leaf in result.variables.items()}
  return found
