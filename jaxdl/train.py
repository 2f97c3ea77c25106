"""One member's training run, as pure functions of arrays. Read `arm.py` first, then this file.

`train_member` is the whole run of one member: `create_member`, then `train_epoch` once per epoch,
which is `train_step` once per batch. `jaxdl.population` maps these functions over seeds and arms.
Nothing here knows about axes S and A, and nothing here reduces across members.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl import forward
from jaxdl.batches import (
  INITIALIZATION,
  Examples,
  Slice,
  epoch_slices,
  shared_key,
  split_ragged,
  sum_over_slices,
)
from jaxdl.forward import Params, Variables
from jaxdl.member import (
  RUNNING,
  EpochMetrics,
  MemberState,
  after_epoch,
)
from jaxdl.nn import augment, initializers
from jaxdl.optim import metrics, optimizers
from jaxdl.optim.plateau import initial_plateau
from jaxdl.recipe import Hyperparams, Recipe, optional

Carry = tuple[Variables, optax.OptState]  # what a step changes
Sums = tuple[jax.Array, jax.Array]  # of a batch: losses [], correct predictions []


def train_member(
  recipe: Recipe, key: jax.Array, hyper: Hyperparams, train: Examples, validation: Examples
) -> tuple[MemberState, EpochMetrics]:
  """The whole run of one member as one pure function.

  Args:
    recipe: the static settings.
    key: of the member's seed, from `jaxdl.batches.seed_key`.
    hyper: the traced settings of the member's arm.
    train: the training set.
    validation: the validation set, possibly empty.

  Returns:
    The member after its last epoch, and its learning curves, each `[E]`.
  """
  return lax.scan(
    lambda state, epoch: train_epoch(recipe, state, key, hyper, train, validation, epoch),
    create_member(recipe, key, hyper),
    jnp.arange(recipe.arm.num_epochs),
  )


def create_member(recipe: Recipe, key: jax.Array, hyper: Hyperparams) -> MemberState:
  """Returns a member before its first epoch, with initial weights drawn from `key`.

  With `Arm.same_weights`, they are drawn from a key that all seeds share.

  Args:
    recipe: the static settings.
    key: of the member's seed.
    hyper: the traced settings of the member's arm.
  """
  kernel, bias = hyper.kernel_initializer, hyper.bias_initializer
  kernels, biases = (
    [kind.name for kind in kinds]
    for kinds in (recipe.choices.kernel_initializer, recipe.choices.bias_initializer)
  )
  variables = forward.init(
    recipe,
    jax.random.fold_in(shared_key() if recipe.arm.same_weights else key, INITIALIZATION),
    kernel_init=initializers.select(kernels, kernel.index, kernel.values),
    bias_init=initializers.select(biases, bias.index, bias.values),
  )
  return MemberState(
    variables=variables,
    opt_state=create_optimizer(recipe, hyper, 0.0).init(variables.params),
    best_variables=variables if recipe.arm.restore_best else (),
    best_value=jnp.float32(jnp.inf),
    best_epoch=jnp.int32(0),
    wait=jnp.int32(0),
    num_epochs=jnp.int32(0),
    status=jnp.int32(RUNNING),
    plateau=initial_plateau(),
  )


def train_epoch(
  recipe: Recipe,
  state: MemberState,
  key: jax.Array,
  hyper: Hyperparams,
  train: Examples,
  validation: Examples,
  epoch: jax.Array,
  step: "Callable[..., tuple[Carry, Sums]] | None" = None,
) -> tuple[MemberState, EpochMetrics]:
  """Trains a member for one epoch; a member that has stopped is returned as it is.

  Args:
    recipe: the static settings.
    state: the member.
    key: of the member's seed.
    hyper: the traced settings of the member's arm.
    train: N training examples.
    validation: validation examples, possibly none.
    epoch: `[]` int32, counted from 0. Not taken from `state`, where it would differ between arms
      and keep them from sharing batches.
    step: in the place of `train_step`.

  Returns:
    The member after the epoch, and its metrics.
  """
  num_examples = train.size
  batches = epoch_slices(recipe, key, epoch, num_examples)  # [T, K, b]
  if train.chosen is not None:
    batches = batches._replace(indices=train.chosen[batches.indices])
  batches, last = split_ragged(recipe, batches, num_examples)
  scheduled = state.plateau.scale * hyper.learning_rate[epoch]  # [T]
  learning_rates = jnp.maximum(scheduled, hyper.min_learning_rate)  # [T]
  make_step = functools.partial(step or train_step, recipe, hyper, train)
  carry, sums = lax.scan(
    lambda carry, inputs: make_step(carry, *inputs),
    (state.variables, state.opt_state),
    (batches, learning_rates[: len(batches.weights)]),
  )
  loss_sum, correct_sum = (of.sum() for of in sums)
  if last is not None:
    carry, sums = make_step(carry, last, learning_rates[-1])
    loss_sum, correct_sum = loss_sum + sums[0], correct_sum + sums[1]
  variables, opt_state = carry
  evaluation = forward.evaluate(recipe, variables, validation, hyper)
  epoch_metrics = EpochMetrics(
    learning_rate=learning_rates[0],
    train_loss=loss_sum / num_examples,
    train_correct=correct_sum,
    val_loss=evaluation.loss,
    val_correct=evaluation.correct,
    val_metrics=evaluation.metrics,
  )
  running = state.status == RUNNING
  trained = state._replace(variables=variables, opt_state=opt_state)
  trained = after_epoch(recipe, state, trained, hyper, epoch_metrics, len(validation.targets))
  state = jax.tree.map(lambda new, old: jnp.where(running, new, old), trained, state)
  return state, jax.tree.map(lambda value: jnp.where(running, value, jnp.nan), epoch_metrics)


def train_step(
  recipe: Recipe,
  hyper: Hyperparams,
  examples: Examples,
  carry: Carry,
  batch: Slice,
  learning_rate: jax.Array,
) -> tuple[Carry, Sums]:
  """One step of gradient descent on the mean loss of one batch.

  Args:
    recipe: the static settings.
    hyper: the traced settings of the member's arm.
    examples: the training set, which the batch indexes.
    carry: `(variables, opt_state)`.
    batch: cut into slices `[K, b]`, whose gradients add up to that of the batch.
    learning_rate: `[]`.

  Returns:
    `(variables, opt_state)` after the step, and the batch's `(loss_sum, correct_sum)`.
  """
  (params, state), opt_state = carry
  gradient = jax.grad(slice_loss, has_aux=True)
  num_examples = batch.weights.sum()
  # A model with a state has only one slice, so the state is not added to anything.
  grads, (sums, state) = sum_over_slices(
    lambda piece: gradient(params, state, recipe, hyper, examples, piece, num_examples), batch
  )
  if "l2" in recipe.optional:
    # Of l2 * sum(kernel^2); a bias, the only parameter with one axis, is not penalised.
    grads = jax.tree.map(lambda g, p: g + 2 * hyper.l2 * p if p.ndim > 1 else g, grads, params)
  optimizer = create_optimizer(recipe, hyper, learning_rate)
  updates, opt_state = optimizer.update(grads, opt_state, params)
  return (Variables(optax.apply_updates(params, updates), state), opt_state), sums


def slice_loss(
  params: Params,
  state: dict[str, Any],
  recipe: Recipe,
  hyper: Hyperparams,
  examples: Examples,
  piece: Slice,
  num_examples: jax.Array,
) -> tuple[jax.Array, tuple[Sums, dict[str, Any]]]:
  """Returns a slice's share of the mean loss of its batch, which has `num_examples`.

  Beside it, the slice's summed loss, how many of it are classified correctly, and the state of the
  variables after the forward pass.
  """
  inputs = forward.prepare(recipe, examples.inputs[piece.indices])  # [b, ...]
  targets = examples.targets[piece.indices]  # [b, ...]
  if piece.augmentation_keys is not None:
    inputs = augment.random_affine(piece.augmentation_keys, inputs, recipe.arm.augmentation)
  outputs, state = forward.apply_training(recipe, Variables(params, state), inputs, piece)
  per_example = piece.weights * forward.loss_function(recipe, hyper)(outputs, targets)  # [b]
  if "class_weight" in recipe.optional:
    per_example = per_example * hyper.class_weight[targets]
  correct = metrics.num_correct(outputs, targets, hyper.threshold)  # [b]
  sums = per_example.sum(), (piece.weights * correct).sum()
  # Divided here, where there is a number per example, not in the gradient, a number per parameter.
  return (per_example / num_examples).sum(), (sums, state)


def create_optimizer(
  recipe: Recipe, hyper: Hyperparams, learning_rate: jax.Array | float
) -> optax.GradientTransformation:
  """Returns the optimizer of an arm, for one learning rate."""
  decay = optional(recipe, hyper, "weight_decay")
  return optimizers.create(recipe.optimizer, learning_rate, hyper.optimizer._asdict(), decay)
