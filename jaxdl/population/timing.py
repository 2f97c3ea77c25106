"""Timing of training and inference: compiled, warmed up, synchronised, in interleaved rounds.

A population trains many members at a time on all devices, so its times measure the cost of the
experiment, not of one run. Here one member of each arm runs alone on one device, and the arms take
turns, so that other load on the machine slows all of them alike. Every repetition is kept, because
a single time does not show how much it varies.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxdl import forward, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import check_integer
from jaxdl.forward import Variables
from jaxdl.member import MemberState, reported_variables
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import devices, plan, programs, tuning
from jaxdl.population.chunk import BoundPrograms
from jaxdl.population.programs import Splits
from jaxdl.recipe import Recipe
from jaxdl.store import interrupts


@dataclasses.dataclass(frozen=True)
class Timings:
  """Repeated measurements of several programs that took turns.

  Attributes:
    arms: `[A]`, names of the programs.
    seconds: `[P, R, A]`, time of each program in R rounds of P processes, without compilation and
      warm-up.
  """

  arms: tuple[str, ...]
  seconds: np.ndarray

  def of(self, arm: str) -> np.ndarray:
    """Returns all repetitions of one arm, `[P R]`, in seconds."""
    return self.seconds[..., self.arms.index(arm)].ravel()


@dataclasses.dataclass(frozen=True)
class MemberTimings:
  """The measurements of `time_members`, for one member of each arm.

  Attributes:
    train_epoch: time of one epoch of training.
    inference: time of predicting all test examples, with the weights after the timed epochs.
    compile_seconds: arm -> time of compiling both of its programs.
  """

  train_epoch: Timings
  inference: Timings
  compile_seconds: Mapping[str, float]


# One repetition: `carry -> (next carry, other results)`.
Step = Callable[[Any], tuple[Any, Any]]

Name = TypeVar("Name")


def draw_orders(names: Sequence[Name], rounds: int, seed: int = 0) -> Iterator[list[Name]]:
  """Yields a random order of the names for each round.

  A fixed order biases the times: a program that always ran first, or always after the same other
  one, was measured 7% slower than the same program elsewhere in the round.
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
  """Times programs in rounds; in each round every program runs once, in a random order.

  A program's time ends when everything that it returns has been computed.

  Args:
    programs: name -> (compiled step, its first carry), A of them. The step may donate its carry.
    rounds: R, the number of timed rounds, at least 1.
    num_warm_ups: rounds that run first and are not timed.
    clock: returns the current time in seconds.

  Returns:
    The times in this process, P = 1, and the last carry of every program.

  Raises:
    InputError: `rounds` or `num_warm_ups` is out of range.
  """
  check_integer("rounds", rounds, 1)
  check_integer("num_warm_ups", num_warm_ups, 0)
  # The first call must not be charged for computing its own inputs.
  carries = {name: jax.block_until_ready(carry) for name, (_, carry) in programs.items()}
  seconds = np.zeros((num_warm_ups + rounds, len(programs)))  # [w + R, A]
  names = tuple(programs)
  for row, order in zip(seconds, draw_orders(names, len(seconds)), strict=True):
    for name in order:
      interrupts.check()
      step, _ = programs[name]
      start = clock()
      # Calls are asynchronous: the device is still computing when they return.
      carries[name], _ = jax.block_until_ready(step(carries[name]))
      row[names.index(name)] = clock() - start
  return Timings(names, seconds[None, num_warm_ups:]), carries


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

  The training time of a run is the time of an epoch times the number of epochs. Each round trains
  the same member for its next epoch, with its own order of the data. Rounds after the last epoch
  leave the weights unchanged, but take as long.

  Args:
    dataset: the dataset to train on; inference predicts its test set.
    arms: name -> arm, A of them.
    train_rounds: timed rounds of training, at least 1; one more warms up.
    inference_rounds: timed rounds of inference, at least 1; three more warm up.
    root_seed: seed of all randomness; the member has seed 0.
    slice_size: examples that pass through a model at once; None chooses by model and backend.
    device: the device to time; None: the first local one.

  Raises:
    InputError: a setting is out of range or does not fit the dataset.
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
    member = jax.tree.map(lambda leaf: leaf[0, 0], carries[name][0])
    variables = reported_variables(bound.recipe, member)
    start = time.perf_counter()
    inference[name] = compile_inference(bound.recipe, variables, splits[2].inputs), variables
    compile_seconds[name] += time.perf_counter() - start
  # Inference is as short as a few training steps, so it needs more than one round to warm up.
  inference_timings, _ = take_turns(inference, inference_rounds, num_warm_ups=3)
  return MemberTimings(epoch_timings, inference_timings, compile_seconds)


def bind_member(
  name: str,
  arm: Arm,
  dataset: Dataset,
  splits: Splits,
  device: jax.Device,
  root_seed: int = 0,
  slice_size: int | None = None,
) -> BoundPrograms:
  """Compiles the programs that train one member of an arm, the one with seed 0.

  Args:
    name: name of the arm.
    arm: settings of the arm.
    dataset: the dataset to train on.
    splits: the splits of the dataset, on the device.
    device: the device to train on.
    root_seed: seed of all randomness.
    slice_size: examples that pass through the model at once; None chooses by model and backend.

  Raises:
    InputError: a setting does not fit the dataset.
  """
  kind = devices.kind_of(device)
  (group,) = plan.plan_groups(dataset, {name: arm}, (0,), root_seed, kind, 1, slice_size)
  (chunk,) = group.chunks()
  return chunk_lib.bind(
    chunk_lib.compile_chunk(group, splits, device), group, chunk, splits, device
  )


def training_step(bound: BoundPrograms, num_epochs: int) -> tuple[Step, tuple[MemberState, int]]:
  """Returns the training of a chunk as a step for `take_turns`, one epoch per repetition.

  Args:
    bound: the programs of the chunk.
    num_epochs: E; the epoch numbers start again after the last one.

  Returns:
    The step, and its first carry: (state of the members, number of epochs trained). The step
    donates the state.
  """

  def step(carry):
    members, epoch = carry
    members, epoch_metrics = bound.train_epoch(members, epoch % num_epochs)
    return (members, epoch + 1), epoch_metrics

  return step, (bound.create(), 0)


def compile_inference(recipe: Recipe, variables: Variables, inputs: jax.Array) -> Step:
  """Compiles a step that computes the outputs for inputs `[N, ...]`; its carry is `variables`."""
  predict = jax.jit(lambda variables, inputs: forward.predict(recipe, variables, inputs))
  options = tuning.compile_options(inputs.device.platform)
  program = predict.lower(variables, inputs).compile(options)
  return lambda variables: (variables, program(variables, inputs))


def scores(timings: Timings, metric: str) -> stats.Scores:
  """Returns the median times of each process as scores, with processes in the place of seeds.

  Rounds of one process are no replications: what a process decides when it starts is in all of
  them. A verdict on these scores holds for these programs on this machine.

  Args:
    timings: R rounds of A programs in P processes.
    metric: name of the scores, e.g. "inference_seconds".
  """
  return stats.Scores(
    metric=metric,
    values=np.median(timings.seconds, axis=1),
    seeds=tuple(range(len(timings.seconds))),
    arms=timings.arms,
    axes=stats.AXES,
    higher_is_better=False,
  )


def compare(
  timings: Timings, metric: str, relative_margin: float, alpha: float = 0.05
) -> list[stats.Verdict]:
  """Returns the verdict on every pair of arms, from the differences within each process.

  Args:
    timings: R rounds of A programs in P processes.
    metric: name of the scores, e.g. "inference_seconds".
    relative_margin: the largest difference that counts as none, as a share of the median of all
      times; > 0.
    alpha: level of the tests, after correction for multiple tests.

  Raises:
    InputError: an argument is out of its range.
  """
  margin = relative_margin * float(np.median(timings.seconds))
  return stats.compare(scores(timings, metric), margin=margin, alpha=alpha)


def columns(timings: Mapping[str, Timings]) -> dict[str, list]:
  """Returns the columns of a table of all repetitions.

  They are arm, kind, process and round (both from 1), and seconds.

  Args:
    timings: kind of measurement, e.g. "inference" -> its times.
  """
  rows = [
    (arm, kind, process + 1, number + 1, float(seconds))
    for kind, measured in timings.items()
    for process, rounds in enumerate(measured.seconds)
    for number, row in enumerate(rounds)
    for arm, seconds in zip(measured.arms, row, strict=True)
  ]
  names = ("arm", "kind", "process", "round", "seconds")
  return {name: [row[place] for row in rows] for place, name in enumerate(names)}
