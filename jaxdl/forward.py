"""The forward pass of one member: its model, its loss, its predictions.

Pure functions of arrays. `train.py` differentiates them.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.arm import Hyperparams, Recipe, optional
from jaxdl.batches import Examples
from jaxdl.nn import models
from jaxdl.optim import losses, metrics

Params = Any  # a tree of arrays


def create_model(
  recipe: Recipe,
  native_conv: bool = False,
  kernel_init: Callable = nn.initializers.zeros,
  bias_init: Callable = nn.initializers.zeros,
) -> nn.Module:
  """Returns the model of a recipe. Only `create_member` needs other initializers than zeros."""
  return models.create(
    recipe.arm.model,
    num_outputs=recipe.num_outputs,
    kernel_init=kernel_init,
    bias_init=bias_init,
    dropout_rate=recipe.arm.dropout_rate,
    activation=recipe.arm.activation,
    native_conv=native_conv,
  )


def loss_function(
  recipe: Recipe, hyper: Hyperparams
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the loss of an arm: `(logits [B, C], labels [B]) -> [B]`."""
  smoothing = optional(recipe, hyper, "label_smoothing")
  return losses.select(recipe.choices.loss, hyper.loss.index, smoothing)


def scale(images: jax.Array) -> jax.Array:
  """Returns uint8 images as float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255


def evaluate(
  recipe: Recipe, params: Params, examples: Examples, hyper: Hyperparams
) -> tuple[jax.Array, jax.Array]:
  """Returns the mean loss and the number of correct predictions, each `[]`; NaN if N is 0."""
  if len(examples.targets) == 0:
    return jnp.float32(jnp.nan), jnp.float32(jnp.nan)
  logits = predict(recipe, params, examples.inputs)  # [N, C]
  correct = metrics.predict_class(logits, hyper.threshold) == examples.targets  # [N]
  return mean_loss(recipe, hyper, logits, examples.targets), correct.sum(dtype=jnp.float32)


def mean_loss(
  recipe: Recipe, hyper: Hyperparams, logits: jax.Array, labels: jax.Array
) -> jax.Array:
  """Returns the mean loss `[]` of logits `[N, C]` for labels `[N]`."""
  return loss_function(recipe, hyper)(logits, labels).mean()


def predict(recipe: Recipe, params: Params, images: jax.Array) -> jax.Array:
  """Returns logits `[N, C]` for images `[N, H, W, D]` uint8, slice by slice, without dropout."""
  num_images = len(images)
  num_slices = -(-num_images // recipe.predict_size)
  slice_len = -(-num_images // num_slices)
  indices = jnp.minimum(jnp.arange(num_slices * slice_len), num_images - 1)
  model = create_model(recipe, native_conv=recipe.native_conv)

  def predict_slice(piece):  # [b] -> [b, C]
    pixels = scale(images[piece])
    if recipe.native_conv:
      # Without this, XLA fuses the scaling into its convolution, which takes a fifth longer.
      pixels = lax.optimization_barrier(pixels)
    return model.apply({"params": params}, pixels)

  logits = lax.map(predict_slice, indices.reshape(num_slices, slice_len))  # [K, b, C]
  return logits.reshape(-1, logits.shape[-1])[:num_images]
