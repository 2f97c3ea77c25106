"""Processes that a part of the GPU check starts beside its own."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]


def start_other(
  what: str, file: str, env: Mapping[str, str], options: argparse.Namespace
) -> Callable[[], Any]:
  """Starts `trial` or `steps` and returns a function that waits for it.

  The function returns what the process wrote to its file, or the last line of its error.

  Args:
    what: `trial` or `steps`.
    file: where it writes JSON.
    env: variables that differ from those of this process.
    options: with the `scale` and the `data` to use.
  """
  command = [sys.executable, "-m", "experiments.gpu_parts", what, f"--out={file}"]
  command += [f"--scale={options.scale}", f"--data={options.data or ''}"]
  process = start(command, env)

  def finish():
    said = process.communicate()[1]
    try:
      return json.loads(pathlib.Path(file).read_text("utf-8"))
    except FileNotFoundError:
      return last_line(said)

  return finish


def start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen:
  """Starts a process in the root of the project, with variables that differ from its own."""
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, **pipes)


def last_line(text: str) -> str:
  """Returns the last line of what a process has said, which is its error."""
  return (text.strip().splitlines() or ["no message"])[-1][:300]
