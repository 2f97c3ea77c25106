"""Signals that ask a run to stop: the first has it save its state, the second ends it at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

# EX_TEMPFAIL of sysexits.h: a temporary failure, worth another try.
EXIT_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
  """A signal asked this process to stop. Not an Exception, so that no error handler swallows it."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Makes the first SIGTERM or SIGINT raise Interrupted in the main thread, and the second exit."""
  if threading.current_thread() is not threading.main_thread():
    yield  # signals do not arrive in other threads
    return
  received: list[int] = []

  def receive(number, _):
    if received:
      os._exit(EXIT_STATUS)
    received.append(number)
    raise Interrupted(signal.Signals(number).name)

  before = {number: signal.signal(number, receive) for number in _SIGNALS}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
