"""Learning curves and rates: what is drawn are the members, their means and intervals."""

import math

import numpy as np
import pytest
import scipy.stats
from drawing import line, make_population, marks, panel
from matplotlib.collections import LineCollection

from jaxdl.report import curve_plots


def test_mean_and_band_are_over_the_same_seeds_at_every_epoch():
  population = make_population(
    num_seeds=5, stopped=[(0, 0, 2), (3, 0, 4)], diverged=[(1, 0, 3)], num_epochs=6
  )
  ax = panel(curve_plots.learning_curves(population), "validation loss")
  curve = population.curves["val_loss"][:, 0]
  expected, half = [], []
  for epoch in range(6):
    last = {0: 1, 3: 3}
    values = [curve[seed, min(epoch, last.get(seed, 5))] for seed in (0, 2, 3, 4)]
    expected.append(sum(values) / 4)
    half.append(scipy.stats.t.ppf(0.975, 3) * np.std(values, ddof=1) / math.sqrt(4))
  mean = line(ax, "arm 0")
  np.testing.assert_array_equal(mean.get_xdata(), np.arange(1, 7))
  np.testing.assert_allclose(mean.get_ydata(), expected, rtol=1e-12)
  (band,) = (c for c in ax.collections[:2] if not isinstance(c, LineCollection))
  outline = band.get_paths()[0].vertices
  for epoch, (middle, width) in enumerate(zip(expected, half, strict=True), start=1):
    at_epoch = outline[outline[:, 0] == epoch, 1]
    np.testing.assert_allclose([at_epoch.min(), at_epoch.max()], [middle - width, middle + width])


def test_accuracy_is_in_percent():
  population = make_population()
  ax = panel(curve_plots.learning_curves(population), "training accuracy")
  expected = 100 * population.curves["train_accuracy"][:, 1].mean(axis=0)
  np.testing.assert_allclose(line(ax, "arm 1").get_ydata(), expected)


def test_mean_ends_with_the_last_member_of_its_arm():
  stopped = [(0, 1, 2), (1, 1, 3)]
  figure = curve_plots.learning_curves(make_population(num_seeds=2, stopped=stopped))
  ax = panel(figure, "training loss")
  assert list(line(ax, "arm 0").get_xdata()) == [1, 2, 3, 4, 5, 6]
  assert list(line(ax, "arm 1").get_xdata()) == [1, 2, 3]


def test_every_member_is_a_thin_line_until_it_ends():
  population = make_population(num_seeds=3, stopped=[(0, 0, 4)], diverged=[(1, 0, 3)])
  ax = panel(curve_plots.learning_curves(population), "training loss")
  drawn = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
  assert [len(points) for points in drawn] == [4, 2, 6]
  np.testing.assert_array_equal(drawn[0][:, 0], [1, 2, 3, 4])
  np.testing.assert_array_equal(drawn[2][:, 1], population.curves["train_loss"][2, 0])


def test_ends_are_marked():
  population = make_population(num_seeds=3, stopped=[(0, 0, 4)], diverged=[(1, 0, 3), (2, 1, 1)])
  population.curves["train_loss"][1, 0, 1] = 1e30
  figure = curve_plots.learning_curves(population)
  ax = panel(figure, "training loss")
  assert marks(ax, "o") == [(4, population.curves["train_loss"][0, 0, 3])]
  # Beyond the limits, or nothing known at all: at the frame.
  top = ax.get_ylim()[1]
  assert top < 2
  np.testing.assert_allclose(marks(ax, "x"), [(2, top), (1, top)])
  accuracy = panel(figure, "training accuracy")
  known = 100 * population.curves["train_accuracy"][1, 0, 1]
  np.testing.assert_allclose(marks(accuracy, "x"), [(2, known), (1, accuracy.get_ylim()[0])])
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert labels == [
    "arm 0 (diverged: 1 of 3)",
    "arm 1 (diverged: 1 of 3)",
    "stopped early",
    "diverged",
  ]


def test_epochs_are_whole_numbers_from_one():
  for num_epochs in (1, 2, 50):
    ax = curve_plots.learning_curves(make_population(num_epochs=num_epochs)).axes[0]
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert ticks
    assert set(ticks) <= set(range(1, num_epochs + 1))
    assert 0 < low <= 1 <= num_epochs <= high


def test_validation_is_left_out_where_there_is_none():
  figure = curve_plots.learning_curves(make_population(validation=False))
  titles = [ax.get_title() for ax in figure.axes]
  assert titles == ["training loss", "training accuracy (threshold 0.5)"]


@pytest.mark.parametrize(("factor", "scale"), [(90, "linear"), (110, "log")])
def test_loss_is_logarithmic_beyond_two_decades(factor, scale):
  population = make_population(num_seeds=1, num_arms=1, validation=False)
  population.curves["train_loss"][:] = np.geomspace(factor * 0.01, 0.01, 6)
  figure = curve_plots.learning_curves(population)
  assert panel(figure, "training loss").get_yscale() == scale
  assert panel(figure, "training accuracy").get_yscale() == "linear"


def test_losses_of_zero_can_be_drawn():
  population = make_population()
  population.curves["train_loss"][..., -1] = 0
  population.curves["train_loss"][..., -2] = 1e-9
  assert panel(curve_plots.learning_curves(population), "training loss").get_yscale() == "log"


def test_learning_rates_are_means_over_the_seeds_that_train():
  population = make_population(num_seeds=3, num_epochs=4)
  rates = population.curves["learning_rate"]
  rates[:, 1] = [[0.1, 0.1, 0.1, 0.01], [0.1, 0.1, 0.01, np.nan], [0.1, 0.05, 0.05, np.nan]]
  ax = curve_plots.learning_rates(population).axes[0]
  np.testing.assert_allclose(line(ax, "arm 0").get_ydata(), [0.001] * 4)
  np.testing.assert_allclose(line(ax, "arm 1").get_ydata(), [0.1, 0.25 / 3, 0.16 / 3, 0.01])
  (thin,) = (c for c in ax.collections if isinstance(c, LineCollection))
  assert [len(seed) for seed in thin.get_segments()] == [4, 3, 3]
  assert ax.get_yscale() == "log"


@pytest.mark.parametrize(("last", "scale"), [(0.11, "linear"), (0.09, "log"), (0, "log")])
def test_learning_rates_are_logarithmic_beyond_a_decade(last, scale):
  population = make_population(num_seeds=1, num_arms=1, num_epochs=3)
  population.curves["learning_rate"][0, 0] = [1, 0.05 if last == 0 else 0.5, last]
  ax = curve_plots.learning_rates(population).axes[0]
  assert ax.get_yscale() == scale
  assert not any(isinstance(c, LineCollection) for c in ax.collections)
  low, high = ax.get_ylim()
  assert np.all((line(ax, "arm 0").get_ydata() >= low) & (line(ax, "arm 0").get_ydata() <= high))
