"""Worksheets over arrays: entries get a status, formulas are judged by shape and as functions."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_formulas import JAX, NUMPY
from worksheet_examples import make_sheet

from jaxdl.byhand import worksheet
from jaxdl.errors import InputError

E, T, C, S, W, I = worksheet.STATUSES  # noqa: E741

# Two layers with biases, a mini-batch of three examples, softmax and cross-entropy.
GIVEN = {
  "X": [[1, 2], [0, -1], [3, 1]],
  "Y": [[1, 0], [0, 1], [1, 0]],
  "W1": [[0.1, 0.2, -0.3], [0.4, -0.5, 0.6]],
  "b1": [0.1, 0, -0.1],
  "W2": [[0.3, -0.1], [0.2, 0.5], [-0.4, 0.1]],
  "b2": [0, 0.2],
}
EQUATIONS = {
  "Z1": "X @ W1 + b1",
  "A1": "relu(Z1)",
  "Z2": "A1 @ W2 + b2",
  "P": "softmax(Z2)",
  "L": "-sum(Y * log(P)) / 3",
}
HEAD = 'loss = "L"\nlearning_rate = 0.5'


def by_hand():
  """The same in NumPy: every value and derivative by name."""
  v = {name: np.array(value, float) for name, value in GIVEN.items()}
  v["Z1"] = v["X"] @ v["W1"] + v["b1"]
  v["A1"] = np.maximum(v["Z1"], 0)
  v["Z2"] = v["A1"] @ v["W2"] + v["b2"]
  v["P"] = np.exp(v["Z2"]) / np.exp(v["Z2"]).sum(axis=1, keepdims=True)
  v["L"] = -np.sum(v["Y"] * np.log(v["P"])) / 3
  v["dL/dZ2"] = (v["P"] - v["Y"]) / 3
  v["dL/dW2"] = v["A1"].T @ v["dL/dZ2"]
  v["dL/db2"] = v["dL/dZ2"].sum(axis=0)
  v["dL/dA1"] = v["dL/dZ2"] @ v["W2"].T
  v["dA1/dZ1"] = (v["Z1"] > 0) * 1.0
  v["dL/dZ1"] = v["dL/dA1"] * v["dA1/dZ1"]
  v["dL/dW1"] = v["X"].T @ v["dL/dZ1"]
  v["dL/db1"] = v["dL/dZ1"].sum(axis=0)
  for name in ("W1", "b1", "W2", "b2"):
    v[f"{name}'"] = v[name] - 0.5 * v[f"dL/d{name}"]
  return v


RIGHT = by_hand()
WORKINGS = {
  "dL/dZ2": "(P - Y) / 3",
  "dL/dW2": "A1.T @ dL/dZ2",
  "dL/db2": "sum(dL/dZ2, axis=0)",
  "dL/dA1": "dL/dZ2 @ W2.T",
  "dL/dZ1": "dL/dA1 * dA1/dZ1",
  "dL/dW1": "X.T @ dL/dZ1",
  "W1'": "W1 - learning_rate * dL/dW1",
}


def written(value, digits=4):
  """An array as a person writes it."""
  if np.ndim(value) == 0:
    return f"{value + 0.0:.{digits}f}"
  return f"[{', '.join(written(inner, digits) for inner in value)}]"


def sheet(claims, equations=EQUATIONS, given=GIVEN, head=HEAD):
  given = {name: json.dumps(value) for name, value in given.items()}
  return make_sheet(equations, claims, given, head)


def claims_of(names=None, workings=WORKINGS):
  names = names or [name for name in RIGHT if name not in GIVEN]
  return [(n, written(RIGHT[n]), *([workings[n]] if n in workings else [])) for n in names]


def statuses(checked):
  return {claim.of: claim.status for claim in checked.claims}


def test_a_network_by_hand_is_right_entry_by_entry():
  checked = worksheet.check(sheet(claims_of()))
  assert {claim.status for claim in checked.claims} == {E}
  for claim in checked.claims:
    name, _, index = claim.of.partition("[")
    place = tuple(map(int, index.rstrip("]").split(","))) if index else ()
    assert claim.computed == pytest.approx(RIGHT[name][place], rel=1e-12, abs=1e-15)
  assert {claim.remark for claim in checked.claims} == {""}
  assert checked.marks == checked.points == len(claims_of())


@pytest.mark.parametrize("name", [name for name in RIGHT if name not in GIVEN and name != "L"])
def test_one_planted_slip_is_the_only_mistake(name):
  """One entry has the wrong sign; what follows from it is carried, whether by working or not."""
  for workings in (WORKINGS, {}):
    value = RIGHT[name].copy()
    place = tuple(np.argwhere(np.abs(value) > 1e-3)[-1])
    value[place] *= -1
    claims = [
      (n, written(value if n == name else RIGHT[n], 9), *([workings[n]] if n in workings else []))
      for n in RIGHT
      if n not in GIVEN
    ]
    checked = worksheet.check(sheet(claims))
    wrong = [claim for claim in checked.claims if claim.status in worksheet.WRONG]
    # The claims after it were right, but do not follow from the slip; that is no second mistake.
    assert [claim.of for claim in wrong] == [f"{name}[{','.join(map(str, place))}]"]
    assert wrong[0].status == S
    assert "Its sign is wrong" in worksheet.first_slip(checked)


def test_what_follows_from_a_wrong_array_is_carried():
  """dL/dZ2 without the 1/3: everything after it is three times too large, and carried."""
  claims = claims_of()
  claims[5] = ("dL/dZ2", written(3 * RIGHT["dL/dZ2"], 9), "P - Y")
  follow = ("dL/dW2", "dL/db2", "dL/dA1", "dL/dZ1", "dL/dW1", "dL/db1")
  claims = [
    (of, written(3 * RIGHT[of], 9), *rest) if of in follow else (of, value, *rest)
    for of, value, *rest in claims
    if "'" not in of
  ]
  for workings in (True, False):
    # Written before with four digits: the student's calculator had more.
    used = [claim if workings or claim[0] == "dL/dZ2" else claim[:2] for claim in claims]
    checked = worksheet.check(sheet(used))
    for claim in checked.claims:
      name = claim.of.partition("[")[0]
      if name == "dL/dZ2":
        assert claim.status == W
        assert claim.remark == "The formula for dL/dZ2, P - Y, is wrong: the factor 1/3 is missing."
      elif name in follow:
        assert claim.status == (C if abs(claim.computed) > 1e-12 else E)
      else:
        assert claim.status == E
    assert checked.marks == checked.points - 1


@pytest.mark.parametrize(
  ("of", "formula", "cause"),
  [
    ("dL/dW2", "dL/dZ2 @ A1.T", r"do not fit together in @; dL/dZ2 @ A1.T should be A1.T @ dL/dZ2"),
    ("dL/dW2", "A1 @ dL/dZ2", r"A1 @ dL/dZ2 should be A1.T @ dL/dZ2"),
    ("dL/dA1", "dL/dZ2 @ W2", r"dL/dZ2 @ W2 should be dL/dZ2 @ W2.T"),
    (
      "dL/db2",
      "dL/dZ2",
      r"its shape is \(3, 2\), but that of dL/db2 is \(2,\); the sum over axis 0",
    ),
    ("dL/db2", "mean(dL/dZ2, axis=0)", r"mean\(.*\) should be sum\(dL/dZ2, axis=0\)"),
    (
      "dL/db2",
      "sum(dL/dZ2, axis=1)",
      r"its shape is \(3,\), .*; .* should be sum\(dL/dZ2, axis=0\)",
    ),
    ("dL/db2", "sum(dL/dZ2, axis=0) / 3", "the factor 1/3 is one too many"),
    ("dL/dZ2", "P - Y", "the factor 1/3 is missing"),
    ("dL/dZ2", "(Y - P)/3", "its sign is wrong"),
    ("dL/dZ1", "dL/dA1", "the factor dA1/dZ1 is missing"),
    ("dL/dZ1", "dL/dA1 * step(A1)", None),  # right: step of relu is its derivative
    ("dL/dW1", "X.T @ dL/dA1", "the factor dA1/dZ1 in dL/dA1 is missing"),
    ("dL/dW1", "X.T @ (dL/dZ2 @ W2.T * step(Z1))", None),
    ("W1'", "W1 + learning_rate * dL/dW1", "the sign of learning_rate \\* dL/dW1 is wrong"),
    ("W1'", "W1 - dL/dW1", "the factor learning_rate = 0.5 in dL/dW1 is missing"),
    ("Z1", "X @ W1", "its shape|the term b1|wrong"),
    ("dL/dZ2[1,0]", "(P[1,0] - Y[1,0])/3", None),
    ("dL/dZ2[1,0]", "(P[1,0] - Y[1,1])/3", r"Y\[1,1\] should be Y\[1,0\]"),
    ("dL/dW2[0,1]", "A1[0,0]*dL/dZ2[0,1] + A1[1,0]*dL/dZ2[1,1] + A1[2,0]*dL/dZ2[2,1]", None),
    ("dL/dW2[0]", "A1[:,0] @ dL/dZ2", None),
    ("dL/dZ2[1,1]", "(0.5866 - 1) / 3", None),  # P[1,1] to four digits
  ],
)
def test_a_formula_over_arrays_is_judged_as_mathematics(of, formula, cause):
  base, _, index = of.partition("[")
  place = tuple(map(int, index.rstrip("]").split(","))) if index else ()
  checked = worksheet.check(sheet([(of, written(RIGHT[base][place], 9), formula)]))
  (remark,) = {claim.remark for claim in checked.claims}
  if cause is None:
    assert remark == ""
    assert {claim.status for claim in checked.claims} <= {E}
  else:
    assert re.search(cause, remark)
    assert {claim.status for claim in checked.claims} == {W}


def test_vectors_are_multiplied_as_columns_and_rows():
  equations = {"z": "W @ x", "L": "sum(z**2) / 2"}
  given = {"W": [[1, 2, 0], [0, 1, -1]], "x": [0.5, 1, 3]}
  # z = (2.5, -2), dL/dz = z, dL/dW = z x^T.
  outer = "[[1.25, 2.5, 7.5], [-1, -2, -6]]"
  checked = worksheet.check(sheet([("dL/dW", outer, "z @ x.T")], equations, given, ""))
  assert "z @ x.T should be outer(z, x)" in checked.claims[0].remark
  checked = worksheet.check(sheet([("dL/dW", outer, "outer(z, x)")], equations, given, ""))
  assert {claim.status for claim in checked.claims} == {E}


def test_a_wrong_formula_is_said_of_the_whole_array():
  """A gradient that is transposed: its diagonal is right, but that is not worth a word."""
  equations = {"z": "W @ x", "L": "sum(z**2) / 2"}
  given = {"W": [[1, 2], [3, 4]], "x": [1, 2]}  # z = (5, 11), dL/dW = z x^T
  claims = [("dL/dW", "[[5, 11], [10, 22]]", "outer(x, z)")]
  sentence = worksheet.first_slip(worksheet.check(sheet(claims, equations, given, "")))
  assert sentence.startswith("The first mistake is in claim 1, dL/dW. The formula for dL/dW")
  claims = [("dL/dW", "[[5, 10], [11, 22]]", "outer(x, z)")]
  sentence = worksheet.first_slip(worksheet.check(sheet(claims, equations, given, "")))
  assert "claim 1, dL/dW: the value is right, but the line of working is not" in sentence


def test_points_are_shared_by_the_entries():
  """Of six entries one is wrong: five sixths of three points."""
  value = RIGHT["dL/dW2"].copy()
  value[0, 0] = 7
  text = sheet([("dL/dW2", written(value)), ("L", "0.6602")])
  text = text.replace('value = "[[7', 'points = 3\nvalue = "[[7')
  checked = worksheet.check(text)
  assert (checked.marks, checked.points) == (3.5, 4)
  header, row = worksheet.marks_table({"a.toml": checked})
  assert row[header.index("dL/dW2")] == "2.5"
  sentence, table = worksheet.feedback(checked)
  assert sentence.startswith("The first mistake is in claim 1, dL/dW2[0,0] = 7.0000.")
  assert len(table) == 2


def test_targets_in_rows_that_add_up_to_1_stay_so():
  """After a softmax P - Y is right for one-hot rows, and for rows that add up to 1, only."""
  for row, right in (([1, 0], True), ([0.3, 0.7], True), ([0.3, 0.6], False)):
    given = {**GIVEN, "Y": [row, row, row]}
    (claim,) = worksheet.check(
      sheet([("dL/dZ2[0,0]", "9", "(P[0,0] - Y[0,0])/3")], given=given)
    ).claims
    assert ("wrong" not in claim.remark) == right


# --- The right values ---

NETWORKS = {
  "attention": (
    {
      "Q": "X @ Wq",
      "K": "X @ Wk",
      "V": "X @ Wv",
      "A": "softmax(Q @ K.T / sqrt(2))",
      "O": "A @ V",
      "L": "sum((O - T)**2) / 2",
    },
    {"X": (2, 3), "Wq": (3, 2), "Wk": (3, 2), "Wv": (3, 2), "T": (2, 2)},
  ),
  "batch norm": (
    {
      "m": "mean(X, axis=0)",
      "D": "X - m",
      "v": "mean(D**2, axis=0)",
      "H": "D / sqrt(v + 0.1)",
      "Y": "g * H + b",
      "L": "sum(Y * T)",
    },
    {"X": (4, 2), "g": (2,), "b": (2,), "T": (4, 2)},
  ),
  "convolution": (
    {
      "C": "conv(X, K) + b",
      "R": "tanh(C)",
      "M": "mean_pool(R, 2, 1)",
      "y": "flatten(M) @ w",
      "L": "(y - t)**2",
    },
    {"X": (4, 4), "K": (2, 2), "b": (), "w": (4,), "t": ()},
  ),
}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=3)
@given(seed=st.integers(0, 10**6))
def test_derivatives_are_those_of_jax_grad(name, seed):
  equations, shapes = NETWORKS[name]
  rng = np.random.default_rng(seed)
  at = {n: rng.normal(size=shape).round(3) for n, shape in shapes.items()}
  claims = [(f"dL/d{n}", written(np.zeros(shape))) for n, shape in shapes.items()]
  checked = worksheet.check(sheet(claims, equations, {n: v.tolist() for n, v in at.items()}, ""))

  def loss(inputs):
    names = dict(inputs)
    for node, text in equations.items():
      names[node] = eval(text, dict(JAX), names)
    return names["L"]

  with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
    expected = jax.jit(jax.grad(loss))({n: jnp.asarray(v) for n, v in at.items()})
  for claim in checked.claims:
    n, _, index = claim.of.removeprefix("dL/d").partition("[")
    place = tuple(map(int, index.rstrip("]").split(","))) if index else ()
    assert claim.computed == pytest.approx(float(expected[n][place]), rel=1e-9, abs=1e-9)
    # Without claims before it, what follows by the chain rule over single equations is the same.
    assert claim.expected_from_claims == pytest.approx(claim.computed, rel=1e-9, abs=1e-9)


def test_an_entry_of_an_array_is_differentiated():
  """z0 = W00 x0 + W01 x1; softmax: dp0/dz1 = -p0 p1; an elementwise derivative is an array."""
  equations = {"z": "W @ x", "p": "softmax(z)", "a": "tanh(z)"}
  given = {"W": [[1, 2], [0, 1]], "x": [0.5, -0.5]}
  p = np.exp([-0.5, -0.5]) / np.exp([-0.5, -0.5]).sum()
  expected = {
    "dz[0]/dW": [[0.5, -0.5], [0, 0]],
    "dz[1]/dx": [0, 1],
    "dp[0]/dz": [p[0] * p[1], -p[0] * p[1]],
    "da/dz": 1 - np.tanh([-0.5, -0.5]) ** 2,
    "da[1]/dz": [0, 1 - np.tanh(-0.5) ** 2],
  }
  claims = [(of, written(np.array(value))) for of, value in expected.items()]
  checked = worksheet.check(sheet(claims, equations, given, ""))
  assert {claim.status for claim in checked.claims} == {E}


def test_right_arrays_take_one_row_of_a_table():
  checked = worksheet.check(
    sheet([("b2[0]", "0"), ("Z2", written(RIGHT["Z2"])), ("P[0][1]", "0.4")])
  )
  table = [(row[0], row[1], row[4]) for row in worksheet.rows(checked)[1:]]
  assert table == [("b2[0]", "0", E), ("Z2", "6 numbers", E), ("P[0,1]", "0.4", S)]


def test_an_entry_that_was_claimed_counts_within_its_array():
  """A = 2 x = (2, 4), b = a²: with a[0] = 3 claimed, b[0] = 9 is carried and b[1] = 16 exact."""
  equations = {"a": "2*x", "b": "a**2"}
  for working in ((), ("a * a",)):
    claims = [("a[0]", "3"), ("b", "[9.0, 16.0]", *working), ("a[1]", "4")]
    checked = worksheet.check(sheet(claims, equations, {"x": [1, 2]}, ""))
    assert [claim.status for claim in checked.claims] == [S, C, E, E]


def test_a_scalar_worksheet_may_use_lists():
  """Softmax of two scalars."""
  equations = {"p": "softmax([z1, z2])[0]", "L": "-log(p)"}
  checked = worksheet.check(
    sheet([("dL/dz1", "-0.2689", "p - 1"), ("dL/dz2", "0.2689")], equations, {"z1": 1, "z2": 0}, "")
  )
  assert list(statuses(checked).values()) == [E, E]


# --- The worked solution ---


@pytest.mark.parametrize("name", ["network", *NETWORKS])
def test_the_formulas_of_a_worked_solution_give_its_values(name):
  """Every formula, computed by NumPy from the values before it, gives the value beside it."""
  if name == "network":
    equations, at = EQUATIONS, {n: np.array(v, float) for n, v in GIVEN.items()}
  else:
    equations, shapes = NETWORKS[name]
    rng = np.random.default_rng(0)
    at = {n: rng.normal(size=shape).round(2) for n, shape in shapes.items()}
  claims = [(f"dL/d{n}", written(np.zeros(np.shape(v)))) for n, v in at.items()]
  lines = worksheet.answers(sheet(claims, equations, {n: v.tolist() for n, v in at.items()}, ""))
  known, num = dict(at), 0

  def python(text):
    return re.sub(r"d(\w+)/d(\w+)", r"d\1_d\2", text)

  for line in lines:
    if " = " not in line:
      continue
    # An axis has no blanks around its sign.
    of, *formulas, value = line.strip().split(" = ")
    known[python(of)] = np.array(json.loads(value), float)
    if formulas:
      found = eval(python(formulas[0]), dict(NUMPY), known)
      found = np.broadcast_to(found, known[python(of)].shape)
      np.testing.assert_allclose(found, known[python(of)], rtol=1e-4, atol=1e-4)
      num += 1
  assert num >= 2 * len(equations) - 2


# --- What is no worksheet ---


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (sheet([("Z1", "1")]), r"value: '1' must have the shape \(3, 3\), as in \[\[0, 0, 0\], "),
    (sheet([("L", "[1]")]), "value: '\\[1\\]' is an array, but one number is claimed"),
    (sheet([("b2", "[1, 2, 3]")]), r"must have the shape \(2,\), as in \[0, 0\]"),
    (sheet([("b2", "[1, 2")]), r"value: '\[1, 2' is not an array; write it as in \[0.1, -0.2\]"),
    (sheet([("b2", "[1 2]")]), "'1 2' is not a decimal number; separate the numbers by commas"),
    (sheet([("W2", "[1 2; 3 4]")]), "separate the numbers by commas and the rows by brackets"),
    (sheet([("L", "1")], {"L": "sum(W1^T @ X)"}), "the transpose of W is written W.T"),
    (sheet([("L", "1")], {"L": "np.sum(X)"}), "functions are written without a point"),
    (sheet([("L", "1")], {"L": "sum(dot(X, W1))"}), "dot is written @, as in W @ x"),
    (sheet([("W2", "[[1, 2], [3]]")]), "rows of different lengths"),
    (sheet([("b2", "[[[[[1]]]]]")]), "is not an array"),
    (sheet([("b2[2]", "1")]), "entries are counted from 0"),
    (sheet([("b2[0,0]", "1")]), r"2 indices are too many for the shape \(2,\)"),
    (sheet([("Z1[0:2]", "1")]), r"a whole array, a row or an entry"),
    (sheet([("L[0]", "1")]), "1 indices are too many for the shape"),
    (sheet([("b2", "[1, 2]"), ("b2[1]", "2")]), "it repeats claim 1"),
    (
      sheet([("dZ2/dW2", "1")]),
      r"dZ2/dW2 is 6 x 6 numbers, .*: write one entry above, as in dZ2\[0,0\]/dW2",
    ),
    (sheet([("dP/dZ2", "1")]), r"write one entry above, as in dP\[0,0\]/dZ2"),
    (sheet([("dZ2[0]/dW2", "1")]), r"write one entry above"),
    (sheet([("Z1 @ W2", "1")]), "a claim is of a node"),
    (
      sheet([("Z1", "1")], {"Z1": "X @ b1"}),
      r"equations.Z1 = 'X @ b1': the shapes \(3, 2\) and \(3,\)",
    ),
    (
      sheet([("L", "1")], {"L": "X @ W1"}),
      r"loss must be one number, but L has the shape \(3, 3\)",
    ),
    (sheet([("Z1", "1")], given={**GIVEN, "X": [[1, 2], [3]]}), "given.X has rows of different"),
    (
      sheet([("Z1", "1")], given={**GIVEN, "X": []}),
      "given.X has rows of different lengths, or none",
    ),
    (sheet([("Z1", "1")], given={**GIVEN, "X": [["1"]]}), r"given.X\[0,0\] must be a number"),
    (sheet([("Z1", "1")], given={**GIVEN, "X": [0] * 500}), "given.X is too large"),
    (sheet([("Z1", "1")], given={**GIVEN, "X": [[[[[1]]]]]}), "given.X is too large"),
    (
      sheet([("L", "1")]).replace('"1"', "[1, 2]"),
      r'put it in quotation marks, as in value = "\[0.50',
    ),
    (sheet([("L", "1")]).replace("[1, 2]", "[1 2]"), r"write|separate the numbers of an array"),
    (sheet([("L", "1")], {"L": "sum(log(X))"}, head=""), "the value of L = .* is not finite: X = "),
  ],
)
def test_no_worksheet(text, message):
  with pytest.raises(InputError, match=message) as caught:
    worksheet.check(text)
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 500
