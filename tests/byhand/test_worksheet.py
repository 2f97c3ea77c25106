"""Worksheets: every claim gets its status, every mistake one line, nothing a traceback."""

# ruff: noqa: RUF001

import atexit
import contextlib
import csv
import functools
import json
import math
import os
import random
import re

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT, Forks
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from worksheet_examples import (
  MAZUR,
  MAZUR_GIVEN,
  NEURON,
  NEURON_GIVEN,
  SHEETS,
  SOFTMAX,
  SOFTMAX_GIVEN,
  make_sheet,
)

from jaxdl.byhand import expressions, worksheet
from jaxdl.byhand.expressions import Apply, Name, Number
from jaxdl.errors import InputError


def statuses(text):
  return [claim.status for claim in worksheet.check(text).claims]


# --- The two worksheets of the coursework, calculated again in plain Python ---


def network(x, w, b, y=1.0, rate=0.1):
  """The 2-3-1 network: everything that is claimed, by name. `w` and `b` are indexed from 1."""

  def sigmoid(value):
    return 1 / (1 + math.exp(-value))

  out = {f"w{i}": w[i] for i in range(1, 10)}
  for i in (1, 2, 3):
    out[f"z{i}"] = w[2 * i - 1] * x[0] + w[2 * i] * x[1] + b[i]
    out[f"a{i}"] = sigmoid(out[f"z{i}"])
    out[f"da{i}/dz{i}"] = out[f"a{i}"] * (1 - out[f"a{i}"])
    out[f"dz/dw{i + 6}"], out[f"dz/da{i}"] = out[f"a{i}"], w[i + 6]
  out["z"] = sum(w[i + 6] * out[f"a{i}"] for i in (1, 2, 3)) + b[4]
  out["a"] = sigmoid(out["z"])
  out["L"], out["dL/da"] = (y - out["a"]) ** 2 / 2, out["a"] - y
  out["da/dz"] = out["a"] * (1 - out["a"])
  delta = out["dL/da"] * out["da/dz"]
  for i in (1, 2, 3):
    out[f"w{i + 6}'"] = w[i + 6] - rate * delta * out[f"a{i}"]
    hidden = delta * w[i + 6] * out[f"da{i}/dz{i}"]
    out[f"w{2 * i - 1}'"] = w[2 * i - 1] - rate * hidden * x[0]
    out[f"w{2 * i}'"] = w[2 * i] - rate * hidden * x[1]
  return out


E, T, C, S, W, I = worksheet.STATUSES  # noqa: E741
PROBLEM_1A = {
  **{f"z{i}": E for i in (1, 2, 3)},
  **{f"a{i}": T for i in (1, 2, 3)},  # 0.880797 cut off
  "z": T,  # 3.64239
  "a": E,
  "L": T,  # 0.000325667
  "dL/da": E,
  "da/dz": T,  # 0.02487
  **{f"dz/dw{i}": T for i in (7, 8, 9)},
  **{f"w{i}'": T for i in (7, 8, 9)},  # 1.0000559
  **{f"da{i}/dz{i}": C for i in (1, 2, 3)},  # 0.104994, but 0.8807 (1 - 0.8807) = 0.105068
  **{f"w{i}'": E for i in (1, 3, 5)},  # x1 = 0
  **{f"w{i}'": S for i in (2, 4, 6)},  # 1.0000067
}
PROBLEM_1B = {
  **{f"{name}{i}": E for name in "za" for i in (1, 2, 3)},
  "z": E,
  "a": T,  # 0.524979
  "L": E,
  "dL/da": C,  # -0.475021, but 0.5249 - 1 = -0.4751
  "da/dz": E,
  "dz/dw9": E,
  "w9": I,  # -1
  "w9'": C,  # 0 + 0.1 * 0.4751 * 0.249 * 0.5866 = 0.0069395
  "w7'": C,  # 1.006949, but 1 + 0.0069395
  "dz/da3": C,  # -1, but it is w9, which was claimed to be 0
  "da3/dz3": E,
  "w5'": E,  # 0.497 is 0.5 to one digit
  "dz/da1": E,
  "w1'": C,  # 0.5028726, but 0.5 + 0.1 * 0.4751 * 0.249 * 0.2425 = 0.5028688
}


@pytest.mark.parametrize(
  ("name", "expected", "numbers"),
  [
    ("problem_1a", PROBLEM_1A, network((0, 1), [1.0] * 10, [1.0] * 5)),
    (
      "problem_1b",
      PROBLEM_1B,
      network((1, 1), [0, *(0.5, -0.25) * 3, 1.0, 0.0, -1.0], [0.1] * 5),
    ),
  ],
)
def test_coursework(name, expected, numbers):
  checked = worksheet.check(SHEETS / f"{name}.toml")
  assert {claim.of: claim.status for claim in checked.claims} == expected
  for claim in checked.claims:
    assert claim.computed == pytest.approx(numbers[claim.of], rel=1e-12, abs=1e-15)


def test_first_slip_of_problem_1a_is_w2():
  checked = worksheet.check(SHEETS / "problem_1a.toml")
  assert checked.first_wrong.of == "w2'"
  # 1 + 0.1 * 0.0255 * 0.0248 * 1 * 0.1051 * 1, as claimed before.
  assert checked.first_wrong.expected_from_claims == pytest.approx(1.0000066465, abs=1e-10)
  assert "w2' = 1.0000005 should be 1.0000067" in worksheet.first_slip(checked)


def test_first_mistake_of_problem_1b_is_w9():
  sentence = worksheet.first_slip(worksheet.check(SHEETS / "problem_1b.toml"))
  assert "w9 = 0 is written there, but w9 is given as -1" in sentence


# --- Other networks ---

MAZUR_HEAD = 'loss = "E"\nlearning_rate = 0.5'
# As published.
MAZUR_CLAIMS = [
  ("nh1", "0.3775"),
  ("h1", "0.593269992"),
  ("h2", "0.596884378"),
  ("no1", "1.105905967"),
  ("o1", "0.75136507"),
  ("o2", "0.772928465"),
  ("E1", "0.274811083"),
  ("E2", "0.023560026"),
  ("E", "0.298371109"),
  ("dE/do1", "0.74136507"),
  ("do1/dno1", "0.186815602"),
  ("dno1/dw5", "0.593269992"),
  ("dE/dw5", "0.082167041", "dE/do1 * do1/dno1 * dno1/dw5"),
  ("w5'", "0.35891648"),
  ("w6'", "0.408666186"),
  ("w7'", "0.511301270"),
  ("w8'", "0.561370121"),
  ("dE1/dh1", "0.055399425"),
  ("dE2/dh1", "-0.01904912"),
  ("dE/dh1", "0.036350306"),
  ("dh1/dnh1", "0.241300709"),
  ("dE/dw1", "0.000438568"),
  ("w1'", "0.149780716"),
  ("w4'", "0.29950229"),
]


def test_two_outputs_and_shared_biases():
  """Published to nine digits, each in the last one right, cut off or carried."""
  checked = worksheet.check(make_sheet(MAZUR, MAZUR_CLAIMS, MAZUR_GIVEN, MAZUR_HEAD))
  assert {claim.of for claim in checked.claims if claim.status == S} == set()
  assert sum(claim.status == E for claim in checked.claims) >= 20


@pytest.mark.parametrize("index", range(len(MAZUR_CLAIMS)))
def test_a_planted_slip_is_the_only_one(index):
  """The sign of one claim changed: that one is a slip, and what follows from it is carried."""
  claims = list(MAZUR_CLAIMS)
  of, value, *working = claims[index]
  claims[index] = (of, value[1:] if value[0] == "-" else f"-{value}", *working)
  checked = worksheet.check(make_sheet(MAZUR, claims, MAZUR_GIVEN, MAZUR_HEAD))
  assert checked.claims[index].status == S
  assert checked.first_wrong is checked.claims[index]
  assert sum(claim.status == S for claim in checked.claims) == 1
  assert "Its sign is wrong" in worksheet.first_slip(checked)


def test_a_shared_bias_moves_by_the_sum_over_its_units():
  """The gradient is delta1 + delta2, by hand from the published outputs."""
  (claim,) = worksheet.check(make_sheet(MAZUR, [("b2'", "1")], MAZUR_GIVEN, MAZUR_HEAD)).claims
  delta1 = 0.74136507 * 0.186815602
  delta2 = (0.772928465 - 0.99) * 0.772928465 * (1 - 0.772928465)
  assert claim.computed == pytest.approx(0.6 - 0.5 * (delta1 + delta2), abs=1e-8)


def test_relu_softmax_and_cross_entropy():
  """By hand: h = (2.5, 0), s = (2.5, 0.5), p1 = 1 / (1 + exp(-2)), dH/ds = p - y, dead h2."""
  p1 = 1 / (1 + math.exp(-2))
  expected = {
    "h2": 0.0,
    "p1": p1,
    "H": -math.log(1 - p1),
    "dH/ds1": p1,
    "dH/ds2": -p1,
    "dp1/ds2": -p1 * (1 - p1),
    "dH/du1": 2.5 * p1,
    "dH/du2": 0.0,
    "dH/dv1": (p1 - 0.2 * p1) * 2,
    "dH/dv2": 0.0,
    "dH/dc": p1 - 0.2 * p1,
    "u3'": 0.2 + 0.1 * 2.5 * p1,
  }
  claims = [(of, f"{value:.4f}") for of, value in expected.items()]
  head = 'loss = "H"\nlearning_rate = 0.1'
  checked = worksheet.check(make_sheet(SOFTMAX, claims, SOFTMAX_GIVEN, head))
  for claim in checked.claims:
    assert claim.computed == pytest.approx(expected[claim.of], rel=1e-12, abs=1e-15)
    assert claim.status == E


def test_partials_hold_other_names_fast():
  """p1 = e1 / s: by e1 it is 1/s on the edge, though s depends on e1, too."""
  equations = {"e1": "exp(x)", "s": "e1 + 1", "p": "e1 / s"}
  checked = worksheet.check(make_sheet(equations, [("dp/de1", "0")], {"x": 0}))
  assert checked.partials["p", "e1"] == 0.5
  assert checked.claims[0].computed == 0.25


# --- Statuses ---


@pytest.mark.parametrize(
  ("value", "written", "status"),
  [
    ("0.35", "0.4", E),  # a tie, whichever way float64 leans
    ("0.35", "0.3", E),
    ("0.45 - 0.1", "0.4", E),
    ("0.3501", "0.3", T),
    ("0.3999", "0.3", T),
    ("0.4", "0.3", S),  # a whole unit is not cut off
    ("0.1 + 0.2", "0.2", S),
    ("0.3501", "0.30", S),
    ("0.3401", "0.4", S),  # rounded the wrong way, and nothing to carry it from
    ("-0.3999", "-0.3", T),
    ("-0.3501", "-0.4", E),
    ("-0.3401", "-0.4", S),
    ("-0.3999", "0.3", S),
    ("-0.0004", "-0", S),  # no digit of the right value
    ("0.235", "0", S),
    ("0.235", "0.2", E),
    ("0.62", "1", S),
    ("0.4", "-0", S),
    ("0.0004", "0.000", S),
    ("0.97", "1", E),  # 0.97 to one digit is 1
    ("0.96", "0", S),
    ("0", "0.00", E),
    ("0", "0.01", S),
    ("0.1 + 0.2 - 0.3", "0", E),  # 0, but for rounding
    ("sigmoid(-40)", "0", S),  # 4e-18, and no rounding error
    ("-1", "0", S),
    ("5.574e-4", "5.57 x 10^-4", E),
    ("5.579e-4", "5.57 × 10^-4", T),
    ("-5.57e-4", "−5.57e-4", E),
    ("5.57e-4", "-5.57e-4", S),
    ("1234", "1.2e3", E),
    ("1234", "1200", S),
    ("1/3", "0." + "3" * 16, E),
    ("1/3", "0." + "3" * 12 + "4", S),
    ("2/3", "0.666666", T),
  ],
)
def test_digits_decide(value, written, status):
  assert statuses(make_sheet({"z": value}, [("z", written)])) == [status]


@pytest.mark.parametrize(
  ("written", "status"), [("-0.25", E), ("-0.3", E), ("-0.2", E), ("0.25", I), ("0", I), ("-1", I)]
)
def test_claims_about_givens(written, status):
  text = make_sheet({"z": "x"}, [("x", written)], {"x": -0.25})
  (claim,) = worksheet.check(text).claims
  assert (claim.status, claim.computed, claim.expected_from_claims) == (status, -0.25, None)


CHAIN = {"a": "exp(x)", "b": "a*a", "c": "b + 1", "L": "c**2"}
CHAIN_HEAD = 'loss = "L"\nlearning_rate = 0.01'


@pytest.mark.parametrize(
  ("claims", "last", "expected"),
  [
    # exp(0.5) = 1.648721, its square 2.718282.
    ([("a", "1.6"), ("b", "2.56")], C, 2.56),
    ([("a", "1.6"), ("b", "2.58")], S, 2.56),
    ([("b", "2.56")], S, math.e),
    ([("b", "2.56"), ("a", "1.6")], E, math.exp(0.5)),  # only what is written before counts
    ([("a", "1.6"), ("c", "3.56")], C, 3.56),  # by way of b, which was not written down
    ([("a", "1.6"), ("da/dx", "1.60")], C, 1.6),  # exp is its own derivative
    ([("a", "1.6"), ("db/dx", "5.12")], C, 5.12),
    ([("da/dx", "1.6"), ("db/da", "3.2"), ("db/dx", "5.12")], C, 5.12),
    ([("db/dx", "5"), ("dL/db", "7"), ("dL/dx", "35.00")], C, 35.0),
    ([("dc/dx", "5"), ("dL/dc", "7"), ("db/dx", "6"), ("dL/dx", "35.00")], C, 35.0),
    ([("dL/dx", "40.43"), ("x'", "0.095700")], C, 0.0957),
    ([("dL/dx", "45"), ("x'", "0.05")], C, 0.05),
    ([("dL/dx", "45"), ("x'", "0.08")], S, 0.05),
    ([("x", "0.6"), ("a", "1.8221")], C, math.exp(0.6)),
    ([("a", "1.6"), ("c", "4.2", "a**2 + a")], W, 4.16),
    ([("a", "1.6"), ("c", "3.56", "a**2 + a")], S, 4.16),  # the working decides where it is given
    ([("x'", "0.1"), ("c", "0.1", "x'")], W, 0.1),
    ([("c", "3.72", "a*a + 1")], E, math.e + 1),
  ],
)
def test_recomputed_from_the_claims_before(claims, last, expected):
  claim = worksheet.check(make_sheet(CHAIN, claims, {"x": 0.5}, CHAIN_HEAD)).claims[-1]
  assert claim.status == last
  assert claim.expected_from_claims == pytest.approx(expected, rel=1e-9)


# L = (3x)^2, x = 2: z = 6, L = 36, dL/dx = 2 z 3 = 36; x' = 2 - 0.1 * 36 = -1.6.
SQUARE = {"z": "3*x", "L": "z**2"}
SQUARE_HEAD = 'loss = "L"\nlearning_rate = 0.1'


@pytest.mark.parametrize(
  ("of", "value", "formula", "status", "cause"),
  [
    ("dL/dx", "12", "2*z", W, "the factor dz/dx = 3 is missing"),
    ("dL/dx", "18", "z*3", W, "the factor 2 is missing"),
    ("dL/dx", "72", "2*z*3*2", W, "the factor 2 is one too many"),
    ("dL/dx", "-36", "-2*z*3", W, "its sign is wrong"),
    ("dL/dx", "24", "2*x*3*2", W, None),
    ("x'", "5.6", "x + learning_rate*dL/dx", W, "the sign of learning_rate * dL/dx is wrong"),
    ("x'", "5.6", "2 + 0.1*36", W, "the sign of learning_rate * dL/dx is wrong"),
    ("x'", "-34", "x - dL/dx", W, "the factor learning_rate = 0.1 in dL/dx is missing"),
    # Right as mathematics.
    ("dL/dx", "36", "2*z*3", E, None),
    ("dL/dx", "36", "18*x", E, None),
    ("dL/dx", "36", "2*6*3", E, None),  # 6 stands for z
    ("dL/dx", "36", "12*3", E, None),  # 12 may stand for 2 z
    ("x'", "-1.6", "2 - 0.1*36", E, None),
    ("x'", "-1.6", "x - 3.6", E, None),
    # Wrong as mathematics, whatever the value is.
    ("dL/dx", "36", "2*z", W, "the factor dz/dx = 3 is missing"),
    ("dL/dx", "36", "z**2", W, None),  # z**2 = 2*z*3 only at z = 6
    # Wrong twice.
    ("dL/dx", "15", "2*z", S, "the factor dz/dx = 3 is missing"),
    # Right as mathematics, wrong as arithmetic.
    ("dL/dx", "35", "2*z*3", S, None),
  ],
)
def test_a_line_of_working_is_checked_as_mathematics_and_as_arithmetic(
  of, value, formula, status, cause
):
  claims = [("dL/dx", "36"), (of, value, formula)][of == "dL/dx" :]
  checked = worksheet.check(make_sheet(SQUARE, claims, {"x": 2}, SQUARE_HEAD))
  claim = checked.claims[-1]
  assert claim.status == status
  assert (cause or "") in claim.remark
  assert ("wrong" in claim.remark) == (status == W or cause is not None)
  if status == W:
    assert claim.remark in worksheet.first_slip(checked)


@pytest.mark.parametrize(
  ("of", "formula", "right", "remark"),
  [
    ("z", "w1*x1 + w2*x2", False, "the term b is missing"),
    ("z", "w1*x2 + w2*x2 + b", False, "x2 should be x1"),
    ("dL/dz", "y - a", False, "its sign is wrong"),
    ("dL/dw1", "(a - y)*w1", False, "w1 should be x1"),
    ("dL/dw1", "a - y", False, "the factor dz/dw1 is missing"),
    ("dL/dw1", "(a - y)*a*(1 - a)*x1", False, "the factor da/dz is one too many"),
    ("dL/dw1", "(a - y)*x1/2", False, "the factor 1/2 is one too many"),
    ("dL/dw1", "dL/da * da/dz * x1", True, ""),
    ("dL/da", "-y/a + (1 - y)/(1 - a)", True, ""),
    ("dL/da", "-1/a", True, "right only because y = 1"),
    ("da/dz", "0.4626*(1 - 0.4626)", True, ""),  # a to four digits
    ("da/dz", "0.4626*0.5374", True, ""),
    ("da/dz", "0.4626*(1 + 0.4626)", False, "wrong"),
    ("da/dz", "1/0", False, "wrong"),
    ("da/dz", "1/(y - 1)", False, "wrong"),
    ("da/dz", "exp(exp(exp(9*x2)))", False, "wrong"),
  ],
)
def test_formulas_of_a_neuron(of, formula, right, remark):
  (claim,) = worksheet.check(make_sheet(NEURON, [(of, "9e9", formula)], NEURON_GIVEN)).claims
  assert ("wrong" not in claim.remark) == right
  assert remark in claim.remark


@pytest.mark.parametrize(("y1", "y2", "right"), [(0, 1, True), (0.3, 0.7, True), (0.3, 0.6, False)])
def test_after_a_softmax_p_minus_y_is_right_if_the_targets_add_up_to_1(y1, y2, right):
  given = {**SOFTMAX_GIVEN, "y1": y1, "y2": y2}
  (claim,) = worksheet.check(make_sheet(SOFTMAX, [("dH/ds1", "9", "p1 - y1")], given)).claims
  assert (claim.remark == "") == right
  (claim,) = worksheet.check(make_sheet(SOFTMAX, [("dH/ds1", "9", "y1 - p1")], given)).claims
  assert ("its sign is wrong" in claim.remark) == right


def test_the_worksheet_of_a_softmax_is_right():
  checked = worksheet.check(SHEETS / "softmax.toml")
  assert {claim.status for claim in checked.claims} == {E}
  assert {claim.remark for claim in checked.claims} == {""}
  assert (checked.marks, checked.points) == (39, 39)


def test_a_slip_that_is_copied_into_a_line_of_working_is_carried():
  """With a = 0.64 for 0.4626, 0.64 (1 - 0.64) is the right formula, and right arithmetic."""
  claims = [("a", "0.64"), ("da/dz", "0.2304", "0.64*(1 - 0.64)")]
  assert statuses(make_sheet(NEURON, claims, NEURON_GIVEN)) == [S, C]


@settings(max_examples=8)
@given(st.integers(1, 8), st.sampled_from([2, -1, 0.5, 3]), st.floats(-1.5, 1.5))
def test_no_factor_passes_where_the_formula_is_right_without_it(index, factor, x):
  """Mazur's chain rule, each factor in turn multiplied: right without a factor, wrong with it."""
  right = "dE1/do1 * do1/dno1 * dno1/dh1 * dh1/dnh1 * i1 + dE2/do2 * do2/dno2 * w7 * h1*(1-h1)*i1"
  parts = right.split(" * ")
  wrong = " * ".join([*parts[:index], str(factor), *parts[index:]])
  given = {**MAZUR_GIVEN, "i1": 0.05 + abs(x)}
  sheet = make_sheet(MAZUR, [("dE/dw1", "9", right)], given)
  assert "wrong" not in worksheet.check(sheet).claims[0].remark
  sheet = make_sheet(MAZUR, [("dE/dw1", "9", wrong)], given)
  assert "wrong" in worksheet.check(sheet).claims[0].remark


def test_a_mistake_costs_its_own_points_only():
  """A slip, a = 0.64 for 0.4626; what is carried from it keeps its points."""
  text = make_sheet(NEURON, [("z", "-0.15"), ("a", "0.64"), ("da/dz", "0.2304")], NEURON_GIVEN)
  text = text.replace('value = "0.64"', 'value = "0.64"\npoints = 2.5')
  checked = worksheet.check(text)
  assert [claim.status for claim in checked.claims] == [E, S, C]
  assert [claim.marks for claim in checked.claims] == [1, 0, 1]
  assert (checked.marks, checked.points) == (2, 4.5)
  assert worksheet.marks(checked) == "Marks: 2 of 4.5."
  other = worksheet.check(make_sheet(NEURON, [("b", "7"), ("z", "-0.15")], NEURON_GIVEN))
  assert worksheet.marks_table({"a.toml": checked, "b.toml": other}) == [
    ["file", "title", "marks", "points", E, T, C, S, W, I, "first mistake", "z", "a", "da/dz", "b"],
    ["a.toml", "worksheet", "2", "4.5", "1", "0", "1", "1", "0", "0", "a", "1", "0", "1", ""],
    ["b.toml", "worksheet", "1", "2", "1", "0", "0", "0", "0", "1", "b", "1", "", "", "0"],
  ]


@pytest.mark.parametrize(
  "claims",
  [
    [("a", "0.64"), ("da/dz", "0.9")],
    [("a", "0.64", "2*sigmoid(z)"), ("da/dz", "0.9")],
    [("b", "0.64"), ("da/dz", "0.9")],
  ],
)
def test_feedback_says_where_the_mistake_is_and_gives_no_value_away(claims):
  checked = worksheet.check(make_sheet(NEURON, [("z", "-0.15"), *claims], NEURON_GIVEN))
  sentence, table = worksheet.feedback(checked)
  assert "The first mistake is in claim 2" in sentence
  assert [row[0] for row in table[1:]] == ["z", claims[0][0]]
  numbers = set(re.findall(r"[0-9]+\.[0-9]+", f"{sentence} {table}"))
  assert numbers == {"0.15", "0.64"}


def test_the_worked_solution_of_a_neuron():
  """Each line by hand; a = sigmoid(-0.15) = 0.462570, dL/da = -1/a, da/dz = a (1 - a)."""
  claims = [("dL/dw2", "1"), ("da/dz", "1"), ("w2'", "1"), ("dL/dL", "1"), ("dz/dL", "0")]
  head = 'loss = "L"\nlearning_rate = 0.1'
  lines = worksheet.answers(make_sheet(NEURON, claims, NEURON_GIVEN, head))
  assert lines == [
    "Forward pass",
    "  z = w1 * x1 + w2 * x2 + b = 0.3 * 0.5 + (-0.2) * 2 + 0.1 = -0.15",
    "  a = sigmoid(z) = sigmoid(-0.15) = 0.46257",
    "  L = -(y * log(a) + (1 - y) * log(1 - a)) = "
    "-(1 * log(0.46257) + (1 - 1) * log(1 - 0.46257)) = 0.770957",
    "",
    "Derivatives of L",
    "  dL/da = -(y / a - (1 - y) / (1 - a)) = -(1 / 0.46257 - (1 - 1) / (1 - 0.46257)) = -2.16183",
    "  dL/dz = dL/da * (a * (1 - a)) = -2.16183 * (0.46257 * (1 - 0.46257)) = -0.53743",
    "  dL/dw2 = dL/dz * x2 = -0.53743 * 2 = -1.07486",
    "  dL/dL = 1",
    "",
    "Derivatives of a",
    "  da/dz = a * (1 - a) = 0.46257 * (1 - 0.46257) = 0.248599",
    "",
    "Derivatives of z",
    "  dz/dL = 0",
    "",
    "Gradient step",
    "  w2' = w2 - learning_rate * dL/dw2 = -0.2 - 0.1 * (-1.07486) = -0.092514",
  ]


def test_the_worked_solution_shares_a_tie():
  lines = worksheet.answers(
    make_sheet({"m": "max(a, b)", "L": "3*m"}, [("dL/da", "1.5")], {"a": 2, "b": 2})
  )
  assert "  dL/da = 0.5 * dL/dm = 0.5 * 3 = 1.5" in lines


@pytest.mark.parametrize("sheet", ["mazur", "softmax", "functions"])
def test_the_formulas_of_a_worked_solution_have_the_values_beside_them(sheet):
  """The numbers in every line, computed by Python, give the value at its end."""
  functions = {
    "z": "sin(x)*cos(x) + ln(x) - x**3/sqrt(x)",
    "q": "softplus(z) - tanh(-x*z) + relu(x - z) + x**z + step(x)*e",
    "r": "max(q, z) * abs(z) + gelu(x)",
  }
  text = {
    "mazur": make_sheet(MAZUR, MAZUR_CLAIMS, MAZUR_GIVEN, MAZUR_HEAD),
    "softmax": make_sheet(SOFTMAX, [(f"dH/d{n}", "1") for n in SOFTMAX_GIVEN], SOFTMAX_GIVEN),
    "functions": make_sheet(functions, [("dr/dx", "1")], {"x": 1.7}),
  }[sheet]
  names = ("sin", "cos", "log", "sqrt", "tanh", "exp", "erf", "e", "pi")
  names = {name: getattr(math, name) for name in names}
  names |= {"sigmoid": lambda x: 1 / (1 + math.exp(-x)), "relu": lambda x: max(x, 0), "max": max}
  names |= {"softplus": lambda x: math.log1p(math.exp(x)), "step": lambda x: x > 0, "abs": abs}
  names |= {"ln": math.log, "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2}
  num = 0
  for line in worksheet.answers(text):
    *_, numbers, value = ["", *line.split(" = ")]
    if numbers and re.search("[0-9]", numbers):
      value, scale = float(value), max(map(abs, map(float, re.findall(r"[0-9.]+", numbers))))
      with contextlib.suppress(NameError):  # a formula without a number of its own
        assert eval(numbers, {}, names) == pytest.approx(value, rel=1e-4, abs=1e-5 * scale)
        num += 1
  assert num >= 5


def test_what_should_be_written_is_told_from_what_was():
  """0.08 with the digits of 0 is 0, which is what was written."""
  claims = [("z", "0", "2*x")]
  assert "z = 0 should be 0.1," in worksheet.first_slip(
    worksheet.check(make_sheet({"z": "2*x"}, claims, {"x": 0.04}))
  )


def test_round_derivatives_are_derivatives():
  sheet = make_sheet(NEURON, [("∂L/∂w1", "-0.27", "∂L/∂z * x1"), ("∂ z / ∂ b", "1")], NEURON_GIVEN)
  assert [claim.of for claim in worksheet.check(sheet).claims] == ["dL/dw1", "dz/db"]
  assert statuses(sheet) == [E, E]


def test_advice_to_write_a_digit():
  checked = worksheet.check(make_sheet({"z": "0.235"}, [("z", "0")]))
  assert "no significant digit of the right value: write at least one, as in 0.2" in (
    worksheet.first_slip(checked)
  )


def test_names_with_d_and_digits():
  """dd1/dd is the derivative of d1 by d; only in a line of working can it be confused."""
  equations = {"d1": "3*d", "da": "5*d", "a": "7*d", "z": "11*d"}
  claims = [("dd1/dd", "3"), ("dda/dd", "5"), ("da", "10"), ("z", "22", "da/dd * 22/7 + 0*(da)")]
  assert statuses(make_sheet(equations, claims, {"d": 2})) == [E, E, E, E]


def test_what_follows_without_claims_is_exact():
  """The chain rule over single equations says what jax.grad says of the whole graph."""
  names = [*MAZUR_GIVEN, *MAZUR]
  for of in ("E", "no1"):
    for name in names:  # one claim alone, so there is nothing before it
      text = make_sheet(MAZUR, [(f"d{of}/d{name}", "9")], MAZUR_GIVEN)
      (claim,) = worksheet.check(text).claims
      assert claim.expected_from_claims == pytest.approx(claim.computed, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
  ("equation", "x", "slope"),
  [
    ("relu(x)", 0, 0),
    ("abs(x)", 0, 0),
    ("max(x, 0)", 0, 0.5),
    ("min(x, 3, 5)", 3, 0.5),
    ("max(x, x)", 1, 1),
    ("abs(x)", -2, -1),
    ("max(1, x, 2)", 7, 1),
    ("x**2", 0, 0),
    ("x**0", 0, 0),
    ("x**3", -2, 12),
    ("sigmoid(x)", 40, math.exp(-40)),
    ("sigmoid(x)", -700, math.exp(-700)),
    ("tanh(x)", 20, 4 * math.exp(-40)),
    ("5 - 3", 1, 0),
    ("sin(x)", 0, 1),
    ("cos(x)", math.pi / 2, -1),
    ("ln(x)", 4, 0.25),
    ("softplus(x)", 0, 0.5),
    ("softplus(x)", -700, math.exp(-700)),
    ("leaky_relu(x)", -3, 0.01),
    ("leaky_relu(x)", 0, 1),
    ("leaky_relu(x, 0.2)", -3, 0.2),
    ("gelu(x)", 0, 0.5),
    ("step(x)", 0, 0),
    ("step(x)*x", 2, 1),
    ("e**x", 1, math.e),
    ("sin(pi*x)", 1, -math.pi),
  ],
)
def test_derivatives_at_kinks_and_ends(equation, x, slope):
  (claim,) = worksheet.check(make_sheet({"z": equation}, [("dz/dx", "0")], {"x": x})).claims
  assert claim.computed == pytest.approx(slope, rel=1e-12)


def test_a_name_of_ones_own_comes_before_a_constant():
  sheet = make_sheet({"z": "e + pi", "pi": "2*e"}, [("z", "15", "e + pi")], {"e": 5})
  assert statuses(sheet) == [E]


def test_float64_stays_here():
  worksheet.check(SHEETS / "problem_1a.toml")
  assert jnp.ones(()).dtype == jnp.float32
  assert not jax.config.jax_enable_x64


# --- Expressions ---

PRIORITY = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3, "**": 4}
LEAVES = st.one_of(
  st.sampled_from(["x", "y"]).map(lambda name: (name, (Name(name),), 5)),
  st.integers(1, 9).map(lambda n: (str(n), (Number(float(n)),), 5)),
)


def _binary(parts):
  operator, (left, left_code, left_priority), (right, right_code, right_priority) = parts
  priority = PRIORITY[operator]
  # Brackets only where they are needed: ** binds to the right, a sign may follow it.
  if left_priority < priority + (operator == "**"):
    left = f"({left})"
  if right_priority < (3 if operator == "**" else priority + 1):
    right = f"({right})"
  return f"{left} {operator} {right}", (*left_code, *right_code, Apply(operator, 2)), priority


def _negative(part):
  text, code, priority = part
  text = f"-({text})" if priority < 3 else f"-{text}"
  return text, (*code, Apply("negative", 1)), 3


def _call(parts):
  name, args = parts
  code = sum((code for _, code, _ in args), ())
  return f"{name}({', '.join(text for text, _, _ in args)})", (*code, Apply(name, len(args))), 5


def _grow(operators, functions):
  def grow(inner):
    return st.one_of(
      st.tuples(st.sampled_from(operators), inner, inner).map(_binary),
      inner.map(_negative),
      st.tuples(st.sampled_from(functions), inner.map(lambda x: [x])).map(_call),
      st.tuples(st.sampled_from(["max", "min"]), st.lists(inner, min_size=2, max_size=3)).map(
        _call
      ),
    )

  return grow


ANY = st.recursive(
  LEAVES, _grow(["+", "-", "*", "/", "**"], ["tanh", "relu", "log"]), max_leaves=12
)
SMOOTH = st.recursive(LEAVES, _grow(["+", "-", "*"], ["tanh", "sigmoid", "exp"]), max_leaves=8)


@given(ANY)
@settings(max_examples=200)
def test_what_is_written_is_what_is_parsed(expression):
  text, code, _ = expression
  assert expressions.parse(text) == code
  assert expressions.parse(f" ( {text.replace(' ', '')}) ") == code
  assert expressions.write(code).replace(" ", "") == text.replace(" ", "")


@given(SMOOTH)
def test_a_derivative_as_a_formula_is_the_derivative(expression):
  _, code, _ = expression
  slope = expressions.differentiate(code, "x")
  if slope is None:
    assert any(isinstance(item, Apply) and item.num_args == 3 for item in code)
    return
  at = {"x": 0.7, "y": -0.4}
  steps = expressions.steps(code, lambda q: at[q.name])
  for item, args in zip(code, expressions.arguments(code), strict=True):
    if isinstance(item, Apply) and item.function in ("max", "min"):
      assume(len({float(steps[i]) for i in args}) == len(args))  # a formula cannot say a tie
  expected = expressions.pull_back(code, steps, 1.0, {Name("x")}).get(Name("x"), 0.0)
  found = expressions.evaluate(slope, lambda q: at[q.name])
  assert float(found) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


PYTHON = {
  "tanh": math.tanh,
  "exp": math.exp,
  "max": max,
  "min": min,
  "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
}


@given(SMOOTH, st.floats(-2, 2), st.floats(-2, 2))
def test_values_and_derivatives_are_those_of_python(expression, x, y):
  """Python has the same precedence; the derivative is between two one-sided differences."""
  text = expression[0]

  def value(x):
    return eval(text, {"__builtins__": {}}, {**PYTHON, "x": x, "y": y})

  try:
    step = 1e-6
    middle, up, down = value(x), value(x + step), value(x - step)
    sheet = make_sheet({"z": text}, [("z", "0"), ("dz/dx", "0")], {"x": repr(x), "y": repr(y)})
    z, slope = worksheet.check(sheet).claims
  except (OverflowError, InputError):
    return  # out of range for both: the next test
  assert z.computed == pytest.approx(middle, rel=1e-9, abs=1e-9)
  sides = sorted([(up - middle) / step, (middle - down) / step])
  size = 1 + abs(slope.computed) + abs(middle)
  if size < 1e3:
    assert sides[0] - 1e-3 * size <= slope.computed <= sides[1] + 1e-3 * size


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("-3**2", -9),
    ("2**3**2", 512),
    ("2**-1", 0.5),
    ("-2**-2", -0.25),
    ("2 - 3 - 4", -5),
    ("24 / 4 / 3", 2),
    ("24 / 4 * 3", 18),
    ("--3", 3),
    ("2*-3", -6),
    ("+3", 3),
    (".5 + 5. + 1e1 + 2.5E-1", 15.75),
    ("(-8)**2 + (-2)**3", 56),
    ("7 − 2×3", 1),
    ("(" * 40 + "1" + ")" * 40, 1),
    ("ln(e**3)", 3),
    ("cos(π)", -1),
    ("step(0) + step(2) + 10*step(-1)", 1),
    ("leaky_relu(-5) + leaky_relu(-5, 0.2)", -1.05),
  ],
)
def test_precedence(text, value):
  (claim,) = worksheet.check(make_sheet({"z": text}, [("z", "0")])).claims
  assert claim.computed == value


# --- What is no worksheet ---

ONE = {"z": "2*x"}


def _bad(equation="2*x", of="z", value="2", working=None, given=None, head=""):
  claim = (of, value) if working is None else (of, value, working)
  return make_sheet({"z": equation}, [claim], given or {"x": 1}, head)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (_bad("1 +"), r"equations.z = '1 \+': expected a number, a name or '\(', not the end"),
    (_bad("2x"), r"expected an operator \(such as '2\*x'\)"),
    (_bad("x^2"), r"a power is written \*\*"),
    (_bad("sigmod(x)"), "unknown function 'sigmod'; did you mean 'sigmoid'"),
    (_bad("__import__('os')"), "unexpected character"),
    (_bad("__import__(x)"), "unknown function '__import__'"),
    (_bad('"x".__class__'), "unexpected character"),
    (_bad("x.__class__"), "unexpected character '.'"),
    (_bad("xx"), "unknown name 'xx'; did you mean 'x'"),
    (_bad("max(x)"), r"max\(x\).*: it takes an array or several arguments, not one number"),
    (_bad("exp(x, x)"), "exp takes one argument, not 2"),
    (_bad("1e999"), "the number '1e999' is too large"),
    (_bad("x'"), "an equation cannot contain the updated value"),
    (_bad("(" * 1000 + "x" + ")" * 900), "too deep"),
    (_bad("-" * 1000 + "x"), "too deep"),
    (_bad("x**" * 600 + "x"), "too deep"),
    (_bad("x+" * 1500 + "x"), "the formula is too long"),
    (_bad("x+" * 50000 + "x"), "line 5 is too long"),
    (_bad("9**9**9"), "the value of z = .* is not finite"),
    (_bad("log(x - 1)"), "the value of z = .* is not finite: x = 1"),
    (_bad("1/(x - 1)"), "the value of z = .* is not finite: x = 1"),
    (_bad("sqrt(x - 1)", "dz/dx"), "the derivative dz/dx is not finite"),
    (_bad("z + 1"), "circular: z -> z"),
    (_bad(of="q"), "claim 1, of 'q': unknown name 'q'"),
    (_bad(of="dz/dq"), "unknown name in dz/dq: 'q'"),
    (_bad(of="z + 1"), r"a claim is of a node \(a1\), a derivative"),
    (_bad(of="z'", head='loss = "z"\nlearning_rate = 1'), "z is computed, not given"),
    (_bad(of="x'", head="learning_rate = 1"), "the worksheet has no loss, which x' needs"),
    (_bad(of="x'", head='loss = "z"'), "has no learning_rate"),
    (_bad(value="1/3"), "claim 1, of 'z': value: '1/3' is not a decimal number; a fraction"),
    (_bad(value="0,5"), "write a point, not a comma"),
    (_bad(value="two"), "'two' is not a decimal number"),
    (_bad(value="1e999"), "out of range"),
    (_bad(value="0e400"), "out of range"),
    (_bad(value="1e99999999999"), "not a decimal number"),
    (_bad().replace('"2"', "2"), "value must be a string, not a number, because its digits"),
    (_bad().replace('value = "2"', ""), "claim 1: the key 'value' is missing"),
    (_bad().replace("value", "vlaue"), "unknown key 'vlaue'; did you mean 'value'"),
    (_bad(working="q"), "from = 'q': unknown name 'q'"),
    (_bad(working="dz/dq"), "unknown name in dz/dq: 'q'"),
    (_bad(working="z +"), r"from = 'z \+': expected"),
    (_bad(given={"x": '"1"'}), "given.x must be a number, not a string"),
    (_bad(given={"x": "true"}), "given.x must be a number, not a boolean"),
    (_bad(given={"x": "inf"}), "given.x must be a finite number"),
    (_bad(given={"x": "1" + "0" * 400}), "given.x must be a finite number"),
    (_bad(given={"x": 1, "exp": 1}), "'exp' is the name of a function"),
    (_bad(given={"x": 1, '"a b"': 1}), "'a b' is not a name"),
    (_bad(given={"x": 1, "z": 1}), "z is defined twice"),
    (_bad(given={"x": "1\nx = 2"}), r"line 4.* is defined twice"),
    (_bad(given={"x": "[" * 3000}), "nested too deeply"),
    (_bad(head="tilte = 'x'"), "unknown key 'tilte'; did you mean 'title'"),
    (_bad(head="title = 1"), "title must be a string"),
    (_bad(head="learning_rate = 'x'"), "learning_rate = 'x': it may depend on t, .* not on x"),
    (_bad(head="learning_rate = 0"), "learning_rate must be above 0"),
    (_bad(head="loss = 'x'"), "unknown node 'x'"),
    (_bad().replace("[given]", "[gievn]"), "unknown key 'gievn'; did you mean 'given'"),
    (_bad().replace("[given]\nx = 1", ""), r"the section \[given\] is missing"),
    ("[given]\n[equations]\nz = '1'", r"the section \[\[claims\]\] is missing"),
    ("claims = []\n[given]\n[equations]\nz = '1'", r"\[\[claims\]\] is empty"),
    ("given = 1\n", "given must be a section"),
    ("hello\n", "not valid TOML: .*line 1"),
    (_bad(given={"δ": 1}), 'put a name with such letters in quotation marks: "δ" = ...'),
    (_bad(given={"x": "50%"}), "write 0.5 for 50%"),
    (_bad(given={"x": "≈ 1"}), "without ≈"),
    (_bad(given={"x": ".5"}), "write 0.5 for .5"),
    (_bad(given={"x": "1,5"}), "write a point, not a comma"),
    (_bad(given={"x": "2*3"}), "a formula is put in quotation marks"),
    (_bad(given={"x": "1/3"}), "write a fraction as a decimal number"),
    (_bad().replace("x = 1", "x ≈ 1"), "write = and the value, without ≈"),
    (_bad().replace("[given]\nx = 1", "x = 1"), r"\[given\] is missing: write \[given\] above 'x'"),
    (_bad("x²"), r"a power is written \*\*"),
    (_bad("|x|"), r"an absolute value is written abs\(x\)"),
    (_bad("x if x > 0 else 0"), "expected an operator, not 'if'|a condition is written"),
    (_bad("sin x"), r"expected an operator \(or parentheses, as in sin\(x\)\)"),
    (_bad(value="1 000"), "write 1000, without spaces"),
    (_bad(value="50%"), "write 0.5 for 50%"),
    (_bad(value="≈ 0.5"), "leave out ≈"),
    (_bad("50%"), "write 0.5 for 50%"),
    (_bad("z ≈ 2*x"), "write the right-hand side only"),
    ("#" * 300_000 + "=", "too long"),
    (make_sheet({"a": "b", "b": "c", "c": "a"}, [("a", "1")]), "circular: a -> b -> c -> a"),
    (make_sheet(ONE, [("dz/dx", "2"), ("d z / d x", "2")], {"x": 1}), "it repeats claim 1"),
    (make_sheet(ONE, [("x", "1"), ("x", "1")], {"x": 1}), "it repeats claim 1"),
    ("no/such/file.toml", "cannot read worksheet 'no/such/file.toml'"),
    ("null\0character", "cannot read worksheet"),
    (ROOT, "cannot read worksheet"),
  ],
)
def test_no_worksheet(text, message):
  with pytest.raises(InputError, match=message) as caught:
    worksheet.check(text)
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 500


VALID = make_sheet(CHAIN, [("a", "1.6"), ("dL/dx", "9", "dL/da*da/dx"), ("x'", "1")], {"x": 1})
VALID = f"{CHAIN_HEAD}\n{VALID}"
VALID_ARRAYS = """
loss = "L"
learning_rate = 0.1
optimizer = "adam"
parameters = ["W"]
[given]
W = [[0.5, -1], [2, 0]]
b = [1, 0]
[[examples]]
x = [1, 2]
[[examples]]
x = [0, 1]
[equations]
z = "W @ x + b"
p = "softmax(z)"
L = "-sum([1, 0] * log(p))"
[[claims]]
of = "z"
value = "[-0.5, 2]"
[[claims]]
of = "dL/dz"
value = "[-0.9, 0.9]"
from = "p - [1, 0]"
[[claims]]
of = "dL/dW[0,1]"
value = "-1.8"
from = "dL/dz[0] * x[1]"
[[claims]]
of = "W''"
value = "[[0, 1], [2, 3]]"
[[claims]]
step = 2
of = "dL/dW"
value = "[[0, 1], [2, 3]]"
from = "outer(dL/dz, x)"
"""
PIECES = ("[", "]", "(", ")", "-", "**", "1e308", "9", "0.1", "d", "/", "x", "a", "log(", "∂", "'")
PIECES += ("@", ".T", ":", ",", "[0]", "[[1, 2]]", "W", "sum(", ", axis=1", "'9", "dL/", "*", "+")


def damage(text, random, num_edits):
  """Changes a text in a few places, most of them within quotation marks, where TOML stays valid."""
  quoted = [i for m in re.finditer('"([^"\n]+)"', text) for i in range(*m.span(1))]
  for _ in range(num_edits):
    place = random.choice(quoted) if random.random() < 0.8 else random.randrange(len(text))
    text = text[:place] + random.choice(PIECES) + text[place + random.randrange(3) :]
  return text


@given(st.sampled_from([VALID, VALID_ARRAYS]), st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=200)
def test_a_damaged_worksheet_is_checked_or_refused(text, seed, num_edits):
  text = damage(text, random.Random(seed), num_edits)
  try:
    checked = worksheet.check(f"{text}\n")
  except InputError:
    return
  json.dumps(worksheet.to_json(checked), allow_nan=False)
  worksheet.first_slip(checked)
  worksheet.answers(f"{text}\n")


@given(st.text(st.sampled_from("0123456789.eE+-/ x×^*(){}−_nif,⁻⁴٢"), max_size=12))
@settings(max_examples=300)
def test_numbers_are_read_as_decimals_or_refused(text):
  try:
    value, unit = worksheet.parse_number(text)
  except InputError:
    return
  assert (value / unit).denominator == 1
  if re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", text):
    assert float(value) == float(text)


@given(st.text(max_size=30))
def test_any_formula_is_parsed_or_refused(text):
  for working in (False, True):
    with contextlib.suppress(InputError):
      expressions.parse(text, {"a", "x"}, working)


# --- The command line ---


@functools.cache
def _forks():
  imports = (
    "from jaxdl.report import worksheet_plots\nimport experiments, warnings\n"
    "warnings.simplefilter('error')\nexperiments.escape_output()"
  )
  call = "runpy.run_module('experiments.check_worksheet', run_name='__main__', alter_sys=True)"
  forks = Forks(imports, call, through=("env", "PYTHONIOENCODING=ascii"))
  atexit.register(forks.close)
  return forks


def run(*args, cwd=ROOT):
  result = _forks()(*map(str, args), cwd=cwd)
  assert "Traceback" not in result.stderr
  return result


def test_command_line_with_one_worksheet(tmp_path):
  result = run(f"--worksheet={SHEETS / 'problem_1a.toml'}", f"--workdir={tmp_path / 'run'}")
  assert (result.returncode, result.stderr) == (1, "")
  table = [line.split() for line in result.stdout.splitlines()]
  assert [row[0] for row in table if row and row[-1] in (E, T)] == [
    of for of, status in PROBLEM_1A.items() if status in (E, T)
  ]
  assert "The first slip is in claim 24: w2' = 1.0000005" in result.stdout
  written = json.loads((tmp_path / "run" / "worksheet.json").read_text())
  assert written["title"] == "2-3-1 network, all weights 1"
  assert {claim["of"]: claim["status"] for claim in written["claims"]} == PROBLEM_1A
  assert set(written["claims"][0]) == {
    "of",
    "claimed",
    "computed",
    "status",
    "expected_from_claims",
    "remark",
    "marks",
    "points",
  }
  report = (tmp_path / "run" / "report.md").read_text()
  assert "| w2' | 1.0000005 | 1.000006664 | 8 | ✗ slip | 1.000006647 |" in report
  assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
    "feedback.md",
    "files.json",
    "graph.png",
    "graph.svg",
    "report.html",
    "report.md",
    "worksheet.json",
  ]


def test_command_line_with_several_worksheets(tmp_path):
  """A summary; one file that is no worksheet does not keep the others from being checked."""
  files = []
  for name, claim in (("right", "2"), ("wrong", "3"), ("broken", "1/3")):
    files.append(tmp_path / name / "same.toml")
    files[-1].parent.mkdir()
    files[-1].write_text(_bad(value=claim, head='title = "<b>|\\u001b[31m"'), encoding="utf-8")
  workdir = tmp_path / "run"
  result = run(*(f"--worksheet={file}" for file in files), f"--workdir={workdir}")
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert line.startswith(f"error: {files[2]}: claim 1, of 'z': value: '1/3'")
  assert "\x1b" not in result.stdout
  summary = json.loads((workdir / "summary.json").read_text())["worksheets"]
  assert [entry["folder"] for entry in summary] == ["same", "same-2", None]
  assert [entry.get("slip") for entry in summary] == [0, 1, None]
  for entry, status in zip(summary, (E, S), strict=False):
    there = json.loads((workdir / entry["folder"] / "worksheet.json").read_text())
    assert there["claims"][0]["status"] == status
  first_row, *rows = csv.reader((workdir / "marks.csv").read_text().splitlines())
  assert [row[first_row.index("marks")] for row in rows] == ["1", "0"]
  report = (workdir / "report.md").read_text()
  assert "&lt;b&gt;\\|" in report
  assert "<b>" not in report


@pytest.mark.parametrize(
  ("args", "status", "message"),
  [
    ([], 2, "error: --worksheet is missing"),
    (["--worksheet=nope.toml"], 2, "error: cannot read worksheet 'nope.toml'"),
    ([f"--worksheet={SHEETS / 'problem_1b.toml'}", "--workdir=."], 2, "report.md' was made by no"),
    ([f"--worksheet={SHEETS / 'problem_1b.toml'}", "--workdir="], 2, "--workdir is empty"),
  ],
)
def test_command_line_mistakes(tmp_path, args, status, message):
  (tmp_path / "report.md").write_text("of somebody else")
  result = run(*args, cwd=tmp_path)
  assert result.returncode == status
  (line,) = result.stderr.splitlines()
  assert message in line
  assert (tmp_path / "report.md").read_text() == "of somebody else"


def test_command_line_prints_answers(tmp_path):
  file = tmp_path / "sheet.toml"
  file.write_text(_bad(), encoding="utf-8")
  result = run(f"--worksheet={file}", "--answers")
  assert (result.returncode, result.stderr) == (0, "")
  assert result.stdout == "Forward pass\n  z = 2 * x = 2 * 1 = 2\n"


def test_a_pipe_is_no_worksheet(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(InputError, match=r"cannot read worksheet .* no regular file"):
    worksheet.check(tmp_path / "pipe")


def test_a_folder_that_is_called_like_a_worksheet_is_left_alone(tmp_path):
  sheets = [f"--worksheet={SHEETS / name}.toml" for name in ("problem_1a", "problem_1b")]
  mine = tmp_path / "problem_1a" / "mine.txt"
  mine.parent.mkdir()
  mine.write_text("mine")
  result = run(*sheets, "--workdir=.", cwd=tmp_path)
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert "mine.txt' was made by no run" in line
  assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
  mine.unlink()
  for _ in range(2):  # what it has made itself, it replaces
    assert run(*sheets, "--workdir=.", cwd=tmp_path).returncode == 1


def test_command_line_when_all_is_right(tmp_path):
  file = tmp_path / "sheet.toml"
  file.write_text(_bad(), encoding="utf-8")
  result = run(f"--worksheet={file}")
  assert (result.returncode, result.stderr) == (0, "")
  assert "No slip in 1 claim." in result.stdout
  assert list(tmp_path.iterdir()) == [file]


# --- The guide ---


def test_the_worksheets_of_the_guide_are_right():
  guide = (ROOT / "docs" / "worksheets.md").read_text(encoding="utf-8")
  texts = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
  assert len(texts) == 3
  for text in texts:
    assert set(statuses(text)) <= {E, T, C}
  for name in expressions.FUNCTION_NAMES:
    assert re.search(rf"`{name}[`(]", guide), name
  for sheet in SHEETS.glob("*.toml"):
    assert sheet.name in guide
