"""What a run leaves behind, read back by other means."""

import datetime
import functools
import itertools
import json
import os
import re
import shutil
import types
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from conftest import rehash
from hypothesis import given
from hypothesis import strategies as st
from made_up_scores import make_verdict

from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl import report, stats
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import devices, environment
from jaxdl.report import figures

FILES = {
  "config.json",
  "provenance.json",
  "members.csv",
  "curves.parquet",
  "confusion.npz",
  "correct.npz",
  "per_class.csv",
  "tables",
  "verdicts.json",
  "report.md",
  "report.html",
  "figures",
}


@pytest.fixture(scope="module")
def experiment(three_arms):
  return Experiment(
    question="Does it matter?",
    arms=three_arms,
    dataset="blobs",
    num_seeds=5,
    seed=3,
    chunk_size=2,
    margins={"test_accuracy": 0.05, "test_loss": 0.2},
  )


@pytest.fixture(scope="module")
def verdicts(experiment, trained):
  return experiment_lib.compare(experiment, trained)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, experiment, blobs, trained, verdicts):
  path = tmp_path_factory.mktemp("run") / "workdir"
  with report.Workdir(path, experiment) as directory:
    picture = ("own_picture", "A picture of its own.", figures.message("nothing to see"))
    extra = report.Extra(
      ["## More\n\nof it"], [picture], {"own_table": pd.DataFrame({"x": [1, 2]})}
    )
    directory.commit(experiment, blobs, trained, verdicts, extra)
  return path


def test_a_finished_run_is_read_back(workdir, experiment, trained):
  found = report.read_run(workdir)
  assert found.experiment == experiment
  pd.testing.assert_frame_equal(found.members, report.members_table(trained), check_dtype=False)
  assert found.tables["own_table"].x.tolist() == [1, 2]


def _raise_accuracy(path):
  table = pd.read_csv(path / "members.csv")
  table.test_accuracy = (table.test_accuracy + 0.3).clip(upper=1)
  table.to_csv(path / "members.csv", index=False)


def _halve(path):
  lines = (path / "members.csv").read_text().splitlines(keepends=True)
  (path / "members.csv").write_text("".join(lines[: len(lines) // 2]))


def _take_config(path):
  text = (path / "config.json").read_text()
  (path / "config.json").write_text(text.replace('"seed": 3', '"seed": 4'))


@pytest.mark.parametrize(
  ("edit", "name"),
  [
    (_raise_accuracy, "members.csv"),
    (_halve, "members.csv"),
    (_take_config, "config.json"),
    (lambda path: (path / "tables" / "own_table.csv").write_text("x\n9\n2\n"), "own_table.csv"),
    (lambda path: (path / "tables" / "own_table.csv").unlink(), "own_table.csv"),
    (lambda path: (path / "provenance.json").unlink(), "provenance.json"),
  ],
)
def test_results_that_were_edited_are_not_believed(workdir, tmp_path, edit, name):
  path = tmp_path / "copy"
  shutil.copytree(workdir, path)
  edit(path)
  with pytest.raises(InputError, match=name):
    report.read_run(path)


def test_a_table_that_the_run_did_not_write_is_not_read(workdir, tmp_path):
  path = tmp_path / "copy"
  shutil.copytree(workdir, path)
  (path / "tables" / "another.csv").write_text("x\n1\n")
  assert set(report.read_run(path).tables) == {"own_table"}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda table: table[:-1], "14 of 15 members in 14 rows"),
    (lambda table: pd.concat([table, table[:1]]), "15 of 15 members in 16 rows"),
    (lambda table: table.assign(seed=table.seed + 1), "12 of 15 members"),
    (lambda table: table.assign(test_accuracy=1.7), "test_accuracy = 1.7"),
    (lambda table: table.assign(f1=np.nan), "f1 = nan"),
    (lambda table: table.assign(epochs=7), "epochs = 7"),
    (lambda table: table.assign(status="running"), "status 'running'"),
    (lambda table: table.drop(columns="arm"), "KeyError: 'arm'"),
  ],
)
def test_members_are_those_of_the_config(workdir, tmp_path, change, message):
  """Also where somebody has made the hashes fit."""
  path = tmp_path / "copy"
  shutil.copytree(workdir, path)
  change(pd.read_csv(path / "members.csv")).to_csv(path / "members.csv", index=False)
  rehash(path, "members.csv")
  with pytest.raises(InputError, match=message):
    report.read_run(path)


def test_files(workdir):
  assert {path.name for path in workdir.iterdir()} == FILES
  names = {path.name for path in (workdir / "figures").iterdir()}
  stems = ["learning_curves", "metric_distribution", "confusion_matrices", "worst_mistakes"]
  stems += ["reliability", "own_picture"]
  assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
  assert (workdir / "tables" / "own_table.csv").read_text() == "x\n1\n2\n"
  text = (workdir / "report.md").read_text()
  assert "![A picture of its own.](figures/own_picture.png)" in text
  page = (workdir / "report.html").read_text()
  for part in ('alt="A picture of its own."', "<h2>More</h2>", 'download="own_table.csv"'):
    assert part in page


def test_classes(workdir, trained):
  """Precision, recall and F1 of each class, by their definitions; their means are the members'."""
  table = pd.read_csv(workdir / "per_class.csv")
  assert list(table["class"].unique()) == list(trained.class_names)
  for (seed, arm), rows in table.groupby(["seed", "arm"]):
    s, a = trained.seeds.index(seed), list(trained.arms).index(arm)
    counts = trained.confusion[s, a]
    for c, row in enumerate(rows.itertuples()):
      hits = counts[c, c]
      assert row.recall == pytest.approx(hits / counts[c].sum())
      assert row.precision == pytest.approx(hits / max(counts[:, c].sum(), 1))
    assert rows.f1.mean() == pytest.approx(trained.metrics["f1"][s, a])
  assert "the micro average of all three is the accuracy" in (workdir / "report.md").read_text()


def test_a_picture_of_augmentation_and_one_of_the_rates(blobs, mlp_arm, tmp_path):
  """Where there is something to see; tables of an earlier run do not stay behind."""
  arms = {"a": replace(mlp_arm, rotation_range=30.0, schedule="cosine", num_epochs=2)}
  experiment = Experiment("?", arms, dataset="blobs", num_seeds=1, margins={"test_accuracy": 0.1})
  trained = experiment_lib.train_arms(experiment, blobs)
  table = report.Extra(tables={"old": pd.DataFrame({"x": [1]})})
  with report.Workdir(tmp_path, experiment) as directory:
    directory.commit(experiment, blobs, trained, [], table)
    directory.commit(experiment, blobs, trained, [])
  names = {path.stem for path in (tmp_path / "figures").iterdir()}
  assert {"augmentation", "learning_rates"} < names
  assert not (tmp_path / "tables").exists()


def test_one_run_beside_the_spread(trained):
  values = trained.metrics["test_accuracy"][:, 0]
  arm = next(iter(trained.arms))
  rows = [(arm, "test_accuracy", v) for v in (values.min() - 0.1, values.min(), values.max() + 0.1)]
  lines = report.beside_table(trained, rows).split("\n")
  assert [line.split("|")[-2].strip() for line in lines[2:]] == ["below", "yes", "above"]
  assert f"{100 * values.mean():.4g}%" in lines[2]


def test_members(workdir, trained, three_arms):
  members = pd.read_csv(workdir / "members.csv")
  assert list(members.columns) == [
    *("seed", "arm", "status", "epochs", "best_epoch", "num_params"),
    *("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"),
    *("precision", "recall", "f1", "auc", "ece", "train_seconds"),
  ]
  assert members.seed.tolist() == [s for s in range(5) for _ in range(3)]
  assert members.arm.tolist() == list(three_arms) * 5
  table = members.pivot(index="seed", columns="arm", values="test_loss")[list(three_arms)]
  np.testing.assert_allclose(table, trained.metrics["test_loss"], rtol=1e-12)
  assert set(members.status) <= {"finished", "early_stopped", "diverged"}
  assert (members.train_seconds > 0).all()


def test_bits_and_confusion_matrices_agree(workdir, trained):
  """Read as another program would."""
  with np.load(workdir / "correct.npz", allow_pickle=False) as file:
    bits = np.unpackbits(file["correct"], axis=-1, count=int(file["num_examples"]))
    assert file["arms"].tolist() == list(trained.arms)
    for label in range(3):
      right = bits[..., file["labels"] == label].sum(axis=-1)
      np.testing.assert_array_equal(right, trained.confusion[..., label, label])
  members = pd.read_csv(workdir / "members.csv")
  np.testing.assert_allclose(bits.mean(axis=-1).ravel(), members.test_accuracy)


def test_verdicts_on_accuracies_say_what_new_images_would(workdir, trained):
  verdicts = json.loads((workdir / "verdicts.json").read_text())
  correct = np.unpackbits(trained.correct, axis=-1, count=30).astype(float)
  arms = list(trained.arms)
  seen = 0
  for verdict in verdicts:
    if verdict["metric"] != "test_accuracy":
      assert verdict["new_examples"] is None
      continue
    a, b = (correct[:, arms.index(verdict[key])] for key in ("arm_a", "arm_b"))
    expected = stats.to_json(stats.crossed_interval(a - b))
    assert verdict["new_examples"] == pytest.approx(expected)
    assert expected["difference"] == pytest.approx(verdict["mean_difference"])
    seen += 1
  assert seen == 3


def test_curves(workdir, trained):
  curves = pd.read_parquet(workdir / "curves.parquet")
  assert list(curves.columns) == [
    *("seed", "arm", "epoch", "learning_rate"),
    *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
  ]
  assert len(curves) == trained.epochs.sum()
  lengths = curves.groupby(["seed", "arm"]).epoch.agg(["min", "max", "size"])
  assert (lengths["min"] == 1).all()
  assert (lengths["max"] == lengths["size"]).all()
  # The best epoch of a member is where its own curve is lowest first.
  members = pd.read_csv(workdir / "members.csv").set_index(["seed", "arm"])
  lowest = curves.sort_values("epoch").groupby(["seed", "arm"]).val_loss.apply(np.argmin) + 1
  assert (lowest == members.best_epoch.loc[lowest.index]).all()
  last = curves.sort_values("epoch").groupby(["seed", "arm"]).last()
  for name in ("train_loss", "val_loss", "val_accuracy"):
    np.testing.assert_allclose(last[name], members.loc[last.index, name], rtol=1e-12)


def test_confusion(workdir, trained):
  with np.load(workdir / "confusion.npz", allow_pickle=False) as arrays:
    np.testing.assert_array_equal(arrays["confusion"], trained.confusion)
    assert arrays["arms"].tolist() == list(trained.arms)
    assert arrays["class_names"].tolist() == ["a", "b", "c"]
    diagonal = np.trace(arrays["confusion"], axis1=2, axis2=3) / 30
  members = pd.read_csv(workdir / "members.csv")
  np.testing.assert_allclose(members.test_accuracy, diagonal.ravel())


def test_verdicts_follow_from_members(workdir, three_arms):
  """Recomputed from members.csv with scipy alone."""
  verdicts = json.loads((workdir / "verdicts.json").read_text())
  members = pd.read_csv(workdir / "members.csv")
  assert len(verdicts) == 6
  for metric in ("test_accuracy", "test_loss"):
    table = members.pivot(index="seed", columns="arm", values=metric)
    about = [v for v in verdicts if v["metric"] == metric]
    for verdict in about:
      difference = (table[verdict["arm_a"]] - table[verdict["arm_b"]]).to_numpy()
      interval = scipy.stats.ttest_1samp(difference, 0).confidence_interval(0.95)
      assert verdict["num_pairs"] == 5
      assert verdict["mean_difference"] == pytest.approx(difference.mean())
      assert [verdict["ci_low"], verdict["ci_high"]] == pytest.approx(list(interval))
      assert verdict["verdict"] == "too few seeds"  # five are fewer than seven
      assert verdict["p_value"] is verdict["p_holm"] is None
      assert verdict["seeds_needed"] == 7


def test_config_is_complete(workdir, experiment):
  config = json.loads((workdir / "config.json").read_text())
  assert config == json.loads(json.dumps(experiment.to_json()))
  assert config["arms"]["random_normal"]["kernel_initializer"] == "random_normal"
  assert config["margins"] == {"test_accuracy": 0.05, "test_loss": 0.2}


def test_provenance(workdir, blobs):
  origin = json.loads((workdir / "provenance.json").read_text())
  assert origin["dataset"]["checksum"] == blobs.checksum
  assert origin["device_count"] == len(jax.local_devices())
  assert origin["num_workers"] == len(devices.workers())
  assert origin["chunk_size"] == 2
  assert origin["programs"][0]["num_chunks"] == 3
  assert re.fullmatch(r"\d+\.\d+\.\d+\S*", origin["versions"]["jax"])
  assert origin["started"] <= origin["finished"]
  assert set(origin["source"]) == {"revision", "clean"}


def test_a_clock_that_is_set_back_changes_no_duration(
  monkeypatch, tmp_path, experiment, blobs, trained
):
  days = itertools.count()

  class Clock(datetime.datetime):  # each time a day earlier than the last
    @classmethod
    def now(cls, tz=None):
      return super().now(tz) - datetime.timedelta(days=next(days))

  fake = types.SimpleNamespace(datetime=Clock, UTC=datetime.UTC)
  monkeypatch.setattr("jaxdl.report.workdir.datetime", fake)
  with report.Workdir(tmp_path / "run", experiment) as directory:
    origin = directory._provenance(blobs, trained)
  assert origin["finished"] < origin["started"]
  assert 0 <= origin["total_seconds"] < 60


def test_report_reads_in_order(workdir):
  text = (workdir / "report.md").read_text()
  parts = ["# Does it matter?", "No claim can be made from so few seeds", "## Verdicts", "## Arms"]
  parts += ["figures/learning_curves.png", "## More", "## How it was made"]
  places = [text.index(part) for part in parts]
  assert places == sorted(places)
  for link in re.findall(r"\]\((\S+?)\)", text):
    assert (workdir / link).is_file()


@pytest.mark.parametrize(
  ("outcomes", "expected"),
  [
    (["equivalent"] * 3, "No: all arms are equivalent within 5 points of test_accuracy"),
    (
      ["equivalent", "worse", "better"],
      "Yes: in test_accuracy, a is worse than c; b is better than c by more than the margin; no "
      "other difference is shown to exceed the margin of 5 points",
    ),
    (["worse", "equivalent", "equivalent"], "no difference is shown to exceed the margin of 5 "),
    (["undecided", "equivalent", "equivalent"], "Undecided in test_accuracy for 1 of 3 pairs .*40"),
    (
      ["equivalent", "undecided", "better"],
      "Yes: .* b is better than c by more than the margin; 1 of 3 pairs of arms undecided",
    ),
    (["too few seeds"] * 3, "No claim can be made .* at least 40 are needed"),
    ([], "one arm only"),
  ],
)
def test_answer_says_what_the_verdicts_say(outcomes, expected, trained):
  pairs = [("a", "b"), ("a", "c"), ("b", "c")]
  verdicts = [
    make_verdict(
      arm_a=arm_a,
      arm_b=arm_b,
      verdict=outcome,
      beyond_margin=outcome == "better",
      seeds_needed=None if outcome in ("equivalent", "better", "worse") else 40,
    )
    for (arm_a, arm_b), outcome in zip(pairs, outcomes, strict=False)
  ]
  assert re.search(expected, answer_lib.answer(verdicts, "test_accuracy", trained))


def test_answer_says_what_diverged(trained):
  """Seventeen pairs that agree are no equivalence where three runs of twenty diverged."""
  values = np.full((20, 2), 0.9)
  values[:3, 1] = np.nan
  scores = stats.Scores(
    metric="test_accuracy",
    values=values,
    seeds=range(20),
    arms=("a", "b"),
    axes=("seed", "arm"),
    higher_is_better=True,
  )
  verdicts = stats.compare(scores, margin=0.01)
  assert answer_lib.answer(verdicts, "test_accuracy", trained) == (
    "Undecided in test_accuracy for 1 of 1 pairs of arms: alike, but arms of which one diverged "
    "are not called equivalent (17 pairs of runs). Only runs that did not diverge were compared: b "
    "diverged in 3 of 20 seeds."
  )
  counted = stats.compare(replace(scores, diverged_as=0.1), margin=0.01)
  text = answer_lib.answer(counted, "test_accuracy", trained)
  assert text.startswith("Undecided in test_accuracy for 1 of 1 pairs of arms: ")
  assert text.endswith(
    "(20 pairs of runs). Runs that diverged count with a test_accuracy of 10.0%: b diverged in 3 "
    "of 20 seeds."
  )
  header, row = report.verdict_rows(counted)
  assert row[header.index("without diverged")] == "undecided"
  header, row = report.verdict_rows(verdicts)
  assert row[header.index("diverged a, b")] == "0, 3"
  assert row[header.index("95% interval")] == "-"


def test_answer_says_first_that_nothing_was_learned(trained):
  """Of 30 images in three classes, chance is 1/3, and 0.5 still within two standard errors."""
  accuracy = trained.metrics["test_accuracy"]

  def say(*means):
    metrics = {**trained.metrics, "test_accuracy": np.full_like(accuracy, means)}
    return answer_lib.answer([], "test_accuracy", replace(trained, metrics=metrics))

  assert say(1 / 3, 1 / 3, 0.5).startswith(
    "Caution: in test accuracy, no arm is better than always answering the most frequent class "
    "(33.3%). There is one arm only"
  )
  assert say(0.9, 1 / 3, 1 / 3).startswith(
    "Caution: in test accuracy, random_uniform and random_normal are not better than always"
  )
  assert say(0.9, 0.52, 0.9).startswith("There is one arm only")


def test_another_config_is_refused_and_nothing_is_touched(workdir, experiment, three_arms):
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
  with pytest.raises(InputError, match=r"another config \(seed: 3 there, 4 now\).*--overwrite"):
    report.Workdir(workdir, replace(experiment, seed=4))
  arms = {**three_arms, "random_normal": replace(three_arms["random_normal"], patience=7)}
  with pytest.raises(InputError, match=r"arms.random_normal.patience: 2 there, 7 now"):
    report.Workdir(workdir, replace(experiment, arms=arms))
  assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def test_same_config_and_overwrite_are_accepted(workdir, experiment):
  with report.Workdir(workdir, experiment):
    pass
  with report.Workdir(workdir, replace(experiment, seed=4), overwrite=True):
    pass
  assert {path.name for path in workdir.iterdir()} == FILES


def test_strange_directories_are_refused(tmp_path, experiment):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write to workdir"):
    report.Workdir(tmp_path / "file" / "workdir", experiment)


def test_whatever_decides_a_result_is_compared(tmp_path, experiment, blobs, monkeypatch):
  """Settings, versions and source; the data, the names of its classes; what is recorded."""

  def observe(*_):
    return {}

  kind = devices.kind_of(jax.local_devices()[0])

  def claim(message=None, dataset=blobs, resume_anyway=False, **recorded):
    with report.Workdir(tmp_path, experiment, resume_anyway=resume_anyway) as directory:
      if message is None:
        directory.claim(dataset, [], kind, **recorded)
        return directory.resumed_anyway
      with pytest.raises(InputError, match=f"holds a run that differs .*{message}"):
        directory.claim(dataset, [], kind, **recorded)

  claim()
  for anyway in (False, True):  # what decides what a member is
    refuse = functools.partial(claim, resume_anyway=anyway)
    refuse("dataset_checksum", dataset=replace(blobs, checksum="1"))
    refuse("class_names", dataset=replace(blobs, class_names=("a", "b", "d")))
    refuse("observe: None there, .*observe' now", observe=observe)
    refuse("keep_logits: False there, True now", keep_logits=True)
    with jax.default_matmul_precision("bfloat16"):
      refuse("jax_default_matmul_precision: None there, 'bfloat16' now")
    with jax.threefry_partitionable(False):
      refuse("jax_threefry_partitionable: True there, False now")
  monkeypatch.setattr(jax, "__version__", "9.9.9")
  claim("environment.jax: .* there, '9.9.9' now")
  (said,) = claim(resume_anyway=True)
  assert said.startswith("environment.jax: ")
  monkeypatch.undo()
  monkeypatch.setattr(environment, "_source_hash", lambda: "edited")
  claim("environment.source: .* there, 'edited' now")


@pytest.mark.parametrize(
  "change",
  [
    lambda e: replace(e, seed=4),
    lambda e: replace(e, dataset="digits"),
    lambda e: replace(e, num_train=40),
    lambda e: replace(e, validation_fraction=0.1),
    lambda e: replace(e, classes=(0, 1)),
    lambda e: replace(e, arms={**e.arms, "more": e.arms["random_normal"]}),
    *(
      lambda e, setting=setting: replace(
        e, arms={n: replace(a, **setting) for n, a in e.arms.items()}
      )
      for setting in ({"model": "mlp(8)"}, {"loss": "mean_squared_error"}, {"learning_rate": 0.1})
    ),
  ],
)
def test_another_recipe_is_never_continued(tmp_path, experiment, blobs, change):
  kind = devices.kind_of(jax.local_devices()[0])
  with report.Workdir(tmp_path, experiment) as directory:
    directory.claim(blobs, [], kind)
  with pytest.raises(InputError, match=r"another config .* or start anew with --overwrite$"):
    report.Workdir(tmp_path, change(experiment), resume_anyway=True)


def test_the_report_begins_with_what_differs(
  tmp_path, experiment, blobs, trained, verdicts, monkeypatch
):
  """Chunk by chunk, whichever process made the report."""
  kind = devices.kind_of(jax.local_devices()[0])

  def go_on(chunk, experiment=experiment):
    with report.Workdir(tmp_path, experiment, resume_anyway=True) as directory:
      directory.claim(blobs, [], kind)
      directory.store.commit_chunk(chunk, {"x": np.zeros(1)})
      origin = directory._provenance(blobs, trained)
    text = report.render(experiment, trained, verdicts, origin, [], [])
    return text.partition(f"# {experiment.question}")[2]

  assert "resume" not in go_on("g0-s0x2-a0x3")
  monkeypatch.setattr(jax, "__version__", "9.9.9")
  text = go_on("g0-s2x2-a0x3", replace(experiment, alpha=0.04))
  assert text.startswith("\n\n**This run was continued with `--resume_anyway`")
  assert re.search(
    r"^- This report: alpha: 0.05 there, 0.04 now; environment.jax: .* now.$", text, re.M
  )
  go_on("g0-s4x2-a0x3")  # no other record
  monkeypatch.undo()
  assert re.search(
    r"""
- Trained first: g0-s0x2-a0x3\.
- From then on: environment\.jax: .* there, '9\.9\.9' now\.
- Trained then: chunks g0-s2x2-a0x3, g0-s4x2-a0x3\.
- From then on: as it began\.
""",
    go_on("g1-s0x2-a0x3"),
  )


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
  "name",
  [
    "report.md",
    "config.json",
    "provenance.json",
    "figures/mine.png",
    "tables/.notes",
    "run/notes.txt",
    "run/run.json",
    ".lock",
  ],
)
def test_what_no_run_has_made_is_refused_and_stays(name, overwrite, tmp_path, experiment, blobs):
  file = tmp_path / name
  file.parent.mkdir(exist_ok=True)
  file.write_text("mine")
  before = sorted(tmp_path.rglob("*"))
  with (
    pytest.raises(InputError, match=re.escape(name)),
    report.Workdir(tmp_path, experiment, overwrite=overwrite) as directory,
  ):
    directory.claim(blobs, [], devices.kind_of(jax.local_devices()[0]))
  assert sorted(tmp_path.rglob("*")) == before
  assert file.read_text() == "mine"


def test_a_report_that_somebody_has_edited_is_refused_and_stays(
  workdir, tmp_path, experiment, blobs, trained, verdicts
):
  path = tmp_path / "copy"
  shutil.copytree(workdir, path)
  with report.Workdir(path, experiment) as directory:
    with open(path / "report.md", "a") as file:
      file.write("my notes")
    with pytest.raises(InputError, match=r"report\.md' was made by no run, or has changed since"):
      directory.commit(experiment, blobs, trained, verdicts)
  for overwrite in (False, True):
    with pytest.raises(InputError, match=r"report\.md' was made by no run, or has changed since"):
      report.Workdir(path, experiment, overwrite=overwrite)
  assert {p.name for p in path.iterdir()} == FILES
  assert (path / "report.md").read_text().endswith("my notes")


def test_a_folder_may_have_any_name(tmp_path, experiment, blobs, trained, verdicts):
  """Such as one that is no UTF-8."""
  path = tmp_path / os.fsdecode(b"\xff")
  with report.Workdir(path, experiment) as directory:
    directory.commit(experiment, blobs, trained, verdicts)
  assert {p.name for p in path.iterdir()} == FILES - {"tables"}


def test_a_failed_run_leaves_nothing(tmp_path, experiment):
  with pytest.raises(KeyboardInterrupt), report.Workdir(tmp_path / "new" / "run", experiment):
    raise KeyboardInterrupt
  assert not (tmp_path / "new").exists()
  (tmp_path / "kept.txt").write_text("mine")
  with pytest.raises(KeyboardInterrupt), report.Workdir(tmp_path, experiment):
    raise KeyboardInterrupt
  assert {path.name for path in tmp_path.iterdir()} == {"kept.txt"}


def test_diverged_members_have_no_numbers(trained):
  status = trained.status.copy()
  status[2, 1] = "diverged"
  metrics = {name: np.where(status == "diverged", np.nan, v) for name, v in trained.metrics.items()}
  confusion = np.where((status == "diverged")[..., None, None], 0, trained.confusion)
  population = replace(trained, status=status, metrics=metrics, confusion=confusion)
  row = report.members_table(population).query("seed == 2 and arm == 'random_uniform'").iloc[0]
  assert row.status == "diverged"
  assert row[["train_loss", "test_accuracy", "f1"]].isna().all()
  assert row.epochs == trained.epochs[2, 1]


@given(st.text(max_size=40))
def test_escaped_text_stays_in_its_cell(text):
  escaped = report.escape(text)
  assert "\n" not in escaped
  assert "<" not in escaped
  assert not re.search(r"(?<!\\)[|`*\[\]]", escaped.replace("\\\\", ""))


def test_bad_experiments_are_refused(three_arms):
  for settings, message in (
    ({"margins": {}}, "name no metric"),
    ({"margins": {"test_accuracy": 0}}, "margin of test_accuracy"),
    ({"alpha": 0.7}, "alpha must be"),
    ({"num_seeds": 0}, "num_seeds must be an integer >= 1"),
    ({"seed": -1}, "seed must be an integer >= 0"),
    ({"num_resamples": 0}, "num_resamples must be"),
    ({"num_resamples": 10, "num_seeds": 40}, "num_resamples 10 is too small"),
  ):
    with pytest.raises(InputError, match=message):
      Experiment(question="?", arms=three_arms, **settings)
