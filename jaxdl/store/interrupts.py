"""Signals that ask a run to stop: once, and it saves where it is; twice, and it is gone."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

# EX_TEMPFAIL of sysexits.h: what failed for now and should be tried again.
EXIT_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
  """A signal asked this process to stop. No error: nothing that handles errors may swallow it."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Has the first SIGTERM or SIGINT raise Interrupted in the main thread, and the second exit."""
  if threading.current_thread() is not threading.main_thread():
    yield  # where signals do not arrive
    return
  received = []

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
