"""Optimizers: step t = 1, 2, ... on one array of parameters p, of any shape, with its gradient g.

`moments` are arrays of that shape, zeros before the first step. Each step returns the new
parameters and the new moments.
"""

import numpy as np

from jaxdl.byhand.backprop.rule import NoDerivationError


def sgd_step(params, gradient, moments, learning_rate, t):
  """Gradient descent: p <- p - learning_rate g."""
  del t
  return params - learning_rate * gradient, moments


def momentum_step(params, gradient, moments, learning_rate, t):
  """Momentum (Polyak 1964), as optax's `trace(0.9)`: v <- 0.9 v + g, p <- p - learning_rate v."""
  del t
  (velocity,) = moments
  velocity = 0.9 * velocity + gradient
  return params - learning_rate * velocity, (velocity,)


def nesterov_step(params, gradient, moments, learning_rate, t):
  """Nesterov momentum (Sutskever et al. 2013): the step looks ahead by another 0.9 v.

  v <- 0.9 v + g, p <- p - learning_rate (g + 0.9 v)
  """
  del t
  (velocity,) = moments
  velocity = 0.9 * velocity + gradient
  return params - learning_rate * (gradient + 0.9 * velocity), (velocity,)


def keras_momentum_step(params, gradient, moments, learning_rate, t):
  """Momentum as in Keras, the learning rate in it: v <- 0.9 v - learning_rate g, p <- p + v."""
  del t
  (velocity,) = moments
  velocity = 0.9 * velocity - learning_rate * gradient
  return params + velocity, (velocity,)


def keras_nesterov_step(params, gradient, moments, learning_rate, t):
  """Nesterov momentum as in Keras: the step looks ahead by another 0.9 v.

  v <- 0.9 v - learning_rate g, p <- p + 0.9 v - learning_rate g
  """
  del t
  (velocity,) = moments
  velocity = 0.9 * velocity - learning_rate * gradient
  return params + 0.9 * velocity - learning_rate * gradient, (velocity,)


def adagrad_step(params, gradient, moments, learning_rate, t):
  """Adagrad (Duchi et al. 2011): s <- s + g^2, p <- p - learning_rate g / sqrt(0.1 + s + 1e-7)."""
  del t
  (squares,) = moments
  squares = squares + gradient**2
  return params - learning_rate * gradient / np.sqrt(0.1 + squares + 1e-7), (squares,)


def rmsprop_step(params, gradient, moments, learning_rate, t):
  """RMSprop (Tieleman & Hinton 2012), step t = 1, 2, ...

  v <- 0.9 v + 0.1 g^2, p <- p - learning_rate g / sqrt(v + 1e-7)
  """
  del t
  (v,) = moments
  v = 0.9 * v + (1 - 0.9) * gradient**2
  return params - learning_rate * gradient / np.sqrt(v + 1e-7), (v,)


def adam_step(params, gradient, moments, learning_rate, t):
  """Adam (Kingma & Ba 2015, algorithm 1), step t = 1, 2, ...

    m <- 0.9 m + 0.1 g            v <- 0.999 v + 0.001 g^2
    m' = m / (1 - 0.9^t)          v' = v / (1 - 0.999^t)
    p <- p - learning_rate m' / (sqrt(v') + 1e-7)

  Epsilon is Keras's. As in optax, it is added to the root of the corrected moment.
  """
  m, v = moments
  m = 0.9 * m + (1 - 0.9) * gradient
  v = 0.999 * v + (1 - 0.999) * gradient**2
  m_corrected, v_corrected = m / (1 - 0.9**t), v / (1 - 0.999**t)
  return params - learning_rate * m_corrected / (np.sqrt(v_corrected) + 1e-7), (m, v)


def keras_adam_step(params, gradient, moments, learning_rate, t):
  """Adam as in Keras (Kingma & Ba 2015, the end of section 2), step t = 1, 2, ...

  p <- p - learning_rate sqrt(1 - 0.999^t) / (1 - 0.9^t) m / (sqrt(v) + 1e-7), with m and v of
  `adam_step`: epsilon is added to the root of the moment before that is corrected.
  """
  _, (m, v) = adam_step(params, gradient, moments, learning_rate, t)
  factor = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
  return params - learning_rate * factor * m / (np.sqrt(v) + 1e-7), (m, v)


def adamw_step(params, gradient, moments, learning_rate, t):
  """AdamW (Loshchilov & Hutter 2019): Adam's step, and also p <- p - learning_rate 0.004 p.

  The decay uses the parameters before the step and does not enter the moments.
  """
  after, moments = adam_step(params, gradient, moments, learning_rate, t)
  return after - learning_rate * 0.004 * params, moments


# Optimizer `name` is the function `name_step`. Name -> number of its moments.
OPTIMIZERS = {
  "adagrad": 1,
  "adam": 2,
  "adamw": 2,
  "keras_adam": 2,
  "keras_momentum": 1,
  "keras_nesterov": 1,
  "momentum": 1,
  "nesterov": 1,
  "rmsprop": 1,
  "sgd": 0,
}


def descend(
  name: str, params: np.ndarray, gradients: np.ndarray, learning_rate: float
) -> np.ndarray:
  """Returns the parameters after each of T steps, `[T, ...]`, from `[...]`.

  Args:
    name: one of `OPTIMIZERS`.
    params: the starting point, `[...]`.
    gradients: of every step, `[T, ...]`.
    learning_rate: of every step.

  Raises:
    NoDerivationError: if the optimizer is not known here.
  """
  if name not in OPTIMIZERS:
    raise NoDerivationError(f"no derivation by hand of optimizer {name!r}")
  step = globals()[f"{name}_step"]
  moments = (np.zeros(params.shape),) * OPTIMIZERS[name]
  path = []
  for t, gradient in enumerate(gradients, start=1):
    params, moments = step(params, gradient, moments, learning_rate, t)
    path.append(params)
  return np.stack(path)
