"""The caller's side of `protocol`: workers are processes that take commands line by line."""

import contextlib
import json
import pathlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl.store import interrupts


class WorkerError(RuntimeError):
  """A worker has failed or ended. The message is one line."""


class Worker:
  """One process that trains a network, or several."""

  def __init__(self, python: str, module: str, spec: Mapping[str, Any], root: pathlib.Path):
    """Starts the process and waits until it is ready.

    Args:
      python: interpreter of the environment that has the framework.
      module: module of the worker, e.g. "experiments.peers.torch_peer".
      spec: the fields of `protocol.Spec`.
      root: folder from which `module` can be imported.

    Raises:
      WorkerError: the worker does not start, or rejects the spec.
    """
    with contextlib.ExitStack() as stack:
      path = pathlib.Path(stack.enter_context(interrupts.temporary_folder("jaxdl-benchmark-")))
      (path / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
      log = (path / "log").open("w+", encoding="utf-8", errors="replace")
      self._log = stack.enter_context(log)
      start = time.perf_counter()
      command = [python, "-m", module, str(path / "spec.json")]
      pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
      self._process = stack.enter_context(interrupts.child(command, **pipes, cwd=root, text=True))
      self.ready = self.read()
      self.start_seconds = time.perf_counter() - start
      self._stack = stack.pop_all()

  def send(self, command: str, **fields: Any):
    """Sends a command without waiting for the answer. Raises WorkerError."""
    try:
      self._process.stdin.write(json.dumps({"command": command, **fields}) + "\n")
      self._process.stdin.flush()
    except OSError as error:
      raise WorkerError(f"the worker has ended: {self._last_words()}") from error

  def read(self) -> dict[str, Any]:
    """Waits for the answer to a command. Raises WorkerError."""
    line = self._process.stdout.readline()
    if not line:
      raise WorkerError(f"the worker has ended: {self._last_words()}")
    answer = json.loads(line)
    if "error" in answer:
      raise WorkerError(answer["error"])
    return answer

  def close(self):
    """Kills the process."""
    self._stack.close()

  def _last_words(self) -> str:
    self._log.seek(0)
    lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it left no message"


class Team:
  """Workers that run the same commands concurrently, e.g. one on each core."""

  def __init__(self, python: str, module: str, specs: Sequence[Mapping[str, Any]], root):
    """Starts one worker per spec; see `Worker`."""
    with contextlib.ExitStack() as stack:
      self.workers = []
      for spec in specs:
        worker = Worker(python, module, spec, root)
        stack.callback(worker.close)
        self.workers.append(worker)
      self._stack = stack.pop_all()

  def ask(self, command: str, **fields: Any) -> tuple[float, list[dict[str, Any]]]:
    """Sends a command to all workers; returns the time until all are done (s), and their answers.

    A single worker's own measurement is returned if it has one, because it excludes communication.
    """
    start = time.perf_counter()
    for worker in self.workers:
      worker.send(command, **fields)
    answers = [worker.read() for worker in self.workers]
    seconds = time.perf_counter() - start
    own = answers[0].get("seconds")
    return (own if len(answers) == 1 and isinstance(own, float) else seconds), answers

  def close(self):
    """Ends all workers."""
    self._stack.close()
