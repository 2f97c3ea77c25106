"""One arm: the settings of a training run, each declared once.

A static setting is compiled in; arms with the same static settings share one program. A traced
setting is an array, so that changing its value compiles nothing. A choice compiles in every kind
that some arm of the program has, and a traced index chooses among them. `recipe.py` has what a
compiled program makes of these declarations.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxdl import calls
from jaxdl.calls import Call
from jaxdl.errors import InputError, show
from jaxdl.nn import initializers, models
from jaxdl.nn.augment import Augmentation
from jaxdl.optim import losses, optimizers, schedules
from jaxdl.optim import metrics as metrics_lib
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
  plain,
  static,
  traced,
)

# Stands for "never" in a traced number of epochs.
_NEVER = np.iinfo(np.int32).max
# Every member has a curve that long.
_MAX_EPOCHS = 10**6


def _parse_kernel(spec: Any) -> tuple[Any, dict[str, float]]:
  return initializers.parse(spec, min_ndim=2)


def _check_class_weight(name: str, value: Any):
  if value is None or value == "balanced":
    return
  if not isinstance(value, tuple) or not value:
    raise InputError(f"{name} must be None, 'balanced' or a list of numbers, not {show(value)}")
  for number_ in value:
    _NOT_NEGATIVE(f"a number of {name}", number_)


def _class_weight(arm: "Arm", form: Any) -> np.ndarray:
  """Returns the weight of each class of a `jaxdl.recipe.Form`, `[C]`.

  "balanced" is N / (C N_c), as in scikit-learn.
  """
  counts = np.array(form.class_counts)
  if arm.class_weight is None:
    return np.ones(len(counts), np.float32)
  if form.num_classes == 0 or form.target_shape:
    raise InputError("class_weight is for data with one class per example")
  if arm.class_weight == "balanced":
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
  if len(arm.class_weight) != len(counts):
    raise InputError(
      f"class_weight has {len(arm.class_weight)} numbers, but there are {len(counts)} classes"
    )
  return np.array(arm.class_weight, np.float32)


def _patience(epochs: int | None) -> np.int32:
  return np.int32(_NEVER if epochs is None else epochs)


_POSITIVE = number("> 0", lambda value: value > 0)
_NOT_NEGATIVE = number(">= 0", lambda value: value >= 0)
_SHARE = number("in [0, 1)", lambda value: 0 <= value < 1)
_OPTIONAL_SHARE = number("in [0, 1)", lambda value: 0 <= value < 1, optional=True)
_BETWEEN = number("in (0, 1)", lambda value: 0 < value < 1)


@dataclasses.dataclass(frozen=True, repr=False)
class Arm:
  """One condition under comparison: every setting of a training run but its seed.

  Raises InputError for an unknown name or a value out of range.

  Attributes:
    model: a name, as `jaxdl.nn.models.canonical` reads it, e.g. `mlp(64, 64)` or `resnet(20)`; or
      one of your own, see `jaxdl.nn.own`: a flax module, text such as `my_nets:Net(width=64)`, or a
      pair of functions. A module of your own gets those of `num_outputs`, `kernel_init`,
      `bias_init`, `dropout_rate` and `activation` that it takes.
    loss: as `jaxdl.optim.losses.parse` reads it, or a function `(outputs, targets) -> [B]`.
    optimizer: as `jaxdl.optim.optimizers.parse` reads it, e.g. `adam`, `adam(b1=0.8)` or
      `optax:lion`; or a function that takes a `learning_rate` and returns an optax transformation.
    learning_rate: above 0; the schedule multiplies it.
    kernel_initializer: of kernels, as `jaxdl.nn.initializers.parse` reads it, or a function.
    bias_initializer: of biases, in the same form.
    dropout_rate: the share of activations that dropout sets to zero, in [0, 1). None: 0.5 for the
      networks of the coursework; a module of your own keeps its default.
    batch_size: examples per step; the last batch of an epoch is smaller if they do not divide
      evenly. A batch size above the number of examples means all of them.
    num_epochs: the largest number of epochs.
    patience: stop after this many epochs in a row without a better validation loss; None: never.
    min_delta: a validation loss is better when it is lower than the best by more than this.
    monitor: what "validation loss" means for `patience`, `restore_best` and plateaus: `val_loss`,
      `val_accuracy`, or `val_NAME` of one of the `metrics`; higher is better where it should be.
    start_from_epoch: the first epochs, which `patience` and `restore_best` ignore, as in Keras.
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
    min_learning_rate: at least 0, at most learning_rate; no step has a lower rate, whatever the
      schedule and the plateaus.
    label_smoothing: the share of a target that is spread over all classes, in [0, 1); for the
      cross-entropies only. The reported losses include it.
    l2: the gradient is that of the loss plus l2 * sum(kernel^2), as with Keras's L2 regularizer.
      The reported losses do not include it.
    weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019): a step also subtracts
      learning_rate * weight_decay * parameter. None: 0.004 for adamw, else 0.
    rotation_range: training images are rotated by up to this many degrees in either direction.
    shift_range: training images are shifted by up to this share of their height and width.
    horizontal_flip: whether each training image is mirrored with probability 1/2.
    class_weight: what the training losses of each class are multiplied by, C numbers; "balanced":
      in inverse proportion to its examples; None: 1.
    metrics: further metrics, as `jaxdl.optim.metrics.read` reads them.
    same_weights: whether all seeds start with the same initial weights; with `same_order`, it shows
      which source of chance the spread over seeds comes from.
    same_order: whether all seeds see the training examples in the same order.

  Examples:
    >>> import jaxdl
    >>> base = jaxdl.Arm(model="mlp(64, 64)", optimizer="sgd", learning_rate=0.1)
    >>> base.replace(schedule="cosine")
    Arm(model='mlp(64, 64)', optimizer='sgd', learning_rate=0.1, schedule='cosine')
  """

  model: Any = static("cnn_binary", lambda _, spec: models.check(spec))
  loss: Any = choice("binary_cross_entropy", losses.parse)
  optimizer: Any = call("adam", optimizers.parse)
  # Traced as the rates of all steps, [E, T].
  learning_rate: float = derived(
    0.001, _POSITIVE, lambda arm, form: arm.learning_rates(form.num_steps(arm))
  )
  kernel_initializer: Any = choice("glorot_uniform", _parse_kernel)
  bias_initializer: Any = choice("zeros", initializers.parse)
  dropout_rate: float | None = static(None, _OPTIONAL_SHARE)
  batch_size: int = static(512, integer(1))
  num_epochs: int = static(20, integer(1, _MAX_EPOCHS))
  patience: int | None = traced(4, integer(0, optional=True), _patience)
  min_delta: float = traced(0.0, _NOT_NEGATIVE)
  monitor: str = static("val_loss", checked_together)
  start_from_epoch: int = traced(0, integer(0), np.int32)
  restore_best: bool = static(False, flag)
  threshold: float = traced(0.5, _BETWEEN)
  activation: str = static("relu", one_of(models.ACTIVATIONS))
  schedule: Any = part("constant", checked_together)
  plateau_patience: int | None = traced(None, integer(0, optional=True), _patience)
  plateau_factor: float = traced(0.1, _BETWEEN)
  plateau_min_delta: float = traced(1e-4, _NOT_NEGATIVE)
  plateau_cooldown: int = traced(0, integer(0), np.int32)
  min_learning_rate: float = traced(0.0, _NOT_NEGATIVE)
  label_smoothing: float = traced(0.0, _SHARE, used=lambda arm: arm.label_smoothing > 0)
  l2: float = traced(0.0, _NOT_NEGATIVE, used=lambda arm: arm.l2 > 0)
  weight_decay: float | None = derived(
    None,
    number(">= 0", lambda value: value >= 0, optional=True),
    lambda arm, _: np.float32(arm.effective_weight_decay),
    used=lambda arm: arm.effective_weight_decay > 0,
  )
  rotation_range: float = static(0.0, checked_together)
  shift_range: float = static(0.0, checked_together)
  horizontal_flip: bool = static(False, checked_together)
  class_weight: str | tuple[float, ...] | None = derived(
    None, _check_class_weight, _class_weight, used=lambda arm: arm.class_weight is not None
  )
  metrics: tuple[metrics_lib.Metric, ...] = static((), checked_together)
  same_weights: bool = static(False, flag)
  same_order: bool = static(False, flag)

  def __post_init__(self):
    self._make_canonical()
    for field in dataclasses.fields(self):
      field.metadata["check"](field.name, getattr(self, field.name))
    schedules.check(self.schedule, self.num_epochs)
    monitors = ("val_loss", "val_accuracy", *(f"val_{metric.name}" for metric in self.metrics))
    one_of(monitors)("monitor", self.monitor)
    if self.min_learning_rate > self.learning_rate:
      raise InputError(
        f"min_learning_rate = {self.min_learning_rate} is above learning_rate = "
        f"{self.learning_rate}"
      )
    if self.label_smoothing > 0 and self.loss not in losses.SMOOTHABLE:
      raise InputError(
        f"label_smoothing is for {' and '.join(losses.SMOOTHABLE)}, not for loss {str(self.loss)!r}"
      )
    if self.weight_decay is not None and calls.is_importable(self.optimizer):
      raise InputError(
        f"give the weight decay to the optimizer {str(self.optimizer)!r} itself, not to the arm"
      )
    _ = self.augmentation  # raises InputError for a value out of range

  def _make_canonical(self):
    """Turns what the user brings into text where it has one; equal settings become equal."""
    for field in dataclasses.fields(self):
      object.__setattr__(self, field.name, plain(getattr(self, field.name)))
    for name in ("loss", "optimizer", "kernel_initializer", "bias_initializer", "schedule"):
      object.__setattr__(self, name, calls.canonical(getattr(self, name)))
    object.__setattr__(self, "model", models.canonical(self.model))
    object.__setattr__(self, "metrics", metrics_lib.read(self.metrics))
    if isinstance(self.class_weight, list):
      object.__setattr__(self, "class_weight", tuple(map(plain, self.class_weight)))

  def __repr__(self) -> str:
    """Shows the settings that differ from their defaults."""
    values = [(f.name, getattr(self, f.name), f.default) for f in dataclasses.fields(self)]
    return f"Arm({', '.join(f'{name}={v!r}' for name, v, default in values if v != default)})"

  def to_json(self) -> dict[str, Any]:
    """Returns every setting for `json.dumps`; what has no text is described."""
    return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

  @property
  def is_text(self) -> bool:
    """Whether another process can build the arm from `to_json`."""
    values = [getattr(self, field.name) for field in dataclasses.fields(self)]
    return not any(isinstance(v, Call) for v in [*values, *(m.function for m in self.metrics)])

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
      is_own = calls.is_importable(self.optimizer)
      return 0.0 if is_own else optimizers.default_weight_decay(optimizers.parse(self.optimizer)[0])
    return self.weight_decay

  def learning_rates(self, num_steps: int) -> np.ndarray:
    """Returns the rate of every step, `[E, T]` float32, for epochs of `num_steps` steps."""
    return schedules.learning_rates(self.schedule, self.learning_rate, self.num_epochs, num_steps)


def _plain(value: Any) -> Any:
  if isinstance(value, Call):
    return str(value)
  return [_plain(item) for item in value] if isinstance(value, tuple) else value
