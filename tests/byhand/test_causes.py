"""Why a line of working is wrong: usual mistakes in usual exercises."""

import json

import numpy as np
import pytest
from worksheet_examples import make_sheet

from jaxdl.byhand import worksheet

RECURRENT = {"o": "v*h3", "L": "(o - y)**2/2"}
for i in (1, 2, 3):
  RECURRENT |= {f"z{i}": f"w*x{i} + u*h{i - 1}", f"h{i}": f"tanh(z{i})"}
LSTM = {
  "f": "sigmoid(wf*x + uf*h)",
  "i": "sigmoid(wi*x + ui*h)",
  "g": "tanh(wg*x + ug*h)",
  "c": "f*c0 + i*g",
  "L": "o*tanh(c)",
}
GRU = {
  "z": "sigmoid(wz*x + uz*h0)",
  "r": "sigmoid(wr*x + ur*h0)",
  "g": "tanh(wg*x + ug*(r*h0))",
  "h": "(1 - z)*h0 + z*g",
  "L": "(h - y)**2/2",
}
NORM = {
  "m": "mean(x)",
  "v": "mean((x - m)**2)",
  "s": "sqrt(v + eps)",
  "h": "(x - m)/s",
  "y": "g*h + b",
  "L": "sum(y*t)",
}
ATTENTION = {
  "S": "Q @ K.T / sqrt(2)",
  "A": "softmax(S)",
  "O": "A @ V",
  "L": "sum(O*T)",
}
PICTURE = {"C": "conv(X, K)", "P": "max_pool(C, 2, 1)", "L": "sum(P*T)"}
CHANNELS = {"C": "conv(X, K)", "L": "sum(C*T)"}
DECAY = {"p": "w*x", "L": "(p - y)**2/2 + lam*w**2/2"}
DROPOUT = {"y": "m*x/(1 - r)", "L": "sum(y*t)"}
SQUARE = {"L": "(w - 3)**2"}
ADAM = 'loss = "L"\nlearning_rate = 0.1\noptimizer = "adam"\nparameters = ["w"]'
# Name of an exercise -> equations, shapes of the givens that are no numbers, the first lines.
SHEETS = {
  "recurrent": (RECURRENT, {}, ""),
  "lstm": (LSTM, {}, ""),
  "gru": (GRU, {}, ""),
  "norm": (NORM, {"x": 4, "t": 4}, ""),
  "attention": (ATTENTION, {"Q": (2, 2), "K": (2, 2), "V": (2, 2), "T": (2, 2)}, ""),
  "picture": (PICTURE, {"X": (4, 4), "K": (2, 2), "T": (2, 2)}, ""),
  "channels": (CHANNELS, {"X": (2, 3, 3), "K": (2, 2, 2, 2), "T": (2, 2, 2)}, ""),
  "decay": (DECAY, {}, ""),
  "dropout": (DROPOUT, {"x": 3, "m": 3, "t": 3}, ""),
  "adam": (SQUARE, {}, ADAM),
}
GIVENS = {
  "recurrent": "x1 x2 x3 w u v h0 y",
  "lstm": "x h c0 o wf uf wi ui wg ug",
  "gru": "x h0 y wz uz wr ur wg ug",
  "norm": "x t g b eps",
  "attention": "Q K V T",
  "picture": "X K T",
  "channels": "X K T",
  "decay": "w x y lam",
  "dropout": "x m r t",
  "adam": "w",
}


def remark_on(sheet, of, formula, shape=(), step=""):
  """What is said of a wrong formula."""
  equations, shapes, head = SHEETS[sheet]
  rng = np.random.default_rng(0)
  at = {
    n: rng.uniform(0.2, 0.9, shapes.get(n, ())).round(2).tolist() for n in GIVENS[sheet].split()
  }
  text = make_sheet(equations, [(of, json.dumps(np.zeros(shape).tolist()), formula)], at, head)
  checked = worksheet.check(f"{text}{step}\n")
  (remark,) = {claim.remark for claim in checked.claims}
  return remark


@pytest.mark.parametrize(
  ("sheet", "of", "formula", "cause"),
  [
    ("recurrent", "dL/du", "dL/dz3*h2", "the terms dL/dz1 * h0 and dL/dz2 * h1 are missing"),
    ("recurrent", "dL/du", "dL/dz1*h1 + dL/dz2*h2 + dL/dz3*h3", "h1, h2, h3 should be h0, h1, h2"),
    ("recurrent", "dL/dh2", "dL/dz3", "the factor dz3/dh2 is missing"),
    ("lstm", "dL/dc", "o", "the factor 1 - tanh(c)**2 is missing"),
    ("lstm", "dL/df", "dL/dc*c", "c should be c0"),
    ("lstm", "dL/dwi", "dL/di*(1 - i**2)*x", "1 - i**2 should be i * (1 - i)"),
    ("gru", "dL/dz", "dL/dh*(h0 - g)", "its sign is wrong"),
    ("gru", "h", "z*h0 + (1 - z)*g", "h0 and g are swapped"),
    ("gru", "dL/dh0", "dL/dh*(1 - z) + dL/dz*z*(1 - z)*uz + dL/dr*r*(1 - r)*ur", "(1 - g**2)"),
    ("norm", "v", "sum((x - m)**2)/3", "3 should be 4"),
    ("norm", "s", "sqrt(v)", "v should be v + eps"),
    ("norm", "dL/dg", "sum(t)", "the factor h in t is missing"),
    ("decay", "dL/dw", "dL/dp*x", "the term lam * w is missing"),
    ("decay", "dL/dw", "dL/dp*x + 2*lam*w", "the factor 2 in 2 * lam * w is one too many"),
    ("adam", "w'", "w - 0.1*m_w'/(sqrt(v_w') + eps)", "m_w' should be mhat_w' and v_w' should be"),
    ("adam", "v_w'", "beta2*v_w + (1 - beta2)*dL/dw", "the factor dL/dw in (1 - beta2) * dL/dw"),
    ("decay", "L", "(p - y)**2/2 + lam - w**2/2", "the - before w**2 should be *"),
    (
      "adam",
      "w'",
      "w - learning_rate*mhat_w'/sqrt(vhat_w' + eps)",
      "sqrt(vhat_w' + eps) should be sqrt(vhat_w') + eps",
    ),
    ("adam", "m_w'", "0.5*m_w + 0.1*dL/dw", "0.5 * m_w should be beta1 * m_w"),
  ],
)
def test_a_formula_of_numbers(sheet, of, formula, cause):
  assert cause in remark_on(sheet, of, formula)


@pytest.mark.parametrize(
  ("sheet", "of", "formula", "shape", "cause"),
  [
    (
      "norm",
      "dL/dx",
      "dL/dh/s",
      4,
      "the terms dL/dm / 4 and dL/dv * (x - m) / 2 are missing",
    ),
    ("attention", "S", "Q @ K.T", (2, 2), "the factor 1/sqrt(2) is missing"),
    ("attention", "A", "softmax(S, axis=0)", (2, 2), "should be softmax(S, axis=1)"),
    ("attention", "dL/dQ", "dL/dS @ K", (2, 2), "the factor 1/sqrt(2) is missing"),
    ("attention", "dL/dS", "dL/dA*A*(1 - A)", (2, 2), "depends on all entries"),
    ("picture", "dL/dX", "conv(pad(dL/dC, 1), K)", (4, 4), "K should be flip(K)"),
    ("picture", "C", "conv(X, flip(K))", (3, 3), "flip(K) should be K"),
    ("picture", "P", "mean_pool(C, 2, 1)", (2, 2), "should be max_pool(C, size=2, stride=1)"),
    ("channels", "dL/dK[0,1]", "conv(X[0], dL/dC[1])", (2, 2), "the indices 0 and 1 are swapped"),
    ("dropout", "dL/dx", "t*m", 3, "the factor 1/(1 - r) is missing"),
    ("dropout", "dL/dx", "t/(1 - r)", 3, "the factor m is missing"),
  ],
)
def test_a_formula_of_arrays(sheet, of, formula, shape, cause):
  assert cause in remark_on(sheet, of, formula, shape)


@pytest.mark.parametrize(
  ("of", "formula", "cause"),
  [
    ("mhat_w'", "m_w'/(1 - 0.9)", "beta1 should be beta1**t"),
    ("m_w'", "0.1*dL/dw", "the term beta1 * m_w is missing"),
  ],
)
def test_a_formula_of_the_second_step_is_explained_in_its_names(of, formula, cause):
  text = make_sheet(SQUARE, [(of, "1", formula)], {"w": 0.5}, ADAM)
  checked = worksheet.check(f"{text}step = 2\n")
  assert cause in checked.claims[0].remark


def test_a_number_of_the_rule_stands_for_itself():
  rules = 'dw = "-0.5*dL/dw + 0.9*dw"\nw = "w + dw\'"\n'
  text = make_sheet(SQUARE, [("dw'", "1", "-0.5*dL/dw")], {"w": 0.5, "dw": 0.1})
  checked = worksheet.check(f"{text}step = 2\n[step]\n{rules}")
  assert "the term 0.9 * dw is missing" in checked.claims[0].remark


def test_what_is_0_before_the_first_step_may_be_left_out():
  """With a remark; but a wrong factor of it is a mistake."""
  remarks = {
    formula: worksheet.check(
      make_sheet(SQUARE, [("m_w'", "-0.5", formula)], {"w": 0.5}, ADAM)
    ).claims[0]
    for formula in ("0.1*dL/dw", "0.8*m_w + 0.1*dL/dw")
  }
  simplified, wrong = remarks.values()
  assert simplified.status == "exact"
  assert simplified.remark == "The formula for m_w' is right only because m_w = 0."
  assert wrong.status == "wrong formula"


@pytest.mark.parametrize(
  ("formula", "status"),
  [
    ("w - 0.1*mhat_w'/sqrt(vhat_w')", "exact"),
    ("w + 0.1", "exact"),  # the first step of Adam
    ("w - 0.1*mhat_w'/sqrt(vhat_w' + eps)", "wrong formula"),
    ("w - 0.1", "wrong formula"),
  ],
)
def test_an_eps_may_be_left_out_but_not_misplaced(formula, status):
  (claim,) = worksheet.check(make_sheet(SQUARE, [("w'", "0.6", formula)], {"w": 0.5}, ADAM)).claims
  assert claim.status == status
  left_out = "The formula for w' is right but for eps = 1e-08, which it leaves out."
  assert (claim.remark == left_out) == (status == "exact")


def test_a_rate_that_has_changed_is_not_taken_for_rounded():
  """0.1 has no significant digit of 0.05."""
  head = 'loss = "L"\nlearning_rate = [0.1, 0.05]\nparameters = ["w"]'
  text = make_sheet({"L": "w**2"}, [("w'", "0.64", "w - 0.1*dL/dw")], {"w": 1}, head)
  (claim,) = worksheet.check(f"{text}step = 2\n").claims
  assert claim.status == "wrong formula"
  assert "0.1 should be learning_rate" in claim.remark


def test_a_sign_is_told_from_one_digit():
  text = make_sheet({"L": "max(0, t - s + 1)"}, [("dL/ds", "1")], {"s": 3, "t": 5})
  assert worksheet.first_slip(worksheet.check(text)).endswith("Its sign is wrong.")
