"""Whatever a user brings, by importable name."""

import functools
import pickle
import subprocess
import sys

import flax.linen as nn
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import calls
from jaxdl.calls import Call
from jaxdl.errors import InputError

_NAMES = st.from_regex(
  r"[a-z_][a-z0-9_]{0,5}(\.[a-z][a-z0-9]{0,5})?:[A-Za-z_][a-z0-9]{0,5}", fullmatch=True
)
_LITERALS = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(allow_nan=False, allow_infinity=False),
  st.text(),
)


def _call_of(values):
  kwargs = st.dictionaries(st.from_regex(r"x[a-z0-9]{0,3}", fullmatch=True), values, max_size=3)
  made = st.builds(
    lambda target, args, named: Call(target, tuple(args), tuple(sorted(named.items())), True),
    *(_NAMES, st.lists(values, max_size=2), kwargs),
  )
  return st.one_of(made, _NAMES.map(Call))


_VALUES = st.recursive(
  _LITERALS, lambda inner: st.one_of(st.lists(inner, max_size=2).map(tuple), _call_of(inner))
)


@given(_call_of(_VALUES))
def test_text_is_read_as_the_call_that_it_was_written_from(call):
  assert Call.read(str(call)) == call
  assert pickle.loads(pickle.dumps(call)) == call


def test_a_call_builds_what_its_parts_name():
  call = Call.read("flax.linen:Dense(3, kernel_init=flax.linen.initializers:constant(2.0))")
  assert isinstance(call.build(), nn.Dense)
  assert call.build().features == 3
  assert call.build().kernel_init(None, (1,))[0] == 2
  assert call.build(use_bias=False).use_bias is False


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (optax.lion, "optax:lion"),
    (functools.partial(optax.adamw, b1=0.95), "optax:adamw(b1=0.95)"),
    (nn.Dense(3), "flax.linen:Dense(features=3)"),
    (
      nn.Dense(3, dot_general_cls=nn.Dense),
      "flax.linen:Dense(dot_general_cls=flax.linen:Dense, features=3)",
    ),
    (nn.Conv(4, (3, 3)), "flax.linen:Conv(features=4, kernel_size=(3, 3))"),
  ],
)
def test_what_has_an_importable_name_becomes_text(value, text):
  call = Call.of(value)
  assert calls.canonical(value) == str(call) == text
  assert Call.read(text) == call
  built = call.build() if isinstance(value, nn.Module) else call.partial()
  if isinstance(value, functools.partial):
    built, value = ((of.func, of.args, of.keywords) for of in (built, value))
  assert built == value


def test_functions_without_a_name_are_told_apart_by_their_source():
  def make(scale):
    return lambda x: scale * x

  def double(x):
    return 2 * x

  for value in (double, nn.Dense(3, kernel_init=double), functools.partial(double, x=1)):
    call = calls.canonical(value)
    assert call == Call.of(value)
    assert not call.is_text
    again = Call.read(str(call))  # as from the config of a run
    assert (str(again), again.is_text) == (str(call), False)
    with pytest.raises(InputError, match="has no importable name: only the program that"):
      again.build()
    assert "<" in str(call)
    assert "0x" not in str(call)
  assert str(Call.of(double)) != str(Call.of(make(2))) != str(Call.of(make(3)))
  assert str(Call.of(make(2))) == str(Call.of(make(2)))
  one, other = (lambda x: x + 1), (lambda x: x + 2)
  assert str(Call.of(one)) != str(Call.of(other))
  assert Call.of(functools.partial(double, x=1)).build() == 2


def test_floats_are_split_off():
  call, numbers = Call.read("optax:adamw(0.1, b1=0.95, nesterov=True, mu_dtype='float32')").split()
  assert str(call) == "optax:adamw(mu_dtype='float32', nesterov=True)"
  assert numbers == {"learning_rate": 0.1, "b1": 0.95}


@pytest.mark.parametrize(
  ("text", "at_two"),
  [
    ("optax:linear_schedule(1.0, 0.0, 4)", 0.5),  # a factory
    ("operator:neg", -2),
    ("flax.linen:leaky_relu(negative_slope=0.5)", 2),
  ],
)
def test_functions_and_factories_of_functions(text, at_two):
  assert Call.read(text).function()(2) == at_two


@pytest.mark.parametrize(
  "text",
  [
    "",
    "x",
    "a:",
    "a:b(",
    "a:b(**x)",
    "a:b(c=1, c=2)",
    "a:b({1: 2})",
    "a:b(x.y)",
    "a:b()()",
    "a:b[0]",
    "a:b(__import__('os').abort())",
    "a:b(lambda: 1)",
    "[a:b]",
    "a:b(" + "(" * 500,
  ],
)
def test_what_is_no_call_is_refused(text):
  with pytest.raises(InputError, match="is not of the form"):
    Call.read(text)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("no_such_module:x()", "no_such_module:x cannot be imported: ModuleNotFoundError"),
    ("optax:no_such_name()", "optax:no_such_name cannot be imported: AttributeError"),
    ("optax:adamw(beta=1)", "does not fit its signature: .*'beta'"),
    ("jaxdl.calls:_IMPORTABLE()", "is not a function or a class"),
    ("fractions:Fraction(1, 0)", r"Fraction\(1, 0\) fails: ZeroDivisionError"),
  ],
)
def test_what_cannot_be_built_is_one_line(text, message):
  with pytest.raises(InputError, match=message) as error:
    Call.read(text).build()
  assert "\n" not in str(error.value)


def test_reading_imports_nothing():
  code = (
    "from jaxdl.calls import Call; import sys; Call.read('wave:open(f=1)');"
    "sys.exit('wave' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
