"""A checked worksheet as text, tables and JSON."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jaxdl.byhand.expressions import Name, spell, write
from jaxdl.byhand.worksheet.checker import (
  CARRIED,
  EXACT,
  INCONSISTENT,
  SLIP,
  STATUSES,
  TRUNCATED,
  WRONG_FORMULA,
  CheckedClaim,
  CheckedWorksheet,
)
from jaxdl.byhand.worksheet.numerals import parse_number
from jaxdl.byhand.worksheet.right_values import show_value
from jaxdl.byhand.worksheet.sheet import shift


def to_json(checked: CheckedWorksheet) -> dict[str, Any]:
  """Returns title, marks and claims, for a file."""
  keys = ("of", "claimed", "computed", "status", "expected_from_claims", "remark")
  claims = [
    {key: getattr(claim, key) for key in (*keys, "marks", "points")} for claim in checked.claims
  ]
  return {
    "title": checked.title,
    "marks": checked.marks,
    "points": checked.points,
    "claims": claims,
  }


def marks(checked: CheckedWorksheet) -> str:
  """Returns the marks in a sentence."""
  return f"Marks: {checked.marks:g} of {checked.points:g}."


def marks_table(checked: Mapping[str, CheckedWorksheet]) -> list[list[str]]:
  """Returns the marks of a class, header first: a row per file, a column per claim.

  Args:
    checked: file -> worksheet.
  """
  columns = list(
    dict.fromkeys(str(claim) for sheet in checked.values() for claim in sheet.worksheet.claims)
  )
  table = [["file", "title", "marks", "points", *STATUSES, "first mistake", *columns]]
  for file, sheet in checked.items():
    own = {str(claim): 0.0 for claim in sheet.worksheet.claims}
    for entry in sheet.claims:
      own[str(sheet.worksheet.claims[entry.number - 1])] += entry.marks
    first = sheet.first_wrong
    table.append(
      [
        file,
        sheet.title,
        f"{sheet.marks:g}",
        f"{sheet.points:g}",
        *map(str, sheet.counts.values()),
        first.of if first else "",
        *(f"{own[column]:.6g}" if column in own else "" for column in columns),
      ]
    )
  return table


def feedback(checked: CheckedWorksheet) -> tuple[str, list[list[str]]]:
  """Returns where the first mistake is, without right values, and the claims up to it.

  Returns:
    A sentence or two, and a table with its header first.
  """
  claim = checked.first_wrong
  table = [["claim", "written", "status"]]
  for group in groups(checked):
    table.append([*_name_and_text(checked, group), group[0].status])
    if group[0] is claim:
      break
  if claim is None:
    return first_slip(checked), table
  why = {
    SLIP: f"It does not follow from the lines before it.{_guess(claim)}",
    WRONG_FORMULA: claim.remark,
    INCONSISTENT: "It contradicts what is given.",
  }
  text = f"The first mistake is in claim {claim.number}, {claim.of} = {claim.claimed}."
  return f"{text} {why[claim.status]}", table


def rows(checked: CheckedWorksheet) -> list[list[str]]:
  """Returns a table of the claims in order, header first."""
  table = [["claim", "claimed", "computed", "digits", "status", "from the claims before"]]
  for group in groups(checked):
    claim, expected = group[0], group[0].expected_from_claims
    is_right = claim.status in (EXACT, TRUNCATED)
    numbers = (
      ["", "", claim.status, ""]
      if len(group) > 1
      else [
        show(claim.computed, claim),
        str(claim.digits),
        claim.status,
        "" if is_right or expected is None else show(expected, claim),
      ]
    )
    table.append([*_name_and_text(checked, group), *numbers])
  return table


def groups(checked: CheckedWorksheet) -> list[list[CheckedClaim]]:
  """Returns the claims that a row of a table is about: one, or all of an array that is right."""
  found: list[list[CheckedClaim]] = []
  for number in range(1, len(checked.worksheet.claims) + 1):
    entries = [claim for claim in checked.claims if claim.number == number]
    if all(claim.status == EXACT for claim in entries):
      found.append(entries)
    else:
      found += [[claim] for claim in entries]
  return found


def _name_and_text(checked: CheckedWorksheet, group: list[CheckedClaim]) -> list[str]:
  """Returns what a row is about, and what was written."""
  if len(group) == 1:
    return [group[0].of, group[0].claimed]
  return [str(checked.worksheet.claims[group[0].number - 1]), f"{len(group)} numbers"]


def show(value: float, claim: CheckedClaim, extra: int = 2) -> str:
  """Returns a value with as many digits as the claim has, and some more."""
  _, unit = parse_number(claim.claimed)
  places = len(str(unit.numerator)) - len(str(unit.denominator))  # the unit is 10**places
  decimals = extra - places
  if (value == 0 or 1e-4 <= abs(value) < 1e7) and 0 <= decimals <= 17:
    return f"{value + 0.0:.{decimals}f}"  # never -0
  exponent = math.floor(math.log10(abs(value))) if value else 0
  return f"{value:.{min(max(exponent - places + extra, extra), 16)}e}"


def _show_briefly(value: float, claim: CheckedClaim) -> str:
  """Returns a value with as many digits as the claim has, or as many as tell the two apart."""
  written, _ = parse_number(claim.claimed)
  texts = (show(value, claim, extra) for extra in range(4))
  return next((text for text in texts if Fraction(text) != written), show(value, claim, 0))


def first_slip(checked: CheckedWorksheet) -> str:
  """Returns what is wrong first, in sentences for the person who wrote the worksheet."""
  claim = checked.first_wrong
  if claim is None:
    num = len(checked.worksheet.claims)
    text = f"No slip in {num} claim{'s' if num != 1 else ''}."
    carried = checked.counts[CARRIED]
    if carried:
      text += f" {carried} carried: right from the lines before, which were rounded."
    return text
  position = claim.number
  if claim.status == INCONSISTENT:
    return (
      f"The first mistake is in claim {position}: {claim.of} = {claim.claimed} is written there, "
      f"but {claim.of} is given as {claim.computed:g}."
    )
  right = _show_briefly(claim.computed, claim)
  if claim.status == WRONG_FORMULA:
    entries = [entry for entry in checked.claims if entry.number == position]
    shown = f"{claim.of} = {claim.claimed}"
    if len(entries) > 1:
      shown = str(checked.worksheet.claims[position - 1])
    start = f"The first mistake is in claim {position}, {shown}"
    if all(map(_is_right, entries)):
      return f"{start}: the value is right, but the line of working is not. {claim.remark}"
    should_be = f", which should be {right}" if len(entries) == 1 else ""
    return f"{start}{should_be}. {claim.remark}"
  if claim.remark and not claim.working:
    return f"The first slip is in claim {position}: {claim.remark}"
  text = f"The first slip is in claim {position}: {claim.of} = {claim.claimed} should be {right}"
  if (how := _how(checked, claim)) != "":
    text += f", because {how}"
  text += "."
  expected = claim.expected_from_claims
  if expected is not None:
    value = _show_briefly(expected, claim)
    value = "the same" if value == right else value
    text += f" From the claims before it, it would be {value}, so the mistake is in this one."
  return text + _guess(claim)


def _how(checked: CheckedWorksheet, claim: CheckedClaim) -> str:
  """Returns the formula of the right value, or nothing for a derivative."""
  sheet = checked.worksheet
  of = sheet.claims[claim.number - 1].of
  if not isinstance(of, Name):
    return ""
  if of.name in sheet.equations:
    return f"{spell(of)} = {' '.join(sheet.formulas[of.name].split())}"
  rule = sheet.steps.rules[of.name]
  formula = f"{spell(of)} = {write(rule, lambda q: sheet.spell(shift(q, of.step - 1)))}"
  if sheet.shapes[of.name]:
    return formula
  numbers = write(rule, lambda q: show_value(checked.known[shift(q, of.step - 1)], 4))
  return f"{formula} = {numbers}"


def _is_right(claim: CheckedClaim) -> bool:
  value, unit = parse_number(claim.claimed)
  return abs(value - Fraction(claim.computed)) < unit


def _guess(claim: CheckedClaim) -> str:
  """Returns what kind of mistake it looks like, or nothing."""
  value, unit = parse_number(claim.claimed)
  for right in (claim.expected_from_claims, claim.computed):
    if right is None or not value:
      continue
    opposite = abs(value + Fraction(right))
    if opposite <= unit <= abs(value) / 2 or opposite <= unit / 2:
      return " Its sign is wrong."
    for places in (1, 2, 3, -1, -2, -3):
      scaled = Fraction(right) * Fraction(10) ** places
      if scaled and abs(value - scaled) <= unit and abs(value) >= 10 * unit:
        return " The digits are right, but the decimal point is in the wrong place."
  return ""
