"""Leases: locks that are files and nothing else.

They are for file systems that have no `flock`, or have it on each machine for itself, and for what
processes on many machines share out. All that a lease needs is that creating and replacing a file
are atomic.
"""

import contextlib
import errno
import os
import pathlib
import re
import socket
import threading
import time
import uuid
from typing import Any

# A lease is renewed this often, and another process may take it once it is this old. A process that
# is suspended longer than that finds that it has lost it.
_RENEW_SECONDS = 10.0
_STALE_SECONDS = 60.0
# How long processes that find the same old lease wait to see which of them has got it.
_SETTLE_SECONDS = 0.5


class Lease:
  """A file that belongs to this process until it is released, or the process ends."""

  def __init__(self, file: pathlib.Path):
    """Takes the lease; creates the file and its folder.

    Raises:
      BlockingIOError: another process has it, which the error names.
      OSError: the file cannot be written.
    """
    self._file, self._released = file, threading.Event()
    self._text = f"process {os.getpid()} on {_host()}, {uuid.uuid4().hex}\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(file, "x", encoding="utf-8") as stream:
        stream.write(self._text)
    except FileExistsError:
      self._take_over()
    threading.Thread(target=self._renew, name="lease", daemon=True).start()

  def _take_over(self):
    temporary = _beside(self._file)
    try:
      temporary.write_text(self._text, encoding="utf-8")
      if not _is_abandoned(self._file, temporary):
        owner = read(self._file) or "another process"
        raise BlockingIOError(errno.EAGAIN, owner.partition(",")[0])
      os.replace(temporary, self._file)
      time.sleep(_SETTLE_SECONDS)
      if not self.is_held():
        raise BlockingIOError(errno.EAGAIN, "another process")
    except FileNotFoundError as error:  # it has just been released
      raise BlockingIOError(errno.EAGAIN, "another process") from error
    finally:
      with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)

  def is_held(self) -> bool:
    """Whether no other process has taken the lease since."""
    return read(self._file) == self._text

  def release(self):
    """Gives the lease back."""
    self._released.set()
    with contextlib.suppress(OSError):
      if self.is_held():
        self._file.unlink()

  def _renew(self):
    while not self._released.wait(_RENEW_SECONDS):
      with contextlib.suppress(OSError):  # the next time, perhaps
        if self.is_held():
          os.utime(self._file)

  def __enter__(self) -> "Lease":
    return self

  def __exit__(self, *_: Any):
    self.release()


def is_live(file: pathlib.Path) -> bool:
  """Whether a lease belongs to a process that has not ended, as far as this machine can tell.

  Raises:
    OSError: its folder cannot be written.
  """
  temporary = _beside(file)
  try:
    temporary.touch()
    return not _is_abandoned(file, temporary)
  except FileNotFoundError:  # it has just been released
    return False
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def _beside(file: pathlib.Path) -> pathlib.Path:
  return file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")


def _is_abandoned(file: pathlib.Path, now: pathlib.Path) -> bool:
  """Whether the owner of a lease has ended, or has not renewed it for long.

  Args:
    file: the lease.
    now: a file beside it that was written just now: both times are those of the file system, which
      may be on another machine.
  """
  written, renewed = os.stat(now).st_mtime, os.stat(file).st_mtime
  owner = read(file)
  return owner is not None and (written - renewed > _STALE_SECONDS or _has_ended(owner))


def read(file: pathlib.Path) -> str | None:
  """Returns what a lease says of its owner; None if there is none."""
  try:
    return file.read_text(encoding="utf-8", errors="replace")
  except FileNotFoundError:
    return None


def _has_ended(owner: str) -> bool:
  """Whether the owner of a lease was a process of this machine that is no more."""
  match = re.fullmatch(r"process (\d+) on (.+), [0-9a-f]{32}\n", owner)
  if match is None or match[2] != _host():
    return False
  try:
    os.kill(int(match[1]), 0)
  except ProcessLookupError:
    return True
  except PermissionError:  # it is another user's
    return False
  try:  # its parent may not have asked for its status yet
    return pathlib.Path(f"/proc/{match[1]}/stat").read_bytes().rpartition(b") ")[2][:1] == b"Z"
  except OSError:
    return False


def _host() -> str:
  """Returns what tells apart machines, and containers that count their processes on their own."""
  name = socket.gethostname()
  with contextlib.suppress(OSError):
    name += " " + os.readlink("/proc/self/ns/pid")
  return name
