"""The report of a benchmark: a table, pictures and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import report
from jaxdl.report import benchmark_plots
from jaxdl.report.figures import Figure

_COLUMNS = ("workload", "system", "variant", "members", "s per member and epoch", "ratio", "peak")
_KINDS = ("seconds_per_member_epoch", "seconds_per_pass", "seconds_to_first_epoch")
_CAPTIONS = {
  "ratios": "Ratio to the best peer",
  "members": "Time per member against the number of members",
  "batch_size": "Time against batch size",
  "matmul_peak": "Share of the matmul peak",
}


def seconds(row: Mapping[str, Any]) -> dict[str, float]:
  """Returns the times of a row of results of any kind: median, min and max."""
  return next(row[kind] for kind in _KINDS if kind in row)


def table(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  """Returns the results as rows of cells, header first."""
  rows = [list(_COLUMNS)]
  for row in results:
    summary, ratio = seconds(row), row["ratio_to_best_peer"]
    spread = row["ratio_range"]
    share = row.get("fraction_of_matmul_peak")
    rows.append(
      [
        row["workload"],
        row["system"],
        row.get("variant", ""),
        str(row["num_members"]),
        f"{summary['median']:.3g} ({summary['min']:.3g} to {summary['max']:.3g})",
        "" if ratio is None else f"{ratio:.2f} ({spread[0]:.2f} to {spread[1]:.2f})",
        "" if share is None else f"{share:.0%}",
      ]
    )
  return rows


def pictures(results: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
  """Returns the pictures: file name without suffix -> figure."""
  ours = [r for r in results if r["system"] == "jaxdl" and r["ratio_to_best_peer"] is not None]
  peak = {
    f"{r['workload']}: {r['system']}": np.array([r["fraction_of_matmul_peak"]])
    for r in results
    if r.get("fraction_of_matmul_peak") and "population" not in r["workload"]
  }
  return {
    "ratios": benchmark_plots.ratios(
      {r["workload"]: (r["ratio_to_best_peer"], *r["ratio_range"]) for r in ours},
      x_label="times as fast as the fastest peer, per member",
    ),
    "members": benchmark_plots.against_size(
      _against_members(results), x_label="members", y_label="seconds per member and epoch"
    ),
    "batch_size": benchmark_plots.against_size(
      {"MLP 784-128-64-10": _against_batch_size(results)},
      x_label="batch size",
      y_label="microseconds per example",
    ),
    "matmul_peak": benchmark_plots.timings(
      peak, x_label="share of the measured matmul peak, counting products with zeros"
    ),
  }


def _triple(values: Mapping[str, float]) -> tuple[float, float, float]:
  return values["median"], values["min"], values["max"]


def _against_members(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list]]:
  """Returns workload -> system -> (members, seconds, least, most)."""
  panels: dict[str, dict[str, list]] = {}
  for row in results:
    if row["workload"].startswith("population of "):
      panel = panels.setdefault(row["workload"].removeprefix("population of "), {})
      point = (row["num_members"], *_triple(row["seconds_per_member_epoch"]))
      panel.setdefault(row["system"].split(" of ")[0], []).append(point)
  # Systems that train one network after the other take the same time per member for any number.
  for panel in panels.values():
    most = max((point[0] for line in panel.values() for point in line), default=1)
    for line in panel.values():
      if len(line) == 1 and line[0][0] < most:
        line.append((most, *line[0][1:]))
  return panels


def _against_batch_size(results: Sequence[Mapping[str, Any]]) -> dict[str, list]:
  """Returns system -> (batch size, microseconds per example, least, most)."""
  lines: dict[str, list] = {}
  for row in results:
    if row["workload"].startswith("mlp_"):
      examples = row["examples_per_second"] * row["seconds_per_member_epoch"]["median"]
      times = (1e6 * value / examples for value in _triple(row["seconds_per_member_epoch"]))
      lines.setdefault(row["system"], []).append((row["batch_size"], *times))
  return lines


def markdown(benchmark: Mapping[str, Any]) -> str:
  """Returns the page as Markdown, from the content of `benchmark.json`."""
  missing = [f"{name}: {why}" for name, why in benchmark["missing"].items()]
  disagree = [
    f"{row['workload']}: {row['system']}"
    for row in benchmark["results"]
    if row.get("loss_agrees") is False
  ]
  versions = ", ".join(f"{name} {version}" for name, version in benchmark["versions"].items())
  peak = benchmark["matmul_peak_flops_per_second"] / 1e9
  lines = [
    "# Benchmark",
    f"{report.escape(benchmark['machine'])}; {benchmark['threads']} threads; {benchmark['date']}; "
    f"float32 matmul peak {peak:.0f} GFLOP/s; {report.escape(versions)}.",
    "Times are medians (min to max) of interleaved rounds, after a first epoch that compiles. "
    "`ratio` is the speed per member as a multiple of the fastest peer's, within rounds. `loop by "
    "hand` is a whole-epoch program written around a peer's layers; a peer does not offer it, so "
    "nothing is compared with it. `peak` is the arithmetic rate as a share of the measured matmul "
    "peak, counting products with zeros, most of which jaxdl skips.",
    "Missing: " + ("; ".join(map(report.escape, missing)) if missing else "nothing") + ".",
    "Training losses that do not agree with those of jaxdl: "
    + ("; ".join(map(report.escape, disagree)) if disagree else "none")
    + ".",
    report.markdown_table(table(benchmark["results"])),
    *(f"![{caption}](figures/{name}.png)" for name, caption in _CAPTIONS.items()),
  ]
  return "\n\n".join(lines) + "\n"
