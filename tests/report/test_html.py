"""The report as one HTML file: read as text, and opened in a browser where there is one."""

import base64
import html as html_lib
import html.parser
import importlib.util
import io
import json
import pathlib
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from drawing import HOSTILE, make_population
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import jaxdl
from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl import launch, report
from jaxdl.arm import Arm
from jaxdl.errors import one_line
from jaxdl.experiment import Experiment
from jaxdl.report import html as html_report
from jaxdl.report import setup_tables
from jaxdl.report.html import charts, examples, page, run

CHROMIUM = shutil.which("chromium")
NAMES = [
  "<img src=x onerror=alert(1)>",
  "</script><script>alert(1)//",
  *HOSTILE[:4],
  "${x} {{ 7*7 }}",
]
MLP = Arm(model="mlp(4)", loss="categorical_cross_entropy")


class Elements(html.parser.HTMLParser):
  """The elements of a page, its text, and the text of its scripts."""

  def __init__(self, text):
    super().__init__()
    self.found, self.text, self.scripts, self._open = [], [], [], ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    self._open = tag

  def handle_endtag(self, tag):
    self._open = ""

  def handle_data(self, data):
    {"script": self.scripts, "style": []}.get(self._open, self.text).append(data)


def _render(population, dataset, question="Does it matter?", margins=None, **options):
  experiment = Experiment(question, {"a": MLP}, margins=margins or {"test_accuracy": 0.05})
  verdicts = experiment_lib.compare(experiment, population)
  origin = report.provenance(dataset, population)
  origin |= {"source": {"revision": None, "clean": None}, "total_seconds": 1.0}
  origin["command"] = ["python", "a b.py", "--config=$x"]
  return html_report.render(experiment, dataset, population, verdicts, origin, **options)


def _population(num_seeds=8, arm_names=("one", "two", "three"), **options):
  population = make_population(
    num_seeds, len(arm_names), 3, num_examples=30, arm_names=list(arm_names), **options
  )
  return replace(population, arms=dict.fromkeys(arm_names, MLP))


@pytest.fixture(scope="module")
def text(blobs, tmp_path_factory):
  """The report of three arms, of which one has a stopped and one a diverged member."""
  file = tmp_path_factory.mktemp("files") / "members.csv"
  file.write_text("seed,arm\n0,one\n")
  population = _population(stopped=[(0, 0, 3)], diverged=[(1, 1, 2)])
  return _render(population, blobs, files=[file], sections=["## More\n\n| a |\n| --- |\n| 1 |"])


@pytest.fixture(scope="module")
def hostile(blobs):
  """The report of a run in which every name is hostile."""
  names = tuple(NAMES[:3])
  population = _population(arm_names=NAMES, class_names=names)
  dataset = replace(blobs, class_names=names, name=NAMES[0])
  return _render(population, dataset, NAMES[1], sections=[NAMES[0], "[x](javascript:alert(1))"])


def test_it_is_one_small_file_in_the_right_order(text):
  assert len(text.encode()) < 500_000
  parts = ["<h1>Does it matter?", 'class="answer"', "distribution", "Verdicts</h2>", "Arms side by"]
  parts += ["Learning curves</h2>", "Confusion matrices</h2>", "worst mistakes</h3>", "More</h2>"]
  parts += ["Models and settings</h2>", "Where the time went", "How it was made</h2>", "Downloads"]
  body = text.partition("</head>")[2]
  places = [body.index(part) for part in parts]
  assert places == sorted(places)


def test_nothing_is_loaded_from_elsewhere(text, hostile):
  for source in (text, hostile):
    for tag, attributes in Elements(source).found:
      assert tag not in ("link", "iframe", "object", "embed", "base", "form")
      for name, value in attributes.items():
        assert not name.startswith("on")
        if name in ("src", "href"):
          assert value.startswith(("data:", "#"))
    assert not re.search(r"url\((?!data:)|@import", source)


def test_hostile_names_stay_text(text, hostile):
  """As text and in JSON; the page has no element that a page with plain names lacks."""
  plain, found = Elements(text), Elements(hostile)
  assert {tag for tag, _ in found.found} <= {tag for tag, _ in plain.found}
  assert len(found.scripts) == len(plain.scripts) == 3
  assert found.scripts[-1] == plain.scripts[-1]  # the page's own
  data = json.loads(found.scripts[0])
  assert data["names"] == [one_line(name) for name in NAMES]
  shown = " ".join(found.text)
  for name in NAMES:
    assert one_line(name) in shown
  assert "49" not in re.findall(r"\{\{ 7.{0,9}", shown)[0]
  hostile.encode()


@given(st.text(max_size=30))
def test_any_text_is_shown_as_it_is(name):
  none = run.verdict_table([])
  texts = {"question": name, "answer": "yes", "caption": name}
  shown = Elements(page.render("summary.jinja", table=none, picture="", **texts))
  assert "".join(shown.text).split("\n")[:2] == [one_line(name), "yes"]
  assert [tag for tag, _ in shown.found] == ["p", "b", "p", "img"]


def test_downloads_are_the_files(text, tmp_path):
  (link,) = (a for tag, a in Elements(text).found if tag == "a" and "download" in a)
  assert link["download"] == "members.csv"
  assert base64.b64decode(link["href"].partition(",")[2]) == b"seed,arm\n0,one\n"
  small, large = tmp_path / "small.csv", tmp_path / "large.csv"
  small.write_bytes(b"1")
  large.write_bytes(bytes(2_000_000))
  assert [(d.name, d.url is None) for d in run._downloads([large, small])] == [
    ("large.csv", True),
    ("small.csv", False),
  ]


def test_the_command_can_be_pasted(text):
  assert "<code>python 'a b.py' '--config=$x'</code>" in html_lib.unescape(text)


def test_settings_that_differ_are_told_from_those_that_do_not():
  settings = setup_tables.settings({"a": MLP, "b": MLP.replace(learning_rate=0.1)}, "ab")
  assert settings.differing == [["arm", "learning_rate"], ["a", "0.001"], ["b", "0.1"]]
  names = [name for name, _ in settings.common]
  assert {"learning_rate", *names} == set(MLP.to_json())
  assert setup_tables.settings({"a": MLP}, "a").differing == []


def test_parameters_of_a_model_add_up(blobs):
  (model,) = setup_tables.models(_population().arms, blobs)
  assert model.rows[-1] == ["total", "", "", f"{64 * 4 + 4 + 4 * 3 + 3:,}"]
  assert model.arms == ["one", "two", "three"]


# --- Charts ---


def test_axes_map_their_limits_to_the_ends():
  for axis in (charts.Axis(2, 10), charts.Axis(0.01, 100, log=True)):
    ends = (2, 10) if axis.share(2) == 0 else (0.01, 100)
    np.testing.assert_allclose(axis.share(ends), [0, 1], atol=1e-12)
    for at, label in axis.ticks():
      assert 100 * axis.share(float(label)) == pytest.approx(at, abs=0.01)
  np.testing.assert_allclose(charts.Axis(2, 10, flip=True).share([2, 10]), [1, 0])


def test_a_path_has_a_gap_where_there_is_no_number():
  nan = np.nan
  path = charts._path(np.array([0, 0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.25, nan, 1, nan]))
  assert path == "M0,500 100,250 M300,1000"
  assert charts._dots(np.array([0.5]), np.array([1.0])) == "M500,1000h0"


def test_values_of_the_curves_are_means_of_the_members():
  population = _population(diverged=[(1, 0, 3)])
  curves = charts.learning_curves(population)
  kept = population.curves["val_accuracy"][:, 0][population.status[:, 0] != "diverged"]
  panel = curves.values["panels"]["val_accuracy"]
  np.testing.assert_allclose(panel["mean"][0], 100 * kept.mean(axis=0), rtol=1e-3)
  assert panel["members"][0][1][2:] == [None] * 4  # after it diverged
  (mark,) = (mark for arm in curves.panels[0].arms for mark in arm.marks)
  assert (mark.kind, mark.seed) == ("diverged", 1)
  assert curves.seeds == list(range(8))


def test_with_many_members_and_epochs_some_are_drawn():
  population = _population(num_seeds=60, num_epochs=1000)
  curves = charts.learning_curves(population)
  assert len(curves.values["epochs"]) == 200
  assert curves.values["epochs"][-1] == 1000
  assert 1 < len(curves.seeds) < 60
  assert len(json.dumps(curves.values)) < 2_000_000


def test_bars_put_the_margin_around_zero():
  experiment = Experiment("?", {"a": MLP}, margins={"test_accuracy": 0.05})
  verdicts = experiment_lib.compare(experiment, _population())
  for verdict, bar in zip(verdicts, charts.differences(verdicts), strict=True):
    left, width = bar.margin
    assert left + width / 2 == pytest.approx(50)
    assert bar.interval[0] <= bar.mean <= bar.interval[1]
    assert (bar.mean > 50) == (verdict.mean_difference > 0)


def test_more_than_a_dozen_arms_are_collapsed(blobs):
  names = [f"arm {i}" for i in range(14)]
  source = _render(_population(arm_names=names), blobs)
  checked = [a for tag, a in Elements(source).found if "data-switch" in a and "checked" in a]
  assert len(checked) == 2
  scores = _population(arm_names=names).metrics["test_accuracy"].mean(axis=0)
  shown = answer_lib.shown_arms(_population(arm_names=names).scores("test_accuracy"))
  drawn = [scores[names.index(shown[int(a["data-switch"])])] for a in checked]
  assert {min(drawn), max(drawn)} == {scores.min(), scores.max()}
  assert len(source) < 1_500_000
  behind = [a["d"] for tag, a in Elements(source).found if a.get("class") == "behind"]
  assert [path.count("M") for path in behind] == [14] * 4  # the mean of each, in each panel


def test_a_page_of_a_thousand_arms_has_a_table_of_all(blobs):
  names = [f"arm {i}" for i in range(1000)]
  source = _render(_population(num_seeds=2, arm_names=names), blobs)
  assert {f"arm {i}" for i in range(1000)} <= set(re.findall(r"arm \d+", source))
  assert len(source) < 2_000_000


# --- Examples ---


def test_a_cell_has_the_examples_most_like_its_predicted_class(blobs):
  population = _population()
  found = examples.collect(population, blobs.test.inputs, [0, 1])
  counts = population.confusion.sum(axis=0)
  assert {key[0] for key in found.cells} == {"0", "1"}
  for key, of_cell in found.cells.items():
    arm, true, answer = map(int, key.split(","))
    assert counts[arm, true, answer] > 0
    others = population.mean_probabilities[arm, population.test_targets == true, answer]
    assert of_cell[0][1] == pytest.approx(others.max(), abs=1e-3)
    for index, probability in of_cell:
      assert population.test_targets[index] == true
      assert population.mean_probabilities[arm, index, answer] == pytest.approx(
        probability, abs=1e-3
      )
  shown = {index for of_cell in found.cells.values() for index, _ in of_cell}
  assert shown <= found.sprite.places.keys()
  assert all(example.is_mistake for example in found.worst)
  assert len({example.number for example in found.some}) == 24


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tile_is_its_image(channels):
  images = np.random.default_rng(0).integers(0, 256, (9, 8, 6, channels)).astype(np.uint8)
  if channels == 3:  # which JPEG keeps if it is smooth
    images = np.broadcast_to(images[:, :1, :1], images.shape).copy()
  sprite = examples.make_sprite(images, [7, 2, 5])
  with Image.open(io.BytesIO(base64.b64decode(sprite.url.partition(",")[2]))) as picture:
    sheet = np.array(picture).reshape(picture.height, picture.width, channels)
  for index, place in sprite.places.items():
    row, column = divmod(place, sprite.columns)
    tile = sheet[8 * row : 8 * row + 8, 6 * column : 6 * column + 6]
    inner = (slice(2, 6), slice(2, 4)) if channels == 3 else (slice(None),) * 2
    np.testing.assert_allclose(tile[inner].astype(int), images[index][inner], atol=12)
  assert (sprite.tile[0] // 6, sprite.tile[1] // 8) == (7, 7)


def test_large_images_are_shrunk_and_not_all_are_shown():
  assert examples.make_sprite(np.zeros((3, 96, 192, 3), np.uint8), range(3)).tile == (48, 24)
  assert examples._num_tiles((96, 192, 3)) == 500_000 // (48 * 24)
  population = _population()
  counts = population.confusion.sum(axis=0)
  cells = examples._behind_cells(population, [0], 4)
  assert sum(map(len, cells.values())) == 4
  mistakes = {key: counts[tuple(map(int, key.split(",")))] for key in cells}
  assert all(key[2] != key[4] for key in mistakes)
  assert min(mistakes.values()) >= sorted(counts[0][~np.eye(3, dtype=bool)])[-4]


# --- Numbers, sequences, documents ---


def test_numbers_are_drawn_against_the_truth():
  x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
  dataset = jaxdl.from_arrays(x, x[:, :2].sum(axis=1), validation=0.2, name="line")
  targets = dataset.test.targets
  trained = _population(arm_names=["a", "b"])
  predictions = np.stack([targets, targets + 1])[..., None]
  trained = replace(
    trained,
    arms=dict.fromkeys(trained.arms, MLP.replace(loss="mean_squared_error")),
    class_names=(),
    test_targets=targets,
    mean_probabilities=predictions,
    metrics={"r2": trained.metrics["f1"]},
  )
  source = _render(trained, dataset, margins={"r2": 0.1})
  assert "Confusion matrices</h2>" not in source
  exact, shifted = charts.predictions(trained, [0, 1])
  for _, predicted, residuals in (exact, shifted):
    for panel in (predicted, residuals):
      assert panel.arms[0].shapes[0].path.count("M") == len(dataset.test)
  heights = {re.findall(r",(-?\d+)h0", of[2].arms[0].shapes[0].path)[0] for of in (exact, shifted)}
  assert heights == {"500", str(round(1000 * (0.5 - 1 / 2.1)))}


def test_sequences_have_matrices_without_examples(blobs):
  trained = _population(arm_names=["a", "b"])
  targets = trained.test_targets.reshape(15, 2)
  source = _render(replace(trained, test_targets=targets), blobs)
  assert "Confusion matrices</h2>" in source
  assert "data-cell=" not in source.partition("</head>")[2].partition("<script>")[0]


def test_a_document_keeps_its_tables_and_pictures(tmp_path):
  (tmp_path / "figures").mkdir()
  Image.new("RGB", (4, 4), "red").save(tmp_path / "figures" / "a.png")
  source = html_report.document(
    "# A *title*\n\n| x |\n| --- |\n| <b> |\n\n![What](figures/a.png) ![None](figures/b.png)",
    tmp_path,
  )
  found = Elements(source)
  assert [a["alt"] for tag, a in found.found if tag == "img"] == ["What"]
  assert "b" not in {tag for tag, _ in found.found}
  assert "A *title*" in source.partition("</title>")[0]


def test_a_result_shows_itself():
  population = _population()
  arms = population.arms
  experiment = Experiment("Is <b> right?", arms, margins={"test_accuracy": 0.05})
  verdicts = experiment_lib.compare(experiment, population)
  result = launch.Result(experiment, population, verdicts, "An answer & more.")
  found = Elements(result._repr_html_())
  shown = "".join(found.text)
  assert "Is <b> right?" in shown
  assert "An answer & more." in shown
  assert len([tag for tag, _ in found.found if tag == "tr"]) == 1 + len(verdicts)
  ((_, picture),) = [element for element in found.found if element[0] == "img"]
  head, _, content = picture["src"].partition(",")
  assert head == "data:image/png;base64"
  with Image.open(io.BytesIO(base64.b64decode(content))) as image:
    assert image.width > image.height


# --- Colours ---


def _luminance(color):
  """Returns the relative luminance of #rrggbb (WCAG 2.2)."""
  channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
  linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
  return linear @ (0.2126, 0.7152, 0.0722)


def test_contrast_is_enough_in_light_and_dark():
  """4.5 for text and 3 for lines, as WCAG 2.2 asks."""
  style = (page._FOLDER / "page.css").read_text()
  light, dark = re.findall(r":root \{(.*?)\n *\}", style, re.S)[:2]
  for text in (light, dark):
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", text))
    colors = {
      k: c if len(c) == 7 else "#" + "".join(2 * x for x in c[1:]) for k, c in colors.items()
    }
    paper = _luminance(colors["paper"])
    for name, color in colors.items():
      if name in ("paper", "soft", "line", "heat"):
        continue
      high, low = sorted((_luminance(color), paper), reverse=True)
      assert (high + 0.05) / (low + 0.05) >= (3 if name[1:].isdigit() else 4.5), name


# --- In a browser ---

_FRAME = """<!DOCTYPE html><body>
<iframe id="page" style="width:400px;height:900px" srcdoc="{page}"></iframe>
<script>
page.onload = async () => {{
  const view = page.contentWindow, root = page.contentDocument, $ = (s) => root.querySelector(s);
  const blocked = [];
  root.addEventListener("securitypolicyviolation", (e) => blocked.push(e.violatedDirective));
  const result = await (async () => {{ {script} }})().catch(String);
  result.blocked = blocked;
  result.loaded = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  result.width = root.documentElement.scrollWidth;
  page.remove();
  document.body.textContent = JSON.stringify(result);
}};
</script>"""


def _browse(folder, source, script):
  """Opens a page 400 pixels wide in Chromium, runs a script and returns what it returns."""
  if CHROMIUM is None:
    pytest.skip("Chromium is not installed")
  file = folder / "frame.html"
  file.write_text(_FRAME.format(page=html_lib.escape(source), script=script), "utf-8")
  options = "--headless=new --no-sandbox --disable-gpu --virtual-time-budget=3000 --dump-dom"
  logged = ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
  found = subprocess.run(
    [CHROMIUM, *options.split(), *logged, file.as_uri()], capture_output=True, text=True, timeout=60
  )
  console = [line for line in found.stderr.splitlines() if ":CONSOLE" in line]
  assert not console
  result = json.loads(html_lib.unescape(re.search(r"<body>(.*)</body>", found.stdout, re.S)[1]))
  assert isinstance(result, dict), result
  assert result["blocked"] == []
  assert all(name.startswith("data:") for name in result["loaded"])
  assert result["width"] <= 400
  return result


_USE = """
  const curve = (arm) => view.getComputedStyle($(`.plots [data-arm="${arm}"]`)).display;
  const before = curve(1);
  $('[data-switch="1"]').click();
  const after = curve(1);
  const panel = $('[data-panel="val_accuracy"]'), box = panel.getBoundingClientRect();
  panel.dispatchEvent(new view.PointerEvent("pointermove", { clientX: box.right }));
  const tip = panel.querySelector(".tip").innerText;
  panel.dispatchEvent(new view.KeyboardEvent("keydown", { key: "Home" }));
  const first = panel.querySelector(".tip").innerText;
  $("#follow").value = "3";
  $("#follow").dispatchEvent(new view.Event("change"));
  const followed = root.querySelectorAll(".plots path.followed").length;
  const table = $("#arms table"), header = table.querySelectorAll("th button")[1];
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[1].innerText);
  header.click();
  const rising = column();
  header.click();
  const falling = column();
  $("[data-cell]").click();
  const behind = root.querySelectorAll("#behind .tile").length;
  const shown = () => [$(".count"), $(".rate")].map((e) => view.getComputedStyle(e).display);
  const counts = shown();
  $("#show-rates").click();
  const rates = shown();
  const verdict = $("[popovertarget]");
  const open = () => root.querySelectorAll(".why:popover-open").length;
  const mouse = (type) =>
    verdict.dispatchEvent(new view.PointerEvent(type, { pointerType: "mouse" }));
  const hovered = [open()];
  for (const type of ["pointerenter", "pointerleave", "pointerenter"]) {
    mouse(type);
    hovered.push(open());
  }
  verdict.click();
  mouse("pointerleave");
  hovered.push(open());
  const why = $(".why:popover-open").innerText;
  const curves = { before, after, tip, first, followed };
  return { ...curves, rising, falling, behind, counts, rates, hovered, why };
"""


def test_a_browser_shows_and_uses_it(text, tmp_path):
  """No error, no request, no scrolling sideways; arms switch, tables sort, cells open."""
  result = _browse(tmp_path, text, _USE)
  assert (result["before"], result["after"]) == ("inline", "none")
  assert result["tip"].startswith("epoch 6")
  assert "one: " in result["tip"]
  assert "two: " not in result["tip"]  # switched off
  assert result["first"].startswith("epoch 1")
  assert result["followed"] == 4 * 3  # a line per panel and arm
  values = [float(text.partition("%")[0]) for text in result["rising"]]
  assert values == sorted(values)
  assert len(set(values)) > 1
  assert result["falling"] == result["rising"][::-1]
  assert result["behind"] > 0
  assert result["counts"] != result["rates"] == result["counts"][::-1]
  assert result["hovered"] == [0, 1, 0, 1, 1]  # a click makes it stay
  assert "one" in result["why"]
  assert "test_accuracy" in result["why"]


def test_a_browser_shows_hostile_names_as_text(hostile, tmp_path):
  script = """
    const names = [...root.querySelectorAll(".switches .arm-name span")].map((e) => e.textContent);
    return { names, images: root.images.length };
  """
  result = _browse(tmp_path, hostile, script)
  assert result["names"] == [one_line(name) for name in NAMES]
  assert result["images"] == 0


_AXE = """<script>{axe}</script><script>
addEventListener("load", async () => {{
  const found = await axe.run();
  const text = (v) => `${{v.id}}: ${{v.nodes.map((node) => node.html.slice(0, 200)).join(", ")}}`;
  document.body.textContent = JSON.stringify(found.violations.map(text));
}});
</script></body>"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["run", "document"])
def test_axe_finds_nothing_that_keeps_anybody_out(page, scheme, text, tmp_path):
  """Its rules are those of WCAG 2 and of good practice: https://github.com/dequelabs/axe-core."""
  package = importlib.util.find_spec("axe_playwright_python")
  if package is None or CHROMIUM is None:
    pytest.skip("axe is not installed (make docs), or Chromium is not")
  axe = pathlib.Path(package.submodule_search_locations[0], "axe.min.js").read_text("utf-8")
  tables = "# Claims\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n"
  source = text if page == "run" else html_report.document(2 * tables, tmp_path)
  # The page forbids scripts that are not its own.
  source = re.sub(r"<meta [^>]*Content-Security-Policy[^>]*>", "", source)
  file = tmp_path / "page.html"
  file.write_text(source.replace("</body>", _AXE.format(axe=axe)), "utf-8")
  options = "--headless=new --no-sandbox --disable-gpu --virtual-time-budget=20000 --dump-dom"
  dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
  found = subprocess.run(
    [CHROMIUM, *options.split(), *dark, f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
    capture_output=True,
    text=True,
    timeout=60,
  )
  body = re.search(r"<body>(.*)</body>", found.stdout, re.S)[1]
  assert json.loads(html_lib.unescape(body)) == []
