"""Schedules against Keras, against second definitions in NumPy, and by what holds for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.errors import InputError
from jaxdl.optim import plateau, schedules

# Made with Keras 3.15.1 on JAX: keras.optimizers.schedules, each called at steps 0 to 11, four
# epochs of three: ExponentialDecay(0.1, 3, 0.5), the same with 6 and staircase=True,
# CosineDecay(0.1, 12), the same with alpha=0.1.
_KERAS = {
  "exponential(0.5)": [
    0.100000001, 0.079370052, 0.062996052, 0.050000001, 0.039685026, 0.031498026,
    0.025, 0.019842515, 0.015749013, 0.0125, 0.009921257, 0.007874507,
  ],
  "step(0.5, 2)": [0.1] * 6 + [0.05] * 6,
  "cosine": [
    0.100000001, 0.098296292, 0.093301274, 0.085355341, 0.075000003, 0.062940955,
    0.049999997, 0.03705905, 0.024999997, 0.014644662, 0.006698731, 0.001703706,
  ],
  "cosine(0.1)": [
    0.100000001, 0.098466665, 0.093971148, 0.086819813, 0.077500001, 0.066646867,
    0.054999996, 0.04335314, 0.032499995, 0.023180196, 0.016028857, 0.011533336,
  ],
}  # fmt: skip
# CosineDecay(0.0, 9, alpha=0.1, warmup_target=0.1, warmup_steps=3), likewise.
_KERAS_WARMUP_COSINE = [
  0.0, 0.033333335, 0.06666667, 0.100000001, 0.097286165, 0.089471996,
  0.077500001, 0.062814169, 0.047185827, 0.032499995, 0.020527992, 0.01271383,
]  # fmt: skip
# The callback LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch and epoch % 2 == 0 else
# rate), the rate of each of six epochs.
_KERAS_HALVING = [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


@pytest.mark.parametrize("spec", _KERAS)
def test_schedules_are_those_of_keras(spec):
  found = schedules.learning_rates(spec, 0.1, 4, 3)
  assert found.dtype == np.float32
  assert found.shape == (4, 3)
  np.testing.assert_allclose(found.ravel(), _KERAS[spec], rtol=1e-5)


def test_warmup_and_cosine_are_those_of_keras():
  """But for the warm-up, which is one step ahead: Keras makes its first step with a rate of 0."""
  found = schedules.learning_rates("warmup_cosine(1, 0.1)", 0.1, 4, 3).ravel()
  np.testing.assert_allclose(found[:3], _KERAS_WARMUP_COSINE[1:4], rtol=1e-6)
  np.testing.assert_allclose(found[3:], _KERAS_WARMUP_COSINE[3:], rtol=1e-5)


def test_halving_is_that_of_a_scheduler_callback():
  found = schedules.learning_rates("step(0.5, 2)", 0.1, 6, 4)
  assert (found == found[:, :1]).all()
  np.testing.assert_allclose(found[:, 0], _KERAS_HALVING, rtol=1e-6)


def _by_numpy(name, arguments, rate, num_epochs, num_steps):
  """The definitions a second time, step by step."""
  total, rates = num_epochs * num_steps, []
  for t in range(total):
    if name == "constant":
      factor = 1
    elif name == "step":
      factor = arguments[0] ** (t // num_steps // arguments[1])
    elif name == "exponential":
      factor = arguments[0] ** (t / num_steps)
    elif name == "cosine":
      factor = arguments[0] + (1 - arguments[0]) * (1 + np.cos(np.pi * t / total)) / 2
    elif name in ("warmup", "warmup_cosine"):
      n = arguments[0] * num_steps
      factor = (t + 1) / n if t < n else 1
      if name == "warmup_cosine" and t >= n:
        final = arguments[1]
        factor = final + (1 - final) * np.cos(np.pi * (t - n) / (total - n) / 2) ** 2
    else:
      top = int(arguments[0] * total)
      low, share = (1 / 25, 1 - t / top) if t < top else (1 / 250_000, (t - top) / (total - top))
      factor = low + (1 - low) * (1 + np.cos(np.pi * share)) / 2
    rates.append(rate * factor)
  return np.array(rates, np.float32).reshape(num_epochs, num_steps)


_SPECS = st.one_of(
  st.sampled_from(["constant", "cosine", "one_cycle", "warmup(1)", "warmup_cosine(2)"]),
  st.builds("step({}, {})".format, st.floats(0.1, 1.5), st.integers(1, 5)),
  st.builds("exponential({})".format, st.floats(0.5, 1.5)),
  st.builds("cosine({})".format, st.floats(0, 1)),
  st.builds("warmup_cosine({}, {})".format, st.integers(1, 2), st.floats(0, 1)),
  st.builds("one_cycle({})".format, st.floats(0.2, 0.8)),
)


@settings(max_examples=20)
@given(_SPECS, st.floats(1e-5, 10), st.integers(3, 8), st.integers(2, 7))
def test_schedules_are_their_definitions(spec, rate, num_epochs, num_steps):
  found = schedules.learning_rates(spec, rate, num_epochs, num_steps)
  name, arguments = schedules.parse(spec)
  expected = _by_numpy(name, arguments, rate, num_epochs, num_steps)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert found.shape == (num_epochs, num_steps)
  assert (found > 0).all()
  first, last = found[0, 0] / np.float32(rate), found[-1, -1] / np.float32(rate)
  if name in ("constant", "step", "exponential", "cosine"):
    assert first == 1
  if name not in ("step", "exponential"):
    assert found.max() <= np.float32(rate)
    assert last <= 1
  if name == "one_cycle":
    assert first == pytest.approx(1 / 25)


def test_a_constant_schedule_is_the_learning_rate_itself():
  assert (schedules.learning_rates("constant", 0.0001, 2, 3) == np.float32(0.0001)).all()


def test_parse():
  assert schedules.parse(" step( 0.5 , 10 ) ") == ("step", (0.5, 10))
  assert schedules.parse("cosine") == ("cosine", (0.0,))
  assert schedules.parse("cosine(1e-2)") == ("cosine", (0.01,))
  assert schedules.parse("constant()") == ("constant", ())
  assert schedules.parse("warmup_cosine(2)") == ("warmup_cosine", (2, 0.0))
  assert schedules.parse("one_cycle") == ("one_cycle", (0.3,))
  assert {type(value) for value in schedules.parse("step(0.5, 2)")[1]} == {float, int}


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("cosin", "did you mean 'cosine'"),
    (None, "unknown schedule None"),
    ("step((0.5), 1)", "did you mean 'step'"),
    ("step(0.5)", "write 'step(factor, epochs)'"),
    ("warmup", "write 'warmup(epochs)'"),
    ("constant(1)", "schedule 'constant' takes no arguments"),
    ("cosine(0.1, 2)", "write 'cosine(final)', where final may be left out"),
    ("exponential(0)", "factor of schedule 'exponential(0)' must be > 0, not '0'"),
    ("exponential(nan)", "must be > 0"),
    ("exponential(inf)", "must be > 0"),
    ("exponential(x)", "must be > 0, not 'x'"),
    ("step(0.5, 1.5)", "must be a whole number >= 1, not '1.5'"),
    ("step(0.5, 1e30)", "must be a whole number >= 1, not '1e30'"),
    ("warmup(0)", "must be a whole number >= 1, not '0'"),
    ("cosine(1.5)", "must be from 0 to 1"),
    ("one_cycle(1)", "must be between 0 and 1"),
    ("warmup(5)", "warmup of 5 epochs must be shorter than num_epochs = 5"),
    ("warmup_cosine(6)", "of 6 epochs must be shorter than num_epochs = 5"),
    ("one_cycle(0.05)", "needs more than 10 steps to go up and down"),
    ("exponential(1e300)", "must be a number of float32"),
  ],
)
def test_mistakes_get_one_line(spec, message):
  with pytest.raises(InputError) as error:
    schedules.learning_rates(spec, 0.1, 5, 2)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


# Made with Keras 3.15.1 on JAX: keras.callbacks.ReduceLROnPlateau(mode="min", ...), its
# on_epoch_end called with each value as val_loss, the optimizer's learning rate after each epoch,
# 0.1 at first.
_VALUES = {
  "A": [1.0, 0.9, 0.95, 0.94, 0.93, 0.92, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87],
  "B": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.6, 0.4, 0.41, 0.385, 0.42],
  "C": [1.0, 0.999, 0.998, 0.997, 0.996, 0.98, 0.979, 0.978, 0.9, 0.899, 0.9, 0.9, 0.9, 0.7],
}
_PLATEAU = [  # patience, factor, min_delta, cooldown, min_lr; the rates with A, B and C
  (0, 0.5, 0.0, 0, 0.0,
   [0.1, 0.1, 0.05, 0.025, 0.0125, 0.00625, 0.00625, 0.003125, 0.0015625, 0.00078125,
    0.000390625, 0.0001953125, 9.76563e-05, 4.88281e-05],
   [0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125, 0.0015625, 0.00078125, 0.00078125,
    0.000390625, 0.000390625, 0.0001953125, 0.0001953125, 9.76563e-05],
   [0.1] * 10 + [0.05, 0.025, 0.0125, 0.0125]),
  (1, 0.5, 1e-4, 2, 0.0,
   [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125, 0.00625, 0.00625, 0.003125,
    0.003125, 0.0015625],
   [0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.00625, 0.00625, 0.003125, 0.003125,
    0.0015625, 0.0015625, 0.00078125],
   [0.1] * 10 + [0.05, 0.05, 0.025, 0.025]),
  (3, 0.1, 1e-2, 0, 0.005,
   [0.1] * 4 + [0.01] * 5 + [0.005] * 5,
   [0.1] * 3 + [0.01] * 3 + [0.005] * 8,
   [0.1] * 3 + [0.01] * 8 + [0.005] * 3),
  (3, 0.2, 1e-2, 2, 0.001,
   [0.1] * 4 + [0.02] * 5 + [0.004] * 4 + [0.001],
   [0.1] * 3 + [0.02] * 4 + [0.004] * 7,
   [0.1] * 3 + [0.02] * 8 + [0.004] * 3),
  (1, 0.3, 0.05, 1, 0.02,
   [0.1, 0.1, 0.03] + [0.02] * 11,
   [0.1, 0.03] + [0.02] * 12,
   [0.1, 0.03] + [0.02] * 12),
]  # fmt: skip


def _scales(values, **settings):
  """The scale after each epoch, `[E]`, and the last state."""

  def epoch(state, value):
    state = plateau.reduce_on_plateau(state, value, **settings)
    return state, state.scale

  state, scales = jax.lax.scan(epoch, plateau.initial_plateau(), jnp.array(values, jnp.float32))
  return scales, state


def test_plateaus_are_those_of_keras():
  """All settings and sequences at once: members of one program, everything traced."""
  names = ("patience", "factor", "min_delta", "cooldown")
  rows = [row[:4] for row in _PLATEAU for _ in _VALUES]
  values = jnp.array([values for _ in _PLATEAU for values in _VALUES.values()])

  def member(values, *settings):
    return _scales(values, **dict(zip(names, settings, strict=True)))

  columns = [jnp.array(column) for column in zip(*rows, strict=True)]
  found, state = jax.jit(jax.vmap(member))(values, *columns)
  floors = np.repeat([row[4] for row in _PLATEAU], len(_VALUES))[:, None]
  expected = np.array([rates for row in _PLATEAU for rates in row[5:]])
  np.testing.assert_allclose(np.maximum(0.1 * found, floors), expected, rtol=1e-5)
  dtypes = [leaf.dtype for leaf in state]
  assert dtypes == [jnp.float32, jnp.int32, jnp.int32, jnp.float32]


_by_jax = jax.jit(_scales)


@given(
  st.lists(
    st.sampled_from([0.5, 1.0, 1.5, 2.0, float("nan"), float("inf")]), min_size=8, max_size=8
  ),
  st.integers(0, 3),
  st.sampled_from([0.0, 0.5, 0.75]),
  st.sampled_from([0.0, 0.25, 0.5]),
  st.integers(0, 3),
)
def test_plateaus_by_a_second_definition(values, patience, factor, min_delta, cooldown):
  """In plain Python, over settings that Keras would take or not; the scale never goes up."""
  best, wait, counter, scale, expected = np.inf, 0, 0, 1.0, []
  for value in values:
    if counter > 0:
      counter, wait = counter - 1, 0
    if value < best - min_delta:
      best, wait = value, 0
    elif counter == 0:
      wait += 1
      if wait >= patience:
        scale, counter, wait = scale * factor, cooldown, 0
    expected.append(scale)
  found, state = _by_jax(
    values, patience=patience, factor=factor, min_delta=min_delta, cooldown=cooldown
  )  # fmt: skip
  np.testing.assert_array_equal(found, expected)
  assert (np.diff(found, prepend=1) <= 0).all()
  assert (state.best, state.wait, state.cooldown) == (best, wait, counter)
