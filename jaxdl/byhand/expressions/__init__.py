"""Formulas of a worksheet: parsed by a grammar of their own, evaluated and differentiated in NumPy.

Read `parsing.py` first: the grammar. An expression is kept in postfix order.
"""

from jaxdl.byhand.expressions.arrays import as_slices, indexed_shape
from jaxdl.byhand.expressions.backward import as_list, pull_back_formula
from jaxdl.byhand.expressions.derivatives import differentiate
from jaxdl.byhand.expressions.evaluation import (
  Lookup,
  evaluate,
  moves_elementwise,
  pull_back,
  shapes,
  steps,
)
from jaxdl.byhand.expressions.operation import MAX_AXES, MAX_SIZE, write_shape
from jaxdl.byhand.expressions.operations import FUNCTION_NAMES
from jaxdl.byhand.expressions.parsing import MAX_LENGTH, excerpt, is_name, parse, split_primes
from jaxdl.byhand.expressions.syntax import (
  Apply,
  Derivative,
  Expression,
  Index,
  Name,
  Number,
  Quantity,
  Shape,
  arguments,
  numbers,
  part,
  quantities,
  spell,
  spell_index,
  write,
)

__all__ = (
  "FUNCTION_NAMES",
  "MAX_AXES",
  "MAX_LENGTH",
  "MAX_SIZE",
  "Apply",
  "Derivative",
  "Expression",
  "Index",
  "Lookup",
  "Name",
  "Number",
  "Quantity",
  "Shape",
  "arguments",
  "as_list",
  "as_slices",
  "differentiate",
  "evaluate",
  "excerpt",
  "indexed_shape",
  "is_name",
  "moves_elementwise",
  "numbers",
  "parse",
  "part",
  "pull_back",
  "pull_back_formula",
  "quantities",
  "shapes",
  "spell",
  "spell_index",
  "split_primes",
  "steps",
  "write",
  "write_shape",
)
