"""Does a number as written agree with a value? The digits decide, exactly."""

from fractions import Fraction

import numpy as np

from jaxdl.byhand.worksheet.numerals import Numeral


def slack(written: Numeral, value: Fraction) -> Fraction:
  """Returns how far off float64 may be: rounding errors must not decide what is a tie."""
  return written.unit / 10**9 + 4 * abs(value) * Fraction(np.finfo(np.float64).eps.item())


def has_a_digit(written: Numeral, value: Fraction) -> bool:
  """Returns whether a number has a significant digit of a value: 0.2 has one of 0.235, 0 has none.

  Its last place must be no higher than the first place of the value rounded to one digit, which is
  1 for 0.96. Every number has a digit of 0.
  """
  return value == 0 or (written.value != 0 and written.unit * Fraction(95, 100) <= abs(value))


def is_exact(written: Numeral, value: Fraction) -> bool:
  """Returns whether a number is the value, correctly rounded to its last digit."""
  if value == 0:
    return written.value == 0
  is_rounded = abs(written.value - value) <= written.unit / 2 + slack(written, value)
  return is_rounded and has_a_digit(written, value)


def is_truncated(written: Numeral, value: Fraction) -> bool:
  """Returns whether a number is the value without the digits after its last."""
  if written.value * value < 0 or not has_a_digit(written, value):
    return False
  missing = abs(value) - abs(written.value)
  return 0 <= missing < written.unit - slack(written, value)


def follows(written: Numeral, value: Fraction) -> bool:
  """Returns whether a number is a value to one unit of its last digit."""
  if value == 0:
    return written.value == 0
  near = abs(written.value - value) <= written.unit + slack(written, value)
  return near and has_a_digit(written, value)
