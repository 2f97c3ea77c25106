"""Shows the defaults of settings in the reference: an extension of Griffe, which reads the source.

A setting is declared as `static(DEFAULT, ...)` and the like, see `jaxdl/settings.py`.
"""

import griffe

_DECLARATIONS = {"static", "traced", "derived", "choice", "call", "part"}


class Defaults(griffe.Extension):
  """Replaces the declaration of a setting by its default."""

  def on_attribute_instance(self, *, attr: griffe.Attribute, **_):
    """Looks at one attribute."""
    value = attr.value
    if isinstance(value, griffe.ExprCall) and str(value.function) in _DECLARATIONS:
      attr.value = value.arguments[0]
