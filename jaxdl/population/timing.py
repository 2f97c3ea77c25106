"""How long things take: compiled beforehand, warmed up, synchronised, in interleaved rounds.

A population trains many members at a time on all devices, so its times say what the experiment
cost, not what one run costs. Here one member of each arm runs alone on one device, and the arms
take turns, so that whatever else the machine does meanwhile slows all of them alike. Every
repetition is kept: a single time says nothing about how far it can be trusted.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxdl import forward, stats, train
from jaxdl.arm import Arm, Recipe
from jaxdl.batches import Examples
from jaxdl.data.dataset import Dataset
from jaxdl.errors import check_integer
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import devices, plan, programs, tuning
from jaxdl.population.chunk import BoundPrograms


@dataclasses.dataclass(frozen=True)
class Timings:
  """Repeated measurements of several programs that took turns.

  Attributes:
    arms: `[A]`, what was timed.
    seconds: `[R, A]`, of R rounds; compiling and warm-up are not among them.
  """

  arms: tuple[str, ...]
  seconds: np.ndarray

  def of(self, arm: str) -> np.ndarray:
    """Returns all repetitions of one arm, `[R]`, in seconds."""
    return self.seconds[:, self.arms.index(arm)]


@dataclasses.dataclass(frozen=True)
class MemberTimings:
  """What `time_members` measures of one member of each arm.

  Attributes:
    train_epoch: of one epoch of training.
    inference: of all test examples, with the weights that the timed epochs have trained.
    compile_seconds: arm -> of both programs, once.
  """

  train_epoch: Timings
  inference: Timings
  compile_seconds: Mapping[str, float]


# One repetition: `carry -> (next carry, anything else that it computes)`.
Step = Callable[[Any], tuple[Any, Any]]

Name = TypeVar("Name")


def draw_orders(names: Sequence[Name], rounds: int, seed: int = 0) -> Iterator[list[Name]]:
  """Yields the order of each round, in which every name comes once.

  Drawn anew: always first, or always after the same other, one and the same program was measured 7%
  slower than elsewhere in the round.
  """
  rng = np.random.default_rng(seed)
  for _ in range(rounds):
    yield [names[place] for place in rng.permutation(len(names))]


def take_turns(
  programs: Mapping[str, tuple[Step, Any]],
  rounds: int,
  num_warm_ups: int = 1,
  clock: Callable[[], float] = time.perf_counter,
) -> tuple[Timings, dict[str, Any]]:
  """Times programs in rounds, in each of which every program runs once.

  In an order of `draw_orders`. A program's time ends when all that it returns is computed.

  Args:
    programs: name -> (compiled step, its first carry), A of them. The step may donate its carry.
    rounds: R, at least 1.
    num_warm_ups: rounds before those, which are not counted.
    clock: returns seconds.

  Returns:
    The times, and the last carry of every program.

  Raises:
    InputError: `rounds` or `num_warm_ups` is out of range.
  """
  check_integer("rounds", rounds, 1)
  check_integer("num_warm_ups", num_warm_ups, 0)
  # What a program computes on its first call must not have to wait for its inputs.
  carries = {name: jax.block_until_ready(carry) for name, (_, carry) in programs.items()}
  seconds = np.zeros((num_warm_ups + rounds, len(programs)))  # [w + R, A]
  names = tuple(programs)
  for row, order in zip(seconds, draw_orders(names, len(seconds)), strict=True):
    for name in order:
      step, _ = programs[name]
      start = clock()
      # A device works on after the call has returned.
      carries[name], _ = jax.block_until_ready(step(carries[name]))
      row[names.index(name)] = clock() - start
  return Timings(names, seconds[num_warm_ups:]), carries


def time_members(
  dataset: Dataset,
  arms: Mapping[str, Arm],
  *,
  train_rounds: int,
  inference_rounds: int,
  root_seed: int = 0,
  slice_size: int | None = None,
  device: jax.Device | None = None,
) -> MemberTimings:
  """Times one member of each arm alone on one device: an epoch of training, and inference.

  A run's training time is that of an epoch times their number. A round of training is the next
  epoch of the same member, in the arms' own order of the data; those after its last one leave its
  weights as they are and take as long.

  Args:
    dataset: what to train on, and whose test set to predict.
    arms: name -> arm, A of them.
    train_rounds: R of `train_epoch`, at least 1; one more is its warm-up.
    inference_rounds: R of `inference`, likewise; three more are its warm-up.
    root_seed: of all randomness; the member is that of seed 0.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    device: where; None takes the first local one.

  Raises:
    InputError: for settings that do not fit the dataset or are out of range.
  """
  check_integer("train_rounds", train_rounds, 1)
  check_integer("inference_rounds", inference_rounds, 1)
  device = jax.local_devices()[0] if device is None else device
  splits = programs.put_splits(dataset, device)
  training, compile_seconds, bounds = {}, {}, {}
  for name, arm in arms.items():
    start = time.perf_counter()
    bounds[name] = bind_member(name, arm, dataset, splits, device, root_seed, slice_size)
    compile_seconds[name] = time.perf_counter() - start
    training[name] = training_step(bounds[name], arm.num_epochs)
  epoch_timings, carries = take_turns(training, train_rounds)
  inference = {}
  for name, bound in bounds.items():
    params = train.reported_params(bound.recipe, carries[name][0])
    params = jax.tree.map(lambda leaf: leaf[0, 0], params)
    start = time.perf_counter()
    inference[name] = compile_inference(bound.recipe, params, splits[2].images), params
    compile_seconds[name] += time.perf_counter() - start
  # It takes no longer than a few steps of training, so it needs more than one to be warm.
  inference_timings, _ = take_turns(inference, inference_rounds, num_warm_ups=3)
  return MemberTimings(epoch_timings, inference_timings, compile_seconds)


def bind_member(
  name: str,
  arm: Arm,
  dataset: Dataset,
  splits: tuple[Examples, Examples, Examples],
  device: jax.Device,
  root_seed: int = 0,
  slice_size: int | None = None,
) -> BoundPrograms:
  """Returns the compiled programs of one member of an arm, alone, with seed 0.

  Args:
    name: of the arm.
    arm: its settings.
    dataset: what it trains on.
    splits: the same on the device.
    device: what is timed.
    root_seed: of all randomness.
    slice_size: examples that pass through the model at once; None chooses by model and backend.

  Raises:
    InputError: for settings that do not fit the dataset.
  """
  kind = devices.kind_of(device)
  (group,) = plan.plan_groups(dataset, {name: arm}, (0,), root_seed, kind, 1, slice_size)
  (chunk,) = group.chunks()
  return chunk_lib.bind(
    chunk_lib.compile_chunk(group, splits, device), group, chunk, splits, device
  )


def training_step(
  bound: BoundPrograms, num_epochs: int
) -> tuple[Step, tuple[train.MemberState, int]]:
  """Returns the epochs of a chunk as `take_turns` has them.

  Args:
    bound: the programs.
    num_epochs: E; after them the numbers of the epochs begin again.

  Returns:
    A step from (the members, epochs they have trained) to the same after one more, and its first
    carry. The members' memory is donated.
  """

  def step(carry):
    members, epoch = carry
    members, epoch_metrics = bound.train_epoch(members, epoch % num_epochs)
    return (members, epoch + 1), epoch_metrics

  return step, (bound.create(), 0)


def compile_inference(recipe: Recipe, params: dict, images: jax.Array) -> Step:
  """Compiles the logits of images `[N, H, W, D]` and returns them as a step that keeps `params`."""
  predict = jax.jit(lambda params, images: forward.predict(recipe, params, images))
  program = predict.lower(params, images).compile(tuning.compile_options(images.device.platform))
  return lambda params: (params, program(params, images))


def scores(timings: Timings, metric: str) -> stats.Scores:
  """Returns times as scores, with the rounds in the place of the seeds: programs of a round pair.

  What varies between rounds is the machine, not the training: a verdict over them is about these
  programs on this machine.

  Args:
    timings: `[R, A]`.
    metric: what to call it, e.g. "inference_seconds".
  """
  return stats.Scores(
    metric=metric,
    values=timings.seconds,
    seeds=tuple(range(len(timings.seconds))),
    arms=timings.arms,
    axes=stats.AXES,
    higher_is_better=False,
  )


def compare(
  timings: Timings, metric: str, relative_margin: float, alpha: float = 0.05
) -> list[stats.Verdict]:
  """Returns the verdict on every pair of arms, over the differences within each round.

  Args:
    timings: `[R, A]`.
    metric: what to call it.
    relative_margin: the largest difference that counts as none, as a share of the median of all
      times; > 0.
    alpha: level of the tests, after correction.

  Raises:
    InputError: an argument is out of its range.
  """
  margin = relative_margin * float(np.median(timings.seconds))
  return stats.compare(scores(timings, metric), margin=margin, alpha=alpha)


def columns(timings: Mapping[str, Timings]) -> dict[str, list]:
  """Returns a table of all repetitions: arm, kind, round (from 1), seconds; rounds outermost.

  Args:
    timings: kind, e.g. "inference" -> `[R, A]`.
  """
  rows = [
    (arm, kind, index + 1, float(seconds))
    for kind, measured in timings.items()
    for index, row in enumerate(measured.seconds)
    for arm, seconds in zip(measured.arms, row, strict=True)
  ]
  names = ("arm", "kind", "round", "seconds")
  return {name: [row[place] for row in rows] for place, name in enumerate(names)}
