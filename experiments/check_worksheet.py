"""Which line of a backpropagation by hand is wrong?

  jaxdl check FILE [FILE ...] [--workdir=DIR]

checks worksheets (docs/worksheets.md says how to write one). A plain word in place of FILE is the
name of an example in experiments/worksheets/. For one file it prints a table of the claims and the
first mistake, for several a summary. To DIR it writes `worksheet.json`, `report.md`, `report.html`,
the computation graph, and `feedback.md`, which says where the first mistake is, without the right
values. For several files it writes `summary.json`, `marks.csv`, both reports, and such a folder for
each file. The exit status is 0 if all is right, 1 if a claim is wrong, 2 if a file is not a valid
worksheet.

  jaxdl check FILE --answers

prints the worked solution instead: every step with its formula, its numbers and its value.
"""

import csv
import logging
import pathlib
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags

from jaxdl import report
from jaxdl.byhand import worksheet
from jaxdl.byhand.expressions import write
from jaxdl.byhand.worksheet.checker import CheckedWorksheet
from jaxdl.errors import InputError, one_line, unknown_name
from jaxdl.report import figures, worksheet_plots
from jaxdl.store import files, locks

# Separate flags, because there is no config here.
_FLAGS = flags.FlagValues()
_FLAGS.set_gnu_getopt()  # flags may follow files
_WORKSHEET = flags.DEFINE_multi_string(
  "worksheet", None, "File of a worksheet; may be repeated.", flag_values=_FLAGS
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the results.", flag_values=_FLAGS)

_ANSWERS = flags.DEFINE_bool("answers", False, "Print worked solutions.", flag_values=_FLAGS)

_EXAMPLES = pathlib.Path(__file__).parent / "worksheets"
_JSON, _SUMMARY_JSON, _REPORT, _GRAPH = "worksheet.json", "summary.json", "report.md", "graph"
_FEEDBACK, _MARKS, _PAGE = "feedback.md", "marks.csv", "report.html"

# Each file as it was given, with the checked worksheet or the error in it.
Results = list[tuple[str, CheckedWorksheet | InputError]]


def main(argv: Sequence[str]):
  """Checks, prints and writes; exits with a status."""
  del argv
  if _ANSWERS.value:
    sys.exit(_print_answers(_WORKSHEET.value))
  results: Results = []
  for file in _WORKSHEET.value:
    try:
      results.append((file, worksheet.check(files.expand_home(file))))
    except InputError as error:
      _complain_about(file, error)
      results.append((file, error))
  try:
    _print_results(results)
    if _WORKDIR.value is not None:
      _write_results(results, files.expand_home(_WORKDIR.value))
  except InputError as error:
    _complain(error)
    sys.exit(2)
  sys.exit(max(_status(result) for _, result in results))


def _print_answers(worksheets: Sequence[str]) -> int:
  """Prints the worked solutions; returns the exit status."""
  status = 0
  for file in worksheets:
    try:
      lines = worksheet.answers(files.expand_home(file))
    except InputError as error:
      _complain_about(file, error)
      status = 2
      continue
    if len(worksheets) > 1:
      print(one_line(f"{file}\n"))
    print("\n".join(lines))
  return status


def _status(result: CheckedWorksheet | InputError) -> int:
  if isinstance(result, InputError):
    return 2
  return 0 if result.first_wrong is None else 1


def _complain_about(file: str, error: InputError):
  _complain(error if file in str(error) else f"{file}: {error}")


def _complain(error: object):
  print(f"error: {one_line(error)}", file=sys.stderr)


# --- In the terminal ---


def _print_results(results: Results):
  if len(results) > 1:
    print(report.text_table(_summary_rows(results)) + "\n")
    for file, result in results:
      if isinstance(result, CheckedWorksheet):
        print(one_line(f"{file}: {worksheet.first_slip(result)}"))
        for remark in _remarks(result):
          print(one_line(f"  {remark}"))
  elif isinstance(results[0][1], CheckedWorksheet):
    checked = results[0][1]
    print(one_line(checked.title) + "\n")
    print(report.text_table(worksheet.rows(checked)))
    print()
    for line in (worksheet.first_slip(checked), *_remarks(checked), worksheet.marks(checked)):
      print(one_line(line))


def _remarks(checked: CheckedWorksheet) -> list[str]:
  """Returns all remarks but the one that is said of what is wrong first."""
  first = worksheet.first_slip(checked)
  remarks = dict.fromkeys(claim.remark for claim in checked.claims if claim.remark)
  return [remark for remark in remarks if remark not in first]


def _summary_rows(results: Results) -> list[list[str]]:
  """Returns a row per file, header first."""
  rows = [["file", "title", "marks", *worksheet.STATUSES, "first mistake"]]
  for file, result in results:
    if isinstance(result, InputError):
      rows.append([file, "", "", *("" for _ in worksheet.STATUSES), "not a valid worksheet"])
      continue
    counts = [str(count) for count in result.counts.values()]
    first = result.first_wrong
    mistake = "none" if first is None else f"{first.of} = {first.claimed}"
    title = result.title if len(result.title) <= 40 else f"{result.title[:37]}..."
    rows.append([file, title, f"{result.marks:g} of {result.points:g}", *counts, mistake])
  return rows


# --- In the workdir ---


def _write_results(results: Results, workdir: pathlib.Path):
  """Writes all results; either all files are complete, or none is written.

  Raises:
    InputError: if the directory cannot be written or holds the results of something else.
  """
  checked = [(file, r) for file, r in results if isinstance(r, CheckedWorksheet)]
  if not checked:
    return
  with locks.Lock(workdir), files.staging(workdir) as stage:
    if len(results) == 1:
      _write_worksheet(stage, checked[0][1])
    else:
      _write_summary(stage, results)
  print(f"\nReport: {one_line(workdir / _PAGE)}")


def _write_worksheet(folder: pathlib.Path, checked: CheckedWorksheet):
  figures.save(worksheet_plots.computation_graph(checked), folder / _GRAPH)
  text = markdown(checked)
  _write_text(folder / _REPORT, text)
  _write_text(folder / _PAGE, report.html.document(text, folder))
  sentence, table = worksheet.feedback(checked)
  parts = [f"# {report.escape(checked.title)}", report.escape(sentence)]
  parts += [report.escape(worksheet.marks(checked)), report.markdown_table(table)]
  _write_text(folder / _FEEDBACK, "\n\n".join(parts) + "\n")
  files.write_json(folder / _JSON, worksheet.to_json(checked))


def _write_summary(stage: pathlib.Path, results: Results):
  names = _folder_names([file for file, _ in results])
  entries, sections = [], []
  for (file, result), name in zip(results, names, strict=True):
    if isinstance(result, InputError):
      entries.append({"file": file, "folder": None, "error": str(result)})
      sections.append(f"- {report.escape(file)}: not a valid worksheet: {report.escape(result)}")
      continue
    (stage / name).mkdir()
    _write_worksheet(stage / name, result)
    first = worksheet.first_slip(result)
    counts = result.counts
    entries.append(
      {
        "file": file,
        "folder": name,
        "title": result.title,
        "marks": result.marks,
        "points": result.points,
        **counts,
        "first_slip": first,
        "remarks": _remarks(result),
      }
    )
    sections.append(f"- [{report.escape(file)}]({name}/{_REPORT}): {report.escape(first)}")
    sections += [f"  - {report.escape(remark)}" for remark in _remarks(result)]
  parts = ["# Worksheets", report.markdown_table(_summary_rows(results)), "\n".join(sections)]
  text = "\n\n".join(parts) + "\n"
  _write_text(stage / _REPORT, text)
  _write_text(stage / _PAGE, report.html.document(text.replace(f"/{_REPORT})", f"/{_PAGE})")))
  files.write_json(stage / _SUMMARY_JSON, {"worksheets": entries})
  checked = {file: result for file, result in results if isinstance(result, CheckedWorksheet)}
  with open(stage / _MARKS, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
    for row in worksheet.marks_table(checked):
      # A spreadsheet would compute what begins like a formula.
      csv.writer(file).writerow([f"'{cell}" if cell[:1] in tuple("=+-@") else cell for cell in row])


def _folder_names(sheets: Sequence[str]) -> list[str]:
  """Returns a folder's name for each file, distinct even if case is ignored."""
  names: list[str] = []
  used = {_REPORT, _PAGE, _SUMMARY_JSON, _MARKS, _FEEDBACK, _JSON, files.MANIFEST}
  used |= {f"{_GRAPH}.png", f"{_GRAPH}.svg"}
  for file in sheets:
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", pathlib.Path(file).stem)[:80].strip(".") or "worksheet"
    name, number = stem, 1
    while name.casefold() in used:
      number += 1
      name = f"{stem}-{number}"
    used.add(name.casefold())
    names.append(name)
  return names


def markdown(checked: CheckedWorksheet) -> str:
  """Returns the report on one worksheet as Markdown."""
  parts = [
    f"# {report.escape(checked.title)}",
    f"**{report.escape(worksheet.first_slip(checked))}**",
    *(report.escape(remark) for remark in _remarks(checked)),
    report.escape(worksheet.marks(checked)),
    f"![The computation graph]({_GRAPH}.png)",
    "## Claims",
    report.markdown_table(_marked(checked)),
    _LEGEND,
    "## Equations",
    report.markdown_table(
      [
        ["node", "equation", "value"],
        *(
          [name, checked.worksheet.formulas[name], worksheet.show_value(checked.values[name])]
          for name in checked.worksheet.equations
        ),
      ]
    ),
  ]
  steps = checked.worksheet.steps
  if steps.explicit:
    rules = [[f"{name}'", write(rule)] for name, rule in steps.rules.items()]
    parts += ["## Gradient step", report.markdown_table([["after the step", "rule"], *rules])]
  return "\n\n".join(parts) + "\n"


def _marked(checked: CheckedWorksheet) -> list[list[str]]:
  """Returns the table of claims with marked slips, and a column of workings if there are any."""
  header, *rows = worksheet.rows(checked)
  has_working = any(claim.working for claim in checked.claims)
  marked = [[*header, "working"] if has_working else header]
  for (claim, *_), row in zip(worksheet.groups(checked), rows, strict=True):
    row[4] = f"✗ {claim.status}" if claim.status in worksheet.WRONG else claim.status
    marked.append([*row, claim.working or ""] if has_working else row)
  return marked


_LEGEND = (
  "*exact*: right to half a unit of the last digit. *truncated*: right, but cut off instead of "
  "rounded. *carried*: follows from the claims before it, which were rounded, cut off or wrong. "
  "*slip*: wrong in this line; the last number is what the claims before it lead to. "
  "*wrong formula*: computed correctly from a line of working that is wrong. "
  "*inconsistent*: contradicts what was given."
)


def _write_text(file: pathlib.Path, text: str):
  file.write_text(text, encoding="utf-8", errors="backslashreplace")


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags; exits with status 2 on a mistake in them."""
  if {"--help", "-h", "--helpfull"} & set(argv):
    print(f"{__doc__}\n{_FLAGS.get_help()}")
    sys.exit(0)
  try:
    rest = _FLAGS(argv)
    _FLAGS.worksheet = [*(_WORKSHEET.value or []), *map(_find, rest[1:])]
    if not _WORKSHEET.value:
      raise InputError("--worksheet is missing")
    if _WORKDIR.value == "":
      raise InputError("--workdir is empty")
  except (flags.Error, InputError) as error:
    _complain(error)
    sys.exit(2)
  logging.getLogger("jax").setLevel(logging.WARNING)
  return rest


def _find(given: str) -> str:
  """Returns the file that an argument means: a plain word is the name of an example."""
  if not given.isidentifier():
    return given
  names = [path.stem for path in _EXAMPLES.glob("*.toml")]
  if given not in names:
    raise unknown_name("worksheet", given, names)
  return f"{_EXAMPLES / given}.toml"


def run(entry: Callable[[Sequence[str]], None] = main):
  """Runs `entry` from the command line."""
  entry(_parse_flags(sys.argv))


if __name__ == "__main__":
  run()
