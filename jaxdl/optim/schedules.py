"""Learning rate schedules: spec -> the learning rate of every step, `[E, T]`.

A spec such as `"cosine"` or `"step(0.5, 10)"` becomes an array before anything is compiled, so that
arms with different schedules share one program. `plateau.py` has the reduction that depends on how
training goes; it scales these rates.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import calls
from jaxdl.calls import Argument, Call
from jaxdl.errors import InputError

# Each of the following maps (num_epochs, num_steps, *arguments) to factors on the learning rate,
# `[num_epochs * num_steps]` float64.


def _constant(num_epochs, num_steps):
  return np.ones(num_epochs * num_steps)


def _step(num_epochs, num_steps, factor, epochs):
  """`factor^floor(epoch / epochs)`: multiplied by `factor` every `epochs` epochs."""
  schedule = optax.exponential_decay(1.0, epochs * num_steps, factor, staircase=True)
  return _evaluate(schedule, num_epochs * num_steps)


def _exponential(num_epochs, num_steps, factor):
  """`factor^(t / num_steps)` at step t: multiplied by `factor` per epoch, smoothly."""
  return _evaluate(optax.exponential_decay(1.0, num_steps, factor), num_epochs * num_steps)


def _cosine(num_epochs, num_steps, final):
  """`final + (1 - final) (1 + cos(pi t / N)) / 2`, N steps in total (Loshchilov & Hutter 2017)."""
  total = num_epochs * num_steps
  return _evaluate(optax.cosine_decay_schedule(1.0, total, alpha=final), total)


def _warmup(num_epochs, num_steps, epochs):
  """`(t + 1) / n` at step t of the first n, then 1 (Goyal et al. 2017)."""
  _check_warmup(epochs, num_epochs)
  steps = np.arange(num_epochs * num_steps)
  return np.minimum((steps + 1) / (epochs * num_steps), 1.0)


def _warmup_cosine(num_epochs, num_steps, epochs, final):
  """`_warmup`, then `_cosine` over the remaining epochs."""
  factors = _warmup(num_epochs, num_steps, epochs)
  factors[epochs * num_steps :] = _cosine(num_epochs - epochs, num_steps, final)
  return factors


def _one_cycle(num_epochs, num_steps, share):
  """One cycle (Smith & Topin 2019): half a cosine from 1/25 up to 1, another down to 1/250,000.

  The way up takes `share` of the steps.
  """
  total = num_epochs * num_steps
  if not 0 < int(share * total) < total:
    raise InputError(
      f"schedule 'one_cycle({share:g})' needs more than {total} steps to go up and down"
    )
  return _evaluate(optax.cosine_onecycle_schedule(total, 1.0, pct_start=share), total)


def _evaluate(schedule: optax.Schedule, total: int) -> np.ndarray:
  """Returns an optax schedule at steps 0 to total - 1, computed in float64."""
  with jax.enable_x64(True):
    return np.array(jax.vmap(schedule)(jnp.arange(total)))


def _evaluate_own(call: Call, total: int) -> np.ndarray:
  """Returns a schedule of the user's own at steps 0 to total - 1, by JAX or step by step."""
  function = call.function()
  try:
    try:
      with jax.enable_x64(True):
        factors = np.array(jax.vmap(function)(jnp.arange(total)), np.float64)
    except jax.errors.JAXTypeError:  # it is plain Python
      factors = np.array([function(step) for step in range(total)], np.float64)
  except Exception as error:  # whatever the code of somebody else raises
    raise InputError(f"schedule {call} fails: {calls.one_line(error)}") from error
  if factors.shape != (total,):
    raise InputError(f"schedule {call} must return one number per step, not {factors.shape[1:]}")
  return factors


def _check_warmup(epochs, num_epochs):
  if epochs >= num_epochs:
    raise InputError(
      f"the schedule's warmup of {epochs} epochs must be shorter than num_epochs = {num_epochs}"
    )


_FACTOR = Argument("factor", lambda value: value > 0, "> 0")
_EPOCHS = Argument(
  "epochs",
  lambda value: 1 <= value < 2**31 and value.is_integer(),
  "a whole number >= 1",
  is_integer=True,
)
_FINAL = Argument("final", lambda value: 0 <= value <= 1, "from 0 to 1", 0.0)
_SHARE = Argument("share", lambda value: 0 < value < 1, "between 0 and 1", 0.3)

_SCHEDULES: dict[str, tuple[Callable[..., np.ndarray], tuple[Argument, ...]]] = {
  "constant": (_constant, ()),
  "cosine": (_cosine, (_FINAL,)),
  "exponential": (_exponential, (_FACTOR,)),
  "one_cycle": (_one_cycle, (_SHARE,)),
  "step": (_step, (_FACTOR, _EPOCHS)),
  "warmup": (_warmup, (_EPOCHS,)),
  "warmup_cosine": (_warmup_cosine, (_EPOCHS, _FINAL)),
}
NAMES = tuple(_SCHEDULES)
# More would not fit in memory.
_MAX_STEPS = 10**8


def parse(spec: str | Call) -> tuple[str | Call, tuple[float, ...]]:
  """Reads a schedule from a setting.

  Args:
    spec: a name, with its arguments if it takes any:

      - `constant`;
      - `step(factor, epochs)`: multiplied by `factor` every `epochs` epochs;
      - `exponential(factor)`: multiplied by `factor` per epoch, smoothly;
      - `cosine`, `cosine(final)`: down to `final` (default 0) times the learning rate;
      - `warmup(epochs)`: up in a straight line, then constant;
      - `warmup_cosine(epochs)`, `warmup_cosine(epochs, final)`: up in a straight line, then cosine;
      - `one_cycle`, `one_cycle(share)`: up from 1/25 during `share` (default 0.3) of the steps,
        then down to 1/250,000.

      Or a call of a function `step -> factor on the learning rate`, where steps are counted from 0
      over all epochs, or of one that makes such a function:
      `optax:linear_schedule(1.0, 0.0, 1000)`.

  Returns:
    `(name, arguments)`, with defaults filled in; numbers of epochs are ints. `(call, ())` of a
    call.

  Raises:
    InputError: for an unknown name, too few or too many arguments, or one that is out of range.
  """
  if calls.is_importable(spec):
    return Call.of(spec), ()
  known = {name: arguments for name, (_, arguments) in _SCHEDULES.items()}
  name, values = calls.parse("schedule", spec, known)
  return name, tuple(values.values())


def check(spec: str | Call, num_epochs: int):
  """Raises InputError for a spec that `learning_rates` would refuse at this number of epochs.

  It computes no schedule, so JAX's devices are not started. It cannot check what depends on the
  number of steps.
  """
  name, arguments = parse(spec)
  if isinstance(name, str) and name.startswith("warmup"):
    _check_warmup(arguments[0], num_epochs)


def learning_rates(
  spec: str | Call, learning_rate: float, num_epochs: int, num_steps: int
) -> np.ndarray:
  """Returns the learning rate of every step.

  Args:
    spec: as `parse` reads it.
    learning_rate: what the schedule multiplies.
    num_epochs: E.
    num_steps: T, the steps of one epoch.

  Returns:
    `[E, T]` float32. JAX computes most schedules, which starts its devices.

  Raises:
    InputError: for a spec that `parse` refuses, too many steps in total, a schedule that does not
      fit E epochs of T steps, or learning rates that are not finite in float32.
  """
  name, arguments = parse(spec)
  if num_epochs * num_steps > _MAX_STEPS:
    raise InputError(
      f"{num_epochs:,} epochs of {num_steps:,} steps are too many: the limit is {_MAX_STEPS:,}"
    )
  if isinstance(name, Call):
    factors = _evaluate_own(name, num_epochs * num_steps)
  else:
    factors = _SCHEDULES[name][0](num_epochs, num_steps, *arguments)
  with np.errstate(over="ignore", invalid="ignore"):
    rates = (learning_rate * factors).astype(np.float32).reshape(num_epochs, num_steps)
  if not np.isfinite(rates).all():
    raise InputError(f"schedule {str(spec)!r} leads to learning rates that are not finite")
  return rates
