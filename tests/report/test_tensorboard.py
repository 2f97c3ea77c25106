"""Event files, as TensorBoard's own reader reads them."""

import math
import shutil
import sys
import time

import jax
import numpy as np
import pytest
from conftest import save_no_picture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import jaxdl
from experiments import export
from jaxdl import launch
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from jaxdl.experiment import plan_groups
from jaxdl.population import devices, plan
from jaxdl.report import figures, params, tensorboard
from jaxdl.store.store import Store

ARMS = {
  "plain": Arm(
    model="mlp(4)", loss="categorical_cross_entropy", batch_size=16, num_epochs=3, patience=None
  ),
  "None": Arm(model="mlp(6)", loss="categorical_cross_entropy", batch_size=16, num_epochs=2),
  "a/b": Arm(
    model="mlp(4)",
    loss="categorical_cross_entropy",
    learning_rate=1e30,
    batch_size=16,
    num_epochs=3,
  ),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, blobs):
  """A run of three arms in two programs, one of which diverges, that wrote while it trained."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, "save", save_no_picture)
    return jaxdl.compare(
      blobs,
      ARMS,
      seeds=2,
      margins={"test_accuracy": 0.1},
      target_loss=1.08,
      workdir=tmp_path_factory.mktemp("tensorboard") / "run",
      tensorboard=True,
    )


def _read(folder):
  """Returns tag -> [(step, value)] and the hyperparameters of one run."""
  reader = EventAccumulator(str(folder))
  reader.Reload()
  scalars = {
    tag: [(event.step, event.value) for event in reader.Scalars(tag)]
    for tag in reader.Tags()["scalars"]
  }
  begin, end = (
    reader.SummaryMetadata(tag).plugin_data.content
    for tag in (metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG)
  )
  settings = {
    name: getattr(value, value.WhichOneof("kind"))
    for name, value in metadata.parse_session_start_info_plugin_data(begin).hparams.items()
  }
  metadata.parse_session_end_info_plugin_data(end)
  return scalars, settings


def test_every_member_is_a_run_with_curves_results_and_settings(run, tmp_path):
  jaxdl.open_run(run.workdir).to_tensorboard(tmp_path / "out")
  found = {path.parent for path in (tmp_path / "out").rglob("events.*")}
  assert found == {
    tmp_path / "out" / name / f"seed_{seed}"
    for name in ("plain", "None", "a%2Fb")
    for seed in (0, 1)
  }
  for member in run.members.to_dict("records"):
    arm, seed = member["arm"], member["seed"]
    scalars, settings = _read(tmp_path / "out" / params.folder_name(arm) / f"seed_{seed}")
    curves = run.curves[(run.curves.arm == arm) & (run.curves.seed == seed)]
    for tag in ("learning_rate", "train_loss", "val_loss", "val_accuracy"):
      assert [step for step, _ in scalars[tag]] == list(curves.epoch)
      np.testing.assert_allclose([value for _, value in scalars[tag]], curves[tag], rtol=1e-6)
    assert ("final/test_accuracy" in scalars) == (member["status"] != "diverged")
    if member["status"] != "diverged":
      assert scalars["final/test_accuracy"] == [
        (len(curves), pytest.approx(member["test_accuracy"], rel=1e-6))
      ]
    assert (settings["arm"], settings["seed"], settings["dataset"]) == (arm, seed, "blobs")
    assert settings["model"] == ARMS[arm].model
    assert settings["learning_rate"] == ARMS[arm].learning_rate
    assert ("patience" in settings) == (arm != "plain")
  assert any(math.isnan(v) for _, v in _read(tmp_path / "out/a%2Fb/seed_0")[0]["train_loss"])


def test_what_is_written_during_the_run_is_what_is_exported(run, tmp_path):
  jaxdl.open_run(run.workdir).to_tensorboard(tmp_path / "out")
  live = run.workdir / "run" / tensorboard.FOLDER
  folders = [path.parent.relative_to(live) for path in live.rglob("events.*")]
  assert len(folders) == 6
  for folder in folders:
    ours, theirs = _read(live / folder), _read(tmp_path / "out" / folder)
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    assert folder.parent.name == "a%2Fb" or "final/epochs_to_target" in ours[0]
    for tag, values in ours[0].items():
      np.testing.assert_array_equal(values, theirs[0][tag])


def test_of_an_arm_that_was_decided_only_trained_members_are_written(tmp_path, no_pictures):
  arm = Arm(
    model="mlp(8)",
    loss="categorical_cross_entropy",
    batch_size=32,
    num_epochs=2,
    learning_rate=0.01,
  )
  rates = {"a": 0.01, "slow": 1e-5, "b": 0.0101}
  arms = {name: arm.replace(learning_rate=rate) for name, rate in rates.items()}
  result = jaxdl.compare(
    "digits",
    arms,
    seeds=24,
    margins={"test_accuracy": 0.02},
    workdir=tmp_path / "run",
    tensorboard=True,
    until_decided=True,
  )
  trained = result.population.is_trained
  assert not trained.all()
  live = tmp_path / "run" / "run" / tensorboard.FOLDER
  assert len([*live.rglob("events.*")]) == trained.sum()
  jaxdl.open_run(result.workdir).to_tensorboard(tmp_path / "out")
  assert len([*(tmp_path / "out").rglob("events.*")]) == trained.sum()


class _Committed:
  """The store of a finished run, to which its chunks come one at a time."""

  def __init__(self, run, folder):
    self.folder, self.names = folder, set()
    self._store = Store(run.workdir / "run")
    self._store.join()

  def has_chunk(self, name):
    return name in self.names

  def read_chunk(self, name):
    return self._store.read_chunk(name)


@pytest.fixture
def planned(run, blobs):
  """The groups of the run, two, and their chunks."""
  groups = plan_groups(run.experiment, blobs, devices.kind_of(jax.local_devices()[0]))
  assert len(groups) == 2
  return groups, plan.all_chunks(groups)


def test_seeds_are_written_once_all_of_their_arms_are_committed(run, blobs, planned, tmp_path):
  """Whatever the order in which chunks are committed."""
  groups, chunks = planned
  store = _Committed(run, tmp_path)
  writer = tensorboard._Live(store, run.experiment, blobs, groups)
  trained = {seed: set() for seed in (0, 1)}
  for chunk in reversed(chunks):
    store.names.add(chunk.name)
    writer.write()
    arms = groups[chunk.group].layout.arms[chunk.arm : chunk.arm + chunk.num_arms]
    for seed in range(chunk.seed, chunk.seed + chunk.num_seeds):
      trained.get(seed, set()).update(arms)
    found = {path.parent.name for path in tmp_path.rglob("events.*")}
    assert found == {f"seed_{seed}" for seed, arms in trained.items() if arms == set(ARMS)}
  assert not writer._committed


def test_they_are_written_while_others_train(run, blobs, planned, tmp_path, monkeypatch):
  monkeypatch.setattr(tensorboard, "_SECONDS_BETWEEN_LOOKS", 0.01)
  groups, chunks = planned
  store = _Committed(run, tmp_path)
  with tensorboard.live(store, run.experiment, blobs, groups):
    store.names.update(chunk.name for chunk in chunks)
    last = time.monotonic() + 60
    while len([*tmp_path.rglob("events.*")]) < 6 and time.monotonic() < last:
      time.sleep(0.01)
    found = [*tmp_path.rglob("events.*")]
  assert len(found) == 6
  assert [*tmp_path.rglob("events.*")] == found


def test_tasks_that_write_a_member_at_a_time_leave_one_file(run, tmp_path, monkeypatch):
  """A second task writes all members after the first has found that one is missing."""
  store = _Committed(run, tmp_path)
  clock = iter(range(1000, 2000))
  monkeypatch.setattr(tensorboard.time, "time", lambda: float(next(clock)))
  plain_write = tensorboard.files.write

  def write(*arguments):
    monkeypatch.setattr(tensorboard.files, "write", plain_write)
    tensorboard.write_missing(store, run.experiment, run.population)
    plain_write(*arguments)

  monkeypatch.setattr(tensorboard.files, "write", write)
  tensorboard.write_missing(store, run.experiment, run.population)
  assert len([*tmp_path.rglob("events.*")]) == 6


def test_a_folder_that_cannot_be_written_is_named_at_the_end(
  run, blobs, planned, tmp_path, monkeypatch, caplog
):
  """The run goes on until then."""
  monkeypatch.setattr(tensorboard, "_SECONDS_BETWEEN_LOOKS", 0.01)
  groups, chunks = planned
  store = _Committed(run, tmp_path)
  store.names.update(chunk.name for chunk in chunks)
  (tmp_path / tensorboard.FOLDER).write_text("a file")

  def train():
    with tensorboard.live(store, run.experiment, blobs, groups):
      last = time.monotonic() + 60
      while not caplog.records and time.monotonic() < last:
        time.sleep(0.01)

  with pytest.raises(InputError, match="Not a directory"):
    train()
  assert "are written at the end of the run only" in caplog.text


def test_a_second_export_replaces_the_first_and_nothing_else(run, tmp_path):
  opened = jaxdl.open_run(run.workdir)
  (tmp_path / "notes.txt").write_text("mine")
  opened.to_tensorboard(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  opened.to_tensorboard(tmp_path)
  assert sorted(tmp_path.rglob("*")) == before
  (own := tmp_path / "plain" / "seed_0" / "mine.txt").write_text("mine")
  with pytest.raises(InputError, match=r"mine\.txt' was made by no run"):
    opened.to_tensorboard(tmp_path)
  assert own.read_text() == (tmp_path / "notes.txt").read_text() == "mine"
  assert sorted(tmp_path.rglob("*")) == sorted([*before, own])


def test_a_run_that_starts_anew_deletes_them(run):
  other = run.workdir.parent / "copy"
  shutil.copytree(run.workdir / "run", other)
  Store(other).clear()
  assert [path for path in other.rglob("*") if path.is_file()] == []


def test_the_command(run, tmp_path, capsys):
  flags = [f"--workdir={run.workdir}", f"--out={tmp_path}"]
  assert export.main(["export", *flags]) == 0
  assert capsys.readouterr().out == f"6 members: tensorboard --logdir={tmp_path}\n"
  for arguments, error in (
    (flags[:1], "--out is missing"),
    ([*flags, "more"], "unknown argument 'more'"),
    (["--workdir=no", *flags[1:]], "holds no finished run"),
  ):
    assert export.main(["export", *arguments]) == 2
    text = capsys.readouterr().err
    assert error in text
    assert text.count("\n") == 1


def test_without_the_library_it_says_what_to_install(run, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda _: None)
  message = r"pip install 'jaxdl\[tensorboard\]'"
  with pytest.raises(InputError, match=message):
    jaxdl.open_run(run.workdir).to_tensorboard(tmp_path / "out")
  with pytest.raises(InputError, match=message):
    launch.run(run.experiment, tmp_path / "run", tensorboard=True)
  assert list(tmp_path.iterdir()) == []
