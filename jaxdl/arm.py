"""One arm: its settings, each declared once, and what a compiled program makes of them.

A static setting is compiled in; arms with the same static settings share one program. A traced
setting is an array, so that changing its value compiles nothing. A choice compiles in every kind
that some arm of the program has, and a traced index chooses among them. `Recipe` (static) and
`Hyperparams` (traced) follow from the declarations.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxdl.errors import InputError
from jaxdl.nn import initializers, models
from jaxdl.nn.augment import Augmentation
from jaxdl.optim import losses, optimizers, schedules
from jaxdl.settings import (
  call,
  checked_together,
  choice,
  derived,
  flag,
  integer,
  number,
  one_of,
  part,
  static,
  traced,
)

# Stands for "never" in a traced number of epochs.
_NEVER = np.iinfo(np.int32).max
# Every member has a curve that long.
_MAX_EPOCHS = 10**6


def _parse_loss(name: str) -> tuple[str, float]:
  one_of(losses.NAMES)("loss", name)
  return name, 0.0


def _parse_kernel(spec: str) -> tuple[str, float]:
  return initializers.parse(spec, min_ndim=2)


def _patience(epochs: int | None) -> np.int32:
  return np.int32(_NEVER if epochs is None else epochs)


_POSITIVE = number("> 0", lambda value: value > 0)
_NOT_NEGATIVE = number(">= 0", lambda value: value >= 0)
_SHARE = number("in [0, 1)", lambda value: 0 <= value < 1)
_BETWEEN = number("in (0, 1)", lambda value: 0 < value < 1)


@dataclasses.dataclass(frozen=True)
class Arm:
  """One condition under comparison: every setting of a training run but its seed.

  Raises InputError for an unknown name or a value out of range.

  Attributes:
    model: as `jaxdl.nn.models.parse` reads it.
    loss: one of `jaxdl.optim.losses.NAMES`.
    optimizer: as `jaxdl.optim.optimizers.parse` reads it, e.g. `adam` or `adam(b1=0.8)`.
    learning_rate: > 0; the schedule starts from it.
    kernel_initializer: of kernels, as `jaxdl.nn.initializers.parse` reads it.
    bias_initializer: of biases, in the same form.
    dropout_rate: the share of activations that dropout sets to zero, in [0, 1).
    batch_size: examples per step; the last batch of an epoch is smaller if they do not divide
      evenly. A batch size above the number of examples means all of them.
    num_epochs: the largest number of epochs.
    patience: stop after this many epochs in a row without a better validation loss; None: never.
    min_delta: a validation loss is better when it is lower than the best by more than this.
    restore_best: report the weights of the best epoch instead of the last one.
    threshold: probability above which a model with one output predicts class 1.
    activation: of the hidden layers, one of `jaxdl.nn.models.ACTIVATIONS`.
    schedule: of the learning rate, as `jaxdl.optim.schedules.parse` reads it.
    plateau_patience: multiply the learning rate by `plateau_factor` after this many epochs in a row
      without a better validation loss, as Keras's ReduceLROnPlateau does; None: never.
    plateau_factor: in (0, 1).
    plateau_min_delta: for a plateau, a validation loss is better when it is lower by more than
      this.
    plateau_cooldown: epochs after a reduction that do not count towards the next one.
    min_learning_rate: >= 0, <= learning_rate; no step has a lower rate, whatever the schedule and
      the plateaus.
    label_smoothing: the share of a target that is spread over all classes, in [0, 1); for the
      cross-entropies only. The reported losses include it.
    l2: the gradient is that of the loss plus l2 * sum(kernel^2), as with Keras's L2 regularizer.
      The reported losses do not include it.
    weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019): a step also subtracts
      learning_rate * weight_decay * parameter. None: 0.004 for adamw, else 0.
    rotation_range: training images are rotated by up to this many degrees in either direction.
    shift_range: training images are shifted by up to this share of their height and width.
    horizontal_flip: whether each training image is mirrored with probability 1/2.
  """

  model: str = static("cnn_binary", lambda _, spec: models.parse(spec))
  loss: str = choice("binary_cross_entropy", _parse_loss)
  optimizer: str = call("adam", optimizers.parse)
  # Traced as the rates of all steps, [E, T].
  learning_rate: float = derived(
    0.001, _POSITIVE, lambda arm, num_steps: arm.learning_rates(num_steps)
  )
  kernel_initializer: str = choice("glorot_uniform", _parse_kernel)
  bias_initializer: str = choice("zeros", initializers.parse)
  dropout_rate: float = static(0.5, _SHARE)
  batch_size: int = static(512, integer(1))
  num_epochs: int = static(20, integer(1, _MAX_EPOCHS))
  patience: int | None = traced(4, integer(0, optional=True), _patience)
  min_delta: float = traced(0.0, _NOT_NEGATIVE)
  restore_best: bool = static(False, flag)
  threshold: float = traced(0.5, _BETWEEN)
  activation: str = static("relu", one_of(models.ACTIVATIONS))
  schedule: str = part("constant", checked_together)
  plateau_patience: int | None = traced(None, integer(0, optional=True), _patience)
  plateau_factor: float = traced(0.1, _BETWEEN)
  plateau_min_delta: float = traced(1e-4, _NOT_NEGATIVE)
  plateau_cooldown: int = traced(0, integer(0), np.int32)
  min_learning_rate: float = traced(0.0, _NOT_NEGATIVE)
  label_smoothing: float = traced(0.0, _SHARE, optional=True)
  l2: float = traced(0.0, _NOT_NEGATIVE, optional=True)
  weight_decay: float | None = derived(
    None,
    number(">= 0", lambda value: value >= 0, optional=True),
    lambda arm, _: np.float32(arm.effective_weight_decay),
    optional=True,
  )
  rotation_range: float = static(0.0, checked_together)
  shift_range: float = static(0.0, checked_together)
  horizontal_flip: bool = static(False, checked_together)

  def __post_init__(self):
    for field in dataclasses.fields(self):
      field.metadata["check"](field.name, getattr(self, field.name))
    schedules.check(self.schedule, self.num_epochs)
    if self.min_learning_rate > self.learning_rate:
      raise InputError(
        f"min_learning_rate = {self.min_learning_rate} is above learning_rate = "
        f"{self.learning_rate}"
      )
    if self.label_smoothing > 0 and self.loss not in losses.SMOOTHABLE:
      raise InputError(
        f"label_smoothing is for {' and '.join(losses.SMOOTHABLE)}, not for loss {self.loss!r}"
      )
    _ = self.augmentation  # raises InputError for a value out of range

  def replace(self, **settings: Any) -> "Arm":
    """Returns an arm with other values of some settings."""
    return dataclasses.replace(self, **settings)

  @property
  def augmentation(self) -> Augmentation:
    """What is done to training images."""
    return Augmentation(self.rotation_range, self.shift_range, self.horizontal_flip)

  @property
  def needs_validation(self) -> bool:
    """Whether anything in the run is decided by the validation loss."""
    return self.patience is not None or self.plateau_patience is not None or self.restore_best

  @property
  def effective_weight_decay(self) -> float:
    """The weight decay, the optimizer's default where none is set."""
    if self.weight_decay is None:
      return optimizers.default_weight_decay(optimizers.parse(self.optimizer)[0])
    return self.weight_decay

  def learning_rates(self, num_steps: int) -> np.ndarray:
    """Returns the rate of every step, `[E, T]` float32, for epochs of `num_steps` steps."""
    return schedules.learning_rates(self.schedule, self.learning_rate, self.num_epochs, num_steps)


def _settings(*kinds: str) -> dict[str, dataclasses.Field]:
  fields = dataclasses.fields(Arm)
  return {field.name: field for field in fields if field.metadata["kind"] in kinds}


_STATIC, _TRACED, _CHOICES, _CALLS = (
  _settings(*kinds) for kinds in (("static",), ("traced", "derived"), ("choice",), ("call",))
)


class Choice(NamedTuple):
  """A choice of one arm, traced."""

  index: jax.Array  # [] int32, of its kind among those of the recipe
  value: jax.Array  # [] float32, the number that goes with it


if TYPE_CHECKING:
  Hyperparams = Any
  Choices = Any
else:
  # The traced settings of one arm: arrays `[]`, except `learning_rate [E, T]`, a `Choice` for each
  # choice, and `optimizer`, its numbers, each `[]`. With a leading axis `[A]` everywhere, those of
  # all arms of one program.
  Hyperparams = collections.namedtuple("Hyperparams", [*_TRACED, *_CHOICES, *_CALLS])
  # The names of the kinds that the arms of one program choose from, sorted, for each choice.
  Choices = collections.namedtuple("Choices", list(_CHOICES))


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is static in a compiled program, besides the shapes of its arguments.

  Attributes:
    arm: the static settings; those that are not static have their defaults.
    num_outputs: of the model.
    choices: the kinds that its arms choose from.
    optional: the optional settings that some arm of the program uses; only these are compiled in.
    slice_size: most examples that pass through the model at once.
    predict_size: likewise, where no gradient is taken.
    native_conv: there a CNN convolves as XLA does, not by `jaxdl.nn.layers.patches`.
  """

  arm: Arm
  num_outputs: int
  choices: Choices
  optional: frozenset[str]
  slice_size: int
  predict_size: int
  native_conv: bool = False


def group_by_recipe(
  arms: Mapping[str, Arm],
  num_classes: int,
  num_examples: int,
  slice_size: Callable[[str], int],
) -> dict[Recipe, list[str]]:
  """Groups arms that can share one compiled program.

  Args:
    arms: name -> arm.
    num_classes: C of the dataset.
    num_examples: N of the training set; a larger batch size means the whole set.
    slice_size: `model -> most examples that pass through it at once`.

  Returns:
    Recipe -> names of its arms, both in the order in which they come.
  """
  groups = collections.defaultdict(list)
  for name, arm in arms.items():
    static = {setting: getattr(arm, setting) for setting in _STATIC}
    static |= {
      name: field.metadata["parse"](getattr(arm, name))[0] for name, field in _CALLS.items()
    }
    static["batch_size"] = min(arm.batch_size, num_examples)
    groups[Arm(**static), losses.num_outputs(arm.loss, num_classes)].append(name)
  return {
    _recipe(static, num_outputs, [arms[name] for name in names], slice_size(static.model)): names
    for (static, num_outputs), names in groups.items()
  }


def optional(recipe: Recipe, hyper: Hyperparams, name: str) -> Any:
  """Returns the traced value of an optional setting, or None if it is not compiled in."""
  return getattr(hyper, name) if name in recipe.optional else None


def _recipe(static: Arm, num_outputs: int, arms: Sequence[Arm], slice_size: int) -> Recipe:
  kinds = {
    name: tuple(sorted({field.metadata["parse"](getattr(arm, name))[0] for arm in arms}))
    for name, field in _CHOICES.items()
  }
  optional = [name for name, field in _TRACED.items() if field.metadata["optional"]]
  return Recipe(
    arm=static,
    num_outputs=num_outputs,
    choices=Choices(**kinds),
    optional=frozenset(name for name in optional if any(_trace(arm, name, 1) > 0 for arm in arms)),
    slice_size=slice_size,
    # Where no gradient is taken nothing is kept for one, so twice as many examples fit.
    predict_size=2 * slice_size,
  )


def hyperparams(arm: Arm, recipe: Recipe, num_steps: int) -> Hyperparams:
  """Returns the traced settings of one arm for a program with `num_steps` steps an epoch."""
  traced = {name: _trace(arm, name, num_steps) for name in _TRACED}
  for name, field in _CHOICES.items():
    kind, value = field.metadata["parse"](getattr(arm, name))
    index = getattr(recipe.choices, name).index(kind)
    traced[name] = Choice(np.int32(index), np.float32(value))
  for name, field in _CALLS.items():
    numbers = field.metadata["parse"](getattr(arm, name))[1]
    traced[name] = _numbers(*numbers)(*map(np.float32, numbers.values()))
  return Hyperparams(**traced)


@functools.cache
def _numbers(*names: str) -> type:
  """Returns one and the same type of named tuples for the same names: a tree that is hashable."""
  return collections.namedtuple("Numbers", names)


def _trace(arm: Arm, name: str, num_steps: int) -> Any:
  metadata = _TRACED[name].metadata
  if metadata["kind"] == "derived":
    return metadata["trace"](arm, num_steps)
  return metadata["trace"](getattr(arm, name))
