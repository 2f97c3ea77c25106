"""How does jaxdl perform on a GPU? One JSON file and one table, in at most ten minutes.

  tools/gpu_check.sh --out=DIR --data=FILE [--wheels=DIR]       on the machine with the GPU
  tools/gpu_check.sh --pack=DIR --data_dir=TFDS                 before, on one with the datasets

runs the parts of `experiments.gpu_parts` one after the other, each as a process of its own with a
time limit. What a part measures is written at once, so a part that fails or is killed loses only
what it had not measured yet, and the next one starts. This module needs Python alone.
"""

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
# Part -> its time limit (s), in the order of importance.
PARTS = {
  "machine": 40,
  "agreement": 100,
  "mnist": 70,
  "populations": 200,
  "pytorch": 90,
  "coursework": 100,
  "memory": 80,
  "profile": 40,
  "loops": 80,
}
# What the parts import, and what fails without it.
_PACKAGES = {
  "jax": "everything",
  "flax": "everything",
  "optax": "everything",
  "absl": "everything",
  "ml_collections": "agreement, pytorch, coursework, mnist",
  "scipy": "agreement, mnist",
  "pandas": "agreement",
  "matplotlib": "agreement",
  "pyarrow": "agreement",
  "sklearn": "agreement",
  "torch": "pytorch",
}
# Parts that train the same programs as one before them, and do not say how long compiling takes.
_CACHED = ("populations", "pytorch", "profile")
# Of the device's memory, in the part that needs more than there is.
_SMALL_SHARE = "0.05"
# On a CPU, where compilers share the cores with what they compile for, parts may take longer.
_CPU_PATIENCE = 2
# A part may use this share of its limit before it stops by itself; the rest is for what it began.
_SHARE = 0.8
_POLL_SECONDS = 0.2


def main(argv: Sequence[str]) -> int:
  """Runs the parts and returns the exit status: 0 if every part ended by itself."""
  parser = argparse.ArgumentParser(prog="tools/gpu_check.sh", allow_abbrev=False)
  parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
  parser.add_argument("--scale", choices=("full", "tiny"), default="full")
  parser.add_argument("--seconds", type=float, default=540, help="for all parts together")
  parser.add_argument("--parts", default=",".join(PARTS), help="some of the parts, with commas")
  parser.add_argument("--data", help="the file that --pack makes; not needed with --scale=tiny")
  parser.add_argument("--out", default="runs/gpu_check", help="folder of the results")
  parser.add_argument("--pack", help="make the data and packages for another machine in a folder")
  parser.add_argument("--data_dir", help="folder of TFDS datasets, for --pack")
  options = parser.parse_args(argv)
  if options.pack:
    paths = {"out": options.pack, "data_dir": options.data_dir}
    given = [f"--{name}={pathlib.Path(path).resolve()}" for name, path in paths.items() if path]
    command = [sys.executable, "-m", "experiments.gpu_parts", "pack", *given]
    return subprocess.run(command, cwd=ROOT, check=False).returncode
  names = options.parts.split(",")
  unknown = [name for name in names if name not in PARTS]
  if unknown:
    parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
  if options.scale == "full" and not (options.data and pathlib.Path(options.data).is_file()):
    parser.error("--scale=full needs the file that --pack makes: --data=FILE")
  return Check(options, names).run()


class Check:
  """One run of the check, with its results so far."""

  def __init__(self, options: argparse.Namespace, names: Sequence[str]):
    """Makes the folder of the results."""
    self.options, self.names = options, names
    self.out = pathlib.Path(options.out).resolve()
    self.out.mkdir(parents=True, exist_ok=True)
    self._lines = self.out / "gpu_check.jsonl"
    self._log = self.out / "gpu_check.log"
    for file in (self._lines, self._log):
      file.write_text("", encoding="utf-8")
    self._end = time.monotonic() + options.seconds
    self._cache = ""
    self._parts: dict[str, dict[str, Any]] = {}

  def run(self) -> int:
    """Runs the parts; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="jaxdl-gpu-check-") as cache:
      self._cache = cache
      return self._run_parts()

  def _run_parts(self) -> int:
    missing = missing_packages()
    if missing:
      print("missing: " + "; ".join(missing), flush=True)
    for name in self.names:
      self._parts[name] = self._run_part(name)
      found = self.write(missing)
      print(part_text(name, found["parts"][name]), flush=True)
    print(_table(_answers(found)), flush=True)
    return int(any(part["status"] != "done" for part in self._parts.values()))

  def _run_part(self, name: str) -> dict[str, Any]:
    left = self._end - time.monotonic()
    limit = min(PARTS[name] * (_CPU_PATIENCE if self.options.device == "cpu" else 1), left)
    if limit < 5:
      return {"status": "not started: out of time", "seconds": 0.0}
    options = self.options
    command = [
      *(sys.executable, "-m", "experiments.gpu_parts", name, f"--device={options.device}"),
      *(f"--scale={options.scale}", f"--out={self._lines}", f"--seconds={_SHARE * limit}"),
      *([f"--data={pathlib.Path(options.data).resolve()}"] if options.data else []),
    ]
    start = time.monotonic()
    with self._log.open("a", encoding="utf-8") as log:
      log.write(f"== {name}\n")
      log.flush()
      status = _run(command, log, limit, self._environment(name))
    if status is None:
      text = f"stopped after {limit:.0f} s"
    else:
      text = "done" if status == 0 else f"failed: {_last_line(self._log)}"
    return {"status": text, "seconds": round(time.monotonic() - start, 1)}

  def _environment(self, name: str) -> dict[str, str]:
    """The environment of a part; a small run does not wait for the compiler's optimisations."""
    more = {}
    if name in _CACHED:
      more["JAX_COMPILATION_CACHE_DIR"] = self._cache
    if name == "memory":
      more["XLA_PYTHON_CLIENT_MEM_FRACTION"] = _SMALL_SHARE
    if self.options.device == "cpu" and self.options.scale == "tiny":
      more["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    return {**os.environ, **more}

  def write(self, missing: Sequence[str]) -> dict[str, Any]:
    """Writes gpu_check.json and gpu_check.md from what there is; returns the content."""
    parts = {name: {**part, "tables": {}, "checks": []} for name, part in self._parts.items()}
    for line in self._lines.read_text(encoding="utf-8").splitlines():
      with contextlib.suppress(ValueError):  # half a line, of a part that was killed
        record = json.loads(line)
        part = parts[record["part"]]
        if "check" in record:
          part["checks"].append({key: record[key] for key in ("check", "value", "holds")})
        else:
          part["tables"].setdefault(record["table"], []).append(record["row"])
    found = {
      "command": [pathlib.Path(sys.executable).name, *sys.orig_argv[1:]],
      "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "missing": list(missing),
      "parts": parts,
    }
    for file, text in (
      ("gpu_check.json", json.dumps(found, indent=2) + "\n"),
      ("gpu_check.md", markdown(found)),
    ):
      (self.out / f".{file}").write_text(text, encoding="utf-8")
      os.replace(self.out / f".{file}", self.out / file)
    return found


def _run(
  command: Sequence[str], log: Any, limit: float, environment: Mapping[str, str]
) -> int | None:
  """Runs a command and what it starts; returns its status, or None: it was killed at the limit."""
  process = subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
  )
  end = time.monotonic() + limit
  try:
    while process.poll() is None and time.monotonic() < end:
      time.sleep(_POLL_SECONDS)
    return process.poll()
  finally:
    with contextlib.suppress(ProcessLookupError):  # also what a finished part has left running
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(file: pathlib.Path) -> str:
  lines = [line.strip() for line in file.read_text("utf-8", "replace").splitlines()]
  return next((line for line in reversed(lines) if line), "no message")[:300]


def missing_packages() -> list[str]:
  """Returns the packages that this Python does not have, each with the parts that need it."""
  return [
    f"{name} ({parts})"
    for name, parts in _PACKAGES.items()
    if importlib.util.find_spec(name) is None
  ]


def markdown(found: Mapping[str, Any]) -> str:
  """Returns the results as Markdown: first what holds, then every table."""
  parts = [part_text(name, part) for name, part in found["parts"].items()]
  missing = [f"Missing: {'; '.join(found['missing'])}."] if found["missing"] else []
  return (
    "\n\n".join(["# GPU check", found["date"], *missing, _table(_answers(found)), *parts]) + "\n"
  )


def _answers(found: Mapping[str, Any]) -> list[dict[str, Any]]:
  words = {True: "yes", False: "no", None: "not measured"}
  return [
    {"question": check["check"], "answer": words[check["holds"]], "measured": check["value"]}
    for part in found["parts"].values()
    for check in part["checks"]
  ]


def part_text(name: str, part: Mapping[str, Any]) -> str:
  """Returns the results of one part as Markdown."""
  texts = [f"## {name}: {part['status']} ({part['seconds']:.0f} s)"]
  for title, rows in part["tables"].items():
    texts += [f"**{title}**", _table(rows)]
  return "\n\n".join(texts)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
  if not rows:
    return "Nothing was measured."
  columns = list(dict.fromkeys(key for row in rows for key in row))
  lines = [columns, ["---"] * len(columns)]
  lines += [[_text(row.get(column, "")) for column in columns] for row in rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
  text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
  return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
