"""Pictures that compare: what is drawn are the means, nothing is cut off, nothing raises."""

import matplotlib
import numpy as np
import pytest
import scipy.stats
from drawing import HOSTILE, assert_nothing_clipped, make_population
from matplotlib.collections import LineCollection

from jaxdl.report import comparison_plots, figures, forest_plots, layer_plots
from jaxdl.report.forest_plots import ForestRow

RATES = np.geomspace(1e-4, 1, 5)
LABELS = {"x_label": "learning rate", "y_label": "test accuracy (%)"}
NAMES = ("cost $5 to $6", "_a_b", "$\\frac{1}{2}$", "d", "e", "f", "g", "h", "i", "j", "k", "l")


def make_lines(num_lines=2, num_seeds=4, x=RATES, diverged=()):
  """Name -> (x, values `[n, S]`), NaN at (line, x, seed) that diverged."""
  rng = np.random.default_rng(0)
  values = 0.5 + 0.4 * rng.random((num_lines, len(x), num_seeds))
  for place in diverged:
    values[place] = np.nan
  return {name: (x, v) for name, v in zip(NAMES[:num_lines], values, strict=True)}


def make_profiles(num_seeds=3, rows=("2 layers", "9 layers"), columns=("tanh", "relu"), lines=2):
  rng = np.random.default_rng(0)
  return {
    (row, column): {name: np.exp(rng.normal(0, 3, (num_seeds, 4))) for name in NAMES[:lines]}
    for row in rows
    for column in columns
  }


def make_claims(num_rows=3):
  verdicts = ("holds", "does not hold", "undecided")
  return [
    ForestRow(f"claim {i}", 0.02 * i - 0.03, 0.02 * i - 0.04, 0.02 * i, 0.01, verdicts[i % 3], "x")
    for i in range(num_rows)
  ]


def line(ax, name):
  (found,) = (line for line in ax.lines if line.get_label() == name)
  return found


def marks(ax, marker):
  """The points that are drawn alone with a marker."""
  return [
    (line.get_xdata()[0], line.get_ydata()[0])
    for line in ax.lines
    if line.get_marker() == marker and len(line.get_xdata()) == 1
  ]


def legend(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def message(figure):
  assert not figure.axes
  return figure.texts[0].get_text()


def interval(values):
  half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
  return np.mean(values) - half, np.mean(values) + half


# --- Learning rates ---


def test_learning_rates_are_means_over_the_seeds_that_train():
  population = make_population(num_seeds=3, num_epochs=4)
  rates = population.curves["learning_rate"]
  rates[:, 1] = [[0.1, 0.1, 0.1, 0.01], [0.1, 0.1, 0.01, np.nan], [0.1, 0.05, 0.05, np.nan]]
  ax = comparison_plots.learning_rates(population).axes[0]
  np.testing.assert_allclose(line(ax, "arm 0").get_ydata(), [0.001] * 4)
  np.testing.assert_allclose(line(ax, "arm 1").get_ydata(), [0.1, 0.25 / 3, 0.16 / 3, 0.01])
  (thin,) = (c for c in ax.collections if isinstance(c, LineCollection))
  assert [len(seed) for seed in thin.get_segments()] == [4, 3, 3]
  assert ax.get_yscale() == "log"


@pytest.mark.parametrize(("last", "scale"), [(0.11, "linear"), (0.09, "log"), (0, "log")])
def test_learning_rates_are_logarithmic_beyond_a_decade(last, scale):
  population = make_population(num_seeds=1, num_arms=1, num_epochs=3)
  population.curves["learning_rate"][0, 0] = [1, 0.05 if last == 0 else 0.5, last]
  ax = comparison_plots.learning_rates(population).axes[0]
  assert ax.get_yscale() == scale
  assert not any(isinstance(c, LineCollection) for c in ax.collections)
  low, high = ax.get_ylim()
  assert np.all((line(ax, "arm 0").get_ydata() >= low) & (line(ax, "arm 0").get_ydata() <= high))


# --- Augmented images ---


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_stand_beside_their_original(channels):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 5, 4, channels)).astype(np.uint8)
  augmented = rng.random((2, 3, 5, 4, channels))
  figure = comparison_plots.augmented_images(images, augmented)
  places = sorted(figure.axes, key=lambda ax: (-ax.get_position().y0, ax.get_position().x0))
  expected = [image for k in range(2) for image in (images[k] / 255, *augmented[k])]
  for ax, image in zip(places, expected, strict=True):
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown.reshape(image.shape), image)
    assert channels == 3 or ax.images[0].get_clim() == (0, 1)
  assert [text.get_text() for text in figure.texts] == ["original", "augmented"]


def test_augmented_images_must_fit():
  images, augmented = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 3, 4, 4, 1))
  for wrong in ((images[:1], augmented), (images, augmented[..., :2, :]), (images[..., 0], images)):
    with pytest.raises(ValueError, match="images must be"):
      comparison_plots.augmented_images(*wrong)
  assert "no images" in message(comparison_plots.augmented_images(images[:0], augmented[:0]))


# --- A metric against a setting ---


@pytest.mark.parametrize(
  ("num_lines", "higher_is_better"), [(1, True), (4, True), (4, False), (5, True)]
)
def test_metric_means_intervals_and_best(num_lines, higher_is_better):
  lines = make_lines(num_lines, diverged=[(0, 4, 1)])
  figure = comparison_plots.metric_against(lines, higher_is_better=higher_is_better, **LABELS)
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
  ax = comparison_plots.metric_against({"a": (np.arange(3), values)}, **LABELS).axes[0]
  (bars,) = (c for c in ax.collections if isinstance(c, LineCollection))
  heights = np.array(bars.get_segments())[:, :, 1]
  assert heights.min() >= 0
  assert heights.max() <= 100


@pytest.mark.parametrize(("num_lines", "higher_is_better"), [(3, True), (3, False), (5, True)])
def test_diverged_seeds_are_counted_beyond_the_means(num_lines, higher_is_better):
  diverged = [(0, 4, 0), (0, 4, 1), (2, 3, 0), *((2, 4, seed) for seed in range(4))]
  lines = make_lines(num_lines, diverged=diverged)
  figure = comparison_plots.metric_against(lines, higher_is_better=higher_is_better, **LABELS)
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
  ax = comparison_plots.metric_against(lines, percent=False, **LABELS).axes[0]
  assert ax.get_xscale() == "linear"  # there is a zero
  drawn = line(ax, NAMES[0])
  np.testing.assert_array_equal(drawn.get_xdata(), [0, 1, 4])
  np.testing.assert_allclose(drawn.get_ydata(), lines[NAMES[0]][1].mean(axis=1)[[1, 0, 2]])
  for log_x in (True, False):
    ax = comparison_plots.metric_against(make_lines(1), log_x=log_x, **LABELS).axes[0]
    assert ax.get_xscale() == ("log" if log_x else "linear")


# --- Accuracy against something ---


def test_accuracy_is_the_mean_of_the_seeds_with_a_value():
  y = np.array([[0.5, 0.6, 0.7], [0.6, 0.8, np.nan], [np.nan] * 3])
  curves = {"mlp": (np.array([1, 10, 100]), y), "linear": (np.array([5]), y[:, :1])}
  figure = comparison_plots.accuracy_against(curves, x_label="wall time (s)")
  ax = figure.axes[0]
  np.testing.assert_allclose(line(ax, "mlp").get_xydata(), [[1, 55], [10, 70], [100, 70]])
  np.testing.assert_allclose(line(ax, "linear").get_xydata(), [[5, 55]])
  assert line(ax, "linear").get_markersize() > line(ax, "mlp").get_markersize()
  assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "wall time (s)")
  assert legend(figure) == ["mlp (diverged: 1 of 3)", "linear (diverged: 1 of 3)"]


# --- Timings ---


def test_timings_have_a_dot_each_and_a_median():
  rows = {"$a_1$": np.array([3.0, 1, 200]), "b": np.array([2.5]), "c": np.array([np.nan])}
  figure = comparison_plots.timings(rows, x_label="time (s)")
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
  assert comparison_plots.timings(rows, x_label="s", log=False).axes[0].get_xscale() == "linear"


# --- Ensembles ---


@pytest.mark.parametrize(
  ("sizes", "scale", "num_arms"), [([1, 2, 4, 8], "linear", 2), ([1, 4, 16], "log", 5)]
)
def test_ensembles_have_a_dot_each(sizes, scale, num_arms):
  rng = np.random.default_rng(0)
  arms = {
    name: (np.array(sizes), [0.9 + 0.05 * rng.random(16 // size) for size in sizes])
    for name in NAMES[:num_arms]
  }
  figure = comparison_plots.ensemble_accuracy(arms)
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


# --- Layers ---


@pytest.mark.parametrize("log_y", [True, False])
def test_layer_profiles_are_means_with_ranges(log_y):
  profiles = make_profiles()
  profiles["2 layers", "tanh"]["_a_b"] = np.zeros((3, 2))
  figure = layer_plots.layer_profile(profiles, y_label="norm", log_y=log_y, log_floor=1e-9)
  assert [ax.get_title() for ax in figure.axes] == ["tanh", "relu", "", ""]
  assert [ax.get_ylabel() for ax in figure.axes] == ["2 layers\nnorm", "", "9 layers\nnorm", ""]
  for ax, (place, lines) in zip(figure.axes, profiles.items(), strict=True):
    for band, (name, values) in zip(ax.collections, lines.items(), strict=True):
      expected = scipy.stats.gmean(np.maximum(values, 1e-9)) if log_y else values.mean(axis=0)
      assert list(line(ax, name).get_xdata()) == list(range(1, values.shape[1] + 1))
      np.testing.assert_allclose(line(ax, name).get_ydata(), expected, err_msg=str(place))
      heights = band.get_paths()[0].vertices[:, 1]
      assert heights.max() == values.max() or not values.any()
    low, high = ax.get_ylim()
    assert low < 1e-9
    assert high > max(v.max() for lines in profiles.values() for v in lines.values())


def test_values_that_are_not_finite_are_counted():
  profiles = make_profiles(rows=("9 layers",))
  profiles["9 layers", "relu"]["_a_b"][0, :2] = np.inf
  profiles["9 layers", "relu"][NAMES[0]][:] = np.nan
  figure = layer_plots.layer_profile(profiles, y_label="norm")
  assert [[t.get_text() for t in ax.texts] for ax in figure.axes] == [
    [],
    ["not finite: 2 of 2 lines"],
  ]
  values = profiles["9 layers", "relu"]["_a_b"]
  assert line(figure.axes[1], "_a_b").get_ydata()[0] == pytest.approx(
    scipy.stats.gmean(values[1:, 0])
  )


def test_training_of_the_first_and_the_last_layer():
  values = np.random.default_rng(0).random((3, 5, 7))
  figure = layer_plots.layer_training({("7 layers", "relu"): values}, y_label="norm")
  for name, layer in (("first layer", 0), ("last layer", 6)):
    drawn = line(figure.axes[0], name)
    np.testing.assert_array_equal(drawn.get_xdata(), range(5))
    np.testing.assert_allclose(drawn.get_ydata(), scipy.stats.gmean(values[:, :, layer]))


# --- Claims ---


def test_claims_are_in_units_of_their_margin():
  rows = make_claims()
  figure = forest_plots.forest(rows, title="Claims")
  ax = figure.axes[0]
  for row, marker in zip(rows, "oDs", strict=True):
    ((effect, _),) = marks(ax, marker)
    assert effect == pytest.approx(row.effect / row.margin)
  bars = [np.array(bar.get_xdata()) for bar in ax.lines if list(bar.get_xdata()) != [0, 0]]
  bars = [bar for bar in bars if len(bar) == 2]
  np.testing.assert_allclose(bars, [[r.low / r.margin, r.high / r.margin] for r in rows])
  assert ax.get_xscale() == "symlog"
  low, high = ax.get_xlim()
  assert low == -high
  assert legend(figure) == ["holds", "does not hold", "undecided", "within the margin"]
  assert figure.get_suptitle() == "Claims"


def test_claims_without_a_number_have_only_their_text():
  row = make_claims(1)[0]
  for change in ({"effect": np.nan}, {"effect": np.inf}, {"margin": 0}, {"margin": np.nan}):
    figure = forest_plots.forest([row._replace(**change)])
    ax = figure.axes[0]
    assert marks(ax, "o") == []
    assert [text.get_text() for text in ax.texts] == ["x"]
  ax = forest_plots.forest([row._replace(low=-np.inf, high=1e300)]).axes[0]
  assert len(marks(ax, "o")) == 1
  assert np.isfinite(ax.get_xlim()).all()


def test_a_verdict_must_be_known():
  with pytest.raises(ValueError, match="maybe"):
    forest_plots.forest([make_claims(1)[0]._replace(verdict="maybe")])


# --- All of them ---


def all_figures(num_lines=2, num_seeds=4, names=NAMES):
  """Every picture once."""
  population = make_population(num_arms=num_lines, num_seeds=num_seeds, arm_names=names[:num_lines])
  yield comparison_plots.learning_rates(population)
  yield comparison_plots.augmented_images(
    np.zeros((2, 4, 4, 1), np.uint8), np.ones((2, num_lines, 4, 4, 1))
  )
  values = list(make_lines(num_lines, num_seeds, diverged=[(0, 4, 0)]).values())
  lines = dict(zip(names, values, strict=False))
  yield comparison_plots.metric_against(lines, **LABELS)
  curves = {name: (x, y.T) for name, (x, y) in lines.items()}
  yield comparison_plots.accuracy_against(curves, x_label="examples seen")
  yield comparison_plots.timings({name: y[1] for name, (_, y) in lines.items()}, x_label=names[0])
  arms = {name: (np.array([1, 2]), [y[0], y[1][:1]]) for name, (_, y) in lines.items()}
  yield comparison_plots.ensemble_accuracy(arms)
  profiles = {
    (names[0], column): {name: y.T for name, (_, y) in lines.items()} for column in names[1:3]
  }
  yield layer_plots.layer_profile(profiles, y_label="norm of the gradient")
  training = {place: np.ones((num_seeds, 3, 4)) for place in profiles}
  yield layer_plots.layer_training(training, y_label=names[0])
  claims = [
    row._replace(label=names[i % len(names)], text=names[-1 - i % len(names)])
    for i, row in enumerate(make_claims(3 * num_lines))
  ]
  yield forest_plots.forest(claims, title=names[0])


CASES = {
  "one": {"num_lines": 1, "num_seeds": 1},
  # One more than a panel holds.
  "many": {"num_lines": 5, "num_seeds": 64, "names": (HOSTILE[0], HOSTILE[2], *HOSTILE[5:])},
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_clipped(case):
  for figure in all_figures(**CASES[case]):
    assert figure.get_figwidth() <= 10
    assert_nothing_clipped(figure)


def test_names_are_shown_as_they_are():
  lines = make_lines(3)
  for figure in (
    comparison_plots.metric_against(lines, **LABELS),
    comparison_plots.accuracy_against({n: (x, y.T) for n, (x, y) in lines.items()}, x_label="$x$"),
    layer_plots.layer_profile(make_profiles(lines=3), y_label="$y$"),
  ):
    assert legend(figure)[:3] == list(NAMES[:3])
    texts = figure.findobj(matplotlib.text.Text)
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.parametrize("num_lines", [0, 1, 6])
def test_where_nothing_can_be_drawn_a_message_says_so(num_lines):
  lost = {name: (RATES, np.full((5, 2), np.nan)) for name in NAMES[:num_lines]}
  assert "nothing to draw" in message(comparison_plots.metric_against(lost, **LABELS))
  curves = {name: (x, y.T) for name, (x, y) in lost.items()}
  assert "nothing to draw" in message(comparison_plots.accuracy_against(curves, x_label="s"))
  values = {name: y for name, (_, y) in lost.items()}
  assert "no finite" in message(comparison_plots.timings(values, x_label="s"))
  ensembles = {name: (np.array([1]), [np.array([np.nan])]) for name in lost}
  assert "no finite" in message(comparison_plots.ensemble_accuracy(ensembles))
  profiles = {("row", "column"): values} if num_lines else {}
  assert "no finite" in message(layer_plots.layer_profile(profiles, y_label="norm"))
  assert "nothing to compare" in message(forest_plots.forest([]))
  population = make_population(num_epochs=1)
  population.curves["learning_rate"][:] = np.nan
  assert "no finite" in message(comparison_plots.learning_rates(population))


def test_equal_input_is_equal_bytes_whatever_the_settings(tmp_path):
  def write(folder):
    folder.mkdir()
    for index, figure in enumerate(all_figures(1, 2)):
      if index not in (3, 5, 7):  # they share their code with others, and writing takes long
        figures.save(figure, folder / str(index))
    return {path.name: path.read_bytes() for path in folder.iterdir()}

  first = write(tmp_path / "first")
  with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9}):
    assert write(tmp_path / "second") == first
  assert len(first) == 12
