"""Are the gradients right? Derived by hand, held against `jax.grad`, that against differences.

  python -m experiments.check_gradients [--workdir=DIR]

prints the largest relative error of every model x loss x activation and the leaf where it occurs,
the same for each rule on its own and for the optimizers' steps, and whether JAX's gradients agree
with finite differences. Exit status: 0, everything agrees; 1, something does not; 2, bad input.
With --workdir also `gradients.json` and `report.md`.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
from absl import flags

from jaxdl import report
from jaxdl.byhand import gradient_check
from jaxdl.byhand.gradient_check import TOLERANCE, Row
from jaxdl.errors import InputError, one_line
from jaxdl.store import files

_TITLES = {
  "models": ("Models", ("model", "loss", "activation")),
  "rules": ("Rules, each on its own", ("rule", "at")),
  "optimizers": ("Optimizers", ("optimizer",)),
  "oracle": ("JAX's own gradients against finite differences", ("function",)),
}
_FILES = ("gradients.json", "report.md")


def main(argv: Sequence[str]) -> int:
  """Runs the checks and returns the exit status."""
  try:
    workdir = _parse(argv)
    if workdir is not None:
      _claim(workdir)
    started = time.monotonic()
    rows = [gradient_check.compare(case) for case in gradient_check.cases()]
    rows += gradient_check.check_oracle()
    seconds = time.monotonic() - started
    for name in _TITLES:
      print(f"{_TITLES[name][0]}\n\n{report.text_table(_table(name, rows))}\n")
    print(f"{summary(rows)} ({seconds:.0f} s)")
    if workdir is not None:
      _write(workdir, rows)
      print(f"\nReport: {one_line(workdir / 'report.md')}")
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
  return 0 if all(row.passed for row in rows) else 1


def summary(rows: Sequence[Row]) -> str:
  """Returns the outcome in one sentence."""
  failed = [row for row in rows if not row.passed]
  if not failed:
    return f"All {len(rows)} checks agree within {TOLERANCE:g}."
  names = "; ".join(" ".join(filter(None, row.of)) for row in failed[:3])
  more = ", ..." if len(failed) > 3 else ""
  return f"{len(failed)} of {len(rows)} checks do NOT agree within {TOLERANCE:g}: {names}{more}."


def markdown(rows: Sequence[Row]) -> str:
  """Returns the report."""
  parts = [
    "# Are the gradients right?",
    f"**{report.escape(summary(rows))}**",
    "Gradients derived by hand (`jaxdl/backprop.py`) against `jax.grad` of the project's own "
    "models and losses, in float64. The error of a leaf is max |by hand - JAX| / max |JAX|; a row "
    "shows its worst leaf. `loss` is the value itself, `images` the gradient by the input.",
  ]
  for name, (title, _) in _TITLES.items():
    parts += [f"## {title}", report.markdown_table(_table(name, rows))]
  return "\n\n".join([*parts, f"JAX {jax.__version__}"]) + "\n"


def _table(name: str, rows: Sequence[Row]) -> list[list[str]]:
  """Returns the rows of one table, header first; finite differences have a verdict, no error."""
  own = [row for row in rows if row.table == name]
  verdict = {True: "ok", False: "FAILED"}
  if name == "oracle":
    return [[*_TITLES[name][1], "", ""], *([*r.of, verdict[r.passed], r.leaf] for r in own)]
  header = [*_TITLES[name][1], "largest relative error", "in", ""]
  return [header, *([*r.of, f"{r.error:.1e}", r.leaf, verdict[r.passed]] for r in own)]


def _parse(argv: Sequence[str]) -> pathlib.Path | None:
  """Returns the workdir, if one is given; flags of its own, as a config is not needed here."""
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "Directory for the results.", flag_values=values)
  if {"--help", "-h", "--helpfull"} & set(argv):
    print(__doc__)
    sys.exit(0)
  try:
    rest = values(argv)
  except flags.Error as error:
    raise InputError(str(error)) from error
  if len(rest) > 1:
    raise InputError(f"unknown argument {rest[1]!r}; settings are given as --name=value")
  if values.workdir == "":
    raise InputError("--workdir is empty")
  return None if values.workdir is None else pathlib.Path(values.workdir).expanduser()


def _claim(workdir: pathlib.Path):
  """Makes the directory before anything is computed; refuses to replace what no run has made."""
  with files.Lock(workdir):
    files.check_replaceable(workdir, _FILES, _FILES[0])


def _write(workdir: pathlib.Path, rows: Sequence[Row]):
  """Writes both files, complete or not at all."""
  content = {
    "tolerance": TOLERANCE,
    "passed": all(row.passed for row in rows),
    "jax": jax.__version__,
    "checks": [_to_json(row) for row in rows],
  }
  texts = (json.dumps(content, indent=2, allow_nan=False) + "\n", markdown(rows))
  with files.Lock(workdir), files.staging(workdir, _FILES[0]) as stage:
    for name, text in zip(_FILES, texts, strict=True):
      (stage / name).write_text(text, encoding="utf-8")


def _to_json(row: Row) -> dict:
  names = dict(zip(_TITLES[row.table][1], row.of, strict=True))
  error = row.error if math.isfinite(row.error) else None  # JSON has no infinity
  return {"table": row.table, **names, "error": error, "leaf": row.leaf, "passed": row.passed}


if __name__ == "__main__":
  sys.exit(main(sys.argv))
