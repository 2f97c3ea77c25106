"""Optimizers: name -> optax transformation without the learning rate.

The learning rate stays outside, `params - learning_rate * update`, because optax would bake a
Python float into the compiled program, while here it is an array that differs between arms and
steps. Constants are Keras's defaults.
"""

import optax

from jaxdl.errors import unknown_name

_OPTIMIZERS = {
  # Keras's epsilon, ten times optax's. optax adds it after correcting the bias of the second
  # moment, as algorithm 1 of Kingma & Ba (2015) does; Keras before, which makes it 32 times as
  # large at the first step and ten times at the tenth. The first update for a gradient of 1e-3 is
  # 0.3% smaller in Keras, for one of 1e-5 a quarter smaller.
  "adam": lambda: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7),
  "momentum": lambda: optax.trace(decay=0.9),
  "sgd": optax.identity,
}
NAMES = tuple(_OPTIMIZERS)


def get(name: str) -> optax.GradientTransformation:
  """Returns the optimizer of that name. Raises InputError when there is none."""
  if name not in _OPTIMIZERS:
    raise unknown_name("optimizer", name, _OPTIMIZERS)
  return _OPTIMIZERS[name]()
