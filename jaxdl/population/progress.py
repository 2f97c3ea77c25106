"""Progress of a population: a bar on a terminal or in a notebook, elsewhere a line now and then."""

import importlib.util
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import tqdm

_LOGGER = logging.getLogger("jaxdl")
_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Progress:
  """Counts member-epochs (one member trained for one epoch) and estimates the time left.

  The rate is measured from the first report on, because the time before it is mostly compilation.
  It is shown only after about one more epoch: workers that make their first reports at almost the
  same time would otherwise look fast. The total shrinks when members stop early, so the time left
  is an upper bound. Several threads may report at the same time.
  """

  def __init__(
    self,
    stream: TextIO | None = None,
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Shows a bar if `stream` is a terminal or a notebook, and writes lines otherwise.

    Lines go to the log if it takes them, as on the command line, else to the stream.

    Args:
      stream: where bar and lines go; None: standard error.
      quiet: show nothing.
      clock: returns the current time in seconds.
    """
    self._stream = sys.stderr if stream is None else stream
    self._new_bar = None if quiet else _bar_for(self._stream)
    self._quiet, self._clock, self._lock = quiet, clock, threading.Lock()
    self._bar: Any = None
    self.start(0, 0)

  @classmethod
  def of(cls, progress: "Progress | bool") -> "Progress":
    """Returns what the argument `progress` of a function stands for: True shows, False does not."""
    return progress if isinstance(progress, Progress) else cls(quiet=not progress)

  def start(self, num_members: int, num_member_epochs: int):
    """Starts counting towards `num_member_epochs`, the most that `num_members` can train."""
    self._num_members, self._total, self._trained, self._done = num_members, num_member_epochs, 0, 0
    self._start, self._logged = self._clock(), -math.inf
    self._first_report: float | None = None
    self._trained_since, self._is_rated = 0, False
    self._reported: set[str] = set()  # chunks
    if self._new_bar is not None and num_members:
      self._bar = self._new_bar(
        total=num_member_epochs, file=self._stream, bar_format=_BAR, dynamic_ncols=True
      )

  def compiling(self):
    """Shows that programs are being compiled, which can take a while before the first epoch."""
    if self._bar is not None:
      self._bar.set_description("compiling")

  def resume(self, trained: int, skipped: int, finished: int):
    """Counts work of an earlier process that this one does not repeat.

    Args:
      trained: member-epochs that were trained.
      skipped: member-epochs that will not be trained, because members stopped.
      finished: members that are done.
    """
    with self._lock:
      self._count(trained, skipped, finished)
      if self._bar is not None:
        self._bar.n += trained
        self._bar.refresh()

  def update(self, chunk: str, epoch: str, trained: int, skipped: int, finished: int):
    """Reports one epoch of one chunk, or all epochs of a chunk that another process trained.

    Args:
      chunk: label of the chunk, e.g. "2/8".
      epoch: label of the epoch, e.g. "3/20".
      trained: member-epochs that were trained.
      skipped: member-epochs that will not be trained, because members stopped.
      finished: members that are done.
    """
    with self._lock:
      now = self._clock()
      self._count(trained, skipped, finished)
      pace = self._pace(chunk, trained, now)
      status = ", ".join([f"{self._done}/{self._num_members} members done", *pace])
      if self._bar is not None:
        self._bar.set_description(f"chunk {chunk}, epoch {epoch}")
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(trained)
      elif not self._quiet and self._is_due(now):
        self._logged = now
        self._write(f"chunk {chunk}, epoch {epoch}: {status}")

  def end_early(self):
    """Lowers the total to what is trained so far, as no more members will be trained."""
    with self._lock:
      self._count(0, self._total - self._trained, 0)

  def close(self):
    """Closes the bar. Call it also when training was interrupted."""
    if self._bar is not None:
      self._bar.close()

  def _count(self, trained: int, skipped: int, finished: int):
    self._trained += trained
    self._total -= skipped
    self._done += finished
    if self._bar is not None:
      self._bar.total = self._total
      if hasattr(self._bar, "container"):  # in a notebook, the widget has a total of its own
        self._bar.container.children[1].max = self._total

  def _write(self, line: str):
    if _LOGGER.isEnabledFor(logging.INFO):
      _LOGGER.info("%s", line)
    else:
      print(line, file=self._stream, flush=True)

  def _pace(self, chunk: str, trained: int, now: float) -> list[str]:
    """Returns the rate and the time left; for the first report, the time since the start."""
    if self._first_report is None:
      self._first_report = now
      self._reported.add(chunk)
      return [f"{now - self._start:.1f} s including compilation"]
    self._trained_since += trained
    elapsed = now - self._first_report
    # The time before the first report includes an epoch and compilation, so it exceeds an epoch.
    self._is_rated |= chunk in self._reported or elapsed >= self._first_report - self._start
    self._reported.add(chunk)
    if not self._is_rated:
      return []
    rate = self._trained_since / max(elapsed, 1e-9)
    left = tqdm.tqdm.format_interval((self._total - self._trained) / rate) if rate else "unknown"
    return [f"{rate:.2f} member-epochs/s", f"{left} left"]

  def _is_due(self, now: float) -> bool:
    is_last = self._done >= self._num_members
    since = 0.0 if self._first_report is None else now - self._first_report
    return is_last or now - self._logged >= _seconds_between_lines(since)


def _seconds_between_lines(elapsed: float) -> float:
  """Returns how long to wait for the next line: a second at first, a minute in long runs."""
  return min(max(1.0, 0.05 * elapsed), 60.0)


def _bar_for(stream: TextIO) -> Callable[..., Any] | None:
  """Returns what makes a bar for a stream; None: lines are better.

  In a notebook the bar is a widget if ipywidgets is installed, and text otherwise.
  """
  # Whoever runs in a notebook has imported it.
  shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
  if hasattr(shell, "kernel"):
    if importlib.util.find_spec("ipywidgets") is None:
      return tqdm.tqdm
    from tqdm import notebook

    return notebook.tqdm
  return tqdm.tqdm if stream.isatty() else None
