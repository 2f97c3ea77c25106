"""Metrics against settings, costs and sizes: what is drawn are the means and their intervals."""

import numpy as np
import pytest
import scipy.stats
from drawing import LABELS, NAMES, RATES, legend, line, make_lines, marks
from matplotlib.collections import LineCollection

from jaxdl.report import line_plots


def interval(values):
  half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
  return np.mean(values) - half, np.mean(values) + half


@pytest.mark.parametrize(
  ("num_lines", "higher_is_better"), [(1, True), (4, True), (4, False), (5, True)]
)
def test_metric_means_intervals_and_best(num_lines, higher_is_better):
  lines = make_lines(num_lines, diverged=[(0, 4, 1)])
  figure = line_plots.metric_against(lines, higher_is_better=higher_is_better, **LABELS)
  assert len(figure.axes) == (num_lines if num_lines > 4 else 1)
  for index, (name, (x, values)) in enumerate(lines.items()):
    ax = figure.axes[index if num_lines > 4 else 0]
    mean = 100 * np.nanmean(values, axis=1)
    drawn = line(ax, name)
    np.testing.assert_allclose(drawn.get_xydata(), np.column_stack([x, mean]))
    low, high = ax.get_ylim()
    assert np.all((low < mean) & (mean < high))
    best = mean.argmax() if higher_is_better else mean.argmin()
    rings = [np.ravel(m.get_xydata()) for m in ax.lines if m.get_markersize() == 11]
    assert any(np.allclose(ring, [x[best], mean[best]]) for ring in rings)
    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    bar = bars[0 if num_lines > 4 else index].get_segments()[2]
    ends = interval(100 * values[2])
    assert bar[0, 1] == pytest.approx(ends[0]) or bar[0, 1] > ends[0]
    assert bar[1, 1] == pytest.approx(ends[1]) or bar[1, 1] < ends[1]
    if num_lines > 4:
      assert ax.get_title() == name
      assert sum(other.get_color() == "0.8" for other in ax.lines) == num_lines - 1


def test_intervals_of_percentages_stay_between_0_and_100():
  """Of 0.1 and 0.9, Student's interval is from -458 to 558%."""
  values = np.array([[0.1, 0.9], [0.0, 1.0], [0.4, 0.6]])
  ax = line_plots.metric_against({"a": (np.arange(3), values)}, **LABELS).axes[0]
  (bars,) = (c for c in ax.collections if isinstance(c, LineCollection))
  heights = np.array(bars.get_segments())[:, :, 1]
  assert heights.min() >= 0
  assert heights.max() <= 100


@pytest.mark.parametrize(("num_lines", "higher_is_better"), [(3, True), (3, False), (5, True)])
def test_diverged_seeds_are_counted_beyond_the_means(num_lines, higher_is_better):
  diverged = [(0, 4, 0), (0, 4, 1), (2, 3, 0), *((2, 4, seed) for seed in range(4))]
  lines = make_lines(num_lines, diverged=diverged)
  figure = line_plots.metric_against(lines, higher_is_better=higher_is_better, **LABELS)
  axes = figure.axes if num_lines > 4 else [figure.axes[0]] * 3
  written = [(t.get_position()[0], t.get_text()) for ax in dict.fromkeys(axes) for t in ax.texts]
  assert sorted(written) == sorted([(RATES[4], "2"), (RATES[3], "1"), (RATES[4], "4")])
  for ax in dict.fromkeys(axes):
    to_data = (ax.transAxes + ax.transData.inverted()).transform
    for _, height in marks(ax, "x"):
      y = to_data((0, height))[1]
      means = np.concatenate([100 * np.nanmean(v[:3], axis=1) for _, v in lines.values()])
      assert np.all(means > y) if higher_is_better else np.all(means < y)
  assert "number of seeds that diverged, of 4" in legend(figure)


def test_metric_has_an_unsorted_axis_of_any_scale():
  x = np.array([1.0, 0, 4])
  lines = make_lines(1, x=x)
  ax = line_plots.metric_against(lines, percent=False, **LABELS).axes[0]
  assert ax.get_xscale() == "linear"  # there is a zero
  drawn = line(ax, NAMES[0])
  np.testing.assert_array_equal(drawn.get_xdata(), [0, 1, 4])
  np.testing.assert_allclose(drawn.get_ydata(), lines[NAMES[0]][1].mean(axis=1)[[1, 0, 2]])
  assert line_plots.metric_against(make_lines(1), **LABELS).axes[0].get_xscale() == "log"


def test_accuracy_is_the_mean_of_the_seeds_with_a_value():
  y = np.array([[0.5, 0.6, 0.7], [0.6, 0.8, np.nan], [np.nan] * 3])
  curves = {"mlp": (np.array([1, 10, 100]), y), "linear": (np.array([5]), y[:, :1])}
  figure = line_plots.accuracy_against(curves, x_label="wall time (s)")
  ax = figure.axes[0]
  np.testing.assert_allclose(line(ax, "mlp").get_xydata(), [[1, 55], [10, 70], [100, 70]])
  np.testing.assert_allclose(line(ax, "linear").get_xydata(), [[5, 55]])
  assert line(ax, "linear").get_markersize() > line(ax, "mlp").get_markersize()
  assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "wall time (s)")
  assert legend(figure) == ["mlp (diverged: 1 of 3)", "linear (diverged: 1 of 3)"]


@pytest.mark.parametrize(
  ("sizes", "scale", "num_arms"), [([1, 2, 4, 8], "linear", 2), ([1, 4, 16], "log", 5)]
)
def test_ensembles_have_a_dot_each(sizes, scale, num_arms):
  rng = np.random.default_rng(0)
  arms = {
    name: (np.array(sizes), [0.9 + 0.05 * rng.random(16 // size) for size in sizes])
    for name in NAMES[:num_arms]
  }
  figure = line_plots.ensemble_accuracy(arms)
  for index, (name, (_, groups)) in enumerate(arms.items()):
    ax = figure.axes[index if num_arms > 4 else 0]
    assert ax.get_xscale() == scale
    mean = line(ax, name)
    np.testing.assert_array_equal(mean.get_xdata(), sizes)
    np.testing.assert_allclose(mean.get_ydata(), [100 * group.mean() for group in groups])
    dots = [d for d in ax.lines if d.get_linestyle() == "None" and len(d.get_xdata()) > 1]
    dots = dots[0 if num_arms > 4 else index]
    np.testing.assert_array_equal(dots.get_xdata(), np.repeat(sizes, [len(g) for g in groups]))
    np.testing.assert_allclose(dots.get_ydata(), 100 * np.concatenate(groups))
    assert all(tick == int(tick) for tick in ax.get_xticks())
