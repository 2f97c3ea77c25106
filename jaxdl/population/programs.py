"""The compiled programs of a population: `jaxdl.train` mapped over seeds and arms."""

import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import forward, member, train
from jaxdl.batches import Examples
from jaxdl.cpu import step as cpu_step
from jaxdl.data.dataset import Dataset
from jaxdl.forward import Variables
from jaxdl.member import MemberState
from jaxdl.optim import metrics
from jaxdl.population import devices, tuning
from jaxdl.population.devices import DeviceKind
from jaxdl.recipe import Hyperparams, Recipe

# The training, validation and test examples of a dataset.
Splits = tuple[Examples, Examples, Examples]


class TestResult(NamedTuple):
  """The results of one member on the test set."""

  loss: jax.Array  # []
  outputs: jax.Array  # [N, C], [N, L, C] of sequences; [N, K] if targets are numbers
  metrics: dict[str, jax.Array]  # the means of the arm's metrics, each []
  predicted: jax.Array | None  # [N] or [N, L] int32, at the arm's threshold; None for numbers
  predicted_at_half: jax.Array | None  # likewise, at threshold 0.5


# Records more about a member, at initialisation and after every epoch: a pure function
# `(recipe, variables, hyper, train, validation, test) -> {name: array}`; the last three arguments
# are the splits.
Observer = Callable[
  [Recipe, Variables, Hyperparams, Examples, Examples, Examples], dict[str, jax.Array]
]


class Functions(NamedTuple):
  """The functions of `jaxdl.train`, mapped over the seeds `[s]` and arms `[a]` of a chunk."""

  create: Callable  # keys [s], settings [a, ...] -> state [s, a, ...]
  train_epoch: Callable  # state, keys, settings, train, validation, epoch -> state, metrics [s, a]
  test: Callable  # state, settings, test -> TestResult [s, a, ...]
  observe: Callable | None  # variables, settings, train, validation, test -> {name: [s, a, ...]}


class Programs(NamedTuple):
  """`Functions` compiled for one set of shapes, and the shapes of the members' state."""

  state: Any
  create: Callable
  train_epoch: Callable
  test: Callable
  observe: Callable = lambda *_: {}  # without an observer, nothing is compiled or run


def put_splits(
  dataset: Dataset,
  device: jax.Device,
  put: Callable[[Examples, jax.Device], Examples] | None = None,
) -> Splits:
  """Returns the training, validation and test examples of a dataset, on a device.

  Args:
    dataset: the dataset.
    device: it, or one of several that have the same memory.
    put: copies examples to the device, or to each of several; None: `jax.device_put`.

  Raises:
    InputError: they are larger than its memory.
  """
  devices.check_data_fit(dataset, device)
  put = put or jax.device_put
  splits = (Examples(split.inputs, split.targets) for split in dataset.splits)
  train, validation, test = (put(split, device) for split in splits)
  return train, validation, train if dataset.resampling is not None else test


def kernels(recipe: Recipe, num_members: int, device: DeviceKind, params: Any) -> str:
  """Returns which kernels a program uses besides XLA's, as in `DeviceKind.kernels`.

  A program on CPU that trains one member at a time uses the kernels of its device if any layer
  gains from them.

  Args:
    recipe: the recipe of the program.
    num_members: members that the program trains at a time.
    device: the kind of device that it runs on.
    params: the parameters of one member, or their shapes.
  """
  alone = device.platform == "cpu" and num_members == 1
  return device.kernels if alone and cpu_step.gains(recipe, params) else ""


@functools.lru_cache(maxsize=64)
def compile_programs(
  recipe, step_kernels, observer, precision, keys, hyper, train_set, validation, test_set
) -> Programs:
  """Compiles the programs of one recipe for one set of shapes on one device; the result is cached.

  Args:
    recipe: the static settings.
    step_kernels: the result of `kernels`.
    observer: an `Observer`, or None.
    precision: the setting `jax_default_matmul_precision`, of this thread.
    keys: shape of a chunk's keys, `[s]`. This and all that follow are shapes with a sharding, as
      `abstract` returns them.
    hyper: shapes of a chunk's settings, `[a, ...]`.
    train_set: shapes of the training examples.
    validation: shapes of the validation examples; may have length 0.
    test_set: shapes of the test examples.
  """
  functions = map_functions(recipe, step_kernels, observer, len(keys), len(hyper.patience))
  index = jax.ShapeDtypeStruct((), jnp.int32, sharding=keys.sharding)
  return compile_functions(functions, keys, hyper, (train_set, validation, test_set), index)


def map_functions(
  recipe: Recipe,
  step_kernels: str,
  observer: Observer | None,
  num_seeds: int,
  num_arms: int,
) -> Functions:
  """Maps the functions of one member over the seeds and arms of a chunk.

  By `in_axes`, keys are mapped over seeds only, settings over arms only, and data over neither,
  except which examples a seed is trained and tested on. So whatever depends only on the key and the
  data is computed once for all arms of a seed.
  """
  own = None if recipe.form.resample is None else Examples(None, None, 0)  # over seeds

  def population(function, over_arms, over_seeds):
    return _map(_map(function, over_arms, num_arms), over_seeds, num_seeds)

  observe = None
  if observer is not None:

    def of_own(variables, hyper, *splits):
      return observer(recipe, variables, hyper, *(split.taken() for split in splits))

    observe = population(of_own, (0, 0, None, None, None), (0, None, own, None, own))
  step = cpu_step.train_step if step_kernels == devices.CPP else train.train_step
  return Functions(
    create=population(functools.partial(train.create_member, recipe), (None, 0), (0, None)),
    train_epoch=population(
      functools.partial(train.train_epoch, recipe, step=step),
      (0, None, 0, None, None, None),
      (0, 0, None, own, None, None),
    ),
    test=population(functools.partial(_test_member, recipe), (0, 0, None), (0, None, own)),
    observe=observe,
  )


def reported_variables(recipe: Recipe, members: Any) -> Variables:
  """Returns the variables `[s, a, ...]` of members `[s, a, ...]` that results are about."""
  return _reported(recipe)(members)


@functools.lru_cache(maxsize=64)
def _reported(recipe: Recipe) -> Callable:
  return jax.jit(jax.vmap(jax.vmap(functools.partial(member.reported_variables, recipe))))


def compile_functions(
  functions: Functions,
  keys: Any,
  hyper: Hyperparams,
  splits: Splits,
  index: Any,
) -> Programs:
  """Compiles functions for the shapes and shardings of their arguments.

  Args:
    functions: the result of `map_functions`, for one device or spread over several.
    keys: shape of the members' keys; the members' state gets the same sharding.
    hyper: shapes of the members' settings.
    splits: shapes of the training, validation and test examples.
    index: shape of the epoch's number, `[]` int32.
  """
  state, jitted = jit_functions(functions, keys, hyper, splits, index)
  lowered = [function.lower(*shapes) for function, shapes in jitted]
  platform = next(iter(keys.sharding.device_set)).platform
  options = [tuning.compile_options(platform)] * len(lowered)
  # Drawing weights takes milliseconds and happens once, but accounts for most of the compilation:
  # the code of random bits is long, and XLA on CPU optimises it for five times as long as it takes
  # to compile the code unoptimised.
  options[0] = {"xla_backend_optimization_level": 0} if platform == "cpu" else {}
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return Programs(state, *pool.map(lambda p, o: p.compile(o), lowered, options))


def jit_functions(
  functions: Functions, keys: Any, hyper: Hyperparams, splits: Splits, index: Any
) -> tuple[Any, list[tuple[Any, tuple[Any, ...]]]]:
  """Returns what `compile_functions` compiles; its arguments are the same.

  Returns:
    The shapes of the members' state, and for each function its `jax.jit` and the shapes of its
    arguments.
  """
  train_set, validation, test_set = splits
  state = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=keys.sharding),
    jax.eval_shape(functions.create, keys, hyper),
  )
  epoch = jax.jit(functions.train_epoch, donate_argnums=0)
  jitted = [
    (jax.jit(functions.create), (keys, hyper)),
    (epoch, (state, keys, hyper, train_set, validation, index)),
    (jax.jit(functions.test), (state, hyper, test_set)),
  ]
  if functions.observe is not None:
    jitted.append((jax.jit(functions.observe), (state.variables, hyper, *splits)))
  return state, jitted


def _map(function: Callable, in_axes: Sequence[int | Examples | None], size: int) -> Callable:
  """Returns `jax.vmap(function, in_axes)`; an axis of length 1 is removed instead of mapped.

  XLA multiplies a batch of one matrix differently from a single matrix: on CPU that took twice as
  long for matrices larger than the cache.
  """
  if size > 1:
    return jax.vmap(function, in_axes)

  def alone(*arguments):
    first = map(_first, arguments, in_axes)
    return jax.tree.map(lambda leaf: leaf[None], function(*first))

  return alone


def _first(argument: Any, axis: int | Examples | None) -> Any:
  """Removes an axis of length 1 from the arrays that have it."""
  if isinstance(axis, Examples):
    return Examples(*map(_first, argument, axis))
  return argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)


def _test_member(
  recipe: Recipe, state: MemberState, hyper: Hyperparams, test_set: Examples
) -> TestResult:
  """Returns the results of one member on all test examples."""
  variables = member.reported_variables(recipe, state)
  outputs = forward.predict(recipe, variables, test_set.inputs, test_set.chosen)
  targets = test_set.targets if test_set.chosen is None else test_set.targets[test_set.chosen]
  has_classes = recipe.form.num_classes > 0
  return TestResult(
    loss=forward.mean_loss(recipe, hyper, outputs, targets),
    outputs=outputs,
    metrics=forward.mean_metrics(recipe, outputs, targets),
    predicted=metrics.predict_class(outputs, hyper.threshold) if has_classes else None,
    predicted_at_half=metrics.predict_class(outputs, 0.5) if has_classes else None,
  )


def abstract(tree: Any) -> Any:
  """Returns the shapes, dtypes and shardings of arrays."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
