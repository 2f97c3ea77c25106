"""The distribution of a metric: dots are members, bars their intervals."""

import numpy as np
import pytest
import scipy.stats
from drawing import make_population, panel
from matplotlib.collections import LineCollection

from jaxdl.errors import InputError
from jaxdl.report import curve_plots, score_plots


def test_dots_lines_and_means_are_the_members():
  population = make_population(num_seeds=5, num_arms=3, diverged=[(2, 1, 3)])
  figure = score_plots.metric_distribution(population)
  ax = figure.axes[0]
  values = 100 * population.metrics["test_accuracy"]
  dots = [line for line in ax.lines if len(line.get_xdata()) == 5]
  for arm, line_of_dots in enumerate(dots):
    np.testing.assert_allclose(line_of_dots.get_xdata(), values[:, arm])
    heights = line_of_dots.get_ydata()
    assert len(set(heights)) == 5
    assert np.all(np.abs(heights - arm) < 0.4)
  pairs = ax.collections[0].get_paths()
  np.testing.assert_allclose([path.vertices[:, 0] for path in pairs], values)
  means = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
  np.testing.assert_allclose(means, np.nanmean(values, axis=0))
  kept = np.delete(values[:, 1], 2)
  half = scipy.stats.t.ppf(0.975, 3) * np.std(kept, ddof=1) / 2
  (bar,) = ax.collections[2].get_segments()
  np.testing.assert_allclose(bar[:, 0], [kept.mean() - half, kept.mean() + half])
  written = [text.get_text() for text in ax.texts]
  assert f"{kept.mean():.2f}\n[{kept.mean() - half:.2f}, {kept.mean() + half:.2f}]" in written
  labels = [label.get_text() for label in ax.get_yticklabels()]
  assert labels == ["arm 0", "arm 1\n(diverged: 1 of 5)", "arm 2"]


def test_intervals_of_rates_stay_between_0_and_100_percent():
  population = make_population(num_seeds=2, num_arms=1)
  population.metrics["test_accuracy"][:, 0] = 0.8, 1.0  # Student's interval: -37 to 217%
  ax = score_plots.metric_distribution(population).axes[0]
  (bar,) = ax.collections[1].get_segments()
  np.testing.assert_array_equal(bar[:, 0], [0, 100])
  assert "90.00\n[0.00, 100.00]" in [text.get_text() for text in ax.texts]
  for name in ("train_accuracy", "val_accuracy"):
    population.curves[name][:, 0] = [[0.8], [1.0]]
  ax = panel(curve_plots.learning_curves(population), "training accuracy")
  (band,) = (c for c in ax.collections[:2] if not isinstance(c, LineCollection))
  assert band.get_paths()[0].vertices[:, 1].min() >= 0
  assert band.get_paths()[0].vertices[:, 1].max() <= 100


def test_equal_values_have_no_interval():
  population = make_population(num_seeds=5, num_arms=1)
  population.metrics["test_accuracy"][:, 0] = 0.9
  ax = score_plots.metric_distribution(population).axes[0]
  assert "90.00\nall equal" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
  ("metric", "label"),
  [
    ("test_accuracy", "test accuracy in % (higher is better)"),
    ("f1", "f1 in % (higher is better)"),
    ("test_loss", "test loss in nats (lower is better)"),
    ("epochs", "epochs (lower is better)"),
  ],
)
def test_unit_and_direction_are_said(metric, label):
  population = make_population()
  ax = score_plots.metric_distribution(population, metric).axes[0]
  assert ax.get_xlabel() == label
  expected = population.scores(metric).values * (100 if "%" in label else 1)
  np.testing.assert_allclose(ax.collections[0].get_paths()[0].vertices[:, 0], expected[0])


def test_unknown_metric():
  with pytest.raises(InputError, match="did you mean 'test_accuracy'"):
    score_plots.metric_distribution(make_population(), "test_acuracy")
