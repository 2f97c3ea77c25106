"""Progress by a clock that the test sets."""

import io
import itertools
import logging

import IPython
import pytest

from jaxdl.population.progress import Progress


class _Clock:
  """Seconds that pass when the test says so."""

  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return _Clock()


@pytest.fixture
def lines(caplog):
  """Returns a function that takes the lines logged since it was last called."""
  caplog.set_level(logging.INFO, logger="jaxdl")

  def take():
    taken = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return taken

  return take


def test_the_rate_leaves_out_compiling(clock, lines):
  """Two members of ten epochs: compiled for 58 s, then 2 s an epoch, one member-epoch a second."""
  progress = Progress(io.StringIO(), clock=clock)
  progress.start(2, 20)
  clock.now += 60
  progress.update("1/1", "1/10", 2, 0, 0)
  assert lines() == ["chunk 1/1, epoch 1/10: 0/2 members done, 60.0 s including compilation"]
  clock.now += 2
  progress.update("1/1", "2/10", 2, 0, 0)
  assert lines() == ["chunk 1/1, epoch 2/10: 0/2 members done, 1.00 member-epochs/s, 00:16 left"]
  clock.now += 2
  progress.update("1/1", "3/10", 2, 7, 1)  # one of them stops
  assert lines() == ["chunk 1/1, epoch 3/10: 1/2 members done, 1.00 member-epochs/s, 00:07 left"]


def test_workers_that_report_together_do_not_look_fast(clock, lines):
  """Two workers, a member-epoch a minute each, the second two seconds behind the first."""
  progress = Progress(io.StringIO(), clock=clock)
  progress.start(4, 40)
  clock.now += 90
  progress.update("1/2", "1/10", 2, 0, 0)
  clock.now += 2
  progress.update("2/2", "1/10", 2, 0, 0)
  assert lines()[1] == "chunk 2/2, epoch 1/10: 0/4 members done"
  clock.now += 58
  progress.update("1/2", "2/10", 2, 0, 0)  # 4 member-epochs in a minute since the first report
  assert lines() == ["chunk 1/2, epoch 2/10: 0/4 members done, 0.07 member-epochs/s, 08:30 left"]


def test_chunks_that_report_once_are_rated_when_the_next_ones_are_done(clock, lines):
  """As on a cluster: two workers, each a chunk of 10 member-epochs in 100 s."""
  progress = Progress(io.StringIO(), clock=clock)
  progress.start(4, 40)
  clock.now += 100
  progress.update("1/4", "10/10", 10, 0, 1)
  clock.now += 5
  progress.update("2/4", "10/10", 10, 0, 1)
  assert lines()[1] == "chunk 2/4, epoch 10/10: 2/4 members done"
  clock.now += 95
  progress.update("3/4", "10/10", 10, 0, 1)
  assert lines() == ["chunk 3/4, epoch 10/10: 3/4 members done, 0.20 member-epochs/s, 00:50 left"]


def test_what_an_earlier_process_did_is_counted_but_not_rated(clock, lines):
  progress = Progress(io.StringIO(), clock=clock)
  progress.start(2, 20)
  progress.resume(trained=10, skipped=0, finished=1)
  clock.now += 5
  progress.update("2/2", "1/10", 1, 0, 0)
  clock.now += 3
  progress.update("2/2", "2/10", 1, 0, 0)
  assert lines()[1] == ("chunk 2/2, epoch 2/10: 1/2 members done, 0.33 member-epochs/s, 00:24 left")


def test_a_bar_says_the_same(clock):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  progress = Progress(stream, clock=clock)
  progress.start(2, 20)
  progress.compiling()
  clock.now += 60
  progress.update("1/1", "1/10", 2, 0, 0)
  assert "member-epochs/s" not in stream.getvalue()
  clock.now += 2
  progress.update("1/1", "2/10", 2, 0, 0)
  progress.close()
  last = stream.getvalue().split("\r")[-1]
  assert "4/20" in last
  assert "0/2 members done, 1.00 member-epochs/s, 00:16 left" in last


def test_lines_go_to_the_stream_if_no_log_takes_them_and_become_rarer(clock):
  """A member-epoch a second: lines at seconds 1, 2, ..., later every 5% of the time."""
  stream = io.StringIO()
  progress = Progress(stream, clock=clock)
  progress.start(1, 400)
  times = []
  for epoch in range(1, 400):
    clock.now += 1
    before = stream.tell()
    progress.update("1/1", f"{epoch}/400", 1, 0, 0)
    times += [epoch] * (stream.tell() > before)
  gaps = [after - before for before, after in itertools.pairwise(times)]
  assert times[:3] == [1, 2, 3]
  assert gaps == sorted(gaps)
  assert 0.05 * (times[-2] - 1) <= gaps[-1] <= 0.05 * times[-1] + 1
  assert stream.getvalue().startswith("chunk 1/1, epoch 1/400: 0/1 members done, 1.0 s including")


def test_it_is_silent_where_it_is_not_wanted(clock, lines, capsys):
  progress = Progress.of(False)
  progress.start(1, 2)
  progress.update("1/1", "1/2", 1, 0, 0)
  progress.close()
  assert lines() == []
  assert capsys.readouterr() == ("", "")
  assert Progress.of(progress) is progress


class _Kernel:
  """What IPython's `get_ipython()` returns in a notebook."""

  kernel = None


def test_a_notebook_has_a_widget_whose_total_shrinks(clock, monkeypatch):
  monkeypatch.setattr(IPython, "get_ipython", _Kernel)
  progress = Progress(io.StringIO(), clock=clock)
  progress.start(2, 20)
  progress.update("1/1", "1/10", 2, 0, 0)
  progress.update("1/1", "2/10", 2, 7, 1)
  left, bar, right = progress._bar.container.children
  progress._bar.refresh()  # it is drawn ten times a second at most
  assert (bar.value, bar.max) == (4, 13)
  assert left.value.replace("\u2007", " ") == "chunk 1/1, epoch 2/10:  31%"
  assert "1/2 members done" in right.value.replace("\u2007", " ")
  progress.end_early()  # nothing is left, so it does not end in red
  progress.close()
  assert (bar.max, bar.bar_style) == (4, "success")


def test_a_notebook_without_widgets_has_a_bar_of_text(clock, monkeypatch):
  monkeypatch.setattr(IPython, "get_ipython", _Kernel)
  monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
  stream = io.StringIO()
  progress = Progress(stream, clock=clock)
  progress.start(2, 20)
  progress.update("1/1", "1/10", 2, 0, 0)
  progress.close()
  assert "2/20" in stream.getvalue().split("\r")[-1]
