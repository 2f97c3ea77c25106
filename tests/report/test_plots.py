"""What holds of all pictures: nothing is cut off, names stay text, equal input is equal bytes."""

import re
import shutil
import subprocess
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
from drawing import (
  HOSTILE,
  LABELS,
  NAMES,
  RATES,
  assert_nothing_clipped,
  legend,
  line,
  make_claims,
  make_images,
  make_lines,
  make_population,
  make_profiles,
  message,
  panel,
)

from jaxdl.report import benchmark_plots, figures, forest_plots, layer_plots, line_plots, plots

# --- Of a population ---


def all_figures(population):
  yield plots.learning_curves(population)
  yield plots.confusion_matrices(population)
  yield plots.metric_distribution(population)
  yield plots.reliability(population)
  yield plots.worst_mistakes(population, make_images(population), num_images=4)


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


# --- Of arrays ---


def array_figures(num_lines=2, num_seeds=4, names=NAMES):
  """Every picture of arrays once, and those of a population that show none of its results."""
  population = make_population(num_arms=num_lines, num_seeds=num_seeds, arm_names=names[:num_lines])
  yield plots.learning_rates(population)
  yield plots.augmented_images(np.zeros((2, 4, 4, 1), np.uint8), np.ones((2, num_lines, 4, 4, 1)))
  values = list(make_lines(num_lines, num_seeds, diverged=[(0, 4, 0)]).values())
  lines = dict(zip(names, values, strict=False))
  yield line_plots.metric_against(lines, **LABELS)
  curves = {name: (x, y.T) for name, (x, y) in lines.items()}
  yield line_plots.accuracy_against(curves, x_label="examples seen")
  yield benchmark_plots.timings({name: y[1] for name, (_, y) in lines.items()}, x_label=names[0])
  arms = {name: (np.array([1, 2]), [y[0], y[1][:1]]) for name, (_, y) in lines.items()}
  yield line_plots.ensemble_accuracy(arms)
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
  yield forest_plots.forest(claims)


ARRAY_CASES = {
  "one": {"num_lines": 1, "num_seeds": 1},
  # One more than a panel holds.
  "many": {"num_lines": 5, "num_seeds": 64, "names": (HOSTILE[0], HOSTILE[2], *HOSTILE[5:])},
}


@pytest.mark.parametrize("case", ARRAY_CASES)
def test_nothing_is_clipped_in_pictures_of_arrays(case):
  for figure in array_figures(**ARRAY_CASES[case]):
    assert figure.get_figwidth() <= 10
    assert_nothing_clipped(figure)


def test_names_of_lines_are_shown_as_they_are():
  lines = make_lines(3)
  for figure in (
    line_plots.metric_against(lines, **LABELS),
    line_plots.accuracy_against({n: (x, y.T) for n, (x, y) in lines.items()}, x_label="$x$"),
    layer_plots.layer_profile(make_profiles(lines=3), y_label="$y$"),
  ):
    assert legend(figure)[:3] == list(NAMES[:3])
    texts = figure.findobj(matplotlib.text.Text)
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.parametrize("num_lines", [0, 1, 6])
def test_where_nothing_can_be_drawn_a_message_says_so(num_lines):
  lost = {name: (RATES, np.full((5, 2), np.nan)) for name in NAMES[:num_lines]}
  assert "nothing to draw" in message(line_plots.metric_against(lost, **LABELS))
  curves = {name: (x, y.T) for name, (x, y) in lost.items()}
  assert "nothing to draw" in message(line_plots.accuracy_against(curves, x_label="s"))
  values = {name: y for name, (_, y) in lost.items()}
  assert "no finite" in message(benchmark_plots.timings(values, x_label="s"))
  ensembles = {name: (np.array([1]), [np.array([np.nan])]) for name in lost}
  assert "no finite" in message(line_plots.ensemble_accuracy(ensembles))
  profiles = {("row", "column"): values} if num_lines else {}
  assert "no finite" in message(layer_plots.layer_profile(profiles, y_label="norm"))
  assert "nothing to compare" in message(forest_plots.forest([]))
  population = make_population(num_epochs=1)
  population.curves["learning_rate"][:] = np.nan
  assert "no finite" in message(plots.learning_rates(population))


def test_same_arrays_same_bytes_whatever_the_settings(tmp_path):
  def write(folder):
    folder.mkdir()
    for index, figure in enumerate(array_figures(1, 2)):
      if index not in (3, 5, 7):  # they share their code with others, and writing takes long
        figures.save(figure, folder / str(index))
    return {path.name: path.read_bytes() for path in folder.iterdir()}

  first = write(tmp_path / "first")
  with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9}):
    assert write(tmp_path / "second") == first
  assert len(first) == 12
