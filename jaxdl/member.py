"""A member between two epochs: all that changes while it trains, and what ends its training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.forward import Params, Variables
from jaxdl.optim.plateau import PlateauState, reduce_on_plateau
from jaxdl.recipe import Hyperparams, Recipe

# Status of a member. FINISHED, EARLY_STOPPED and DIVERGED members no longer change.
RUNNING, FINISHED, EARLY_STOPPED, DIVERGED = range(4)
STATUS_NAMES = ("running", "finished", "early_stopped", "diverged")


class MemberState(NamedTuple):
  """All that changes while a member trains: arrays only, so that it can be mapped over."""

  variables: Variables
  opt_state: optax.OptState
  best_variables: Variables | tuple[()]  # of the best epoch; empty unless the recipe restores them
  best_value: jax.Array  # [] of what is monitored, where lower is better
  best_epoch: jax.Array  # [] int32, counted from 1; 0 before the first
  wait: jax.Array  # [] int32, epochs since the best one
  num_epochs: jax.Array  # [] int32, epochs trained, the one it diverged in included
  status: jax.Array  # [] int32
  plateau: PlateauState  # scales the learning rate

  @property
  def params(self) -> Params:
    """The parameters of the model."""
    return self.variables.params


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
  val_metrics: dict[str, jax.Array]  # the arm's metrics, by name


def reported_variables(recipe: Recipe, state: MemberState) -> Variables:
  """Returns what results are about: the best epoch's variables if so set, else the last's.

  As in Keras, the last's too if no epoch counted as the best, because of `start_from_epoch`.
  """
  if not recipe.arm.restore_best:
    return state.variables
  return jax.tree.map(
    lambda best, last: jnp.where(state.best_epoch > 0, best, last),
    state.best_variables,
    state.variables,
  )


def without_weights(state: MemberState) -> MemberState:
  """Returns a member's state without the arrays that are as large as its model."""
  return state._replace(variables=Variables((), {}), opt_state=(), best_variables=())


def after_epoch(
  recipe: Recipe,
  before: MemberState,
  trained: MemberState,
  hyper: Hyperparams,
  epoch_metrics: EpochMetrics,
  num_validation: int,
) -> MemberState:
  """Divergence, early stopping and plateaus, as Keras's EarlyStopping and ReduceLROnPlateau decide.

  A member whose loss is no longer finite is frozen as it was before the epoch.

  Args:
    recipe: the static settings.
    before: the member before the epoch.
    trained: the same with the variables and the optimizer's state after it.
    hyper: the traced settings of the member's arm.
    epoch_metrics: of the epoch.
    num_validation: size of the validation set, possibly 0.
  """
  finite = jnp.isfinite(epoch_metrics.train_loss)
  num_epochs = before.num_epochs + 1
  value = monitored_value(recipe, epoch_metrics, num_validation)
  if num_validation:
    finite &= jnp.isfinite(epoch_metrics.val_loss)
    counts = num_epochs > hyper.start_from_epoch
    improved = counts & (value + hyper.min_delta < before.best_value)
    wait = jnp.where(improved | ~counts, 0, before.wait + 1)
    stop = counts & ~improved & (wait >= hyper.patience)
    plateau = reduce_on_plateau(
      before.plateau,
      value,
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
  best_variables = trained.variables if recipe.arm.restore_best else ()
  after = trained._replace(
    best_variables=jax.tree.map(
      lambda new, old: jnp.where(improved, new, old), best_variables, before.best_variables
    ),
    best_value=jnp.where(improved, value, before.best_value),
    best_epoch=jnp.where(improved, num_epochs, before.best_epoch),
    wait=wait,
    num_epochs=num_epochs,
    status=status.astype(jnp.int32),
    plateau=plateau,
  )
  frozen = before._replace(num_epochs=num_epochs, status=jnp.int32(DIVERGED))
  return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, frozen)


def monitored_value(recipe: Recipe, epoch_metrics: EpochMetrics, num_validation: int) -> jax.Array:
  """Returns what early stopping and plateaus look at, `[]`; negated where higher is better."""
  if recipe.arm.monitor == "val_loss":
    return epoch_metrics.val_loss
  if recipe.arm.monitor == "val_accuracy":
    return -epoch_metrics.val_correct / max(num_validation, 1)
  (metric,) = (of for of in recipe.arm.metrics if recipe.arm.monitor == f"val_{of.name}")
  value = epoch_metrics.val_metrics[metric.name]
  return value if metric.direction == "min" else -value
