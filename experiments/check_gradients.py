r"""Are the gradients right, the project's or your own?

  jaxdl gradients [--workdir=DIR]

compares the gradients that are derived by hand in `byhand/backprop/` with `jax.grad`. It prints
the largest relative error of every model x loss x activation and the leaf where it occurs, the same
for two networks, for each rule on its own and for the optimizers' steps, and whether JAX's own
gradients agree with finite differences.

  jaxdl gradients --module=my_net.py [--workdir=DIR]

checks a backward pass of your own. The file is run as Python. It defines `forward`, `backward`,
`inputs` and `params` as `jaxdl.byhand.check` describes them.

  jaxdl gradients --model='my_nets:Net(width=8)' \
      --loss='my_losses:focal(gamma=2.0)' [--dataset=digits] [--workdir=DIR]

checks `jax.grad` of your own model and loss, as they train, on a few examples of a dataset. Nothing
is derived by hand for them, so the reference is finite differences only.

Exit status: 0 if everything agrees, 1 if something does not, 2 for bad input. With --workdir it
also writes `gradients.json` and `report.md`.
"""

import importlib.util
import json
import math
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
from absl import flags

from jaxdl import byhand, report
from jaxdl.byhand import gradient_check
from jaxdl.byhand.gradient_check import TOLERANCE, Row
from jaxdl.errors import InputError, brief, one_line
from jaxdl.store import files, locks

from . import own_gradients

_TITLES = {
  "models": ("Models", ("model", "loss", "activation")),
  "networks": ("Networks", ("network",)),
  "rules": ("Single rules", ("rule", "at")),
  "optimizers": ("Optimizers", ("optimizer",)),
  "oracle": ("JAX's own gradients against finite differences", ("function",)),
}
_FILES = ("gradients.json", "report.md")
# What a module of one's own defines.
_NAMES = ("forward", "backward", "inputs", "params")


def main(argv: Sequence[str]) -> int:
  """Runs the checks and returns the exit status."""
  try:
    asked = _parse(argv)
    workdir = asked.workdir
    if workdir is not None:
      _claim(workdir)
    if asked.module is not None:
      passed, content, text = _check_module(asked.module)
    elif asked.model is not None or asked.loss is not None:
      passed, content, text = _check_own(asked)
    else:
      passed, content, text = _check_project()
    if workdir is not None:
      _write(workdir, content, text)
      print(f"\nReport: {one_line(workdir / 'report.md')}")
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
  return 0 if passed else 1


# Whether everything agrees, and the contents of gradients.json and report.md.
_Outcome = tuple[bool, dict, str]


def _check_project() -> _Outcome:
  """Checks and prints the project's own gradients."""
  started = time.monotonic()
  rows = [gradient_check.compare(case) for case in gradient_check.cases()]
  rows += gradient_check.check_oracle()
  seconds = time.monotonic() - started
  for name in _TITLES:
    print(f"{_TITLES[name][0]}\n\n{report.text_table(_table(name, rows))}\n")
  print(f"{summary(rows)} ({seconds:.0f} s)")
  passed = all(row.passed for row in rows)
  content = {"tolerance": TOLERANCE, "passed": passed, "checks": [_to_json(row) for row in rows]}
  return passed, content, markdown(rows)


def _check_module(file: pathlib.Path) -> _Outcome:
  """Checks and prints the gradients of somebody's own module."""
  module = _load(file)
  checked = byhand.check(*(getattr(module, name) for name in _NAMES))
  print(checked)
  gradients = [
    {
      "parameter": gradient.name,
      "shape": gradient.shape,
      "error": _finite(gradient.error),
      "passed": gradient.passed,
      "cause": gradient.cause,
    }
    for gradient in checked.gradients
  ]
  content = {"passed": checked.passed, "reference": checked.reference, "gradients": gradients}
  parts = [f"# {report.escape(file.name)}", report.escape(checked.summary())]
  parts += [report.markdown_table(checked.rows()), *map(report.escape, checked.notes)]
  return checked.passed, content, "\n\n".join(parts) + "\n"


def _check_own(asked: "_Asked") -> _Outcome:
  """Checks and prints the gradients of a model and a loss of the user's own."""
  arm, gradients = own_gradients.check(asked.model, asked.loss, asked.dataset, asked.data_dir)
  table, passed = own_gradients.rows(gradients), all(of.passed for of in gradients)
  text = own_gradients.summary(arm, asked.dataset, gradients)
  print(f"{report.text_table(table)}\n\n{text}")
  content = {
    "tolerance": own_gradients.TOLERANCE,
    "passed": passed,
    "reference": "finite differences",
    "model": str(arm.model),
    "loss": str(arm.loss),
    "dataset": asked.dataset,
    "gradients": [{**of._asdict(), "error": _finite(of.error)} for of in gradients],
  }
  title = "# Are the gradients right?"
  parts = (title, report.escape(text), report.markdown_table(table))
  return passed, content, "\n\n".join(parts) + "\n"


def _load(file: pathlib.Path):
  """Runs a Python file and returns it as a module.

  Raises:
    InputError: if it cannot be read, fails, or lacks one of the four names.
  """
  if not file.is_file():
    raise InputError(f"--module: there is no file {str(file)!r}")
  spec = importlib.util.spec_from_file_location("checked_module", file)
  if spec is None or spec.loader is None:
    raise InputError(f"--module: {str(file)!r} is not a Python file, whose name ends in .py")
  module = importlib.util.module_from_spec(spec)
  sys.path.insert(0, str(file.resolve().parent))  # for what lies beside it
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise InputError(f"--module: {str(file)!r} failed: {brief(error)}") from error
  missing = [name for name in _NAMES if not hasattr(module, name)]
  if missing:
    raise InputError(f"--module: {str(file)!r} does not define {', '.join(missing)}")
  return module


def summary(rows: Sequence[Row]) -> str:
  """Returns the outcome in one sentence."""
  failed = [row for row in rows if not row.passed]
  if not failed:
    return f"All {len(rows)} checks agree within {TOLERANCE:g}."
  names = "; ".join(" ".join(filter(None, row.of)) for row in failed[:3])
  more = ", ..." if len(failed) > 3 else ""
  return f"{len(failed)} of {len(rows)} checks do NOT agree within {TOLERANCE:g}: {names}{more}."


def markdown(rows: Sequence[Row]) -> str:
  """Returns the report as Markdown."""
  parts = [
    "# Are the gradients right?",
    f"**{report.escape(summary(rows))}**",
    "Gradients derived by hand (`jaxdl/byhand/backprop/`) against `jax.grad` of the project's "
    "models and losses, in float64. The error of a leaf is max |by hand - JAX| / max |JAX|; a row "
    "shows its worst leaf. `loss` is the value itself, `images` the gradient with respect to the "
    "input.",
  ]
  for name, (title, _) in _TITLES.items():
    parts += [f"## {title}", report.markdown_table(_table(name, rows))]
  return "\n\n".join(parts) + "\n"


def _table(name: str, rows: Sequence[Row]) -> list[list[str]]:
  """Returns the rows of one table, header first; rows on finite differences have no error."""
  own = [row for row in rows if row.table == name]
  verdict = {True: "ok", False: "FAILED"}
  if name == "oracle":
    return [[*_TITLES[name][1], "", ""], *([*r.of, verdict[r.passed], r.leaf] for r in own)]
  header = [*_TITLES[name][1], "largest relative error", "in", ""]
  return [header, *([*r.of, f"{r.error:.1e}", r.leaf, verdict[r.passed]] for r in own)]


class _Asked(NamedTuple):
  """What the command line asks for; None if not given."""

  module: pathlib.Path | None
  workdir: pathlib.Path | None
  model: str | None
  loss: str | None
  dataset: str
  data_dir: str | None


def _parse(argv: Sequence[str]) -> _Asked:
  """Reads the command line. No config is needed here."""
  values = flags.FlagValues()
  flags.DEFINE_string("module", None, "Python file with a backward pass.", flag_values=values)
  flags.DEFINE_string("workdir", None, "Directory for the results.", flag_values=values)
  flags.DEFINE_string("model", None, "Model, as in a config.", flag_values=values)
  flags.DEFINE_string("loss", None, "Loss, as in a config.", flag_values=values)
  flags.DEFINE_string("dataset", "digits", "Name of a dataset.", flag_values=values)
  flags.DEFINE_string("data_dir", None, "Directory of prepared datasets.", flag_values=values)
  if {"--help", "-h", "--helpfull"} & set(argv):
    print(f"{__doc__}\n{values.get_help()}")
    sys.exit(0)
  try:
    rest = values(argv)
  except flags.Error as error:
    raise InputError(str(error)) from error
  if len(rest) > 1:
    raise InputError(f"unknown argument {rest[1]!r}; settings are given as --name=value")
  for name in _Asked._fields:
    if values[name].value == "":
      raise InputError(f"--{name} is empty")
  if values.module is not None and (values.model is not None or values.loss is not None):
    raise InputError("--module has a loss of its own; give either --module or --model and --loss")
  module, workdir = (
    None if path is None else files.expand_home(path) for path in (values.module, values.workdir)
  )
  return _Asked(module, workdir, values.model, values.loss, values.dataset, values.data_dir)


def _claim(workdir: pathlib.Path):
  """Makes the directory before anything is computed; refuses to replace what no run has made."""
  with locks.Lock(workdir):
    files.check_replaceable(workdir, _FILES, _FILES[0])


def _write(workdir: pathlib.Path, content: dict, text: str):
  """Writes both files, complete or not at all."""
  content = {"jax": jax.__version__, **content}
  texts = (
    json.dumps(content, indent=2, allow_nan=False) + "\n",
    f"{text}\nJAX {jax.__version__}\n",
  )
  with locks.Lock(workdir), files.staging(workdir, _FILES[0]) as stage:
    for name, text in zip(_FILES, texts, strict=True):
      (stage / name).write_text(text, encoding="utf-8")


def _to_json(row: Row) -> dict:
  names = dict(zip(_TITLES[row.table][1], row.of, strict=True))
  error = _finite(row.error)
  return {"table": row.table, **names, "error": error, "leaf": row.leaf, "passed": row.passed}


def _finite(error: float) -> float | None:
  return error if math.isfinite(error) else None  # JSON has no infinity


if __name__ == "__main__":
  sys.exit(main(sys.argv))
