"""Checks that what a user brings fits the data, before anything is compiled or trained."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import batches, calls, forward, train
from jaxdl.errors import InputError
from jaxdl.forward import Variables
from jaxdl.member import MemberState
from jaxdl.optim import losses
from jaxdl.population import tuning
from jaxdl.recipe import Hyperparams, Recipe

# Enough examples to tell the batch's axis from others in messages.
_NUM_EXAMPLES = 5


def member_shapes(recipe: Recipe, hyper: Hyperparams) -> MemberState:
  """Returns the shapes of the state of one member.

  Raises:
    InputError: something of the user's own fails, or returns something else than it should.
  """
  key = batches.seed_key(0, 0)
  member = _shapes(f"model {recipe.arm.model}", lambda: train.create_member(recipe, key, hyper))
  if _has_own_parts(recipe):
    _check_training(recipe, member)
  return member


def _has_own_parts(recipe: Recipe) -> bool:
  parts = [recipe.arm.model, *(kind.name for kind in recipe.choices.loss)]
  parts += [metric.function for metric in recipe.arm.metrics]
  return recipe.form.preprocess is not None or any(map(calls.is_importable, parts))


def _check_training(recipe: Recipe, member: MemberState):
  """Checks the shapes of outputs, losses, metrics and of the variables' state after a batch."""
  arm = recipe.arm.replace(batch_size=_NUM_EXAMPLES)
  recipe = dataclasses.replace(recipe, arm=arm, slice_size=_NUM_EXAMPLES)
  examples, piece = tuning.example_shapes(recipe, _NUM_EXAMPLES)
  inputs = _shapes("preprocess", lambda x: forward.prepare(recipe, x), examples.inputs)

  def apply(variables, inputs, piece):
    return forward.apply_training(recipe, Variables(*variables), inputs, piece)

  what = f"model {recipe.arm.model}"
  outputs, state = _shapes(what, apply, member.variables, inputs, piece)
  numbers = (recipe.num_outputs,) if recipe.form.num_classes == 0 else None
  needed = (_NUM_EXAMPLES, *(numbers or (*recipe.form.target_shape, recipe.num_outputs)))
  if outputs.shape != needed:
    raise InputError(
      f"{what} returns {_text(outputs.shape)} for {_NUM_EXAMPLES} inputs "
      f"{_text(inputs.shape)}, but the data and the loss need {_text(needed)}"
    )
  before = member.variables.state
  if jax.tree.map(_form, before) != jax.tree.map(_form, state):
    raise InputError(f"{what} changes the shapes of its collections {', '.join(before)}")
  for kind in recipe.choices.loss:
    loss = losses.select([kind], 0, jnp.zeros(len(kind.arguments)), None)
    _check_mean(f"loss {kind.name}", loss, outputs, examples)
  for metric in recipe.arm.metrics:
    _check_mean(f"metric {metric.name}", metric.values, outputs, examples)


def _check_mean(what: str, function: Any, outputs: Any, examples: batches.Examples):
  values = _shapes(what, function, outputs, examples.targets)
  if values.shape != (_NUM_EXAMPLES,):
    raise InputError(
      f"{what} must return a number per example, {_text((_NUM_EXAMPLES,))}, not "
      f"{_text(values.shape)}"
    )


def _shapes(what: str, function: Any, *arguments: Any) -> Any:
  """Returns `jax.eval_shape(function, *arguments)`; InputError in the place of any error."""
  try:
    return jax.eval_shape(function, *arguments)
  except InputError:
    raise
  except Exception as error:  # whatever the code of somebody else raises
    raise InputError(f"{what} fails: {calls.one_line(error)}") from error


def _form(leaf: Any) -> tuple[tuple[int, ...], Any]:
  return leaf.shape, jnp.dtype(leaf.dtype)


def _text(shape: tuple[int, ...]) -> str:
  return str([*shape])
