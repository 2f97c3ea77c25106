"""One member's training run, as pure functions. Read this file first.

`train_member` is the whole run of one member: `create_member`, then `train_epoch` once per epoch.
`jaxdl.population` maps the same functions over seeds and arms; nothing here knows about axes S and
A, and nothing here ever reduces across members.

Everything random is a function of the member's key, which belongs to the seed alone. So the arms of
one seed share the order of the data, the batches gathered from it and their augmentation, the
dropout masks and the numbers underneath their initial weights: they are paired, and under `vmap`
what they share is computed once.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.arm import Hyperparams, Recipe
from jaxdl.cpu import cpu_layers
from jaxdl.data.dataset import Dataset
from jaxdl.nn import augment, initializers, models
from jaxdl.optim import losses, metrics, optimizers
from jaxdl.optim.plateau import PlateauState, initial_plateau, reduce_on_plateau

# Streams of random numbers of one member.
_INIT, _DATA_ORDER, _DROPOUT, _AUGMENTATION = range(4)

# Status of a member. FINISHED, EARLY_STOPPED and DIVERGED members no longer change.
RUNNING, FINISHED, EARLY_STOPPED, DIVERGED = range(4)
STATUS_NAMES = ("running", "finished", "early_stopped", "diverged")


class Examples(NamedTuple):
  """A split on the device."""

  images: jax.Array  # [N, H, W, D] uint8
  labels: jax.Array  # [N] int32


def put_splits(dataset: Dataset, device: jax.Device) -> tuple[Examples, Examples, Examples]:
  """Returns the training, validation and test examples of a dataset, on a device."""
  splits = (Examples(split.images, split.labels) for split in dataset.splits)
  return tuple(jax.device_put(split, device) for split in splits)


class MemberState(NamedTuple):
  """All that changes while a member trains: arrays only, so that it can be mapped over."""

  params: dict
  opt_state: tuple
  best_params: dict  # those of the best epoch; empty unless the recipe restores them
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


class Slice(NamedTuple):
  """Some examples of one batch: as many as pass through the model at once (`b`)."""

  indices: jax.Array  # [b] int32, into the training set
  weights: jax.Array  # [b] float32, 0 where the slice is padded
  dropout_keys: jax.Array | None  # [b] keys; None where nothing is dropped
  augmentation_keys: jax.Array | None  # [b] keys; None where images stay as they are


def seed_key(root_seed: int, seed: int) -> jax.Array:
  """Returns the key of one seed (one replication) of an experiment.

  Threefry, whatever JAX's default: other generators do not give the same numbers under `vmap`.
  """
  return jax.random.fold_in(jax.random.key(root_seed, impl="threefry2x32"), seed)


def create_member(
  recipe: Recipe, key: jax.Array, hyper: Hyperparams, image_shape: tuple[int, int, int]
) -> MemberState:
  """Returns a member before its first epoch, with initial weights drawn from `key`.

  Args:
    recipe: the static settings.
    key: of the member's seed, from `seed_key`.
    hyper: the traced settings of the member's arm.
    image_shape: `(H, W, D)`.
  """
  model = _model(
    recipe,
    kernel_init=initializers.select(
      recipe.kernel_initializers, hyper.kernel_init_index, hyper.kernel_init_value
    ),
    bias_init=initializers.select(
      recipe.bias_initializers, hyper.bias_init_index, hyper.bias_init_value
    ),
  )
  params = model.init(jax.random.fold_in(key, _INIT), jnp.zeros((1, *image_shape)))["params"]
  return MemberState(
    params=params,
    opt_state=optimizers.get(recipe.optimizer).init(params),
    best_params=params if recipe.restore_best else {},
    best_val_loss=jnp.float32(jnp.inf),
    best_epoch=jnp.int32(0),
    wait=jnp.int32(0),
    num_epochs=jnp.int32(0),
    status=jnp.int32(RUNNING),
    plateau=initial_plateau(),
  )


def member_shapes(
  recipe: Recipe, hyper: Hyperparams, image_shape: tuple[int, int, int]
) -> MemberState:
  """Returns the shapes of a member; arguments as of `create_member`."""
  return jax.eval_shape(lambda: create_member(recipe, seed_key(0, 0), hyper, image_shape))


def train_epoch(
  recipe: Recipe,
  state: MemberState,
  key: jax.Array,
  hyper: Hyperparams,
  train: Examples,
  validation: Examples,
  epoch: jax.Array,
) -> tuple[MemberState, EpochMetrics]:
  """Trains a member for one epoch; a member that has stopped is returned as it is.

  Args:
    recipe: the static settings.
    state: the member.
    key: of the member's seed, from `seed_key`.
    hyper: the traced settings of the member's arm.
    train: N training examples.
    validation: validation examples, possibly none.
    epoch: `[]` int32, counted from 0. Not taken from `state`, where it would differ between arms
      and keep them from sharing batches.

  Returns:
    The member after the epoch, and its metrics.
  """
  slices = epoch_slices(recipe, key, epoch, len(train.labels))  # [T, K, b]
  learning_rates = state.plateau.scale * hyper.learning_rates[epoch]  # [T]
  (params, opt_state), (loss_sums, correct_sums) = lax.scan(
    lambda carry, inputs: train_step(recipe, carry, train, hyper, *inputs),
    (state.params, state.opt_state),
    (slices, learning_rates),
  )
  val_loss, val_correct = evaluate(recipe, params, validation, hyper)
  epoch_metrics = EpochMetrics(
    learning_rate=learning_rates[0],
    train_loss=loss_sums.sum() / len(train.labels),
    train_correct=correct_sums.sum(),
    val_loss=val_loss,
    val_correct=val_correct,
  )
  running = state.status == RUNNING
  trained = state._replace(params=params, opt_state=opt_state)
  trained = after_epoch(recipe, state, trained, hyper, epoch_metrics, len(validation.labels) > 0)
  state = jax.tree.map(lambda new, old: jnp.where(running, new, old), trained, state)
  return state, jax.tree.map(lambda value: jnp.where(running, value, jnp.nan), epoch_metrics)


def train_step(recipe, carry, train, hyper, slices, learning_rate):
  """One step of gradient descent on one batch, `params - learning_rate * optimizer(gradient)`.

  The gradient of the batch's mean loss is summed over slices small enough to stay in the cache (on
  CPU) or to fit the memory (elsewhere): the same gradient, up to rounding, as in one piece.

  Args:
    recipe: the static settings.
    carry: `(params, opt_state)`.
    train: the training set, which the slices index.
    hyper: the traced settings of the member's arm.
    slices: the batch's slices, `[K, b]`.
    learning_rate: `[]`.

  Returns:
    `(params, opt_state)` after the step, and the batch's `(loss_sum, correct_sum)`.
  """
  params, opt_state = carry
  grads, (loss_sum, correct_sum) = batch_gradient(recipe, params, train, hyper, slices)
  if recipe.l2:
    # Of l2 * sum(kernel^2); a bias, the only parameter with one axis, is not penalised.
    grads = jax.tree.map(lambda g, p: g + 2 * hyper.l2 * p if p.ndim > 1 else g, grads, params)
  # No weight is updated before all are read, which the gradient of the first layer waits for. XLA
  # does not see that order by itself, and copies kernels that it may read after they are updated.
  learning_rate, _ = lax.optimization_barrier((learning_rate, _of_outputs(grads)))
  weight_decay = hyper.weight_decay if recipe.weight_decay else None
  carry = optimizers.step(recipe.optimizer, params, opt_state, grads, learning_rate, weight_decay)
  return carry, (loss_sum, correct_sum)


def _of_outputs(grads) -> list[jax.Array]:
  """Returns the gradients by the layers' outputs, or by their biases, the sums of them."""
  parts = jax.tree.leaves(grads, is_leaf=cpu_layers.is_factors)
  factors = [part.cotangents for part in parts if cpu_layers.is_factors(part)]
  return factors + [part for part in parts if not cpu_layers.is_factors(part) and part.ndim == 1]


def batch_gradient(recipe, params, train, hyper, slices):
  """Returns the gradient of a batch's mean loss, and the batch's `(loss_sum, correct_sum)`.

  A batch of one slice, the usual one but for convolutions, adds up nothing: where the parameters
  outgrow the cache, passing over sums of gradients took as long as computing them.

  Those of `layers_in_factors` stay `cpu_layers.Factors`, of which slices add examples, not terms.
  """
  num_slices, slice_len = slices.weights.shape
  num_examples = slices.weights.sum()
  in_factors = layers_in_factors(recipe, params)

  def of_slice(piece):
    return cpu_layers.gradient_in_factors(
      lambda params: slice_loss(recipe, params, train, hyper, piece, num_examples),
      params,
      in_factors,
      slice_len,
    )

  def add_slice(sums, piece):
    grads, factors, counts = of_slice(piece)
    return jax.tree.map(jnp.add, sums, (grads, counts)), factors

  first = jax.tree.map(lambda x: x[0], slices)
  if num_slices == 1:
    grads, factors, counts = of_slice(first)
  else:
    shapes = jax.eval_shape(of_slice, first)
    zeros = jax.tree.map(jnp.zeros_like, (shapes[0], shapes[2]))
    (grads, counts), factors = lax.scan(add_slice, zeros, slices)
    factors = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), factors)
  return grads | factors, counts


def layers_in_factors(recipe: Recipe, params: dict) -> tuple[str, ...]:
  """Returns the names of the layers whose steps `cpu_layers.adam_step` makes.

  None where the gradient has a penalty in it: that is no product of factors.
  """
  if not recipe.cpu_layers or recipe.l2 or recipe.optimizer not in optimizers.WITH_FACTORS:
    return ()
  return cpu_layers.layers_with_factors(params, *slice_shape(recipe))


def slice_loss(recipe, params, train, hyper, piece, num_examples):
  """Returns a slice's share of the mean loss of its batch, which has `num_examples`.

  Beside it, the slice's summed loss, and how many of it are classified correctly.
  """
  images, labels = scale(train.images[piece.indices]), train.labels[piece.indices]
  if piece.augmentation_keys is not None:
    images = augment.random_affine(piece.augmentation_keys, images, recipe.augmentation)
  logits = _model(recipe).apply({"params": params}, images, piece.dropout_keys)  # [b, C]
  per_example = piece.weights * _loss(recipe, hyper)(logits, labels)  # [b]
  correct = metrics.predict_class(logits, hyper.threshold) == labels  # [b]
  sums = per_example.sum(), (piece.weights * correct).sum()
  # Divided here, where there is a number per example, not in the gradient, a number per parameter.
  return (per_example / num_examples).sum(), sums


def epoch_slices(recipe: Recipe, key: jax.Array, epoch: jax.Array, num_examples: int) -> Slice:
  """Cuts an epoch into T batches of K slices: a new order of all N examples, none left out.

  The order depends on the key and the epoch alone, and the dropout and augmentation keys of an
  example on the key, the epoch, the step and its place in the batch, so that nothing depends on how
  a batch is cut.

  Returns:
    Slices with leading axes `[T, K, b]`; T = ceil(N / B), and the last batch is partial. Padding
    has weight 0.
  """
  num_steps = -(-num_examples // recipe.batch_size)
  num_slices, slice_len = slice_shape(recipe)
  shape = (num_steps, num_slices, slice_len)

  order = jax.random.permutation(
    jax.random.fold_in(jax.random.fold_in(key, _DATA_ORDER), epoch), num_examples
  )  # [N]
  step, place = jnp.arange(num_steps), jnp.arange(num_slices * slice_len)  # [T], [K * b]
  position = recipe.batch_size * step[:, None] + place[None]  # [T, K * b]
  valid = (place < recipe.batch_size)[None] & (position < num_examples)
  indices = jnp.where(valid, order[jnp.minimum(position, num_examples - 1)], 0)

  def keys(stream):  # [T, K, b]
    epoch_key = jax.random.fold_in(jax.random.fold_in(key, stream), epoch)
    step_keys = jax.vmap(jax.random.fold_in, (None, 0))(epoch_key, step)  # [T]
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return fold(step_keys, place).reshape(shape)

  return Slice(
    indices=indices.reshape(shape),
    weights=valid.astype(jnp.float32).reshape(shape),
    dropout_keys=keys(_DROPOUT) if recipe.dropout_rate > 0 else None,
    augmentation_keys=None if recipe.augmentation.is_identity else keys(_AUGMENTATION),
  )


def slice_shape(recipe: Recipe) -> tuple[int, int]:
  """Returns K, the slices of a batch, and b, the examples in each."""
  num_slices = -(-recipe.batch_size // recipe.slice_size)
  return num_slices, -(-recipe.batch_size // num_slices)


def evaluate(
  recipe: Recipe, params: dict, examples: Examples, hyper: Hyperparams
) -> tuple[jax.Array, jax.Array]:
  """Returns mean loss and number of correct predictions, each `[]`; NaN without examples."""
  if len(examples.labels) == 0:
    return jnp.float32(jnp.nan), jnp.float32(jnp.nan)
  logits = predict(recipe, params, examples.images)  # [N, C]
  correct = metrics.predict_class(logits, hyper.threshold) == examples.labels  # [N]
  return mean_loss(recipe, hyper, logits, examples.labels), correct.sum(dtype=jnp.float32)


def mean_loss(
  recipe: Recipe, hyper: Hyperparams, logits: jax.Array, labels: jax.Array
) -> jax.Array:
  """Returns the mean loss `[]` of logits `[N, C]` for labels `[N]`."""
  return _loss(recipe, hyper)(logits, labels).mean()


def predict(recipe: Recipe, params: dict, images: jax.Array) -> jax.Array:
  """Returns logits `[N, C]` for images `[N, H, W, D]` uint8, slice by slice, without dropout.

  As many at once, and by the convolution, that `jaxdl.population.tuning.complete` chooses.
  """
  num_images = len(images)
  num_slices = -(-num_images // recipe.predict_size)
  slice_len = -(-num_images // num_slices)
  indices = jnp.minimum(jnp.arange(num_slices * slice_len), num_images - 1)
  model = _model(recipe, native_conv=recipe.native_conv)

  def predict_slice(piece):  # [b] -> [b, C]
    pixels = scale(images[piece])
    if recipe.native_conv:
      # Or else XLA fuses the scaling into its convolution, which takes a fifth longer.
      pixels = lax.optimization_barrier(pixels)
    return model.apply({"params": params}, pixels)

  logits = lax.map(predict_slice, indices.reshape(num_slices, slice_len))  # [K, b, C]
  return logits.reshape(-1, logits.shape[-1])[:num_images]


def reported_params(recipe: Recipe, state: MemberState) -> dict:
  """Returns the parameters that results are about: the best epoch's if so set, else the last's."""
  return state.best_params if recipe.restore_best else state.params


def train_member(
  recipe: Recipe, key: jax.Array, hyper: Hyperparams, train: Examples, validation: Examples
) -> tuple[MemberState, EpochMetrics]:
  """The whole run of one member as one pure function.

  Args:
    recipe: the static settings.
    key: of the member's seed, from `seed_key`.
    hyper: the traced settings of the member's arm.
    train: the training set.
    validation: the validation set, possibly empty.

  Returns:
    The member after its last epoch, and its learning curves, each `[E]`.
  """
  state = create_member(recipe, key, hyper, train.images.shape[1:])
  return lax.scan(
    lambda state, epoch: train_epoch(recipe, state, key, hyper, train, validation, epoch),
    state,
    jnp.arange(recipe.num_epochs),
  )


def scale(images: jax.Array) -> jax.Array:
  """Returns uint8 images as float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255


def after_epoch(recipe, before, trained, hyper, epoch_metrics, has_validation):
  """Divergence, early stopping and plateaus, as Keras's EarlyStopping and ReduceLROnPlateau decide.

  A member whose loss is no longer finite is frozen as it was before the epoch.
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
      min_scale=hyper.plateau_min_scale,
    )
  else:
    improved, wait, stop = jnp.bool(False), before.wait, jnp.bool(False)
    plateau = before.plateau
  status = jnp.where(num_epochs == recipe.num_epochs, FINISHED, RUNNING)
  status = jnp.where(stop, EARLY_STOPPED, status)
  best_params = trained.params if recipe.restore_best else {}
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


def _loss(recipe: Recipe, hyper: Hyperparams):
  smoothing = hyper.label_smoothing if recipe.label_smoothing else None
  return losses.select(recipe.losses, hyper.loss_index, smoothing)


def _model(
  recipe: Recipe,
  native_conv: bool = False,
  kernel_init=nn.initializers.zeros,
  bias_init=nn.initializers.zeros,
) -> nn.Module:
  # Initializers matter to create_member alone; applying a model only checks the shapes they give.
  return models.create(
    recipe.model,
    num_outputs=recipe.num_outputs,
    kernel_init=kernel_init,
    bias_init=bias_init,
    dropout_rate=recipe.dropout_rate,
    activation=recipe.activation,
    native_conv=native_conv,
    product=cpu_layers.product if recipe.cpu_layers else None,
  )
