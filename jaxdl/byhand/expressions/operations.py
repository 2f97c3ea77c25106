"""The functions and operators of formulas, by name."""

from jaxdl.byhand.expressions import arrays, elementwise, pictures

FUNCTIONS = {**elementwise.FUNCTIONS, **arrays.FUNCTIONS, **pictures.FUNCTIONS}
FUNCTION_NAMES = tuple(FUNCTIONS)
ALL = {**FUNCTIONS, **elementwise.OPERATORS, **arrays.OPERATORS}
