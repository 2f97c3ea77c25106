"""Signals that ask a process to stop, and what ends with it: its children and temporary folders.

Python runs the handler of a signal in the main thread. An exception that it raises is lost if JAX
has just called Python from C++, and comes late while a program is compiled. So a thread reads the
signals and notes them, and what can stop asks for them with `check`.
"""

import contextlib
import fcntl
import functools
import logging
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any, NoReturn

_LOGGER = logging.getLogger("jaxdl")

# EX_TEMPFAIL of sysexits.h: a temporary failure, worth another try.
EXIT_STATUS = 75
# How the names of folders end that may be deleted.
_TEMPORARY = ".jaxdl-temporary"

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long a program may take to stop. Schedulers of clusters usually allow 30 seconds between the
# first signal and the kill.
_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.1
# No wait is longer without a line that says for what.
_SILENT_SECONDS = 10.0
# Has the id of the process that a child must not outlive.
_PARENT = "JAXDL_PARENT"

_is_program = False
_blocks = 0  # of `interruptible`, one inside the other
_received: list[str] = []  # what has asked this process to stop, since the first of these blocks
_at_end: list[Callable[[], object]] = []
_for_good = contextlib.ExitStack()


class Interrupted(BaseException):
  """A signal asked this process to stop. Not an Exception, so that no error handler swallows it."""


def install():
  """Makes SIGTERM and SIGINT end this program in one line, and lets it end with its parent.

  Call it once, in the main thread, before anything that takes long to import.
  """
  global _is_program
  _is_program = True
  _for_good.enter_context(_listening())
  if os.environ.get(_PARENT) == str(os.getppid()):
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Makes the first SIGTERM or SIGINT a note for `check`, and the second end the process.

  A program (see `install`) also ends if it has not left the block within twenty seconds.
  """
  global _blocks
  if threading.current_thread() is not threading.main_thread():
    yield  # signals do not arrive in other threads
    return
  with contextlib.nullcontext() if _is_program or _blocks else _listening():
    _blocks += 1
    try:
      yield
    finally:
      _blocks -= 1
      if not _blocks:
        _received.clear()


def check():
  """Raises Interrupted if a signal has asked this process to stop."""
  if _received:
    raise Interrupted(_received[0])


def end(name: str) -> NoReturn:
  """Ends this process at once, in one line, with its children and temporary folders."""
  say(name)
  for function in reversed(_at_end):
    with contextlib.suppress(Exception):
      function()
  os._exit(EXIT_STATUS)


def say(name: str):
  """Prints in one line what has interrupted this process."""
  with contextlib.suppress(OSError, ValueError):  # whoever reads it may be gone
    sys.stdout.flush()
    print(f"interrupted by {name}; run the same command again to continue", file=sys.stderr)
    sys.stderr.flush()


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
  """Says what this process is waiting for, once the block has taken ten seconds."""
  timer = threading.Timer(_SILENT_SECONDS, _LOGGER.warning, ("waiting for %s", what))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
  """Yields the name of a folder that is deleted after the block, or when a signal ends it.

  A process that is killed leaves its folder; the next one with this prefix deletes it.
  """
  _delete_abandoned(prefix)
  # Locked before it has its name, so that nobody takes it for abandoned.
  hidden = pathlib.Path(tempfile.mkdtemp(prefix=f".{prefix}", suffix=_TEMPORARY))
  lock = os.open(hidden, os.O_RDONLY)  # not inherited by programs that this process starts
  with contextlib.suppress(OSError):  # no locks here: then nobody finds it unlocked
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  folder = str(hidden.rename(hidden.with_name(hidden.name.removeprefix("."))))
  delete = functools.partial(shutil.rmtree, folder, ignore_errors=True)
  try:
    with _cleaning(delete):
      yield folder
  finally:
    delete()
    os.close(lock)


def _delete_abandoned(prefix: str):
  """Deletes the temporary folders of processes that were killed: nobody holds their lock."""
  # Eight characters are drawn for a name. A folder that a user calls otherwise is the user's.
  for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{prefix}{'?' * 8}{_TEMPORARY}"):
    with contextlib.suppress(OSError):  # somebody's, or somebody else deletes it
      lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid == os.geteuid():
          shutil.rmtree(folder)
      finally:
        os.close(lock)


@contextlib.contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
  """Yields a process that is killed after the block, or when a signal ends it.

  A program of this project (see `install`) also stops when this process is killed.

  Args:
    command: as of `subprocess.Popen`.
    **options: likewise.
  """
  environment: Mapping[str, str] = options.pop("env", os.environ)
  environment = {**environment, _PARENT: str(os.getpid())}
  process = subprocess.Popen(command, env=environment, **options)
  try:
    with _cleaning(process.kill):
      yield process
  finally:
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
      with contextlib.suppress(OSError):  # what was not written cannot be flushed
        if pipe is not None:
          pipe.close()
    process.wait()


def run_child(command: Sequence[str], **options: Any) -> int:
  """Runs a program as `child` does; if this process is asked to stop, the program is, too.

  Returns:
    The exit status; `EXIT_STATUS` if the program has said that it was interrupted.

  Raises:
    Interrupted: this process was asked to stop, and the program has not said so.
  """
  # In a process group of its own, as a terminal sends Ctrl-C to all of this one's.
  with interruptible(), child(command, process_group=0, **options) as process:
    while process.poll() is None and not _received:
      time.sleep(_POLL_SECONDS)
    if _received:
      process.send_signal(getattr(signal, _received[0], signal.SIGTERM))
    status = process.wait()
    if status != EXIT_STATUS:
      check()
    return status


@contextlib.contextmanager
def spared() -> Iterator[None]:
  """Has threads that start in this block, and their children, get no Ctrl-C from a terminal.

  It sends SIGINT to every process in the foreground, and this one decides what becomes of them.
  """
  resource_tracker.ensure_running()  # whoever starts it loses the block
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _cleaning(function: Callable[[], object]) -> Iterator[None]:
  _at_end.append(function)
  try:
    yield
  finally:
    _at_end.remove(function)


@contextlib.contextmanager
def _listening() -> Iterator[None]:
  """Has a thread receive the signals, whatever the main thread does."""
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  # Python writes the numbers of signals that have a handler to this file.
  handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
  file = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  threading.Thread(target=_read, args=(reader,), name="signals", daemon=True).start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(file)
    for number, handler in handlers.items():
      signal.signal(number, handler)
    writer.close()


def _read(reader: socket.socket):
  with reader:
    while numbers := reader.recv(1):
      if numbers[0] in _SIGNALS:
        _receive(signal.Signals(numbers[0]).name)


def _watch_parent(parent: int):
  while os.getppid() == parent:
    time.sleep(1)
  _receive(f"the end of process {parent}")


def _receive(name: str):
  _received.append(name)
  if not _blocks or len(_received) > 1:
    end(name)
  if _is_program:
    timer = threading.Timer(_PATIENCE_SECONDS, lambda: end(name) if name in _received else None)
    timer.daemon = True
    timer.start()
