"""The forward pass of one member: its model, its loss, its predictions.

Pure functions of arrays. `train.py` differentiates them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.batches import Examples, Slice
from jaxdl.calls import Call
from jaxdl.nn import models, own
from jaxdl.optim import losses, metrics
from jaxdl.recipe import Hyperparams, Recipe, optional

Params = Any  # a tree of arrays


class Variables(NamedTuple):
  """What a model computes with. In flax, these are its collections of variables."""

  params: Params  # the collection that the gradient is taken with respect to
  state: dict[str, Any]  # the others, e.g. `batch_stats`; empty for the models known here

  @classmethod
  def of(cls, collections: Mapping[str, Any]) -> "Variables":
    """Returns the variables in flax's collections."""
    state = {name: of for name, of in collections.items() if name != "params"}
    return cls(collections.get("params", {}), state)

  def collections(self) -> dict[str, Any]:
    """Returns name -> collection, as flax takes them."""
    return {"params": self.params, **self.state}


def create_model(
  recipe: Recipe,
  native_conv: bool = False,
  kernel_init: Callable = nn.initializers.zeros,
  bias_init: Callable = nn.initializers.zeros,
) -> Any:
  """Returns the model of a recipe. Only `init` needs other initializers than zeros."""
  return models.create(
    recipe.arm.model,
    num_outputs=recipe.num_outputs,
    kernel_init=kernel_init,
    bias_init=bias_init,
    dropout_rate=recipe.arm.dropout_rate,
    activation=recipe.arm.activation,
    native_conv=native_conv,
  )


def init(recipe: Recipe, key: jax.Array, kernel_init: Callable, bias_init: Callable) -> Variables:
  """Returns the initial variables of a model, drawn from a key."""
  model = create_model(recipe, kernel_init=kernel_init, bias_init=bias_init)
  zeros = prepare(recipe, jnp.zeros((1, *recipe.form.input_shape), recipe.form.input_dtype))
  return Variables.of(own.init(model, key, zeros) if recipe.is_own else model.init(key, zeros))


def prepare(recipe: Recipe, inputs: jax.Array) -> jax.Array:
  """Returns inputs as the model takes them: uint8 images as float32 in [0, 1], unless told else."""
  if recipe.form.preprocess is not None:
    return Call.of(recipe.form.preprocess).function()(inputs)
  return inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs


def apply_training(
  recipe: Recipe, variables: Variables, inputs: jax.Array, piece: Slice
) -> tuple[jax.Array, dict[str, Any]]:
  """Applies a model in training, with dropout.

  Returns:
    Outputs, `[b, C]` for classes, and the state of the variables after it.
  """
  model = create_model(recipe)
  if recipe.is_own:
    outputs, state = own.apply(model, variables.collections(), inputs, piece.step_key)
    return _as_numbers(recipe, outputs), state
  return model.apply({"params": variables.params}, inputs, piece.dropout_keys), variables.state


def loss_function(
  recipe: Recipe, hyper: Hyperparams
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the loss of an arm: `(outputs [B, ...], targets [B, ...]) -> [B]`."""
  smoothing = optional(recipe, hyper, "label_smoothing")
  return losses.select(recipe.choices.loss, hyper.loss.index, hyper.loss.values, smoothing)


class Evaluation(NamedTuple):
  """What a member achieves on one split. Each number is `[]`, and NaN if the split is empty."""

  loss: jax.Array  # mean
  correct: jax.Array  # number of correct predictions; NaN if targets are numbers
  metrics: dict[str, jax.Array]  # the means of the arm's metrics


def evaluate(
  recipe: Recipe, variables: Variables, examples: Examples, hyper: Hyperparams
) -> Evaluation:
  """Returns the results of a member on all examples of a split, without dropout."""
  if len(examples.targets) == 0:
    nan = jnp.float32(jnp.nan)
    return Evaluation(nan, nan, {metric.name: nan for metric in recipe.arm.metrics})
  outputs = predict(recipe, variables, examples.inputs)  # [N, C]
  correct = metrics.num_correct(outputs, examples.targets, hyper.threshold)  # [N]
  return Evaluation(
    loss=mean_loss(recipe, hyper, outputs, examples.targets),
    correct=correct.sum(dtype=jnp.float32),
    metrics=mean_metrics(recipe, outputs, examples.targets),
  )


def mean_loss(
  recipe: Recipe, hyper: Hyperparams, outputs: jax.Array, targets: jax.Array
) -> jax.Array:
  """Returns the mean loss `[]` of outputs `[N, ...]` for targets `[N, ...]`."""
  return loss_function(recipe, hyper)(outputs, targets).mean()


def mean_metrics(recipe: Recipe, outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
  """Returns the mean of each of the arm's metrics, `[]`, of outputs `[N, ...]`."""
  return {metric.name: metric.values(outputs, targets).mean() for metric in recipe.arm.metrics}


def predict(
  recipe: Recipe, variables: Variables, inputs: jax.Array, chosen: jax.Array | None = None
) -> jax.Array:
  """Returns outputs for inputs `[N, ...]`, slice by slice, without dropout.

  Args:
    recipe: the static settings.
    variables: of the member.
    inputs: `[N, ...]`.
    chosen: `[n]`, indices of the inputs to predict; None: all.

  Returns:
    `[n, ...]`.
  """
  num_inputs = len(inputs if chosen is None else chosen)
  num_slices = -(-num_inputs // recipe.predict_size)
  slice_len = -(-num_inputs // num_slices)
  indices = jnp.minimum(jnp.arange(num_slices * slice_len), num_inputs - 1)
  if chosen is not None:
    indices = chosen[indices]
  model = create_model(recipe, native_conv=recipe.native_conv)

  def predict_slice(piece):  # [b] -> [b, ...]
    prepared = prepare(recipe, inputs[piece])
    if recipe.native_conv:
      # Without this, XLA fuses the scaling into its convolution, which takes a fifth longer.
      prepared = lax.optimization_barrier(prepared)
    if recipe.is_own:
      outputs, _ = own.apply(model, variables.collections(), prepared, native=recipe.native_conv)
      return _as_numbers(recipe, outputs)
    return model.apply({"params": variables.params}, prepared)

  outputs = lax.map(predict_slice, indices.reshape(num_slices, slice_len))  # [K, b, ...]
  return outputs.reshape(-1, *outputs.shape[2:])[:num_inputs]


def _as_numbers(recipe: Recipe, outputs: jax.Array) -> jax.Array:
  """Returns outputs `[b, K]` if targets are numbers, also those of a model that returns `[b]`."""
  return outputs if recipe.form.num_classes else outputs.reshape(len(outputs), -1)
