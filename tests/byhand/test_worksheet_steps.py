"""Worksheets of several steps: optimizers, schedules, examples in turn, rules of one's own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from worksheet_examples import make_sheet

from experiments import check_worksheet
from jaxdl.byhand import worksheet
from jaxdl.errors import InputError

E, T, C, S, W, I = worksheet.STATUSES  # noqa: E741

# L = w²: dL/dw = 2 w.
SQUARE = {"L": "w**2"}


def sheet(claims, head="", equations=SQUARE, given=None, after=""):
  lines = ['loss = "L"', 'parameters = ["w"]', "learning_rate = 0.1", head]
  text = make_sheet(equations, claims, given or {"w": 2}, "\n".join(lines))
  return text + after


def statuses(text):
  return [claim.status for claim in worksheet.check(text).claims]


def computed(text):
  return {claim.of: claim.computed for claim in worksheet.check(text).claims}


# --- By hand ---


@pytest.mark.parametrize(
  ("head", "expected"),
  [
    # 2 - 0.1 4 = 1.6, 1.6 - 0.1 3.2 = 1.28.
    ("", {"w'": 1.6, "L'": 2.56, "dL'/dw'": 3.2, "w''": 1.28, "L''": 1.6384, "w'''": 1.024}),
    # v' = 4, w' = 1.6; v'' = 0.5 4 + 3.2 = 5.2, w'' = 1.6 - 0.52.
    (
      'optimizer = {name = "momentum", momentum = 0.5}',
      {"v_w": 0, "v_w'": 4, "w'": 1.6, "v_w''": 5.2, "w''": 1.08},
    ),
    # w' = 2 - 0.1 (4 + 0.5 4) = 1.4; v'' = 2 + 2.8 = 4.8, w'' = 1.4 - 0.1 (2.8 + 2.4).
    (
      'optimizer = {name = "nesterov", momentum = 0.5}',
      {"v_w'": 4, "w'": 1.4, "v_w''": 4.8, "w''": 0.88},
    ),
    # v' = 0.1 16 = 1.6, w' = 2 - 0.4 / sqrt(1.6).
    ('optimizer = {name = "rmsprop", eps = 0}', {"v_w'": 1.6, "w'": 2 - 0.4 / 1.6**0.5}),
    # s' = 16, w' = 2 - 0.1; s'' = 16 + 3.8^2.
    (
      'optimizer = {name = "adagrad", eps = 0}',
      {"s_w'": 16, "w'": 1.9, "w''": 1.9 - 0.38 / (16 + 3.8**2) ** 0.5},
    ),
    # The first step of Adam is the learning rate.
    (
      'optimizer = {name = "adam", beta1 = 0.5, beta2 = 0.75, eps = 0}',
      {"m_w'": 2, "v_w'": 4, "mhat_w'": 4, "vhat_w'": 16, "w'": 1.9, "m_w''": 2.9},
    ),
  ],
)
def test_steps_by_hand(head, expected):
  found = computed(sheet([(of, "9") for of in expected], head))
  assert found == pytest.approx(expected, rel=1e-12)
  # Alone, without claims before it, the value follows from what is given.
  for of, value in expected.items():
    (claim,) = worksheet.check(sheet([(of, "9e9")], head)).claims
    if of != "v_w":
      assert claim.expected_from_claims == pytest.approx(value, rel=1e-12)


OPTAX = {
  "sgd": lambda rate: optax.sgd(rate),
  "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
  "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
  "rmsprop": lambda rate: optax.rmsprop(rate, decay=0.9, eps=1e-8, eps_in_sqrt=False),
  "adam": lambda rate: optax.adam(rate),
  "adamw": lambda rate: optax.adamw(rate, weight_decay=0.01),
}


@pytest.mark.parametrize("optimizer", OPTAX)
def test_optimizers_are_those_of_optax(optimizer):
  """Two layers of arrays, four steps over three examples in turn, a learning rate that falls."""
  rng = np.random.default_rng(0)
  params = {"W": rng.normal(size=(2, 3)).round(2), "b": rng.normal(size=2).round(2)}
  data = [(rng.normal(size=3).round(2), rng.normal(size=2).round(2)) for _ in range(3)]
  equations = {"z": "W @ x + b", "L": "sum((tanh(z) - y)**2)"}
  head = (
    f'loss = "L"\nparameters = ["W", "b"]\nlearning_rate = "0.1 / t"\noptimizer = "{optimizer}"'
  )
  claims = [("W'4", json.dumps([["9"] * 3] * 2).replace('"', "")), ("b'4", "[9, 9]"), ("L'4", "9")]
  given = {name: json.dumps(value.tolist()) for name, value in params.items()}
  text = make_sheet(equations, claims, given, head)
  for x, y in data:
    text += f"[[examples]]\nx = {json.dumps(x.tolist())}\ny = {json.dumps(y.tolist())}\n"
  found = computed(text)

  def loss(params, x, y):
    return jnp.sum((jnp.tanh(params["W"] @ x + params["b"]) - y) ** 2)

  with jax.enable_x64(True):
    params = jax.tree.map(jnp.asarray, params)
    tx = OPTAX[optimizer](lambda count: 0.1 / (count + 1))
    state = tx.init(params)
    for step in range(4):
      gradient = jax.grad(loss)(params, *data[step % 3])
      updates, state = tx.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    expected = {f"W'4[{i},{j}]": params["W"][i, j] for i in range(2) for j in range(3)}
    expected |= {f"b'4[{i}]": params["b"][i] for i in range(2)}
    expected["L'4"] = loss(params, *data[1])
  assert found == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-6)


def test_rules_of_ones_own():
  """Momentum as a [step] table; the same numbers as with the optimizer, and its formulas count."""
  rules = '[step]\nv = "0.5*v + dL/dw"\nw = "w - 0.1*v\'"\n'
  text = make_sheet(
    SQUARE, [("v'", "4"), ("w'", "1.6"), ("v''", "5.2"), ("w''", "1.08")], {"w": 2, "v": 0}
  )
  assert statuses(text + rules) == [E] * 4


def test_a_target_may_be_called_t():
  text = make_sheet({"L": "(w - t)**2"}, [("w'", "1.2", "w - 0.1*dL/dw")], {"w": 1, "t": 2})
  (claim,) = worksheet.check(
    text.replace("[[claims]]", '[step]\nw = "w - 0.1*dL/dw"\n[[claims]]')
  ).claims
  assert claim.status == E


def test_a_rule_may_have_a_part_that_exists_after_a_step_only():
  rules = '[step]\ng = "dL/dw / abs(dL/dw)"\nw = "w - g\' / t"\n'
  text = make_sheet(SQUARE, [("g'", "1"), ("w'", "1"), ("w''", "0.5")], {"w": 2}) + rules
  assert statuses(text) == [E] * 3


@pytest.mark.parametrize(
  ("rate", "w2"),
  [
    ("0.1", 1.28),
    ("[0.1, 0.5]", 0.0),
    ('"0.1 * 0.5**(t - 1)"', 1.6 - 0.05 * 3.2),
    ('"0.05 * (1 + cos(pi * (t - 1) / 2))"', 1.6 - 0.05 * 3.2),
  ],
)
def test_schedules(rate, w2):
  text = sheet([("w''", "9")]).replace("learning_rate = 0.1", f"learning_rate = {rate}")
  assert computed(text)["w''"] == pytest.approx(w2, abs=1e-15)


def test_examples_are_taken_in_turn():
  """Two epochs over two examples: w -> w - 0.5 (w - x), by hand from w = 0."""
  equations = {"L": "(w - x)**2 / 2"}
  data = "[[examples]]\nx = 1\n[[examples]]\nx = 3\n"
  claims = [("w'", "0.5"), ("w''", "1.75"), ("w'''", "1.375"), ("w'4", "2.1875"), ("x'''", "3")]
  text = sheet(claims, equations=equations, given={"w": 0}, after=data)
  assert statuses(text.replace("rate = 0.1", "rate = 0.5")) == [E] * 5


# --- Claims ---


def test_a_step_shifts_a_claim_and_its_line_of_working():
  """In step 2, w is w', and learning_rate that of the second step."""
  claims = [("w'", "1.6"), ("w''", "0", "w' - learning_rate' * dL'/dw'")]
  text = sheet(claims).replace("learning_rate = 0.1", "learning_rate = [0.1, 0.5]")
  assert statuses(text) == [E, E]
  text = text.replace("of = \"w''\"", 'step = 2\nof = "w\'"')
  text = text.replace("w' - learning_rate' * dL'/dw'", "w - learning_rate * dL/dw")
  assert statuses(text) == [E, E]
  # The rate of the first step is the wrong one.
  text = text.replace("w - learning_rate * dL/dw", "w - 0.1 * dL/dw")
  assert statuses(text) == [E, W]


def test_what_follows_from_a_slip_in_a_step_is_carried():
  """W' = 1.5 for 1.6: everything after it is carried, and one mistake is found."""
  claims = [("dL/dw", "4"), ("w'", "1.5"), ("L'", "2.25"), ("dL'/dw'", "3.0"), ("w''", "1.20")]
  assert statuses(sheet([*claims, ("L''", "1.44")])) == [E, S, C, C, C, C]
  # Without the claims between, the last follows through two passes.
  assert statuses(sheet([("w'", "1.5"), ("L''", "1.44")])) == [S, C]
  # In Adam a slip in m is carried through mhat.
  claims = [("m_w'", "3"), ("mhat_w'", "6.0"), ("w'", "1.850")]
  head = 'optimizer = {name = "adam", beta1 = 0.5, beta2 = 0.75, eps = 0}'
  assert statuses(sheet(claims, head)) == [S, C, C]


@pytest.mark.parametrize(
  ("of", "formula", "cause"),
  [
    ("mhat_w'", "m_w' / (1 - beta1**t)", None),
    ("mhat_w'", "m_w'", "the factor 2 is missing"),  # 1 / (1 - 0.5)
    ("v_w'", "beta2*v_w + (1 - beta2)*dL/dw", "wrong"),
    ("v_w'", "beta2*v_w + (1 - beta2)*(dL/dw)**2", None),
    ("m_w'", "beta1*m_w + dL/dw", "wrong"),
    ("w'", "w + learning_rate*mhat_w'/sqrt(vhat_w')", "the sign of"),
    ("w'", "w - learning_rate*m_w'/sqrt(vhat_w')", "m_w' should be mhat_w'"),
    ("L'", "w'**2", None),
    ("L'", "w**2", "w should be w'"),
    ("dL'/dw'", "2*w'", None),
  ],
)
def test_formulas_of_an_optimizer(of, formula, cause):
  head = 'optimizer = {name = "adam", beta1 = 0.5, beta2 = 0.75, eps = 0}'
  (claim,) = worksheet.check(sheet([(of, "9e9", formula)], head)).claims
  assert ("wrong" in claim.remark) == (cause is not None)
  assert (cause or "") in claim.remark


def test_the_worked_solution_has_every_step():
  lines = worksheet.answers(sheet([("w''", "1.28")]))
  assert lines == [
    "Forward pass",
    "  L = w**2 = 2**2 = 4",
    "",
    "Derivatives of L",
    "  dL/dw = 2 * w = 2 * 2 = 4",
    "",
    "Gradient step",
    "  w' = w - learning_rate * dL/dw = 2 - 0.1 * 4 = 1.6",
    "",
    "After 1 gradient step",
    "",
    "Forward pass",
    "  L' = w'**2 = 1.6**2 = 2.56",
    "",
    "Derivatives of L'",
    "  dL'/dw' = 2 * w' = 2 * 1.6 = 3.2",
    "",
    "Gradient step",
    "  w'' = w' - learning_rate * dL'/dw' = 1.6 - 0.1 * 3.2 = 1.28",
  ]


def test_the_report_has_the_rules():
  text = check_worksheet.markdown(worksheet.check(sheet([("v_w'", "4")], 'optimizer = "momentum"')))
  assert "| v_w' | momentum \\* v_w + dL/dw |" in text
  assert "Gradient step" not in check_worksheet.markdown(
    worksheet.check(make_sheet(SQUARE, [("L", "4")], {"w": 2}))
  )


def test_what_should_be_written_instead_of_a_wrong_step():
  checked = worksheet.check(sheet([("w''", "7")]))
  assert "because w'' = w' - learning_rate * dL'/dw' = 1.6 - 0.1 * 3.2" in (
    worksheet.first_slip(checked)
  )


# --- What is no worksheet ---


STEP = '\n[step]\nw = "w - dL/dw"\n'


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      sheet([("w'", "1")]).replace('parameters = ["w"]', "").replace("w'", "w''"),
      "what the step changes",
    ),
    (
      sheet([("L'", "1")]).replace('parameters = ["w"]', ""),
      "L is computed, not given: L' comes after",
    ),
    (
      sheet([("w'", "1")], 'optimizer = "adam"').replace('parameters = ["w"]', ""),
      "parameters is missing",
    ),
    (sheet([("w'", "1")]).replace('loss = "L"', ""), "no loss, which a gradient step needs"),
    (sheet([("w'", "1")]).replace("learning_rate = 0.1", ""), "no learning_rate, which a gradient"),
    (sheet([("w'", "1")], 'optimizer = "adma"'), "unknown optimizer 'adma'; did you mean 'adam'"),
    (sheet([("w'", "1")], "optimizer = 1"), "optimizer must be a name or a table"),
    (sheet([("w'", "1")], 'optimizer = {name = "adam", beta3 = 1}'), "unknown setting 'beta3'"),
    (
      sheet([("w'", "1")], 'optimizer = {name = "adam", beta1 = 1}'),
      "beta1 of adam must be at least 0",
    ),
    (sheet([("w'", "1")]).replace('["w"]', '["q"]'), "parameters: unknown given 'q'"),
    (sheet([("w'", "1")]).replace('["w"]', '"w"'), r"parameters must be a list of names, as in"),
    (
      sheet([("w'", "1")], 'optimizer = "momentum"', {"v_w": "1", "L": "w"}),
      "v_w is a value of the",
    ),
    (sheet([("w'", "1")], 'optimizer = "adam"', given={"w": 1, "t": 2}), "t is a setting of the"),
    (
      sheet([("mhat_w", "1")], 'optimizer = "adam"'),
      "mhat_w exists after a gradient step only: write",
    ),
    (sheet([("w'51", "1")]), "51 gradient steps, more than 50"),
    (sheet([("w'99999", "1")]), "a claim is of a node"),
    (sheet([("w''2", "1")]), "a claim is of a node"),
    (sheet([("x'", "1")], given={"w": 1, "x": 2}), "x is the same in every step: x' is x"),
    (sheet([("learning_rate", "1")]), "learning_rate is a setting, not a value to be claimed"),
    (sheet([("dL'/dw", "1")]), "a claim is of a node"),
    (sheet([("L", "1", "dL'/dw")]), "dL'/dw needs as many primes above as below"),
    (
      sheet([("w'''", "1")]).replace("= 0.1", "= [0.1, 0.2]"),
      "learning_rate has 2 values, but the claims need 3",
    ),
    (sheet([("w'", "1")]).replace("= 0.1", "= []"), "one number for every step"),
    (sheet([("w'", "1")]).replace("= 0.1", '= "1 - t"'), "learning_rate must be above 0, not 0"),
    (sheet([("w'", "1")]).replace("= 0.1", '= "1/w"'), "may depend on t, .* but not on w"),
    (sheet([("w'", "1")]).replace("= 0.1", '= "[t, t]"'), "it must be one number in each step"),
    (
      sheet([("w'", "1")]).replace('of = "w\'"', 'of = "w"\nstep = 0'),
      "step must be an integer from 1 to 50",
    ),
    (sheet([("w'", "1")], after=STEP), r"the section \[step\] has all rules"),
    (
      make_sheet(SQUARE, [("w'", "1")], {"w": 1}) + '\n[step]\nL = "1"\n',
      "step.L: L is not in .given.",
    ),
    (
      make_sheet(SQUARE, [("w'", "1")], {"w": 1}) + '\n[step]\nw = "v\'"\nv = "1"\n',
      "v' needs a rule before",
    ),
    (
      make_sheet(SQUARE, [("w'", "1")], {"w": 1}) + '\n[step]\nv = "1"\nw = "v"\n',
      "write v' for its value",
    ),
    (
      make_sheet(SQUARE, [("w'", "1")], {"w": 1}) + '\n[step]\nw = "[1, 2]"\n',
      r"its shape is \(2,\), that of w",
    ),
    (make_sheet(SQUARE, [("w'", "1")], {"w": 1}) + "\n[step]\nw = 1\n", "step.w must be a string"),
    (
      make_sheet(SQUARE, [("w'", "1")], {"w": 1}) + '\n[step]\nw = "1/(w - 1)"\n',
      "value of w' is not finite",
    ),
    (
      sheet([("w'", "1")], after="\n[[examples]]\nw = 1\n"),
      "w is defined twice, in .given. and in",
    ),
    (
      sheet([("w'", "1")], after="\n[[examples]]\nx = 1\n[[examples]]\nx = [1]\n"),
      "the same names and",
    ),
    (
      sheet([("w'", "1")], after="\n[[examples]]\n"),
      "example 1 must be a table with the data of one",
    ),
  ],
)
def test_no_worksheet(text, message):
  with pytest.raises(InputError, match=message) as caught:
    worksheet.check(text)
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 500
