"""Reads how a worksheet goes from one gradient step to the next."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.byhand import expressions
from jaxdl.byhand.expressions import Derivative, Expression, Name, Quantity, excerpt, spell
from jaxdl.byhand.worksheet.fields import (
  array,
  check_name,
  finite_number,
  named,
  refuse_unknown,
  section,
  type_name,
)
from jaxdl.byhand.worksheet.graph import Graph
from jaxdl.byhand.worksheet.optimizers import OPTIMIZERS, rules
from jaxdl.byhand.worksheet.sheet import Steps, Worksheet
from jaxdl.errors import InputError, unknown_name

RATE = "learning_rate"
KEYS = (RATE, "loss", "optimizer", "parameters", "step", "examples")
MAX_STEPS = 50
# What to write for what is missing.
HINTS = {
  "loss": 'write loss = "L" above [given]',
  RATE: f"write {RATE} = 0.1 above [given]",
}


def parse_examples(
  table: Mapping[str, Any], given: Mapping[str, np.ndarray]
) -> list[dict[str, np.ndarray]]:
  """Reads [[examples]]: the data of each gradient step, taken in turn."""
  if "examples" not in table:
    return []
  examples: list[dict[str, np.ndarray]] = []
  for number, entry in enumerate(section(table, "examples", list), 1):
    where = f"example {number}"
    if not isinstance(entry, dict) or not entry:
      raise InputError(f"{where} must be a table with the data of one step, as in x = 1")
    for name in entry:
      check_name(where, name)
      if name in given:
        raise InputError(f"{name} is defined twice, in [given] and in [[examples]]")
    examples.append({name: array(f"{where}, {name}", value) for name, value in entry.items()})
    shapes = [{name: value.shape for name, value in e.items()} for e in (examples[0], examples[-1])]
    if shapes[0] != shapes[1]:
      raise InputError(f"{where} must have the same names and shapes as example 1")
  return examples


def add_steps(
  table: Mapping[str, Any], sheet: Worksheet, examples: Sequence[Mapping[str, np.ndarray]]
) -> Worksheet:
  """Returns a worksheet with its loss and its gradient steps."""
  loss = table.get("loss")
  if loss is not None and not isinstance(loss, str):
    raise InputError('loss must be a string, the name of a node, as in loss = "L"')
  if loss is not None and loss not in sheet.equations:
    raise InputError(f"loss: {unknown_name('node', loss[:60], sheet.equations)}")
  if loss is not None and sheet.shapes[loss] != ():
    shape = expressions.write_shape(sheet.shapes[loss])
    raise InputError(
      f"loss must be one number, but {loss} has the shape {shape}: take its sum or mean"
    )
  settings: dict[str, Sequence[float]] = {}
  if RATE in table:
    settings[RATE] = _learning_rate(table[RATE])
  sheet = dataclasses.replace(sheet, loss=loss)
  if "step" in table:
    if "optimizer" in table or "parameters" in table:
      raise InputError("the section [step] has all rules: leave out optimizer and parameters")
    if "t" not in sheet.names:  # a target, for example
      settings["t"] = list(range(1, MAX_STEPS + 2))
    return _add_rules(section(table, "step", dict), sheet, settings, {}, examples)
  return _add_optimizer(table, sheet, settings, examples)


def _learning_rate(value: object) -> list[float]:
  """Returns the learning rate of every step: a number, a list, or a formula in t."""
  if isinstance(value, str):
    with named(f"{RATE} = {excerpt(value)}"):
      formula = expressions.parse(value)
      for name in expressions.quantities(formula):
        if name != Name("t"):
          raise InputError(f"it may depend on t, the number of the step, but not on {spell(name)}")
      if expressions.shapes(formula, lambda _: ())[-1] != ():
        raise InputError("it must be one number in each step")
      with np.errstate(all="ignore"):
        steps = np.arange(1.0, MAX_STEPS + 2)
        value = expressions.evaluate(formula, lambda _: steps, num_points=1)
        rates = np.broadcast_to(value, steps.shape).tolist()
  elif isinstance(value, list):
    if not 1 <= len(value) <= MAX_STEPS:
      raise InputError(f"{RATE} must have one number for every step, at most {MAX_STEPS}")
    rates = [finite_number(RATE, rate) for rate in value]
  else:
    rates = [finite_number(RATE, value)]
  return rates


def _add_optimizer(
  table: Mapping[str, Any],
  sheet: Worksheet,
  settings: dict[str, Sequence[float]],
  examples: Sequence[Mapping[str, np.ndarray]],
) -> Worksheet:
  """Returns a worksheet with the rules of an optimizer."""
  name, own = _optimizer(table.get("optimizer", "sgd"))
  optimizer = OPTIMIZERS[name]
  is_explicit = "parameters" in table
  if not is_explicit and name != "sgd":
    raise InputError('parameters is missing: what the optimizer changes, as in parameters = ["w"]')
  if is_explicit:
    for key, present in {"loss": sheet.loss is not None, RATE: RATE in settings}.items():
      if not present:
        raise InputError(f"the worksheet has no {key}, which a gradient step needs; {HINTS[key]}")
  settings |= {key: [value] for key, value in own.items()}
  if name in ("adam", "adamw"):
    settings["t"] = list(range(1, MAX_STEPS + 2))
  if sheet.loss is None or RATE not in settings:
    return dataclasses.replace(sheet, steps=Steps({}, {}, settings, examples, False))
  data = examples[0] if examples else {}
  parameters = [n for n in sheet.given if n not in data]
  if is_explicit:
    parameters = _parameters(table["parameters"], parameters)
  formulas: dict[str, str] = {}
  initial: dict[str, np.ndarray] = {}
  for parameter in parameters:
    formulas |= rules(name, parameter, sheet.loss)
    for prefix in optimizer.state:
      if f"{prefix}{parameter}" not in sheet.given:
        initial[f"{prefix}{parameter}"] = np.zeros(sheet.shapes[parameter])
  for state in formulas:
    if state in sheet.equations or (state in data):
      raise InputError(f"{state} is a value of the optimizer {name}: give yours another name")
  return _add_rules(formulas, sheet, settings, initial, examples, is_explicit)


def _optimizer(value: object) -> tuple[str, dict[str, float]]:
  """Returns the name of an optimizer and all of its settings."""
  if isinstance(value, str):
    value = {"name": value}
  if not isinstance(value, dict) or not isinstance(value.get("name"), str):
    raise InputError('optimizer must be a name or a table, as in {name = "adam", beta1 = 0.9}')
  name = value["name"]
  if name not in OPTIMIZERS:
    raise unknown_name("optimizer", name[:60], OPTIMIZERS)
  known = OPTIMIZERS[name].settings
  refuse_unknown("setting", value, ("name", *known), f"optimizer {name}")
  settings = {key: finite_number(key, value.get(key, default)) for key, default in known.items()}
  for key, setting in settings.items():
    if not 0 <= setting < 1:
      raise InputError(f"{key} of {name} must be at least 0 and below 1, not {setting:g}")
  return name, settings


def _parameters(value: object, known: Sequence[str]) -> list[str]:
  if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
    raise InputError('parameters must be a list of names, as in parameters = ["w", "b"]')
  for name in value:
    if name not in known:
      raise InputError(f"parameters: {unknown_name('given', name[:60], known)}")
  return list(dict.fromkeys(value))


def _add_rules(
  formulas: Mapping[str, Any],
  sheet: Worksheet,
  settings: Mapping[str, Sequence[float]],
  initial: Mapping[str, np.ndarray],
  examples: Sequence[Mapping[str, np.ndarray]],
  is_explicit: bool = True,
) -> Worksheet:
  """Returns a worksheet with rules, parsed and checked."""
  for name in settings:
    if name in sheet.names:
      raise InputError(f"{name} is a setting of the gradient step: give yours another name")
  shapes = {**sheet.shapes, **{name: value.shape for name, value in initial.items()}}
  sheet = dataclasses.replace(sheet, shapes=shapes)
  names = {*sheet.names, *initial, *settings}
  graph = Graph(sheet.equations, sheet.names, shapes)
  parsed: dict[str, Expression] = {}
  for name, text in formulas.items():
    if not isinstance(text, str):
      raise InputError(
        f"step.{name[:60]} must be a string, not {type_name(text)}: put it in quotation marks"
      )
    check_name("step", name)
    if name in sheet.equations or (examples and name in examples[0]):
      raise InputError(f"step.{name}: {name} is not in [given], so no rule can change it")
    with named(f"step.{name} = {excerpt(text)}"):
      rule = expressions.parse(text, names, working=True)
      for quantity in expressions.quantities(rule):
        _check_in_rule(quantity, sheet, [*names], parsed, graph)
      shape = expressions.shapes(rule, sheet.shape)[-1]
      if shapes.setdefault(name, shape) != shape:
        raise InputError(
          f"its shape is {expressions.write_shape(shape)}, that of {name} is "
          f"{expressions.write_shape(shapes[name])}"
        )
    parsed[name] = rule
  return dataclasses.replace(sheet, steps=Steps(parsed, initial, settings, examples, is_explicit))


def _check_in_rule(
  quantity: Quantity, sheet: Worksheet, names: list[str], before: Mapping[str, Any], graph: Graph
):
  """Raises InputError unless a rule may contain a quantity."""
  if isinstance(quantity, Derivative):
    check_derivative(quantity, sheet, graph)
  elif quantity.step == 0 and quantity.name not in names:
    hint = (
      f"; write {quantity.name}' for its value after the step" if quantity.name in before else ""
    )
    raise InputError(f"{unknown_name('name', quantity.name[:60], names)}{hint}")
  elif quantity.step == 1 and quantity.name not in before:
    raise InputError(f"{spell(quantity)} needs a rule before this one")
  if quantity.step > (1 if isinstance(quantity, Name) else 0):
    raise InputError(
      f"{spell(quantity)}: a rule has values before the step and one step later only"
    )


def check_derivative(quantity: Derivative, sheet: Worksheet, graph: Graph):
  """Raises InputError unless a derivative exists and is one array of the shape of `by`."""
  for name in (quantity.of, quantity.by):
    if name not in sheet.names:
      raise unknown_name(f"name in {spell(quantity)[:60]}:", name[:60], sheet.names)
  of, by = sheet.shapes[quantity.of], sheet.shapes[quantity.by]
  if quantity.entry:
    if expressions.indexed_shape(of, quantity.entry) != ():
      raise InputError(f"{spell(quantity)}: write one entry above, as in d{quantity.of}[0]/...")
  elif of != () and not graph.is_elementwise(quantity.of, quantity.by):
    index = expressions.spell_index((0,) * len(of))
    raise InputError(
      f"{spell(quantity)} is {math.prod(of)} x {math.prod(by)} numbers, as {quantity.of} is an "
      f"array: write one entry above, as in d{quantity.of}{index}/d{quantity.by}"
    )


def count_steps(sheet: Worksheet) -> Worksheet:
  """Returns a worksheet with the number of gradient steps that its claims need."""
  mentioned: set[Quantity] = set()
  for claim in sheet.claims:
    mentioned |= {claim.of, *expressions.quantities(claim.working)}
  last = max((quantity.step for quantity in mentioned), default=0)
  if last > MAX_STEPS:
    raise InputError(f"the claims need {last} gradient steps, more than {MAX_STEPS}")
  rates = sheet.steps.settings.get(RATE, [])
  for rate in rates[: max(last, 1)]:
    if not (rate > 0 and math.isfinite(rate)):
      raise InputError(f"{RATE} must be above 0, not {rate:g}")
  if 1 < len(rates) < last:
    raise InputError(f"{RATE} has {len(rates)} values, but the claims need {last} steps")
  steps = sheet.steps
  if not steps.explicit:
    kept = {name: rule for name, rule in steps.rules.items() if Name(name, 1) in mentioned}
    steps = dataclasses.replace(steps, rules=kept)
  return dataclasses.replace(sheet, steps=steps, num_steps=last)
