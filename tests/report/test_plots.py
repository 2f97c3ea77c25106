"""Pictures of a population: what is drawn was measured, nothing is cut off, bytes are equal."""

import math
import re
import shutil
import subprocess
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
import scipy.stats
from drawing import HOSTILE, assert_nothing_clipped, make_population
from matplotlib.collections import LineCollection

from jaxdl.errors import InputError
from jaxdl.report import figures, plots


def with_probabilities(class_1, labels, thresholds=(0.5,), loss="binary_cross_entropy"):
  """A population of two classes with given mean probabilities of class 1, per arm `[A, N]`."""
  class_1, labels = np.atleast_2d(class_1), np.asarray(labels)
  base = make_population(
    num_seeds=1, num_arms=len(class_1), num_examples=len(labels), thresholds=thresholds, loss=loss
  )
  object.__setattr__(base, "mean_probabilities", np.stack([1 - class_1, class_1], axis=-1))
  object.__setattr__(base, "test_targets", labels)
  return base


def make_images(population, height=4, width=4, channels=1):
  shape = (len(population.test_targets), height, width, channels)
  return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def all_figures(population):
  yield plots.learning_curves(population)
  yield plots.confusion_matrices(population)
  yield plots.metric_distribution(population)
  yield plots.reliability(population)
  yield plots.worst_mistakes(population, make_images(population), num_images=4)


def panel(figure, title):
  return next(ax for ax in figure.axes if ax.get_title().partition(" (")[0] == title)


def line(ax, label):
  return next(line for line in ax.lines if line.get_label() == label)


def marks(ax, marker):
  return [
    (*line.get_xdata(), *line.get_ydata())
    for line in ax.lines
    if line.get_marker() == marker and len(line.get_xdata()) == 1
  ]


def titles(figure):
  """The titles of a grid of images, as one line each."""
  return [" ".join(ax.get_title().split()) for ax in figure.axes]


# --- Learning curves ---


def test_mean_and_band_are_over_the_same_seeds_at_every_epoch():
  population = make_population(
    num_seeds=5, stopped=[(0, 0, 2), (3, 0, 4)], diverged=[(1, 0, 3)], num_epochs=6
  )
  ax = panel(plots.learning_curves(population), "validation loss")
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
  ax = panel(plots.learning_curves(population), "training accuracy")
  expected = 100 * population.curves["train_accuracy"][:, 1].mean(axis=0)
  np.testing.assert_allclose(line(ax, "arm 1").get_ydata(), expected)


def test_mean_ends_with_the_last_member_of_its_arm():
  stopped = [(0, 1, 2), (1, 1, 3)]
  figure = plots.learning_curves(make_population(num_seeds=2, stopped=stopped))
  ax = panel(figure, "training loss")
  assert list(line(ax, "arm 0").get_xdata()) == [1, 2, 3, 4, 5, 6]
  assert list(line(ax, "arm 1").get_xdata()) == [1, 2, 3]


def test_every_member_is_a_thin_line_until_it_ends():
  population = make_population(num_seeds=3, stopped=[(0, 0, 4)], diverged=[(1, 0, 3)])
  ax = panel(plots.learning_curves(population), "training loss")
  drawn = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
  assert [len(points) for points in drawn] == [4, 2, 6]
  np.testing.assert_array_equal(drawn[0][:, 0], [1, 2, 3, 4])
  np.testing.assert_array_equal(drawn[2][:, 1], population.curves["train_loss"][2, 0])


def test_ends_are_marked():
  population = make_population(num_seeds=3, stopped=[(0, 0, 4)], diverged=[(1, 0, 3), (2, 1, 1)])
  population.curves["train_loss"][1, 0, 1] = 1e30
  figure = plots.learning_curves(population)
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
    ax = plots.learning_curves(make_population(num_epochs=num_epochs)).axes[0]
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert ticks
    assert set(ticks) <= set(range(1, num_epochs + 1))
    assert 0 < low <= 1 <= num_epochs <= high


def test_validation_is_left_out_where_there_is_none():
  figure = plots.learning_curves(make_population(validation=False))
  titles = [ax.get_title() for ax in figure.axes]
  assert titles == ["training loss", "training accuracy (threshold 0.5)"]


@pytest.mark.parametrize(("factor", "scale"), [(90, "linear"), (110, "log")])
def test_loss_is_logarithmic_beyond_two_decades(factor, scale):
  population = make_population(num_seeds=1, num_arms=1, validation=False)
  population.curves["train_loss"][:] = np.geomspace(factor * 0.01, 0.01, 6)
  figure = plots.learning_curves(population)
  assert panel(figure, "training loss").get_yscale() == scale
  assert panel(figure, "training accuracy").get_yscale() == "linear"


def test_losses_of_zero_can_be_drawn():
  population = make_population()
  population.curves["train_loss"][..., -1] = 0
  population.curves["train_loss"][..., -2] = 1e-9
  assert panel(plots.learning_curves(population), "training loss").get_yscale() == "log"


# --- Confusion matrices ---


@pytest.mark.parametrize(("num_classes", "num_arms"), [(2, 1), (2, 7), (4, 2), (5, 3), (10, 1)])
def test_cells_say_the_counts(num_classes, num_arms):
  population = make_population(
    num_seeds=3, num_arms=num_arms, num_classes=num_classes, diverged=[(0, 0, 2)]
  )
  figure = plots.confusion_matrices(population)
  pooled = population.confusion.sum(axis=0)
  for counts, ax in zip(pooled, figure.axes, strict=False):
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert len(cells) == num_classes**2
    for true, predicted in np.ndindex(counts.shape):
      expected = f"{counts[true, predicted]:,}"
      if num_classes <= 4 or true == predicted:
        expected += f"\n{100 * counts[true, predicted] / counts[true].sum():.1f}%"
      assert cells[predicted, true] == expected
    assert (ax.get_xlabel(), ax.yaxis_inverted()) == ("predicted", True)
    image = ax.images[0].get_array()
    np.testing.assert_allclose(image, counts / counts.sum(axis=1, keepdims=True))
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(
    population.class_names
  )
  assert figure.axes[0].get_ylabel() == "true"


def test_text_stands_out_from_its_cell():
  figure = plots.confusion_matrices(make_population(num_arms=1, num_classes=10))
  ax = figure.axes[0]
  for text in ax.texts:
    column, row = text.get_position()
    cell = ax.images[0].to_rgba(ax.images[0].get_array()[row, column])
    colors = np.array([cell[:3], matplotlib.colors.to_rgb(text.get_color())])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    if text.get_text() != "0":
      assert (light + 0.05) / (dark + 0.05) >= 3  # contrast as WCAG defines it


def test_threshold_is_stated_for_one_output_only():
  binary = make_population(thresholds=(0.5, 0.35))
  figure = plots.confusion_matrices(binary)
  assert [ax.get_title() for ax in figure.axes[:2]] == [
    "arm 0\nthreshold 0.5",
    "arm 1\nthreshold 0.35",
  ]
  softmax = make_population(loss="categorical_cross_entropy")
  assert plots.confusion_matrices(softmax).axes[0].get_title() == "arm 0"


def test_a_class_without_examples_has_no_rate():
  population = make_population(num_arms=1)
  population.confusion[:, :, 1] = 0
  ax = plots.confusion_matrices(population).axes[0]
  cells = {text.get_position(): text.get_text() for text in ax.texts}
  assert cells[0, 1] == cells[1, 1] == "0"


# --- Distribution ---


def test_dots_lines_and_means_are_the_members():
  population = make_population(num_seeds=5, num_arms=3, diverged=[(2, 1, 3)])
  figure = plots.metric_distribution(population)
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
  ax = plots.metric_distribution(population).axes[0]
  (bar,) = ax.collections[1].get_segments()
  np.testing.assert_array_equal(bar[:, 0], [0, 100])
  assert "90.00\n[0.00, 100.00]" in [text.get_text() for text in ax.texts]
  for name in ("train_accuracy", "val_accuracy"):
    population.curves[name][:, 0] = [[0.8], [1.0]]
  ax = panel(plots.learning_curves(population), "training accuracy")
  (band,) = (c for c in ax.collections[:2] if not isinstance(c, LineCollection))
  assert band.get_paths()[0].vertices[:, 1].min() >= 0
  assert band.get_paths()[0].vertices[:, 1].max() <= 100


def test_equal_values_have_no_interval():
  population = make_population(num_seeds=5, num_arms=1)
  population.metrics["test_accuracy"][:, 0] = 0.9
  ax = plots.metric_distribution(population).axes[0]
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
  ax = plots.metric_distribution(population, metric).axes[0]
  assert ax.get_xlabel() == label
  expected = population.scores(metric).values * (100 if "%" in label else 1)
  np.testing.assert_allclose(ax.collections[0].get_paths()[0].vertices[:, 0], expected[0])


def test_unknown_metric():
  with pytest.raises(InputError, match="did you mean 'test_accuracy'"):
    plots.metric_distribution(make_population(), "test_acuracy")


# --- Worst mistakes ---


def test_mistakes_come_worst_first_then_the_least_certain():
  population = with_probabilities([0.9, 0.2, 0.8, 0.45, 0.1, 0.999], [0, 1, 1, 1, 0, 1])
  images = make_images(population)
  figure = plots.worst_mistakes(population, images)
  assert titles(figure) == [
    "✗ true 0, predicted 1 (p = 0.90)",
    "✗ true 1, predicted 0 (p = 0.80)",
    "✗ true 1, predicted 0 (p = 0.55)",
    "✓ true 1, predicted 1 (p = 0.80)",
    "✓ true 0, predicted 0 (p = 0.90)",
    "✓ true 1, predicted 1 (p > 0.99)",
  ]
  for ax, index in zip(figure.axes, [0, 1, 3, 2, 4, 5], strict=True):
    np.testing.assert_array_equal(ax.images[0].get_array(), images[index, ..., 0])
    assert ax.images[0].get_interpolation() == "nearest"
    assert ax.images[0].get_clim() == (0, 255)
  frames = [ax.spines["top"].get_edgecolor() for ax in figure.axes]
  assert len(set(frames[:3])) == len(set(frames[3:])) == 1
  assert frames[0] != frames[3]
  assert "3 mistakes in 6 test images" in figure.get_suptitle()


def test_order_is_that_of_a_sort_by_hand():
  population = make_population(num_arms=3, num_classes=5, num_examples=200)
  probabilities = population.mean_probabilities[1]
  ranked = []
  for index, label in enumerate(population.test_targets):
    predicted = max(range(5), key=lambda c: probabilities[index, c])
    ranked.append((predicted == label, probabilities[index, label], label, predicted, index))
  ranked.sort()
  images = make_images(population, channels=3)
  figure = plots.worst_mistakes(population, images, arm="arm 1", num_images=10)
  assert len(figure.axes) == 10
  for ax, (_, _, label, predicted, index) in zip(figure.axes, ranked, strict=False):
    assert f"true {label}, predicted {predicted} " in " ".join(ax.get_title().split())
    np.testing.assert_array_equal(ax.images[0].get_array(), images[index])


def test_one_output_predicts_by_the_threshold_of_its_arm():
  # Strictly above, as the metrics have it.
  population = with_probabilities([0.3, 0.31, 0.6], [1, 1, 1], thresholds=[0.3])
  assert titles(plots.worst_mistakes(population, make_images(population))) == [
    "✗ true 1, predicted 0 (p = 0.70)",
    "✓ true 1, predicted 1 (p = 0.31)",
    "✓ true 1, predicted 1 (p = 0.60)",
  ]


def test_two_outputs_predict_the_largest():
  population = with_probabilities(
    [0.45, 0.55], [0, 0], thresholds=[0.3], loss="categorical_cross_entropy"
  )
  assert titles(plots.worst_mistakes(population, make_images(population))) == [
    "✗ true 0, predicted 1 (p = 0.55)",
    "✓ true 0, predicted 0 (p = 0.55)",
  ]


def test_all_arms_means_their_average():
  population = with_probabilities([[0.2, 0.5], [0.6, 0.5]], [1, 1], thresholds=[0.2, 0.6])
  figure = plots.worst_mistakes(population, make_images(population))
  assert titles(figure) == ["✗ true 1, predicted 0 (p = 0.60)", "✓ true 1, predicted 1 (p = 0.50)"]
  assert figure.get_suptitle().startswith("mean of 2 arms")


def test_arms_that_diverged_do_not_predict():
  population = make_population(diverged=[(seed, 0, 2) for seed in range(4)])
  images = make_images(population)
  everything = plots.worst_mistakes(population, images)
  assert titles(everything) == titles(plots.worst_mistakes(population, images, arm="arm 1"))
  nothing = plots.worst_mistakes(population, images, arm="arm 0")
  assert [text.get_text() for text in nothing.texts] == [
    "Every seed diverged: there are no predictions."
  ]


def test_worst_mistakes_rejects_what_does_not_fit():
  population = make_population()
  images = make_images(population)
  with pytest.raises(InputError, match="unknown arm"):
    plots.worst_mistakes(population, images, arm="arm 9")
  with pytest.raises(InputError, match="num_images"):
    plots.worst_mistakes(population, images, num_images=0)
  for wrong in (images[1:], images[..., 0], np.repeat(images, 2, axis=-1)):
    with pytest.raises(ValueError, match="images must be"):
      plots.worst_mistakes(population, wrong)


# --- All figures ---


CASES = {
  "one_seed": {"num_seeds": 1, "stopped": [(0, 1, 3)]},
  "one_seed_diverged": {"num_seeds": 1, "diverged": [(0, 0, 3)]},
  "one_epoch": {"num_epochs": 1},
  "one_arm_lost": {"num_seeds": 3, "diverged": [(seed, 0, 1 + seed) for seed in range(3)]},
  "all_lost": {"num_seeds": 2, "diverged": [(s, a, 1) for s in range(2) for a in range(2)]},
  "many_seeds": {"num_seeds": 64, "stopped": [(seed, 0, 2 + seed % 4) for seed in range(64)]},
  "many_arms": {
    "num_arms": 7,
    "arm_names": [f"a name that goes on and on, until learning_rate={i}" for i in range(7)],
    "diverged": [(0, 3, 2)],
    "class_names": ["a class with a very long name", "another class with a longer name"],
  },
  "wide_words": {
    "num_arms": 3,
    "num_classes": 10,
    "arm_names": ["W" * 70 + str(i) for i in range(3)],
    "class_names": ["M" * 40 + str(i) for i in range(10)],
    "diverged": [(0, 1, 2)],
  },
  "hostile": {
    "num_seeds": 2,
    "num_arms": len(HOSTILE),
    "arm_names": HOSTILE,
    "num_classes": 4,
    "class_names": HOSTILE[1:5],
    "diverged": [(0, 1, 2)],
  },
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_clipped(case):
  for figure in all_figures(make_population(**CASES[case])):
    assert figure.get_figwidth() <= 10
    assert_nothing_clipped(figure)


def test_all_of_many_arms_stand_behind_those_that_are_drawn():
  everyone = make_population(num_arms=40, diverged=[(s, 39, 2) for s in range(4)])
  few = everyone.select(["arm 3", "arm 7"])
  curves = plots.learning_curves(few, everyone)
  loss = panel(curves, "training loss")
  (behind,) = (c for c in loss.collections if c.get_rasterized())
  expected = everyone.curves["train_loss"][:, 5].mean(axis=0)
  np.testing.assert_allclose(behind.get_segments()[5][:, 1], expected)
  assert len(behind.get_segments()[39]) == 0
  distribution = plots.metric_distribution(few, everyone=everyone)
  (dots,) = (line for line in distribution.axes[0].lines if line.get_rasterized())
  expected = 100 * everyone.metrics["test_accuracy"].mean(axis=0)
  np.testing.assert_allclose(dots.get_xdata(), expected)
  for figure in (curves, distribution):
    assert_nothing_clipped(figure)


def test_no_name_gets_into_the_files(tmp_path):
  allowed = {"svg", "g", "defs", "style", "path", "use", "clipPath", "rect", "image", "metadata"}
  allowed |= {"RDF", "Work", "type", "format"}
  for figure in all_figures(make_population(**CASES["hostile"])):
    png, svg = figures.save(figure, tmp_path / "lr0.1")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert {e.tag.rsplit("}")[-1] for e in xml.etree.ElementTree.parse(svg).iter()} <= allowed
  assert sorted(path.name for path in tmp_path.iterdir()) == ["lr0.1.png", "lr0.1.svg"]


def test_names_are_shown_as_they_are():
  names = ("$\\frac{1}{2}$", "cost $5 to $6", "tab\there", "\x1b[0m", "中", "_x")
  population = make_population(num_arms=len(names), arm_names=names)
  shown = ["$\\frac{1}{2}$", "cost $5 to $6", "tab here", "\\x1b[0m", "\\u4e2d", "_x"]
  legend = plots.learning_curves(population).legends[0].get_texts()
  assert [text.get_text() for text in legend] == shown
  assert not any(text.get_parse_math() for text in legend)
  labels = plots.metric_distribution(population).axes[0].get_yticklabels()
  assert [text.get_text() for text in labels] == shown
  assert not any(text.get_parse_math() for text in labels)


def test_long_names_keep_their_ends():
  names = [f"start {'x' * 500} learning_rate={rate}" for rate in (0.1, 0.01)]
  figure = plots.learning_curves(make_population(arm_names=names))
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  for label, rate in zip(labels, ("0.1", "0.01"), strict=True):
    assert label.startswith("start")
    assert "…" in label
    assert label.endswith(f"learning_rate={rate}")


def test_arms_look_alike_in_all_figures_and_unlike_each_other():
  population = make_population(num_arms=20)
  styles = set()
  curves = plots.learning_curves(population).axes[0]
  means = [
    line
    for line in plots.metric_distribution(population).axes[0].lines
    if len(line.get_xdata()) == 1
  ]
  for index, mean in enumerate(means):
    curve = line(curves, f"arm {index}")
    assert (mean.get_color(), mean.get_marker()) == (curve.get_color(), curve.get_marker())
    styles.add((curve.get_color(), curve.get_linestyle(), str(curve._dash_pattern)))
  assert len(styles) == 20


def test_same_population_same_bytes_whatever_the_settings(tmp_path):
  def write(folder):
    folder.mkdir()
    for index, figure in enumerate(all_figures(make_population(diverged=[(0, 0, 2)]))):
      figures.save(figure, folder / str(index))
    figures.save(figure, folder / "again")
    return {path.name: path.read_bytes() for path in folder.iterdir()}

  first = write(tmp_path / "first")
  settings = {
    "font.size": 20,
    "savefig.bbox": "tight",
    "figure.facecolor": "red",
    "axes.grid": True,
  }
  with matplotlib.rc_context(settings):
    before = dict(matplotlib.rcParams)
    second = write(tmp_path / "second")
    assert dict(matplotlib.rcParams) == before
  assert first == second
  assert len(first) == 12
  for suffix in ("png", "svg"):
    assert first[f"again.{suffix}"] == first[f"4.{suffix}"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_a_browser_runs_and_loads_nothing_of_a_picture(tmp_path):
  """Of one that is full of hostile names; a script in it would change its title."""
  population = make_population(**CASES["hostile"])
  _, svg = figures.save(plots.metric_distribution(population), tmp_path / "picture")
  options = "--headless=new --no-sandbox --disable-gpu --virtual-time-budget=2000 --dump-dom"
  logged = ("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}")
  command = ["chromium", *options.split(), *logged, svg.as_uri()]
  shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
  assert not [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
  page = re.sub("<!--.*?-->", "", shown.stdout, flags=re.S)
  elements = set(re.findall(r"<([a-zA-Z][\w:]*)", page))
  assert "svg" in elements
  assert not elements & {"script", "parsererror", "foreignObject", "a", "text", "iframe"}
  sources = re.findall(r'href="(.{5})', page)
  assert all(source.startswith("#") or source == "data:" for source in sources)
