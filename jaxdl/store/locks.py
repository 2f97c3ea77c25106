"""Locks on files and folders: one process at a time has them, until it releases them or dies."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from jaxdl.errors import InputError
from jaxdl.store import interrupts
from jaxdl.store.files import naming
from jaxdl.store.leases import Lease

_LOCK = ".lock"
_LOCK_ATTEMPTS = 100


@contextlib.contextmanager
def exclusive(file: pathlib.Path) -> Iterator[None]:
  """Holds an exclusive lock on a file, once no other process does; creates the file."""
  with interrupts.waiting(f"the process that has locked {str(file)!r}"):
    while True:
      try:
        with naming(file.parent):
          file.parent.mkdir(parents=True, exist_ok=True)
          held = _hold(file)
        break
      except InputError as error:
        if not isinstance(error.__cause__, BlockingIOError):
          raise
      time.sleep(0.1)
  try:
    yield
  finally:
    held.release()


class Lock:
  """A folder that belongs to this process until it is released or the process dies."""

  def __init__(self, folder: pathlib.Path, patience: float = 0.0):
    """Locks the folder, and creates it if it does not exist.

    Args:
      folder: the folder.
      patience: how long to wait for another process that holds it, in seconds.

    Raises:
      InputError: another process holds it, it cannot be written, or its lock is some other file.
    """
    last = time.monotonic() + patience
    with interrupts.waiting(f"the process that has locked {str(folder)!r}"):
      while True:
        try:
          self._acquire(folder)
          return
        except InputError as error:
          if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() >= last:
            raise
        interrupts.check()
        time.sleep(0.1)

  def _acquire(self, folder: pathlib.Path):
    with naming(folder):
      self._created = [path for path in (folder, *folder.parents) if not path.exists()]
    self._file = folder / _LOCK
    for attempt in range(_LOCK_ATTEMPTS):
      try:
        with naming(folder):
          folder.mkdir(parents=True, exist_ok=True)
          self._held = _hold(self._file)
        return
      except InputError as error:
        if isinstance(error.__cause__, BlockingIOError):
          raise InputError(
            f"workdir {str(folder)!r} is in use by {error.__cause__.strerror}; wait for it, or "
            "choose another workdir"
          ) from error.__cause__
        # Another process that failed may just have deleted the folder, which it had created.
        is_last = attempt == _LOCK_ATTEMPTS - 1
        if is_last or not isinstance(error.__cause__, FileNotFoundError):
          raise

  def release(self):
    """Unlocks the folder, and deletes it if it was created here and is still empty."""
    with contextlib.suppress(OSError):
      self._file.unlink()
    self._held.release()
    for folder in self._created:  # innermost first
      with contextlib.suppress(OSError):
        folder.rmdir()

  def __enter__(self) -> "Lock":
    return self

  def __exit__(self, *_: Any):
    self.release()


def _hold(file: pathlib.Path) -> "_Flock | Lease":
  """Locks a file, which it creates.

  Raises:
    BlockingIOError: another process has locked it, which the error names.
    OSError: it cannot be written.
  """
  try:
    return _Flock(file)
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
      raise
    with contextlib.suppress(OSError):
      file.unlink()
    return Lease(file.with_name(f"{file.name}.lease"))


class _Flock:
  """A file that is locked by the operating system until it is released or the process dies."""

  def __init__(self, file: pathlib.Path):
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
      self._descriptor = os.open(file, flags, 0o666)
      try:
        owner = os.read(self._descriptor, 200).decode(errors="replace").strip()
        if owner and not owner.startswith("process "):
          raise InputError(f"{str(file)!r} is no lock; move it away, or choose another workdir")
        try:
          fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
          raise BlockingIOError(error.errno, owner or "another process") from error
        if _is_file_of(file, self._descriptor):
          os.truncate(self._descriptor, 0)
          text = f"process {os.getpid()} on {socket.gethostname()}\n"
          os.pwrite(self._descriptor, text.encode(), 0)
          return
      except BaseException:
        os.close(self._descriptor)
        raise
      os.close(self._descriptor)  # the previous owner has just deleted it: try again

  def release(self):
    os.close(self._descriptor)


def _is_file_of(file: pathlib.Path, descriptor: int) -> bool:
  try:
    return os.path.samestat(os.stat(file), os.fstat(descriptor))
  except FileNotFoundError:
    return False
