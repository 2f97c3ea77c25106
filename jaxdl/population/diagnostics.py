"""Diagnostics of every layer of an MLP: norms of gradients, and saturated and dead units.

In shapes, `L` is the number of dense layers including the output layer, so there are `L - 1` hidden
layers; `P` is the number of examples in the probe on which everything is measured.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import forward
from jaxdl.batches import Examples
from jaxdl.errors import InputError
from jaxdl.forward import Variables
from jaxdl.nn import layers, models
from jaxdl.recipe import Hyperparams, Recipe

# The probe: the first training images, the same ones for every member and every epoch.
PROBE_SIZE = 256
# A unit is saturated where the slope of its activation is below this share of the largest slope.
SATURATION = 0.01

STATISTICS = ("gradient_norm", "error_norm", "kernel_norm", "saturated", "dead")

_FLOAT32 = np.finfo(np.float32)


def layer_statistics(
  recipe: Recipe,
  variables: Variables,
  hyper: Hyperparams,
  train_set: Examples,
  validation: Examples,
  test_set: Examples,
) -> dict[str, jax.Array]:
  """Measures every layer of an MLP on the first `PROBE_SIZE` training images.

  It is an observer for `jaxdl.population.train_population`. The loss is the mean over the probe,
  without dropout and penalties.

  Args:
    recipe: the static settings; the model must be an MLP.
    variables: of the model.
    hyper: the traced settings.
    train_set: the training examples; the first images are the probe.
    validation: not used.
    test_set: not used.

  Returns:
    gradient_norm: `[L]`, Frobenius norm of d loss / d kernel.
    error_norm: `[L]`, Frobenius norm of d loss / d pre-activations `[P, units]`: the error that
      backpropagation delivers to the layer.
    kernel_norm: `[L]`, Frobenius norm of the kernel.
    saturated: `[L - 1]`, see `saturation`.
    dead: `[L - 1]`, see `saturation`.

  Raises:
    InputError: the model is not an MLP.
  """
  del validation, test_set
  if models.is_convolutional(recipe.arm.model):
    raise InputError(f"layer statistics are for MLPs, not for model {str(recipe.arm.model)!r}")
  params = variables.params
  probe = Examples(train_set.inputs[:PROBE_SIZE], train_set.targets[:PROBE_SIZE])
  names = [f"Dense_{index}" for index in range(len(params))]
  # Added zeros have the same derivatives as the pre-activations that they are added to.
  added = {name: jnp.zeros((len(probe.targets), params[name]["kernel"].shape[1])) for name in names}
  (grads, errors), preactivations = jax.grad(_probe_loss, argnums=(1, 2), has_aux=True)(
    recipe, params, added, hyper, probe
  )
  activations = models.hidden_activations(recipe.arm.model, recipe.arm.activation)
  shares = [saturation(name, z) for name, z in zip(activations, preactivations, strict=True)]
  saturated, dead = (jnp.stack(share) for share in zip(*shares, strict=True))
  return {
    "gradient_norm": jnp.stack([frobenius_norm(grads[name]["kernel"]) for name in names]),
    "error_norm": jnp.stack([frobenius_norm(errors[name]) for name in names]),
    "kernel_norm": jnp.stack([frobenius_norm(params[name]["kernel"]) for name in names]),
    "saturated": saturated,
    "dead": dead,
  }


def _probe_loss(recipe, params, added, hyper, probe):
  """Returns the mean loss and the pre-activations of the hidden layers, starting at the input."""
  model = forward.create_model(recipe)
  with layers.adding_to_outputs(added):
    logits, sown = model.apply(
      {"params": params}, forward.prepare(recipe, probe.inputs), mutable="intermediates"
    )
  preactivations = sown["intermediates"][models.PREACTIVATIONS]
  return forward.mean_loss(recipe, hyper, logits, probe.targets), preactivations


def saturation(activation: str, preactivations: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the shares of saturated (unit, example) pairs and of dead units in a layer.

  A unit is saturated on an example if the absolute slope of its activation is below 1% of the
  activation's largest slope. For sigmoid that means |z| > 6.0, for tanh |z| > 3.0; for ReLU z <= 0,
  so about half of all pairs are saturated by design; for GELU z < -3.0, or z near the minimum,
  between -0.78 and -0.73. Leaky ReLU is never saturated. A unit is dead if it is saturated on every
  example.

  Args:
    activation: the layer's activation, one of `jaxdl.nn.models.ACTIVATIONS`.
    preactivations: `[P, units]`, the inputs of the activation.

  Returns:
    `(saturated, dead)`, each `[]`: the share of saturated pairs, and the share of dead units.
  """
  is_flat = jnp.abs(_slope(activation, preactivations)) < SATURATION * _steepest(activation)
  return is_flat.mean(), is_flat.all(axis=0).mean()


def _slope(activation: str, preactivations: jax.Array) -> jax.Array:
  """Returns the derivative of an activation, elementwise."""
  return jax.grad(lambda z: models.get_activation(activation)(z).sum())(preactivations)


def _steepest(activation: str) -> jax.Array:
  # Every activation is steepest between -4 and 4: sigmoid and tanh at 0, GELU at the root of 2.
  return jnp.abs(_slope(activation, jnp.linspace(-4, 4, 2001))).max()


def frobenius_norm(array: jax.Array) -> jax.Array:
  """Returns the root of the sum of squares, `[]`, without underflow or overflow of the squares."""
  largest = jnp.abs(array).max()
  scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
  return scale * jnp.sqrt(jnp.square(array / scale).sum())


def log10_ratio(norms: np.ndarray) -> np.ndarray:
  """Returns log10(norm of the first hidden layer / norm of the last); -3 is a thousandfold loss.

  Args:
    norms: `[..., L]`, one norm per layer, the output layer last. They are clipped to the smallest
      and largest positive normal float32, so that no ratio is infinite.

  Returns:
    `[...]` float64; NaN where a norm is NaN.

  Raises:
    ValueError: there are fewer than two hidden layers.
  """
  norms = np.asarray(norms, np.float64)
  if norms.shape[-1] < 3:
    raise ValueError(f"a ratio of two hidden layers needs L >= 3 layers, not {norms.shape[-1]}")
  logs = np.log10(np.clip(norms, float(_FLOAT32.tiny), float(_FLOAT32.max)))
  return logs[..., 0] - logs[..., -2]


def attenuation(norms: np.ndarray) -> np.ndarray:
  """Returns the mean factor by which norms change per hidden layer, towards the input.

  It is the geometric mean of the ratios of neighbouring hidden layers: below 1 the norms shrink
  towards the input, above 1 they grow.

  Args:
    norms: `[..., L]`, one norm per layer, the output layer last; clipped as in `log10_ratio`.
  """
  num_steps = np.shape(norms)[-1] - 2
  return 10 ** (log10_ratio(norms) / num_steps)
