"""Runs that train seeds until the question is decided, and runs that are continued."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import save_no_picture

import jaxdl
from jaxdl import launch, report, stats
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import Looks, looks, plan, train_population, until_decided
from jaxdl.population.local import Outcome
from jaxdl.population.progress import Progress


@pytest.fixture(scope="module")
def experiment():
  """Two arms that differ in accuracy by far, in a second."""
  arm = Arm(
    model="mlp(8)",
    loss="categorical_cross_entropy",
    batch_size=32,
    num_epochs=2,
    learning_rate=0.01,
  )
  return Experiment(
    question="Does the learning rate matter?",
    arms={"fast": arm, "slow": arm.replace(learning_rate=1e-5)},
    dataset="digits",
    num_seeds=24,
    margins={"test_accuracy": 0.02, "test_loss": 1e-6},
  )


pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_stage_has_the_chunks_that_are_missing_up_to_the_look():
  chunks = [plan.Chunk(0, seed, 0, 3, 1) for seed in range(0, 24, 3)]
  group = SimpleNamespace(layout=SimpleNamespace(arms=("a",)), parts=lambda chunk, ends: [chunk])
  stages = []

  def execute(groups, stage, progress):
    stages.append([chunk.seed for chunk in stage])
    return Outcome({chunk: chunk.name for chunk in stage if chunk.seed}, {chunks[0]: "it failed"})

  found = looks.train_looks(
    Looks((8, 16, 24), lambda population: () if population[0] == 16 else ("a",)),
    execute,
    [group],
    chunks,
    Progress(quiet=True),
    lambda size, outcome, ends: (size, outcome),
  )
  assert stages == [[0, 3, 6], [9, 12, 15]]
  size, outcome = found
  assert (size, list(outcome.results), list(outcome.failures)) == (16, chunks[1:6], chunks[:1])


def test_a_population_until_decided_has_the_seeds_of_one_that_was_planned(blobs, mlp_arm):
  """Bit for bit, up to the look that decides; a compiled program serves all looks."""
  arms = {"a": mlp_arm, "b": replace(mlp_arm, learning_rate=1e-6)}
  population = train_population(
    blobs, arms, seeds=32, chunk_size=4, until_decided=until_decided("test_loss", 1e-3, 32)
  )
  planned = train_population(blobs, arms, seeds=8, chunk_size=4)
  assert population.seeds == planned.seeds
  assert population.missing_seeds == ()
  for name, values in planned.metrics.items():
    np.testing.assert_array_equal(population.metrics[name], values, err_msg=name)
  looked = Looks((4, 8, 12), lambda population: arms)
  population = train_population(blobs, arms, seeds=12, chunk_size=4, until_decided=looked)
  assert population.seeds == tuple(range(12))
  for name, values in planned.metrics.items():
    np.testing.assert_array_equal(population.metrics[name][:8], values, err_msg=name)


def test_parts_of_a_chunk_are_runs_of_arms_that_go_on():
  group = plan.Group(0, None, SimpleNamespace(arms=tuple("abcde")), None, None, 24, 0)
  chunk = plan.Chunk(0, seed=8, arm=1, num_seeds=4, num_arms=4)
  ends = {"a": 24, "b": 24, "c": 8, "d": 16, "e": 9}
  assert group.parts(chunk, None) == [chunk]
  assert group.parts(chunk, ends) == [chunk._replace(num_arms=1), plan.Chunk(0, 8, 3, 4, 2)]
  assert group.parts(chunk, dict.fromkeys("abcde", 8)) == []


def test_a_decided_arm_stops_and_the_others_go_on(blobs, mlp_arm):
  """Its later seeds are not trained; all else is as if they were, chunks of two programs too."""
  arm = replace(mlp_arm, model="mlp(4)", num_epochs=2, dropout_rate=None)
  arms = {
    "a": arm,
    "slow": replace(arm, learning_rate=1e-6),
    "b": replace(arm, learning_rate=0.0031),
    "short": replace(arm, num_epochs=1, learning_rate=1e-6),  # in a program of its own
  }
  open_arms = {4: ("a", "b"), 8: ("a", "b", "slow"), 12: ("b",)}
  looked = Looks((4, 8, 12), lambda population: open_arms[len(population.seeds)])
  # Chunks of three seeds go beyond the look after four.
  some = train_population(
    blobs, arms, seeds=12, chunk_size=3, until_decided=looked, keep_params=True
  )
  every = train_population(blobs, arms, seeds=12, chunk_size=3, keep_params=True)
  assert some.is_trained.sum(axis=0).tolist() == [12, 4, 12, 4]
  assert (some.status[4:, [1, 3]] == "not_trained").all()
  assert (some.epochs[4:, [1, 3]] == 0).all()
  assert some.missing_seeds == ()
  for name, values in every.metrics.items():
    expected = np.where(some.is_trained, values, np.nan)
    np.testing.assert_allclose(some.metrics[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)
  scores = some.scores("test_loss")
  assert scores.num_trained == (12, 4, 12, 4)
  assert [summary.n for summary in stats.summarize(scores)] == [12, 4, 12, 4]
  assert all(summary.num_diverged == 0 for summary in stats.summarize(scores))
  for arm, count in zip(arms, scores.num_trained, strict=True):
    for path, leaf in some.variables[arm].items():
      assert len(leaf) == count
      np.testing.assert_allclose(leaf, every.variables[arm][path][:count], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def stopped(experiment, tmp_path_factory):
  """A run of three arms, of which one is decided after 16 of 24 seeds, and its result."""
  near = experiment.arms["fast"].replace(learning_rate=0.0101)
  experiment = replace(experiment, arms={**experiment.arms, "near": near})
  workdir = tmp_path_factory.mktemp("stopped") / "run"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("jaxdl.report.figures.save", save_no_picture)
    return experiment, workdir, launch.run(experiment, workdir, until_decided=True)


def test_files_have_the_members_that_are_not_trained(stopped):
  _, workdir, result = stopped
  assert result.population.is_trained.sum(axis=0).tolist() == [24, 16, 24]
  verdicts = {(v.arm_a, v.arm_b): v for v in result.verdicts if v.metric == "test_accuracy"}
  assert {pair: (v.verdict, v.num_seeds) for pair, v in verdicts.items()} == {
    ("fast", "slow"): ("better", 16),
    ("fast", "near"): ("equivalent", 24),
    ("slow", "near"): ("worse", 16),
  }
  assert all(v.num_diverged_a == v.num_diverged_b == 0 for v in result.verdicts)
  text = (workdir / "report.md").read_text()
  assert "16 to 24 seeds of each of 3 arms" in text
  assert "8 members were not trained, since all pairs of their arms were decided." in text
  members = report.read_run(workdir).members
  spared = members[members.status == "not_trained"]
  assert set(spared.seed) == set(range(16, 24))
  assert set(spared.arm) == {"slow"}
  assert spared.test_loss.isna().all()
  assert set(members.status) == {"finished", "not_trained"}
  run = jaxdl.open_run(workdir)
  with pytest.raises(InputError, match="arm 'slow' has no seed 16; it has 0, 1"):
    run.params("slow", 16)
  assert len(run.predict_each(np.zeros((1, *run.input_shape), int), "slow")) == 16
  assert len(run.curves[run.curves.arm == "slow"]) == 16 * 2
  per_class = pd.read_csv(workdir / "per_class.csv")
  assert (per_class.num_examples > 0).all()


def test_a_run_with_a_stopped_arm_is_continued_and_reported_in_part_with_the_same_bits(
  stopped, tmp_path
):
  """As if it had been killed in its last stage."""
  experiment, workdir, result = stopped
  again = tmp_path / "run"
  shutil.copytree(workdir, again)
  last = [file for file in (again / "run" / "chunks").iterdir() if "-a2x" in file.name]
  assert len(last) in (1, 8)  # of arm "near" alone, whose neighbour has stopped
  for file in last:
    file.unlink()
  partial = launch.run(experiment, again, until_decided=True, partial=True)
  assert len(partial.population.seeds) == 16
  continued = launch.run(experiment, again, until_decided=True)
  for name in ("verdicts.json", "curves.parquet", "correct.npz", "per_class.csv"):
    assert (again / name).read_bytes() == (workdir / name).read_bytes(), name
  np.testing.assert_array_equal(continued.population.status, result.population.status)


def test_a_run_ends_when_the_question_is_decided(experiment, tmp_path):
  result = launch.run(experiment, tmp_path, until_decided=True)
  assert result.population.seeds == tuple(range(16))
  accuracy, loss = result.verdicts
  assert (accuracy.verdict, accuracy.num_seeds, accuracy.budget) == ("better", 16, 24)
  assert (accuracy.design, loss.design) == (stats.GROUP_SEQUENTIAL,) * 2
  text = (tmp_path / "report.md").read_text()
  assert "with looks after every 8 seeds and at most 24" in text
  assert "The mean of a pair that was decided early is biased" in text
  assert "Partial" not in text
  config = json.loads((tmp_path / "config.json").read_text())
  assert (config["num_seeds"], config["until_decided"]) == (24, True)
  assert Experiment.from_json(config).looks == (8, 16, 24)
  again = launch.run(experiment, tmp_path, until_decided=True)
  assert [stats.to_json(v) for v in again.verdicts] == [stats.to_json(v) for v in result.verdicts]
  with pytest.raises(InputError, match="num_seeds: 24 there, 32 now"):
    launch.run(replace(experiment, num_seeds=32), tmp_path, until_decided=True)


def test_the_tasks_of_an_array_decide_alike(experiment, tmp_path):
  """Each looks at the seeds that all have trained; the second finds them, and the report."""
  first, second = (
    launch.run(experiment, tmp_path, until_decided=True, executor="array", place=(index, 2))
    for index in (0, 1)
  )
  assert first.population.seeds == second.population.seeds == tuple(range(16))
  assert list(map(stats.to_json, first.verdicts)) == list(map(stats.to_json, second.verdicts))
  assert not list(tmp_path.glob("run/locks/task-*"))


def test_a_run_that_was_planned_otherwise_is_continued_with_bets(experiment, tmp_path):
  """What it trained stays; looks follow until the bets decide, or no seed is left."""
  margins = {"test_accuracy": 0.02}
  experiment = replace(experiment, num_seeds=6, margins=margins)
  first = launch.run(experiment, tmp_path)
  trained = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "chunks").iterdir()}
  result = launch.run(replace(experiment, num_seeds=40), tmp_path, until_decided=True)
  assert {file: file.stat().st_mtime_ns for file in trained} == trained
  (verdict,) = result.verdicts
  assert (verdict.verdict, verdict.design) == ("better", stats.ANYTIME)
  assert len(result.population.seeds) == 14  # 6 differences of one sign give no 1 / 40
  assert result.population.scores("test_accuracy").values[:6].tolist() == (
    first.population.scores("test_accuracy").values.tolist()
  )
  text = (tmp_path / "report.md").read_text()
  assert "The run was planned with 6 seeds, looked at, and continued" in text
  config = json.loads((tmp_path / "config.json").read_text())
  assert (config["num_seeds"], config["continued_from"]) == (40, 6)
  # Which is another question.
  other = replace(experiment, num_seeds=40, seed=1)
  with pytest.raises(InputError, match="holds a run of another config"):
    launch.run(other, tmp_path, until_decided=True)


def test_what_cannot_have_looks_is_refused_in_one_line(experiment, tmp_path):
  def refused(message, experiment=experiment, **options):
    with pytest.raises(InputError, match=message):
      launch.run(experiment, tmp_path / "run", until_decided=True, **options)
    assert not (tmp_path / "run").exists()

  refused("not for the executor multihost", executor="multihost")
  refused("chooses some of them", choose=lambda experiment, population: population)
  refused("the budget of seeds must be an integer >= 16, not 15", replace(experiment, num_seeds=15))
  refused("num_resamples 10 is too small", replace(experiment, num_resamples=10))
  with pytest.raises(InputError, match="until_decided must be True or False, not 8"):
    replace(experiment, until_decided=8)
  with pytest.raises(InputError, match="continued_from must be an integer <= 24, not 25"):
    replace(experiment, continued_from=25)
