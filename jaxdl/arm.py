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

from jaxdl.errors import InputError, check_integer, show, unknown_name
from jaxdl.nn import initializers, models
from jaxdl.nn.augment import Augmentation
from jaxdl.optim import losses, optimizers, schedules

# Stands for "never stop early" in a traced integer.
_NO_PATIENCE = np.iinfo(np.int32).max
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# Every member has a curve that long.
_MAX_EPOCHS = 10**6


@dataclasses.dataclass(frozen=True)
class Arm:
  """One condition under comparison: every setting of a training run but its seed.

  Raises InputError for an unknown name or a value out of range.

  Attributes:
    model: as `jaxdl.nn.models.parse` reads it.
    loss: one of `jaxdl.optim.losses.NAMES`.
    optimizer: one of `jaxdl.optim.optimizers.NAMES`.
    learning_rate: > 0; the schedule starts from it.
    kernel_initializer: of kernels, as `jaxdl.nn.initializers.parse` reads it.
    bias_initializer: of biases, likewise.
    dropout_rate: share of activations that dropout sets to zero, in [0, 1).
    batch_size: examples per step; the last batch of an epoch holds what is left. More than there
      are means all of them.
    num_epochs: the most epochs that are trained.
    patience: stop after this many epochs in a row without a better validation loss; None: never.
    min_delta: a validation loss is better when it is lower than the best by more than this.
    restore_best: report the weights of the best epoch instead of the last one.
    threshold: probability above which a model with one output predicts class 1.
    activation: of the hidden layers, one of `jaxdl.nn.models.ACTIVATIONS`.
    schedule: of the learning rate, as `jaxdl.optim.schedules.parse` reads it.
    plateau_patience: multiply the learning rate by `plateau_factor` after this many epochs in a row
      without a better validation loss, as Keras's ReduceLROnPlateau does; None: never.
    plateau_factor: in (0, 1).
    plateau_min_delta: here a validation loss is better when it is lower by more than this.
    plateau_cooldown: epochs after a reduction that are not counted.
    min_learning_rate: a plateau reduces the learning rate no further.
    label_smoothing: share of a target that is spread over all classes, in [0, 1); for the
      cross-entropies. It is part of the losses that are reported.
    l2: the gradient is that of the loss plus l2 * sum(kernel^2), as with Keras's L2 regularizer.
      The losses that are reported are without it.
    weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019): a step also takes
      learning_rate * weight_decay * parameter away. None: 0.004 for adamw, else 0.
    rotation_range: training images are rotated by up to so many degrees either way.
    shift_range: and shifted by up to this share of their height and width either way.
    horizontal_flip: and flipped, every other one.
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
  schedule: str = "constant"
  plateau_patience: int | None = None
  plateau_factor: float = 0.1
  plateau_min_delta: float = 1e-4
  plateau_cooldown: int = 0
  min_learning_rate: float = 0.0
  label_smoothing: float = 0.0
  l2: float = 0.0
  weight_decay: float | None = None
  rotation_range: float = 0.0
  shift_range: float = 0.0
  horizontal_flip: bool = False

  def __post_init__(self):
    models.parse(self.model)
    for field, known in (("loss", losses), ("optimizer", optimizers)):
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
    check_integer("num_epochs", self.num_epochs, 1, _MAX_EPOCHS)
    check_integer("plateau_cooldown", self.plateau_cooldown, 0)
    for name in ("patience", "plateau_patience"):
      if getattr(self, name) is not None:
        check_integer(name, getattr(self, name), 0)
    if not isinstance(self.restore_best, bool):
      raise InputError(f"restore_best must be True or False, not {show(self.restore_best)}")
    self._check_schedule()
    self._check_regularization()

  def _check_schedule(self):
    schedules.check(self.schedule, self.num_epochs)
    _check_number("plateau_factor", self.plateau_factor, "in (0, 1)", lambda value: 0 < value < 1)
    for name in ("plateau_min_delta", "min_learning_rate"):
      _check_number(name, getattr(self, name), ">= 0", lambda value: value >= 0)

  def _check_regularization(self):
    _check_number("label_smoothing", self.label_smoothing, "in [0, 1)", lambda v: 0 <= v < 1)
    if self.label_smoothing > 0 and self.loss not in losses.SMOOTHABLE:
      raise InputError(
        f"label_smoothing is for {' and '.join(losses.SMOOTHABLE)}, not for loss {self.loss!r}"
      )
    for name in ("l2", "weight_decay"):
      if getattr(self, name) is not None:
        _check_number(name, getattr(self, name), ">= 0", lambda value: value >= 0)
    _ = self.augmentation

  @property
  def augmentation(self) -> Augmentation:
    """What is done to training images."""
    return Augmentation(self.rotation_range, self.shift_range, self.horizontal_flip)

  @property
  def needs_validation(self) -> bool:
    """Whether anything in the run is decided by the validation loss."""
    return self.patience is not None or self.plateau_patience is not None or self.restore_best


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
  loss_index: jax.Array  # [] int32, position in Recipe.losses
  label_smoothing: jax.Array  # []
  l2: jax.Array  # []
  weight_decay: jax.Array  # []
  plateau_patience: jax.Array  # [] int32
  plateau_factor: jax.Array  # []
  plateau_min_delta: jax.Array  # []
  plateau_cooldown: jax.Array  # [] int32
  plateau_min_scale: jax.Array  # [], of the learning rate, as a share of the schedule's


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is static in a compiled program, besides the shapes of its arguments."""

  model: str
  num_outputs: int
  optimizer: str
  dropout_rate: float
  batch_size: int
  num_epochs: int
  restore_best: bool
  activation: str = "relu"
  augmentation: Augmentation = Augmentation()  # noqa: RUF009  (it is frozen)
  slice_size: int = 0  # most examples that pass through the model at once
  # Likewise where no gradient is taken; as many until `chunks.complete` decides on both.
  predict_size: int = 0
  native_conv: bool = False  # there a CNN convolves as XLA does, not by `layers.patches`
  cpu_layers: bool = False  # layers by `jaxdl.cpu.cpu_layers`; likewise decided there
  # What any arm of the program uses; only that is compiled in.
  losses: tuple[str, ...] = ()
  kernel_initializers: tuple[str, ...] = ()
  bias_initializers: tuple[str, ...] = ()
  label_smoothing: bool = False
  l2: bool = False
  weight_decay: bool = False


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
  groups: dict[Recipe, list[str]] = {}
  for name, arm in arms.items():
    recipe = Recipe(
      model=arm.model,
      num_outputs=losses.num_outputs(arm.loss, num_classes),
      optimizer=arm.optimizer,
      dropout_rate=arm.dropout_rate,
      batch_size=min(arm.batch_size, num_examples),
      num_epochs=arm.num_epochs,
      restore_best=arm.restore_best,
      activation=arm.activation,
      augmentation=arm.augmentation,
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
    learning_rates=schedules.learning_rates(
      arm.schedule, arm.learning_rate, recipe.num_epochs, num_steps
    ),
    kernel_init_index=np.int32(recipe.kernel_initializers.index(kernel)),
    kernel_init_value=np.float32(kernel_value),
    bias_init_index=np.int32(recipe.bias_initializers.index(bias)),
    bias_init_value=np.float32(bias_value),
    patience=_patience(arm.patience),
    min_delta=np.float32(arm.min_delta),
    threshold=np.float32(arm.threshold),
    loss_index=np.int32(recipe.losses.index(arm.loss)),
    label_smoothing=np.float32(arm.label_smoothing),
    l2=np.float32(arm.l2),
    weight_decay=np.float32(_weight_decay(arm)),
    plateau_patience=_patience(arm.plateau_patience),
    plateau_factor=np.float32(arm.plateau_factor),
    plateau_min_delta=np.float32(arm.plateau_min_delta),
    plateau_cooldown=np.int32(arm.plateau_cooldown),
    plateau_min_scale=np.float32(arm.min_learning_rate / arm.learning_rate),
  )


def _patience(patience: int | None) -> np.int32:
  return np.int32(_NO_PATIENCE if patience is None else patience)


def _weight_decay(arm: Arm) -> float:
  if arm.weight_decay is None:
    return optimizers.default_weight_decay(arm.optimizer)
  return arm.weight_decay


def _complete(recipe: Recipe, arms: list[Arm], slice_size: Callable[[str], int]) -> Recipe:
  """Fills in what depends on all arms of a program."""
  kernels = {initializers.parse(arm.kernel_initializer, min_ndim=2)[0] for arm in arms}
  biases = {initializers.parse(arm.bias_initializer)[0] for arm in arms}
  return dataclasses.replace(
    recipe,
    kernel_initializers=tuple(sorted(kernels)),
    bias_initializers=tuple(sorted(biases)),
    slice_size=slice_size(recipe.model),
    predict_size=slice_size(recipe.model),
    losses=tuple(sorted({arm.loss for arm in arms})),
    label_smoothing=any(arm.label_smoothing > 0 for arm in arms),
    l2=any(arm.l2 > 0 for arm in arms),
    weight_decay=any(_weight_decay(arm) > 0 for arm in arms),
  )


def _check_number(name: str, value: Any, range_text: str, in_range: Callable[[float], bool]):
  number = isinstance(value, int | float) and not isinstance(value, bool)
  # As the float32 that it becomes: 1e-60 is no learning rate, it is zero.
  if not number or not abs(value) < _FLOAT32_MAX or not in_range(float(np.float32(value))):
    raise InputError(f"{name} must be a finite number {range_text}, not {show(value)}")
