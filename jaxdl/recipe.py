"""What a compiled program makes of the settings of its arms, and of the form of a dataset.

`Recipe` is static, `Hyperparams` are traced. Both follow from the declarations in `arm.py`.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxdl import calls
from jaxdl.arm import Arm
from jaxdl.calls import Call
from jaxdl.data.dataset import Dataset
from jaxdl.nn import models, own
from jaxdl.optim import losses, optimizers
from jaxdl.optim.losses import Kind


class Form(NamedTuple):
  """What compiled programs need to know of a dataset."""

  input_shape: tuple[int, ...]  # of one example
  input_dtype: str
  target_shape: tuple[int, ...]  # of one example; () for one class or one number
  # [C], training examples of each class, before any are held out; () if targets are numbers.
  class_counts: tuple[int, ...]
  num_train: int  # N
  preprocess: Any = None  # traced, applied to inputs; None: uint8 images are scaled to [0, 1]
  resample: str | None = None  # how every seed draws its own split; None: all have the same

  @property
  def num_classes(self) -> int:
    """C, or 0 if targets are numbers."""
    return len(self.class_counts)

  def num_steps(self, arm: Arm) -> int:
    """Returns T, the steps of an arm's epoch."""
    return -(-self.num_train // arm.batch_size)


def form_of(dataset: Dataset) -> Form:
  """Returns the form of a dataset."""
  train, num_classes = dataset.train, dataset.num_classes
  counts = np.bincount(train.targets.ravel(), minlength=num_classes) if num_classes else ()
  return Form(
    input_shape=train.inputs.shape[1:],
    input_dtype=train.inputs.dtype.name,
    target_shape=train.targets.shape[1:],
    class_counts=tuple(map(int, counts)),
    num_train=dataset.num_train,
    preprocess=calls.canonical(dataset.preprocess),
    resample=None if dataset.resampling is None else dataset.resampling.scheme,
  )


def _settings(*kinds: str) -> dict[str, dataclasses.Field]:
  fields = dataclasses.fields(Arm)
  return {field.name: field for field in fields if field.metadata["kind"] in kinds}


_STATIC, _TRACED, _CHOICES, _CALLS = (
  _settings(*kinds) for kinds in (("static",), ("traced", "derived"), ("choice",), ("call",))
)


class Choice(NamedTuple):
  """A choice of one arm, traced."""

  index: jax.Array  # [] int32, of its kind among those of the recipe
  values: jax.Array  # [P] float32, the numbers that go with it, then zeros


if TYPE_CHECKING:
  Hyperparams = Any
  Choices = Any
else:
  # The traced settings of one arm: arrays `[]`, except `learning_rate [E, T]`, a `Choice` for each
  # choice, and `optimizer`, its numbers, each `[]`. With a leading axis `[A]` everywhere, those of
  # all arms of one program.
  Hyperparams = collections.namedtuple("Hyperparams", [*_TRACED, *_CHOICES, *_CALLS])
  # The `Kind`s that the arms of one program choose from, sorted, for each choice.
  Choices = collections.namedtuple("Choices", list(_CHOICES))


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is static in a compiled program, besides the shapes of its arguments.

  Attributes:
    arm: the static settings; those that are not static have their defaults.
    optimizer: its name, or a call, without its numbers.
    form: of the dataset.
    num_outputs: of the model.
    choices: the kinds that its arms choose from.
    optional: the optional settings that some arm of the program uses; only these are compiled in.
    slice_size: most examples that pass through the model at once.
    predict_size: likewise, where no gradient is taken.
    native_conv: there a CNN convolves as XLA does, not by `jaxdl.nn.layers.patches`.
  """

  arm: Arm
  optimizer: str | Call
  form: Form
  num_outputs: int
  choices: Choices
  optional: frozenset[str]
  slice_size: int
  predict_size: int
  native_conv: bool = False

  @property
  def is_own(self) -> bool:
    """Whether the model is the user's own: called as in `jaxdl.nn.own`, and on whole batches."""
    return calls.is_importable(self.arm.model)


def group_by_recipe(
  arms: Mapping[str, Arm], form: Form, slice_size: Callable[[str], int]
) -> dict[Recipe, list[str]]:
  """Groups arms that can share one compiled program.

  Args:
    arms: name -> arm.
    form: of the dataset. A batch size larger than its training set means the whole set.
    slice_size: `model -> most examples that pass through it at once`.

  Returns:
    Recipe -> names of its arms, both in the order in which they come.

  Raises:
    InputError: something of the user's own cannot be imported, or does not fit.
  """
  groups = collections.defaultdict(list)
  for name, arm in arms.items():
    check_own(arm)
    static = {setting: getattr(arm, setting) for setting in _STATIC}
    static["batch_size"] = min(arm.batch_size, form.num_train)
    if arm.dropout_rate is None and not calls.is_importable(arm.model):
      static["dropout_rate"] = models.DEFAULT_DROPOUT_RATE
    outputs = losses.num_outputs(arm.loss, form.num_classes, form.target_shape)
    groups[Arm(**static), optimizers.parse(arm.optimizer)[0], outputs].append(name)
  return {
    _recipe(static, optimizer, form, outputs, [arms[name] for name in names], slice_size): names
    for (static, optimizer, outputs), names in groups.items()
  }


def check_own(arm: Arm):
  """Checks what can only be checked once what the user brings is imported.

  Raises:
    InputError: something cannot be imported, or does not take its arguments.
  """
  for parse, value in ((losses.parse, arm.loss), (optimizers.parse, arm.optimizer)):
    parse(value)
  if calls.is_importable(arm.model):
    defaults = {field.name: field.default for field in dataclasses.fields(Arm)}
    set_by_arm = {name: getattr(arm, name) for name in own.SETTINGS}
    changed = {name: value for name, value in set_by_arm.items() if value != defaults[name]}
    own.check_settings(Call.of(arm.model), changed)


def optional(recipe: Recipe, hyper: Hyperparams, name: str) -> Any:
  """Returns the traced value of an optional setting, or None if it is not compiled in."""
  return getattr(hyper, name) if name in recipe.optional else None


def _recipe(
  static: Arm,
  optimizer: str | Call,
  form: Form,
  num_outputs: int,
  arms: Sequence[Arm],
  slice_size: Callable[[str], int],
) -> Recipe:
  kinds = {name: tuple(sorted({_kind(name, arm)[0] for arm in arms}, key=str)) for name in _CHOICES}
  used = {name: field.metadata["used"] for name, field in _TRACED.items()}
  # What the statistics of a whole batch may depend on is not cut into slices.
  is_own = calls.is_importable(static.model)
  size = static.batch_size if is_own else slice_size(static.model)
  return Recipe(
    arm=static,
    optimizer=optimizer,
    form=form,
    num_outputs=num_outputs,
    choices=Choices(**kinds),
    optional=frozenset(
      name for name, uses in used.items() if uses is not None and any(map(uses, arms))
    ),
    slice_size=size,
    # Where no gradient is taken nothing is kept for one, so twice as many examples fit.
    predict_size=2 * size,
  )


def _kind(name: str, arm: Arm) -> tuple[Kind, dict[str, float]]:
  """Returns the kind of an arm's choice, and the numbers that go with it."""
  kind, numbers = _CHOICES[name].metadata["parse"](getattr(arm, name))
  return Kind(kind, tuple(numbers)), numbers


def hyperparams(arm: Arm, recipe: Recipe) -> Hyperparams:
  """Returns the traced settings of one arm of a recipe's program."""
  form = recipe.form
  traced = {name: _trace(arm, name, form) for name in _TRACED}
  for name in _CHOICES:
    kind, numbers = _kind(name, arm)
    kinds = getattr(recipe.choices, name)
    values = np.zeros(max(len(other.arguments) for other in kinds), np.float32)
    values[: len(numbers)] = [*numbers.values()]
    traced[name] = Choice(np.int32(kinds.index(kind)), values)
  for name, field in _CALLS.items():
    numbers = field.metadata["parse"](getattr(arm, name))[1]
    traced[name] = _numbers(*numbers)(*map(np.float32, numbers.values()))
  return Hyperparams(**traced)


@functools.cache
def _numbers(*names: str) -> type:
  """Returns one and the same type of named tuples for the same names: a tree that is hashable."""
  return collections.namedtuple("Numbers", names)


def _trace(arm: Arm, name: str, form: Form) -> Any:
  metadata = _TRACED[name].metadata
  if metadata["kind"] == "derived":
    return metadata["trace"](arm, form)
  return metadata["trace"](getattr(arm, name))
