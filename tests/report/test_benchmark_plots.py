"""Pictures of measured times; those of a benchmark are tested with it."""

import numpy as np

from jaxdl.report import benchmark_plots


def test_timings_have_a_dot_each_and_a_median():
  rows = {"$a_1$": np.array([3.0, 1, 200]), "b": np.array([2.5]), "c": np.array([np.nan])}
  figure = benchmark_plots.timings(rows, x_label="time (s)")
  ax = figure.axes[0]
  np.testing.assert_array_equal([len(line.get_xdata()) for line in ax.lines], [3, 1])
  np.testing.assert_array_equal(ax.lines[0].get_xdata(), [3, 1, 200])
  assert np.all(np.abs(ax.lines[0].get_ydata()) < 0.4)
  medians = [c.get_segments()[0][0, 0] for c in ax.collections]
  assert medians == [3, 2.5]
  texts = [text.get_text() for text in ax.texts]
  assert texts == ["3 (1 to 200)", "2.5", "no value", "median (min to max)"]
  assert [label.get_text() for label in ax.get_yticklabels()] == ["$a_1$", "b", "c"]
  assert ax.get_xscale() == "log"
  close = benchmark_plots.timings({"a": np.array([2.0, 3])}, x_label="s")
  assert close.axes[0].get_xscale() == "linear"
