"""One member's training run, as pure functions of arrays. Read `arm.py` first, then this file.

`train_member` is the whole run of one member: `create_member`, then `train_epoch` once per epoch,
which is `train_step` once per batch. `jaxdl.population` maps these functions over seeds and arms.
Nothing here knows about axes S and A, and nothing here reduces across members.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl import forward
from jaxdl.arm import Hyperparams, Recipe, optional
from jaxdl.batches import INITIALIZATION, Examples, Slice, epoch_slices, sum_over_slices
from jaxdl.forward import Params
from jaxdl.nn import augment, initializers
from jaxdl.optim import metrics, optimizers
from jaxdl.optim.plateau import PlateauState, initial_plateau, reduce_on_plateau

# Status of a member. FINISHED, EARLY_STOPPED and DIVERGED members no longer change.
RUNNING, FINISHED, EARLY_STOPPED, DIVERGED = range(4)
STATUS_NAMES = ("running", "finished", "early_stopped", "diverged")

Carry = tuple[Params, optax.OptState]  # what a step changes
Sums = tuple[jax.Array, jax.Array]  # of a batch: losses [], correct predictions []


class MemberState(NamedTuple):
  """All that changes while a member trains: arrays only, so that it can be mapped over."""

  params: Params
  opt_state: optax.OptState
  best_params: Params  # those of the best epoch; empty unless the recipe restores them
  best_val_loss: jax.Array  # []
  best_epoch: jax.Array  # [] int32, counted from 1; 0 before the first
  wait: jax.Array  # [] int32, epochs since the best one
  num_epochs: jax.Array  # [] int32, epochs trained, the one it diverged in included
  status: jax.Array  # [] int32
  plateau: PlateauState  # scales the learning rate


class EpochMetrics(NamedTuple):
  """One point of a member's learning curves, each `[]`; NaN once the member has stopped.

  Counts, not rates: whoever divides them, in float64, gets equal rates for equal counts.
  """

  learning_rate: jax.Array  # of the epoch's first step
  # As in Keras: over the epoch's batches while it trained, with dropout.
  train_loss: jax.Array  # mean over all examples
  train_correct: jax.Array  # examples classified correctly, at the arm's threshold
  # After the epoch, without dropout; NaN without a validation set.
  val_loss: jax.Array
  val_correct: jax.Array


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
    create_member(recipe, key, hyper, train.inputs.shape[1:]),
    jnp.arange(recipe.arm.num_epochs),
  )


def create_member(
  recipe: Recipe, key: jax.Array, hyper: Hyperparams, image_shape: tuple[int, int, int]
) -> MemberState:
  """Returns a member before its first epoch, with initial weights drawn from `key`.

  Args:
    recipe: the static settings.
    key: of the member's seed.
    hyper: the traced settings of the member's arm.
    image_shape: `(H, W, D)`.
  """
  kernel, bias = hyper.kernel_initializer, hyper.bias_initializer
  model = forward.create_model(
    recipe,
    kernel_init=initializers.select(recipe.choices.kernel_initializer, kernel.index, kernel.value),
    bias_init=initializers.select(recipe.choices.bias_initializer, bias.index, bias.value),
  )
  init_key = jax.random.fold_in(key, INITIALIZATION)
  params = model.init(init_key, jnp.zeros((1, *image_shape)))["params"]
  return MemberState(
    params=params,
    opt_state=create_optimizer(recipe, hyper, 0.0).init(params),
    best_params=params if recipe.arm.restore_best else {},
    best_val_loss=jnp.float32(jnp.inf),
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
  step = step or train_step
  batches = epoch_slices(recipe, key, epoch, len(train.targets))  # [T, K, b]
  scheduled = state.plateau.scale * hyper.learning_rate[epoch]  # [T]
  learning_rates = jnp.maximum(scheduled, hyper.min_learning_rate)  # [T]
  (params, opt_state), (loss_sums, correct_sums) = lax.scan(
    lambda carry, inputs: step(recipe, hyper, train, carry, *inputs),
    (state.params, state.opt_state),
    (batches, learning_rates),
  )
  val_loss, val_correct = forward.evaluate(recipe, params, validation, hyper)
  epoch_metrics = EpochMetrics(
    learning_rate=learning_rates[0],
    train_loss=loss_sums.sum() / len(train.targets),
    train_correct=correct_sums.sum(),
    val_loss=val_loss,
    val_correct=val_correct,
  )
  running = state.status == RUNNING
  trained = state._replace(params=params, opt_state=opt_state)
  trained = after_epoch(recipe, state, trained, hyper, epoch_metrics, len(validation.targets) > 0)
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
    carry: `(params, opt_state)`.
    batch: cut into slices `[K, b]`, whose gradients add up to that of the batch.
    learning_rate: `[]`.

  Returns:
    `(params, opt_state)` after the step, and the batch's `(loss_sum, correct_sum)`.
  """
  params, opt_state = carry
  gradient = jax.grad(slice_loss, has_aux=True)
  num_examples = batch.weights.sum()
  grads, sums = sum_over_slices(
    lambda piece: gradient(params, recipe, hyper, examples, piece, num_examples), batch
  )
  if "l2" in recipe.optional:
    # Of l2 * sum(kernel^2); a bias, the only parameter with one axis, is not penalised.
    grads = jax.tree.map(lambda g, p: g + 2 * hyper.l2 * p if p.ndim > 1 else g, grads, params)
  optimizer = create_optimizer(recipe, hyper, learning_rate)
  updates, opt_state = optimizer.update(grads, opt_state, params)
  return (optax.apply_updates(params, updates), opt_state), sums


def slice_loss(
  params: Params,
  recipe: Recipe,
  hyper: Hyperparams,
  examples: Examples,
  piece: Slice,
  num_examples: jax.Array,
) -> tuple[jax.Array, Sums]:
  """Returns a slice's share of the mean loss of its batch, which has `num_examples`.

  Beside it, the slice's summed loss, and how many of it are classified correctly.
  """
  images, labels = forward.scale(examples.inputs[piece.indices]), examples.targets[piece.indices]
  if piece.augmentation_keys is not None:
    images = augment.random_affine(piece.augmentation_keys, images, recipe.arm.augmentation)
  logits = forward.create_model(recipe).apply(
    {"params": params}, images, piece.dropout_keys
  )  # [b, C]
  per_example = piece.weights * forward.loss_function(recipe, hyper)(logits, labels)  # [b]
  correct = metrics.predict_class(logits, hyper.threshold) == labels  # [b]
  sums = per_example.sum(), (piece.weights * correct).sum()
  # Divided here, where there is a number per example, not in the gradient, a number per parameter.
  return (per_example / num_examples).sum(), sums


def reported_params(recipe: Recipe, state: MemberState) -> Params:
  """Returns the parameters that results are about: the best epoch's if so set, else the last's."""
  return state.best_params if recipe.arm.restore_best else state.params


def after_epoch(
  recipe: Recipe,
  before: MemberState,
  trained: MemberState,
  hyper: Hyperparams,
  epoch_metrics: EpochMetrics,
  has_validation: bool,
) -> MemberState:
  """Divergence, early stopping and plateaus, as Keras's EarlyStopping and ReduceLROnPlateau decide.

  A member whose loss is no longer finite is frozen as it was before the epoch.

  Args:
    recipe: the static settings.
    before: the member before the epoch.
    trained: the same with the parameters and the optimizer's state after it.
    hyper: the traced settings of the member's arm.
    epoch_metrics: of the epoch.
    has_validation: whether there is a validation set.
  """
  finite = jnp.isfinite(epoch_metrics.train_loss)
  num_epochs = before.num_epochs + 1
  if has_validation:
    finite &= jnp.isfinite(epoch_metrics.val_loss)
    improved = epoch_metrics.val_loss + hyper.min_delta < before.best_val_loss
    wait = jnp.where(improved, 0, before.wait + 1)
    stop = ~improved & (wait >= hyper.patience)
    plateau = reduce_on_plateau(
      before.plateau,
      epoch_metrics.val_loss,
      patience=hyper.plateau_patience,
      factor=hyper.plateau_factor,
      min_delta=hyper.plateau_min_delta,
      cooldown=hyper.plateau_cooldown,
    )
  else:
    improved, wait, stop = jnp.bool(False), before.wait, jnp.bool(False)
    plateau = before.plateau
  status = jnp.where(num_epochs == recipe.arm.num_epochs, FINISHED, RUNNING)
  status = jnp.where(stop, EARLY_STOPPED, status)
  best_params = trained.params if recipe.arm.restore_best else {}
  after = trained._replace(
    best_params=jax.tree.map(
      lambda new, old: jnp.where(improved, new, old), best_params, before.best_params
    ),
    best_val_loss=jnp.where(improved, epoch_metrics.val_loss, before.best_val_loss),
    best_epoch=jnp.where(improved, num_epochs, before.best_epoch),
    wait=wait,
    num_epochs=num_epochs,
    status=status.astype(jnp.int32),
    plateau=plateau,
  )
  frozen = before._replace(num_epochs=num_epochs, status=jnp.int32(DIVERGED))
  return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, frozen)


def create_optimizer(
  recipe: Recipe, hyper: Hyperparams, learning_rate: jax.Array | float
) -> optax.GradientTransformation:
  """Returns the optimizer of an arm, for one learning rate."""
  decay = optional(recipe, hyper, "weight_decay")
  return optimizers.create(recipe.arm.optimizer, learning_rate, hyper.optimizer._asdict(), decay)
