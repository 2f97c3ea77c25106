"""What a user might bring, importable, for tests."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class Mlp(nn.Module):
  """A hidden layer on flattened inputs; takes what an arm can set."""

  num_outputs: int = 1
  width: int = 8
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x, deterministic=True):
    x = x.reshape(len(x), -1)
    x = nn.relu(nn.Dense(self.width, kernel_init=self.kernel_init)(x))
    x = nn.Dropout(self.dropout_rate, deterministic=deterministic)(x)
    return nn.Dense(self.num_outputs, kernel_init=self.kernel_init)(x)


class Plain(nn.Module):
  """Takes nothing that an arm can set."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(x.reshape(len(x), -1))


class Tagger(nn.Module):
  """A class for each position of a sequence of integers."""

  num_outputs: int

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_outputs)(nn.Embed(5, 8)(x))


def focal(outputs, targets, gamma=2.0):
  log_p = -optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
  return -((1 - jnp.exp(log_p)) ** gamma) * log_p


def mean_of_batch(outputs, targets):
  return focal(outputs, targets).mean()


def top_2_accuracy(outputs, targets):
  _, best = jax.lax.top_k(outputs, 2)
  return (best == targets[:, None]).any(axis=-1)


def sgd(learning_rate, scale=1.0, twice=False):
  if twice and scale > 0:  # fails if scale is traced
    scale = 2 * scale
  return optax.sgd(scale * learning_rate)


def clipped(learning_rate, clip=1.0):
  return optax.chain(optax.clip_by_global_norm(clip), optax.sgd(learning_rate))


def not_an_optimizer(learning_rate):
  return learning_rate


def halved(step):
  return 0.5 if step >= 4 else 1.0


def double(inputs):
  return 2 * inputs


class Normalised(nn.Module):
  """A hidden layer with batch normalisation."""

  num_outputs: int = 1

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(8)(x.reshape(len(x), -1))
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
    return nn.Dense(self.num_outputs)(x)
