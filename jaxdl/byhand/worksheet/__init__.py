"""Worksheets: backpropagation by hand, checked line by line (see docs/worksheets.md).

Read `checker.py` first: what follows from the claims before a claim; then `working.py`: whether a
line of working is right; then `causes.py` and `repairs.py`: why it is not.
"""

from jaxdl.byhand.worksheet.answers import answers
from jaxdl.byhand.worksheet.checker import (
  STATUSES,
  WRONG,
  CheckedClaim,
  CheckedWorksheet,
  check,
)
from jaxdl.byhand.worksheet.numerals import parse_number
from jaxdl.byhand.worksheet.reader import parse
from jaxdl.byhand.worksheet.right_values import show_value
from jaxdl.byhand.worksheet.sheet import Claim, Worksheet
from jaxdl.byhand.worksheet.writer import (
  feedback,
  first_slip,
  groups,
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
  "groups",
  "marks",
  "marks_table",
  "parse",
  "parse_number",
  "rows",
  "show",
  "show_value",
  "to_json",
)
