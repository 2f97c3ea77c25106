"""The rules of `backprop/` in JAX, each with random inputs on which to compare the two."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.byhand import backprop
from jaxdl.nn import layers, models
from jaxdl.optim import losses

_LABEL_SMOOTHING = 0.1
_DELTA = 0.7  # of Huber's loss


class Reference(NamedTuple):
  """A rule's function in JAX: the project's own if there is one, else flax's."""

  function: Callable  # (x, params) -> y
  x: np.ndarray
  params: dict[str, np.ndarray] = {}  # noqa: RUF012  (a NamedTuple's default, never written to)
  arguments: tuple = ()  # of the rule by hand, after x and the parameters


class Sizes(NamedTuple):
  """The sizes of the inputs of rules."""

  batch: int = 6  # B
  image: tuple[int, int, int] = (7, 6, 2)  # H, W, D of convolution, pooling and flattening
  num_features: int = 5  # D or C of the others


def references(seed: int = 1, sizes: Sizes = Sizes()) -> dict[str, Reference]:  # noqa: B008
  """Returns the reference of every rule by name; call it inside `jax.enable_x64(True)`.

  Args:
    seed: of the random numbers.
    sizes: of the inputs.
  """
  rng = np.random.default_rng(seed)
  return {
    **_layer_references(rng, seed, sizes),
    **_normalization_references(rng, sizes),
    **_attention_references(rng, sizes),
    **_loss_references(rng, sizes),
  }


def _layer_references(rng: np.random.Generator, seed: int, sizes: Sizes) -> dict[str, Reference]:
  """Returns the references of layers and activations."""
  batch, num_features = sizes.batch, sizes.num_features
  rows = 3 * rng.normal(size=(batch, num_features))
  images = 3 * rng.normal(size=(batch, *sizes.image))
  keys = jax.random.split(jax.random.key(seed), batch)
  kernel = rng.normal(size=(3, 3, sizes.image[-1], 4))
  zeros, rate = nn.initializers.zeros, 0.3
  return {
    "dense": Reference(
      lambda x, p: nn.Dense(4).apply({"params": p}, x),
      rows,
      {"kernel": rng.normal(size=(num_features, 4)), "bias": rng.normal(size=4)},
    ),
    "conv": Reference(
      lambda x, p: layers.Conv(4, zeros, zeros).apply({"params": p}, x),
      images,
      {"kernel": kernel, "bias": rng.normal(size=4)},
    ),
    "max_pool": Reference(lambda x, _: layers.max_pool_2x2(x), images),
    "avg_pool": Reference(lambda x, _: nn.avg_pool(x, (2, 2), (2, 2)), images),
    "global_avg_pool": Reference(lambda x, _: x.mean((1, 2)), images),
    "flatten": Reference(lambda x, _: x.reshape(len(x), -1), images),
    "dropout": Reference(
      lambda x, _: layers.Dropout(rate).apply({}, x, keys),
      rows,
      arguments=(dropout_mask(keys, num_features, rate), rate),
    ),
    "residual_sum": Reference(
      lambda x, p: x + p["branch"], images, {"branch": rng.normal(size=images.shape)}
    ),
    **{
      name: Reference(lambda x, _, name=name: models.get_activation(name)(x), rows)
      for name in backprop.ACTIVATIONS
    },
    "softmax": Reference(lambda x, _: nn.softmax(x), rows),
  }


def _normalization_references(rng: np.random.Generator, sizes: Sizes) -> dict[str, Reference]:
  """Returns the references of normalisations, of images with eight channels."""
  images = 3 * rng.normal(size=(sizes.batch, *sizes.image[:2], 8))
  params = {"scale": rng.normal(size=8), "bias": rng.normal(size=8)}

  def reference(layer, *arguments):
    return Reference(lambda x, p: layer.apply({"params": p}, x), images, params, arguments)

  def batch_norm(x, p):
    layer = nn.BatchNorm(use_running_average=False)
    averages = {"mean": jnp.zeros(8), "var": jnp.ones(8)}
    return layer.apply({"params": p, "batch_stats": averages}, x, mutable=["batch_stats"])[0]

  return {
    "batch_norm": Reference(batch_norm, images, params),
    "layer_norm": reference(nn.LayerNorm()),
    "group_norm": reference(nn.GroupNorm(2, epsilon=1e-5), 2),
  }


def _attention_references(rng: np.random.Generator, sizes: Sizes) -> dict[str, Reference]:
  """Returns the references of what transformers add, for five queries and as many keys."""
  batch, num_features = sizes.batch, sizes.num_features
  query, key, value = rng.normal(size=(3, batch, 2, 5, num_features))
  indices = rng.integers(0, 4, (batch, 5))
  return {
    "embedding": Reference(
      lambda table, _: nn.Embed(4, num_features).apply({"params": {"embedding": table}}, indices),
      rng.normal(size=(4, num_features)),
      arguments=(indices,),
    ),
    "attention": Reference(_attention, query, {"key": key, "value": value}),
  }


def _attention(query: jax.Array, params: Any, mask: np.ndarray | None = None) -> jax.Array:
  """Returns flax's attention, whose heads come after the positions."""
  inputs = (query, params["key"], params["value"])
  query, key, value = (jnp.swapaxes(jnp.asarray(x), 1, 2) for x in inputs)
  mask = None if mask is None else mask[None, None]
  return jnp.swapaxes(nn.dot_product_attention(query, key, value, mask=mask), 1, 2)


def _loss_references(rng: np.random.Generator, sizes: Sizes) -> dict[str, Reference]:
  """Returns the references of losses."""
  rows = 3 * rng.normal(size=(sizes.batch, sizes.num_features))
  labels = rng.integers(0, sizes.num_features, sizes.batch)
  binary = rng.integers(0, 2, sizes.batch)
  targets = np.round(3 * rng.normal(size=rows.shape))

  def of_loss(name, x, y):
    return Reference(lambda z, _: losses.get(name)(z, jnp.asarray(y)), x, arguments=(y,))

  return {
    "binary_cross_entropy": of_loss("binary_cross_entropy", rows[:, :1], binary),
    "categorical_cross_entropy": of_loss("categorical_cross_entropy", rows, labels),
    **{name: of_loss(name, rows, targets) for name in backprop.LOSSES_OF_NUMBERS},
    "hinge": of_loss("hinge", rows, labels),
  }


def variants(name: str, reference: Reference) -> dict[str, Reference]:
  """Returns other inputs and arguments of a rule: what they are -> the reference for them."""
  # Whole numbers lie on the kinks of ReLU and hinge and make ties in pooling.
  found = {"kinks and ties": reference._replace(x=np.round(reference.x))}
  if name in losses.SMOOTHABLE:
    found[f"label smoothing {_LABEL_SMOOTHING}"] = _smoothed(name, reference)
  if name == "huber":
    (targets,) = reference.arguments
    found[f"delta {_DELTA}"] = reference._replace(
      function=lambda y, _: losses.get("huber")(y, jnp.asarray(targets), _DELTA),
      arguments=(targets, _DELTA),
    )
  if name == "conv":
    for strides, padding in (((2, 2), ((1, 1), (1, 1))), ((1, 3), ((2, 0), (0, 1)))):
      found[f"strides {strides}, padding {padding}"] = reference._replace(
        function=functools.partial(_conv, strides, padding), arguments=(strides, padding)
      )
  if name == "avg_pool":
    found["3 x 3"] = reference._replace(
      function=lambda x, _: nn.avg_pool(x, (3, 3), (3, 3)), arguments=(3,)
    )
  if name == "softmax":
    found["first axis"] = reference._replace(
      function=lambda x, _: nn.softmax(x, axis=0), arguments=(0,)
    )
  if name == "attention":
    mask = np.tri(reference.x.shape[2], dtype=bool)
    found["causal mask"] = reference._replace(
      function=functools.partial(_attention, mask=mask), arguments=(mask,)
    )
  return found


def _conv(strides: Any, padding: Any, x: jax.Array, params: Any) -> jax.Array:
  conv = nn.Conv(4, (3, 3), strides, padding)
  return conv.apply({"params": params}, x)


def _smoothed(name: str, reference: Reference) -> Reference:
  """Returns a loss with label smoothing, which is traced as in training."""
  (labels,) = reference.arguments

  def function(z, _):
    loss = losses.select([losses.Kind(name)], 0, jnp.zeros(0), jnp.asarray(_LABEL_SMOOTHING))
    return loss(z, labels)

  return reference._replace(function=function, arguments=(labels, _LABEL_SMOOTHING))


def dropout_mask(keys: jax.Array, num_features: int, rate: float) -> np.ndarray:
  """Returns which values the project's dropout keeps, `[B, D]`, for keys `[B]`."""
  ones = jnp.ones((len(keys), num_features))
  return np.asarray(layers.Dropout(rate).apply({}, ones, keys)) != 0
