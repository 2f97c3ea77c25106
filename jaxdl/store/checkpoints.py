"""The checkpoints of a chunk, a folder EPOCH/ each, saved by Orbax; the thread that saves them.

Orbax saves a checkpoint as a single array of bytes, because its cost grows with the number of
arrays (measured: 30 ms of a core for one, 90 ms for 40).
"""

import contextlib
import logging
import pathlib
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxdl.errors import InputError, brief
from jaxdl.store.packing import Arrays

# Checkpoints kept of each chunk: if the newest is damaged, the one before it is used.
_KEPT = 2
# Orbax numbers its operations in one sequence per process, so two at a time would wait for each
# other's files and fail.
_ORBAX = threading.Lock()


class Saver:
  """A thread that writes checkpoints, one at a time, and of each chunk only the newest.

  It replaces Orbax's background saving, which handles one checkpoint at a time per process.
  """

  def __init__(self, write: Callable[[str, int, Arrays], None], folder: str):
    """Starts nothing yet.

    Args:
      write: (name of the chunk, epoch, arrays) -> None, writes a checkpoint.
      folder: of the run, for messages.
    """
    self._write, self._folder = write, folder
    self._pending: dict[str, tuple[int, Arrays]] = {}
    self._writing: str | None = None
    self._error: Exception | None = None
    self._closed = False
    self._changed = threading.Condition()
    self._thread: threading.Thread | None = None

  def save(self, name: str, epoch: int, arrays: Arrays):
    """Has a checkpoint of a chunk written in the background. Raises what an earlier one raised."""
    with self._changed:
      self._check()
      self._pending[name] = (epoch, arrays)
      if self._thread is None:
        # A daemon, so that a second signal need not wait for the disk.
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()
      self._changed.notify_all()

  def drop(self, name: str):
    """Discards a chunk's pending checkpoint; returns when none of it is being written."""
    with self._changed:
      self._pending.pop(name, None)
      self._changed.wait_for(lambda: self._writing != name)

  def flush(self):
    """Waits until all are written. Raises InputError: one could not be written."""
    with self._changed:
      self._changed.wait_for(lambda: not self._pending and self._writing is None)
      self._check()

  def close(self):
    """Waits until all are written or one has failed, then ends the thread."""
    with self._changed:
      self._closed = True
      self._changed.notify_all()
    if self._thread is not None:
      self._thread.join()

  def _check(self):
    if self._error is not None:
      raise self._error

  def _work(self):
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._pending or self._closed)
        if not self._pending:
          return
        name = next(iter(self._pending))
        epoch, arrays = self._pending.pop(name)
        self._writing = name
      error = None
      try:
        self._write(name, epoch, arrays)
      except InputError as raised:
        error = raised
      except Exception as raised:  # Orbax and TensorStore raise errors of many types
        error = InputError(f"cannot write a checkpoint to {self._folder!r}: {_reason(raised)}")
      with self._changed:
        self._writing = None
        self._error = self._error or error
        if error is not None:
          self._pending.clear()
        self._changed.notify_all()


def _reason(error: Exception) -> str:
  """Returns the operating system's message, which libraries wrap in their own."""
  text = str(error)
  for known in ("No space left on device", "File too large", "Permission denied", "Read-only"):
    if known in text:
      return known
  return getattr(error, "strerror", None) or brief(error)


def save(folder: pathlib.Path, epoch: int, content: bytes):
  """Saves a checkpoint of a chunk, and deletes all but its newest ones."""
  folder.mkdir(parents=True, exist_ok=True)
  tree = {"packed": np.frombuffer(content, np.uint8)}
  try:
    with _checkpointer() as (ocp, checkpointer):
      args = ocp.args.StandardSave(tree)
      checkpointer.save(folder.absolute() / str(epoch), args=args, force=True)
  except Exception:
    for unfinished in folder.glob(f"{epoch}.orbax*"):
      shutil.rmtree(unfinished, ignore_errors=True)
    raise
  for old in epochs(folder)[_KEPT:]:
    # Renamed first, so that a half-deleted checkpoint is never taken for a whole one.
    aside = folder / f".{old}"
    (folder / str(old)).rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def restore(folder: pathlib.Path, epoch: int) -> bytes:
  """Returns the content of a checkpoint. Orbax and TensorStore raise errors of many types."""
  with _checkpointer() as (ocp, checkpointer):
    tree = checkpointer.restore(folder.absolute() / str(epoch), args=ocp.args.StandardRestore())
  return np.asarray(tree["packed"]).tobytes()


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
  """Yields Orbax and a checkpointer; one thread at a time."""
  with _ORBAX:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      import orbax.checkpoint as ocp  # imported here because it takes a second

    # The caller reports failures, in one line.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      yield ocp, checkpointer


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  return "orbax" not in record.pathname


def epochs(folder: pathlib.Path) -> list[int]:
  """Returns the epochs of a chunk's checkpoints, the newest first."""
  return sorted((int(p.name) for p in folder.glob("*") if p.name.isdecimal()), reverse=True)


def delete(folder: pathlib.Path):
  """Deletes the checkpoints of a chunk."""
  for epoch in epochs(folder):
    shutil.rmtree(folder / str(epoch), ignore_errors=True)
  with contextlib.suppress(OSError):  # there is none, or something else is in it
    folder.rmdir()
