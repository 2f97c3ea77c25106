"""Markdown that is safe whatever the names in it are: text, tables; and tables for a terminal."""

import html
import math
import re
from collections.abc import Iterable, Sequence

from jaxdl.errors import one_line


def number(value: float, form: str) -> str:
  """Returns a number in a format, or a dash where there is none (NaN)."""
  return f"{value:{form}}" if math.isfinite(value) else "-"


def text_table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows, header first, aligned for a terminal; control characters are escaped."""
  rows = [[one_line(cell) for cell in row] for row in rows]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
  return "\n".join(
    line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
  )


def paragraphs(parts: Iterable[str]) -> str:
  """Returns parts of a document one below the other; empty ones are left out."""
  return "\n\n".join(part for part in parts if part)


def picture(path: str, caption: str) -> str:
  """Returns a picture with its caption below it."""
  return f"![{escape(caption)}]({path})\n\n{escape(caption)}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows, header first, as a Markdown table, every cell escaped."""
  lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
  return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


# Markup anywhere ($ begins a formula, ~ strikes out), at word boundaries, and at the start of a
# line. An underscore inside a word is plain text, and names are easier to read without an escape.
_MARKUP = r"[\\`*\[\]|$~]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#|^[-+](?= )|^-(?=[ -]*-[ -]*-[ -]*$)"


def escape(text: object) -> str:
  """Makes text from a config or a dataset safe to stand in a line of Markdown or a table cell.

  Invisible characters, such as those that reverse the direction of writing, are escaped.
  """
  text = html.escape(one_line(text), quote=False)
  text = re.sub(_MARKUP, r"\\\g<0>", text)
  return re.sub(r"^(\d{1,9})([.)])(?= |$)", r"\1\\\2", text)  # a numbered list
