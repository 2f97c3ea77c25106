"""What a run leaves behind: its folder, tables, text and pictures.

Read `workdir.py` first. Modules that end in `_text` write Markdown, those that end in `_plots` draw
pictures, and `picture_data.py` has the numbers that pictures and the page in `html/` show;
`plots.py` names the pictures for users. Matplotlib and pandas are imported where they are used: a
run that trains first need not wait for them.

Imports: errors, answer, arm, batches, byhand, data, experiment, member, model_summary, nn, optim,
population, recipe, stats, store, train.
"""

from jaxdl.report import html
from jaxdl.report.arm_text import beside_table
from jaxdl.report.finished import FinishedRun, read_run
from jaxdl.report.markdown import escape, markdown_table, number, text_table
from jaxdl.report.origin import provenance
from jaxdl.report.run_text import RUN, render
from jaxdl.report.tables import curves_table, members_table, per_class_table
from jaxdl.report.verdict_text import ranking_rows, verdict_rows
from jaxdl.report.workdir import (
  CONFIG_FILE,
  PROVENANCE_FILE,
  Extra,
  Workdir,
  continued_from,
)

__all__ = (
  "CONFIG_FILE",
  "PROVENANCE_FILE",
  "RUN",
  "Extra",
  "FinishedRun",
  "Workdir",
  "beside_table",
  "continued_from",
  "curves_table",
  "escape",
  "html",
  "markdown_table",
  "members_table",
  "number",
  "per_class_table",
  "provenance",
  "ranking_rows",
  "read_run",
  "render",
  "text_table",
  "verdict_rows",
)
