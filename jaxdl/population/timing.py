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
import jax.numpy as jnp
import numpy as np

from jaxdl import arm as arm_lib
from jaxdl import stats, train
from jaxdl.arm import Arm, Hyperparams, Recipe
from jaxdl.data.dataset import Dataset
from jaxdl.errors import check_integer
from jaxdl.population import devices, tuning


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
  train_set, validation, test_set = train.put_splits(dataset, device)
  training, compile_seconds, recipes = {}, {}, {}
  for name, arm in arms.items():
    recipe, hyper = _alone(name, arm, dataset, slice_size, device)
    key = jax.device_put(train.seed_key(root_seed, 0), device)
    start = time.perf_counter()
    training[name] = compile_epoch(recipe, key, hyper, train_set, validation)
    compile_seconds[name] = time.perf_counter() - start
    recipes[name] = recipe
  epoch_timings, carries = take_turns(training, train_rounds)
  inference = {}
  for name, recipe in recipes.items():
    params = train.reported_params(recipe, carries[name][0])
    start = time.perf_counter()
    inference[name] = compile_inference(recipe, params, test_set.images), params
    compile_seconds[name] += time.perf_counter() - start
  # It takes no longer than a few steps of training, so it needs more than one to be warm.
  inference_timings, _ = take_turns(inference, inference_rounds, num_warm_ups=3)
  return MemberTimings(epoch_timings, inference_timings, compile_seconds)


def compile_epoch(
  recipe: Recipe,
  key: jax.Array,
  hyper: Hyperparams,
  train_set: train.Examples,
  validation: train.Examples,
) -> tuple[Step, tuple[train.MemberState, int]]:
  """Compiles an epoch of one member, whose state is donated, and returns it as `take_turns` has it.

  Args:
    recipe: the static settings.
    key: of the member's seed, from `train.seed_key`.
    hyper: the traced settings of the member's arm.
    train_set: training examples; all arguments are on the device that is to be timed.
    validation: validation examples, possibly none.

  Returns:
    A step from (the member, epochs it has trained) to the same after one more, and its first carry.
  """
  image_shape = train_set.images.shape[1:]
  create = jax.jit(lambda key, hyper: train.create_member(recipe, key, hyper, image_shape))
  state = create(key, hyper)
  epoch = jax.jit(lambda *arguments: train.train_epoch(recipe, *arguments), donate_argnums=0)
  lowered = epoch.lower(state, key, hyper, train_set, validation, jnp.int32(0))
  program = lowered.compile(tuning.compile_options(key.device.platform))

  def step(carry):
    state, epoch = carry
    index = np.int32(epoch % recipe.num_epochs)
    state, epoch_metrics = program(state, key, hyper, train_set, validation, index)
    return (state, epoch + 1), epoch_metrics

  return step, (state, 0)


def compile_inference(recipe: Recipe, params: dict, images: jax.Array) -> Step:
  """Compiles the logits of images `[N, H, W, D]` and returns them as a step that keeps `params`."""
  predict = jax.jit(lambda params, images: train.predict(recipe, params, images))
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


def _alone(
  name: str, arm: Arm, dataset: Dataset, slice_size: int | None, device: jax.Device
) -> tuple[Recipe, Hyperparams]:
  """Returns the recipe of an arm that shares its program with no other, and its settings."""
  sizes = tuning.slice_sizes(slice_size, device.platform)
  groups = arm_lib.group_by_recipe({name: arm}, dataset.num_classes, len(dataset.train), sizes)
  (recipe,) = groups
  num_steps = -(-len(dataset.train) // recipe.batch_size)
  hyper = jax.tree.map(jnp.asarray, arm_lib.hyperparams(arm, recipe, num_steps))
  member = train.member_shapes(recipe, hyper, dataset.train.images.shape[1:])
  complete = tuning.complete(recipe, 1, devices.kind_of(device), member.params)
  return complete, jax.device_put(hyper, device)
