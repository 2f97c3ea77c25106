"""The worksheets of the repository: right to the last digit, and planted mistakes are found."""

import functools
import json
import random
import re
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_formulas import JAX, NUMPY
from worksheet_examples import SHEETS, make_sheet

from jaxdl.byhand import worksheet
from jaxdl.byhand.expressions import Derivative
from jaxdl.errors import InputError

E, T, C, S, W, I = worksheet.STATUSES  # noqa: E741

RIGHT = sorted(path.stem for path in SHEETS.glob("*.toml") if "problem" not in path.stem)
# Those of one forward and one backward pass over arrays.
ONE_PASS = sorted({*RIGHT} - {"adam", "epochs", "softmax"})


@functools.cache
def table(name):
  return tomllib.loads((SHEETS / f"{name}.toml").read_text(encoding="utf-8"))


def text(name, claims):
  """The worksheet with other claims, (of, value, from) each."""
  sheet = table(name)
  head = "\n".join(
    f"{key} = {json.dumps(sheet[key])}" for key in ("loss", "learning_rate") if key in sheet
  )
  values = {key: json.dumps(value) for key, value in sheet["given"].items()}
  return make_sheet(sheet["equations"], claims, values, head)


def claims_of(name):
  return [
    (claim["of"], claim["value"], *([claim["from"]] if "from" in claim else []))
    for claim in table(name)["claims"]
  ]


def evaluate(formula, known):
  """A formula, read as Python by NumPy."""
  python = re.sub(r"d(\w+)/d(\w+)", r"d\1_d\2", formula).replace("'", "_")
  python = f"array({python})" if python.startswith("[") else python
  return np.asarray(eval(python, dict(NUMPY), known))


def forward(name, inputs=None):
  inputs = inputs or table(name)["given"]
  known = {key: np.array(value, float) for key, value in inputs.items()}
  known["learning_rate"] = np.float64(table(name).get("learning_rate", 0.0))
  for node, equation in table(name)["equations"].items():
    known[node] = evaluate(equation, known)
  return known


def python_name(of):
  return re.sub(r"d(\w+)/d(\w+)", r"d\1_d\2", of).replace("'", "_")


def written(value, digits=9):
  if np.ndim(value) == 0:
    return f"{value + 0.0:.{digits}f}"
  return f"[{', '.join(written(inner, digits) for inner in value)}]"


@pytest.mark.parametrize("name", RIGHT)
def test_every_number_is_right(name):
  checked = worksheet.check(SHEETS / f"{name}.toml")
  assert {(claim.of, claim.status) for claim in checked.claims if claim.status != E} == set()
  assert {claim.remark for claim in checked.claims} == {""}
  assert checked.marks == checked.points


@pytest.mark.parametrize("name", RIGHT)
def test_the_worked_solution_has_a_formula_for_every_derivative(name):
  lines = worksheet.answers(SHEETS / f"{name}.toml")
  slopes = [line for line in lines if re.match(r"  d\w+'*(\[.*\])?/d", line)]
  assert slopes
  assert [line for line in slopes if line.count(" = ") < 2] == []


@pytest.mark.parametrize("name", ONE_PASS)
def test_the_derivatives_are_those_of_jax_grad(name):
  """Each derivative of the loss: a shift of 0 is added to the node, and everything follows."""
  equations, known = table(name)["equations"], forward(name)
  checked = worksheet.check(SHEETS / f"{name}.toml")
  ofs = [claim["of"] for claim in table(name)["claims"] if claim["of"].startswith("dL/d")]
  names = [of.removeprefix("dL/d").partition("[")[0] for of in ofs]

  def loss(shifts):
    at = {n: known[n] + shifts.get(n, 0.0) for n in known if n not in equations}
    for node, equation in equations.items():
      at[node] = eval(equation, dict(JAX), at) + shifts.get(node, 0.0)
    return at["L"]

  with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
    expected = jax.jit(jax.grad(loss))({n: jnp.zeros_like(known[n]) for n in names})
  num = 0
  for claim in checked.claims:
    match = re.fullmatch(r"dL/d(\w+)(?:\[([0-9,]+)\])?", claim.of)
    if match:
      place = tuple(map(int, match[2].split(","))) if match[2] else ()
      assert claim.computed == pytest.approx(float(expected[match[1]][place]), rel=1e-9, abs=1e-12)
      num += 1
  assert num >= len(ofs)


@pytest.mark.parametrize("name", ONE_PASS)
def test_a_slip_in_any_claim_is_found_and_what_follows_from_it_is_carried(name):
  """A student who goes on with the wrong number makes one mistake, and loses the points of one."""
  claims = claims_of(name)
  for planted in range(len(claims)):
    known, result, place = forward(name), [], ()
    for number, (of, _, *working) in enumerate(claims):
      base = of.partition("[")[0]
      formula = working[0] if working else table(name)["equations"][base]
      value = np.array(evaluate(formula, known))
      if number == planted:
        place = np.unravel_index(np.argmax(np.abs(value)), value.shape)
        value[place] = 1.5 * value[place] + 0.25
      value = value.round(9)
      known[python_name(of)] = value
      result.append((of, written(value), *working))
    checked = worksheet.check(text(name, result))
    wrong = [claim for claim in checked.claims if claim.status in worksheet.WRONG]
    index = ",".join(map(str, place))
    of = claims[planted][0]
    entry = f"{of}[{index}]".replace("][", ",") if place else of
    assert [claim.of for claim in wrong] == [entry]
    assert wrong[0].status == S
    assert checked.first_wrong.number == planted + 1


@pytest.mark.parametrize(
  ("name", "of", "formula", "cause"),
  [
    ("matrices", "dL/dW2", "A1 @ dL/dZ2", "A1 @ dL/dZ2 should be A1.T @ dL/dZ2"),
    ("matrices", "dL/db1", "mean(dL/dZ1, axis=0)", "should be sum(dL/dZ1, axis=0)"),
    ("matrices", "dL/db2", "dL/dZ2", "the sum over axis 0 is missing"),
    ("matrices", "dL/dZ2", "2*(Z2 - Y)", "the factor 2 is one too many"),
    ("matrices", "dL/dW1", "X.T @ dL/dZ2", "dL/dZ2 should be dL/dZ1"),
    ("matrices", "dA1/dZ1", "1 + A1**2", "the sign of A1**2 is wrong"),
    ("lstm", "dL/dg", "dL/dc + i", "dL/dc + i should be dL/dc * i"),
    ("recurrent", "dL/dh1", "U @ dL/dh2", None),
    ("matrices", "dL/dZ1", "dL/dA1", "the factor dA1/dZ1 is missing"),
    ("matrices", "dL/dZ1", "dL/dA1 * (1 + A1**2)", "the sign of A1**2 is wrong"),
    ("matrices", "W1'", "W1 + learning_rate * dL/dW1", "the sign of learning_rate"),
    ("cross_entropy", "dL/dZ", "P - Y", "the factor 1/2 is missing"),
    ("cross_entropy", "dL/dZ", "(Y - P) / 2", "its sign is wrong"),
    ("cross_entropy", "dL/dX", "dL/dZ @ W", "dL/dZ @ W should be dL/dZ @ W.T"),
    ("convolution", "dL/dw", "dL/dz * w", "w should be f"),
    ("convolution", "dL/dX", "conv(pad(dL/dC, 1), K)", None),
    ("convolution", "dL/db", "mean(dL/dC)", "mean(dL/dC) should be sum(dL/dC)"),
    ("lstm", "dL/dc", "dL/dt * (1 - c**2)", "c should be t"),
    ("lstm", "dL/df", "dL/dc * c", "c should be c0"),
    ("lstm", "dL/dzf", "dL/df * f", None),
    ("lstm", "dL/dWf", "outer(v, dL/dzf)", "it should be transposed"),
    ("batch_norm", "dL/dD", "dL/dH / s", None),
    ("batch_norm", "dL/dX", "dL/dD", None),
    ("batch_norm", "dL/dg", "dL/dY * H", "the sum over axis 0 is missing"),
    ("attention", "dL/dQ", "dL/dS @ K", None),
    ("attention", "dL/dV", "A @ dL/dO", "A @ dL/dO should be A.T @ dL/dO"),
    ("attention", "dL/dS", "A * (1 - A) * dL/dA", None),
    ("recurrent", "dL/dU", "outer(dL/dz3, h2)", None),
    ("recurrent", "dL/dh2", "U @ dL/dz3", "U @ dL/dz3 should be U.T @ dL/dz3"),
  ],
)
def test_a_wrong_formula_is_found(name, of, formula, cause):
  known = forward(name)
  result = []
  for claim, value, *working in claims_of(name):
    if claim != of:
      result.append((claim, value, *working))
      known[python_name(claim)] = np.array(json.loads(value), float)
      continue
    # What a student computes from the wrong formula; any number if the shapes do not fit.
    right = np.array(json.loads(value), float)
    try:
      wrong = np.broadcast_to(evaluate(formula, known), right.shape)
    except (TypeError, ValueError):
      wrong = right
    result.append((claim, written(wrong, 4), formula))
    break
  checked = worksheet.check(text(name, result))
  last = [claim for claim in checked.claims if claim.number == len(result)]
  assert {claim.status for claim in last} == {W}
  assert {claim.status for claim in checked.claims if claim.number < len(result)} == {E}
  assert "wrong" in last[0].remark
  assert (cause or "") in last[0].remark


@pytest.mark.parametrize(
  ("old", "new", "of"),
  [
    ("mhat_w' / (sqrt", "m_w' / (sqrt", "w'"),
    ("(1 - beta1)*dL/dw", "dL/dw", "m_w'"),
    ("v_b' / (1 - beta2**t)", "v_b' / (1 - beta1**t)", "vhat_b'"),
    ("w - learning_rate", "w + learning_rate", "w'"),
  ],
)
def test_a_wrong_formula_in_the_second_step_of_adam_is_found(old, new, of):
  content = (SHEETS / "adam.toml").read_text(encoding="utf-8")
  first, _, second = content.partition("step = 2")
  checked = worksheet.check(f"{first}step = 2{second.replace(old, new, 1)}")
  wrong = [claim for claim in checked.claims if claim.status in worksheet.WRONG]
  assert [(claim.of, claim.status) for claim in wrong] == [(f"{of}'", W)]


# --- Formulas with one change, judged a second time ---


def mutated(formula, names, random):
  """A formula in which one name, sign, axis, index or transpose is another."""
  pieces = list(re.finditer(r"d?[A-Za-z_]\w*|[-+*/@]|\.T|axis=\d|\[[^\[\]]*\]", formula))
  piece = random.choice(pieces)
  old = piece[0]
  if old in "+-*/@":
    new = random.choice("+-*/@")
  elif old == ".T":
    new = ""
  elif old.startswith("axis"):
    new = random.choice(["axis=0", "axis=1"])
  elif old.startswith("["):
    new = random.choice(["[0]", "[1]", "[0,1]", "[1,0]"])
  elif old in names or old[1:] in names:
    new = ("" if old in names else "d") + random.choice([*names, f"{old.removeprefix('d')}.T"])
  else:
    new = random.choice(["tanh", "sum", "mean", "outer", "sigmoid", "exp", "step", "relu"])
  return formula[: piece.start()] + new + formula[piece.end() :]


def is_the_same_function(name, index, formula, parameters):
  """Whether a formula is that of a claim near the given point; None if that is not known."""
  claims = claims_of(name)
  for seed in range(3):
    rng = np.random.default_rng(seed)
    at = {}
    for key, value in table(name)["given"].items():
      value = np.array(value, float)
      shift = 0.03 * rng.uniform(-1, 1, value.shape) * np.where(value == 0, 1, value)
      # Data that are 0 or 1 are the same: a formula may be simplified for them.
      is_fixed = np.isin(value, (0, 1, -1)) & (key not in parameters)
      at[key] = value + np.where(is_fixed, 0, shift)
    known = forward(name, at)
    for of, _, *working in claims[: index + 1]:
      if working:
        known[python_name(of)] = evaluate(working[0], known)
    right = known[python_name(claims[index][0])]
    try:
      found = np.broadcast_to(evaluate(formula, known), right.shape)
    except NameError:  # a derivative that was not claimed before
      return None
    except (IndexError, TypeError, ValueError):  # shapes that do not fit
      return False
    if not np.isfinite(found).all():
      return None
    if not np.allclose(found, right, rtol=1e-8, atol=1e-10):
      return False
  return True


@given(st.sampled_from(ONE_PASS), st.integers(0, 2**32))
@settings(max_examples=80)
def test_a_formula_is_wrong_if_and_only_if_it_is_another_function(name, seed):
  choose = random.Random(seed)
  claims = claims_of(name)
  index = choose.choice([i for i, claim in enumerate(claims) if len(claim) == 3])
  of, value, right = claims[index]
  formula = mutated(right, [*table(name)["given"], *table(name)["equations"]], choose)
  try:
    checked = worksheet.check(text(name, [*claims[:index], (of, value, formula)]))
  except InputError:
    return
  parameters = {quantity.by for quantity in checked.known if isinstance(quantity, Derivative)}
  with np.errstate(all="ignore"):
    expected = is_the_same_function(name, index, formula, parameters)
  if expected is not None:
    (remark,) = {claim.remark for claim in checked.claims if claim.number == index + 1}
    assert ("wrong" in remark) == (not expected)
