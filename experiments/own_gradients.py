"""The gradients of a user's own model and loss, against finite differences of the loss."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxdl import batches, data, forward, train
from jaxdl.arm import Arm
from jaxdl.batches import Examples
from jaxdl.byhand.gradient_reference import Reference
from jaxdl.errors import InputError
from jaxdl.forward import Variables
from jaxdl.population import devices, plan
from jaxdl.recipe import Recipe

# What differences of float64 numbers leave is 1e-10 to 1e-8; a wrong term leaves far more.
TOLERANCE = 1e-6
# Numbers of each parameter that are compared; each takes up to 14 forward passes.
MAX_ENTRIES = 20
NUM_EXAMPLES = 6
# A gradient that is smaller than this share of the largest is compared as if it had its size: the
# bias in front of a batch normalisation has gradient 0.
_LEAST_SHARE = 1e-3


class Gradient(NamedTuple):
  """The gradient of one parameter, and how it compares."""

  name: str
  shape: tuple[int, ...]
  num_compared: int
  num_kinks: int  # numbers at a kink, where any slope between those on its two sides is right
  error: float  # max |jax.grad - differences| / max |differences|

  @property
  def passed(self) -> bool:
    """Whether the error is within the tolerance."""
    return self.error <= TOLERANCE


def check(model: str | None, loss: str | None, dataset: str, data_dir: str | None = None):
  """Compares `jax.grad` of a step's loss, as it trains, with finite differences, in float64.

  It is the loss of some training examples, with dropout and with the statistics of the batch.

  Args:
    model: setting of the model; None: `mlp(8)`.
    loss: setting of the loss; None: cross-entropy of classes, squared error of numbers.
    dataset: name of the dataset whose first training examples are used.
    data_dir: where prepared datasets are.

  Returns:
    The arm, and a `Gradient` for each parameter.

  Raises:
    InputError: the model and the loss do not fit the data, or compute in less than float64.
  """
  loaded = data.load(dataset, data_dir)
  default = "categorical_cross_entropy" if loaded.num_classes else "mean_squared_error"
  arm = Arm(model=model or "mlp(8)", loss=loss or default, batch_size=NUM_EXAMPLES, patience=None)
  cpu = devices.DeviceKind("cpu", "a CPU", None)
  (group,) = plan.plan_groups(loaded, {"own": arm}, (0,), 0, cpu)
  with jax.enable_x64(True):
    inputs = jnp.asarray(loaded.train.inputs[:NUM_EXAMPLES])
    targets = jnp.asarray(loaded.train.targets[:NUM_EXAMPLES])
    examples = _to_float64(Examples(forward.prepare(group.recipe, inputs), targets))
    form = group.recipe.form._replace(preprocess=None)  # it is done
    recipe = dataclasses.replace(group.recipe, form=form)
    hyper = _to_float64(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), group.hyper))
    return arm, _gradients(recipe, hyper, examples)


def _gradients(recipe: Recipe, hyper, examples: Examples) -> list[Gradient]:
  key = batches.seed_key(0, 0)
  variables = _to_float64(jax.jit(lambda: train.create_member(recipe, key, hyper).variables)())
  slices = batches.epoch_slices(recipe, key, jnp.int32(0), NUM_EXAMPLES)
  piece = jax.tree.map(lambda leaf: leaf[0, 0], slices)
  _check_precision(recipe, variables, examples, piece)

  @jax.jit
  def loss(flat):
    params = traverse_util.unflatten_dict(flat, sep="/")
    return train.slice_loss(
      params, variables.state, recipe, hyper, examples, piece, jnp.float64(NUM_EXAMPLES)
    )[0]

  flat = {
    name: np.asarray(leaf)
    for name, leaf in traverse_util.flatten_dict(variables.params, sep="/").items()
  }
  found = jax.jit(jax.grad(loss))(flat)
  reference = Reference(
    lambda changed, _: loss({**flat, **changed}), flat, is_jax=False, max_entries=MAX_ENTRIES
  )
  largest = max(map(reference.scale, flat))
  gradients = []
  for name, param in flat.items():
    scale = max(reference.scale(name), _LEAST_SHARE * largest)
    error, num_kinks = reference.error(name, np.asarray(found[name]), scale, TOLERANCE)
    compared = reference.num_compared(name)
    gradients.append(Gradient(name, param.shape, compared, num_kinks, error))
  return gradients


def _check_precision(recipe: Recipe, variables: Variables, examples: Examples, piece):
  outputs, _ = jax.eval_shape(
    lambda: forward.apply_training(recipe, variables, examples.inputs[piece.indices], piece)
  )
  if outputs.dtype != np.float64:
    raise InputError(
      f"model {recipe.arm.model} computes {outputs.dtype} from float64, which is too inexact for "
      "finite differences; let its dtype follow its inputs and parameters"
    )


def _to_float64(tree):
  return jax.tree.map(
    lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
    tree,
  )


def rows(gradients: Sequence[Gradient]) -> list[list[str]]:
  """Returns the table, header first."""
  table = [["parameter", "shape", "compared", "at kinks", "relative error", ""]]
  for of in gradients:
    size = int(np.prod(of.shape))
    verdict = "ok" if of.passed else "WRONG"
    compared = f"{of.num_compared} of {size}"
    error = f"{of.error:.1e}"
    table.append([of.name, str([*of.shape]), compared, str(of.num_kinks), error, verdict])
  return table


def summary(arm: Arm, dataset: str, gradients: Sequence[Gradient]) -> str:
  """Returns the outcome in a few sentences."""
  num = sum(of.passed for of in gradients)
  agrees = "agrees" if num == len(gradients) else "does NOT agree"
  return (
    f"jax.grad {agrees} with finite differences for {num} of {len(gradients)} parameters of model "
    f"{arm.model} and loss {arm.loss}, on {NUM_EXAMPLES} examples of {dataset}, within "
    f"{TOLERANCE:g}. Nothing was derived by hand here: the reference is finite differences only."
  )
