"""Progress of a population: a bar on a terminal, log lines elsewhere, at most one a second."""

import logging
import math
import sys
import threading
import time
from typing import TextIO

import tqdm

_LOGGER = logging.getLogger("jaxdl")
_SECONDS_BETWEEN_LINES = 1.0


class Progress:
  """Counts member-epochs (one member trained for one epoch) and says how long the rest will take.

  The total shrinks when members stop early, so the time left is an upper bound that comes down.
  Several workers may report at the same time.
  """

  def __init__(self, stream: TextIO | None = None, quiet: bool = False):
    """Shows a bar on `stream` (default: standard error) if that is a terminal, else logs.

    Args:
      stream: where.
      quiet: show nothing, log nothing.
    """
    self._stream = sys.stderr if stream is None else stream
    self._on_terminal, self._quiet = not quiet and self._stream.isatty(), quiet
    self._bar = None
    self._lock = threading.Lock()
    self._trained = self._earlier = self._total = self._done = self._num_members = 0
    self._start, self._logged = time.monotonic(), -math.inf

  def start(self, num_members: int, num_member_epochs: int):
    """Begins to count towards `num_member_epochs`, the most that `num_members` can train."""
    self._num_members, self._total, self._trained, self._done = num_members, num_member_epochs, 0, 0
    self._earlier = 0
    self._start, self._logged = time.monotonic(), -math.inf
    if self._on_terminal:
      self._bar = tqdm.tqdm(
        total=num_member_epochs, file=self._stream, unit=" member-epochs", dynamic_ncols=True
      )

  def compiling(self):
    """Says that a program is being compiled, which can take a while before the first epoch."""
    if self._bar is not None:
      self._bar.set_description("compiling")

  def resume(self, trained: int, skipped: int, finished: int):
    """Counts what an earlier process has done, as far as this one does not do it again.

    Args:
      trained: member-epochs that were trained.
      skipped: member-epochs that will not be, because members stopped.
      finished: members that trained for the last time.
    """
    with self._lock:
      self._trained += trained
      self._earlier += trained
      self._total -= skipped
      self._done += finished
      if self._bar is not None:
        self._bar.total = self._total
        self._bar.initial += trained
        self._bar.n += trained
        self._bar.refresh()

  def update(self, chunk: str, epoch: str, trained: int, skipped: int, finished: int):
    """Reports one epoch of one chunk.

    Args:
      chunk: which chunk this is, e.g. "2/8".
      epoch: which epoch this was, e.g. "3/20".
      trained: members that trained in it.
      skipped: member-epochs that will not be trained, because members stopped.
      finished: members that trained for the last time.
    """
    with self._lock:
      self._trained += trained
      self._total -= skipped
      self._done += finished
      if self._bar is not None:
        self._bar.total = self._total
        self._bar.set_description(f"chunk {chunk}, epoch {epoch}")
        self._bar.set_postfix_str(f"{self._done}/{self._num_members} members done", refresh=False)
        self._bar.update(trained)
        return
      now = time.monotonic()
      if self._quiet:
        return
      if now - self._logged < _SECONDS_BETWEEN_LINES and self._done < self._num_members:
        return
      self._logged = now
      rate = (self._trained - self._earlier) / max(now - self._start, 1e-9)
      left = tqdm.tqdm.format_interval((self._total - self._trained) / rate) if rate else "unknown"
      _LOGGER.info(
        "chunk %s, epoch %s: %d/%d members done, %.2f member-epochs/s, %s left",
        *(chunk, epoch, self._done, self._num_members, rate, left),
      )

  def close(self):
    """Ends the bar, also when training was interrupted."""
    if self._bar is not None:
      self._bar.close()
