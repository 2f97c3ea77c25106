"""Worksheets: backpropagation by hand, checked line by line (see docs/worksheets.md).

Read `checker.py` first: what follows from the claims before a claim.
"""

from jaxdl.byhand.worksheet.answers import answers
from jaxdl.byhand.worksheet.checker import STATUSES, WRONG, CheckedClaim, CheckedWorksheet, check
from jaxdl.byhand.worksheet.reader import Claim, Worksheet, parse, parse_number
from jaxdl.byhand.worksheet.writer import (
  feedback,
  first_slip,
  marks,
  marks_table,
  rows,
  show,
  to_json,
)

__all__ = (
  "STATUSES",
  "WRONG",
  "CheckedClaim",
  "CheckedWorksheet",
  "Claim",
  "Worksheet",
  "answers",
  "check",
  "feedback",
  "first_slip",
  "marks",
  "marks_table",
  "parse",
  "parse_number",
  "rows",
  "show",
  "to_json",
)
