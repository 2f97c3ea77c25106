"""What one arm is: its settings, and which of them are compiled in and which are traced.

An `Arm` holds every setting of a training run. A `Recipe` is the part of it that is static in a
compiled program; `Hyperparams` is the part that is traced, so that arms that differ in nothing else
share one program, and changing a value compiles nothing anew.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import initializers, losses, models, optimizers
from jaxdl.errors import InputError, check_integer, unknown_name

# Stands for "never stop early" in a traced integer.
_NO_PATIENCE = np.iinfo(np.int32).max
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Arm:
  """One condition under comparison: every setting of a training run but its seed.

  Raises InputError for an unknown name or a value out of range.

  Attributes:
    model: one of `jaxdl.models.NAMES`.
    loss: one of `jaxdl.losses.NAMES`.
    optimizer: one of `jaxdl.optimizers.NAMES`.
    learning_rate: > 0.
    kernel_initializer: of kernels, as `jaxdl.initializers.parse` reads it.
    bias_initializer: of biases, likewise.
    dropout_rate: share of activations that dropout sets to zero, in [0, 1).
    batch_size: examples per step; the last batch of an epoch holds what is left. More than there
      are means all of them.
    num_epochs: the most epochs that are trained.
    patience: stop after this many epochs in a row without a better validation loss; None: never.
    min_delta: a validation loss is better when it is lower than the best by more than this.
    restore_best: report the weights of the best epoch instead of the last one.
    threshold: probability above which a model with one output predicts class 1.
    activation: of the hidden layers, one of `jaxdl.models.ACTIVATIONS`.
  """

  model: str = "cnn_binary"
  loss: str = "binary_cross_entropy"
  optimizer: str = "adam"
  learning_rate: float = 0.001
  kernel_initializer: str = "glorot_uniform"
  bias_initializer: str = "zeros"
  dropout_rate: float = 0.5
  batch_size: int = 512
  num_epochs: int = 20
  patience: int | None = 4
  min_delta: float = 0.0
  restore_best: bool = False
  threshold: float = 0.5
  activation: str = "relu"

  def __post_init__(self):
    for field, known in (("model", models), ("loss", losses), ("optimizer", optimizers)):
      if getattr(self, field) not in known.NAMES:
        raise unknown_name(field, getattr(self, field), known.NAMES)
    if self.activation not in models.ACTIVATIONS:
      raise unknown_name("activation", self.activation, models.ACTIVATIONS)
    initializers.parse(self.kernel_initializer, min_ndim=2)
    initializers.parse(self.bias_initializer, min_ndim=1)
    _check_number("learning_rate", self.learning_rate, "> 0", lambda value: value > 0)
    _check_number("dropout_rate", self.dropout_rate, "in [0, 1)", lambda value: 0 <= value < 1)
    _check_number("min_delta", self.min_delta, ">= 0", lambda value: value >= 0)
    _check_number("threshold", self.threshold, "in (0, 1)", lambda value: 0 < value < 1)
    check_integer("batch_size", self.batch_size, 1)
    check_integer("num_epochs", self.num_epochs, 1)
    if self.patience is not None:
      check_integer("patience", self.patience, 0)


class Hyperparams(NamedTuple):
  """The traced settings of one arm; with a leading axis `[A]`, of all arms of one program."""

  learning_rates: jax.Array  # [E, T]
  kernel_init_index: jax.Array  # [] int32, position in Recipe.kernel_initializers
  kernel_init_value: jax.Array  # []
  bias_init_index: jax.Array  # [] int32, position in Recipe.bias_initializers
  bias_init_value: jax.Array  # []
  patience: jax.Array  # [] int32
  min_delta: jax.Array  # []
  threshold: jax.Array  # []


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is static in a compiled program, besides the shapes of its arguments."""

  model: str
  num_outputs: int
  loss: str
  optimizer: str
  dropout_rate: float
  batch_size: int
  num_epochs: int
  restore_best: bool
  kernel_initializers: tuple[str, ...]  # the ones that any arm of the program uses
  bias_initializers: tuple[str, ...]
  slice_size: int  # most examples that pass through the model at once
  activation: str = "relu"


def group_by_recipe(
  arms: Mapping[str, Arm],
  num_classes: int,
  num_examples: int,
  slice_size: Callable[[str, int], int],
) -> dict[Recipe, list[str]]:
  """Groups arms that can share one compiled program.

  Args:
    arms: name -> arm.
    num_classes: C of the dataset.
    num_examples: N of the training set; a larger batch size means the whole set.
    slice_size: `(model, number of arms) -> most examples that pass through it at once`.

  Returns:
    Recipe -> names of its arms, both in the order in which they come.
  """
  groups: dict[Recipe, list[str]] = {}
  for name, arm in arms.items():
    recipe = Recipe(
      model=arm.model,
      num_outputs=losses.num_outputs(arm.loss, num_classes),
      loss=arm.loss,
      optimizer=arm.optimizer,
      dropout_rate=arm.dropout_rate,
      batch_size=min(arm.batch_size, num_examples),
      num_epochs=arm.num_epochs,
      restore_best=arm.restore_best,
      kernel_initializers=(),
      bias_initializers=(),
      slice_size=0,
      activation=arm.activation,
    )
    groups.setdefault(recipe, []).append(name)
  return {
    _complete(recipe, [arms[name] for name in names], slice_size): names
    for recipe, names in groups.items()
  }


def hyperparams(arm: Arm, recipe: Recipe, num_steps: int) -> Hyperparams:
  """Returns the traced settings of one arm for a program with `num_steps` steps an epoch."""
  kernel, kernel_value = initializers.parse(arm.kernel_initializer, min_ndim=2)
  bias, bias_value = initializers.parse(arm.bias_initializer)
  return Hyperparams(
    learning_rates=np.full((recipe.num_epochs, num_steps), arm.learning_rate, np.float32),
    kernel_init_index=np.int32(recipe.kernel_initializers.index(kernel)),
    kernel_init_value=np.float32(kernel_value),
    bias_init_index=np.int32(recipe.bias_initializers.index(bias)),
    bias_init_value=np.float32(bias_value),
    patience=np.int32(_NO_PATIENCE if arm.patience is None else arm.patience),
    min_delta=np.float32(arm.min_delta),
    threshold=np.float32(arm.threshold),
  )


def _complete(recipe: Recipe, arms: list[Arm], slice_size: Callable[[str, int], int]) -> Recipe:
  """Fills in what depends on all arms of a program."""
  kernels = {initializers.parse(arm.kernel_initializer, min_ndim=2)[0] for arm in arms}
  biases = {initializers.parse(arm.bias_initializer)[0] for arm in arms}
  return dataclasses.replace(
    recipe,
    kernel_initializers=tuple(sorted(kernels)),
    bias_initializers=tuple(sorted(biases)),
    slice_size=slice_size(recipe.model, len(arms)),
  )


def _check_number(name: str, value: Any, range_text: str, in_range: Callable[[float], bool]):
  number = isinstance(value, int | float) and not isinstance(value, bool)
  # As the float32 that it becomes: 1e-60 is no learning rate, it is zero.
  if not number or not abs(value) < _FLOAT32_MAX or not in_range(float(np.float32(value))):
    raise InputError(f"{name} must be a finite number {range_text}, not {value!r}")
