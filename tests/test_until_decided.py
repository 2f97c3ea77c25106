"""Runs that train seeds until the question is decided, and runs that are continued."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxdl import launch, stats
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
  stages = []

  def execute(groups, stage, progress):
    stages.append([chunk.seed for chunk in stage])
    return Outcome({chunk: chunk.name for chunk in stage if chunk.seed}, {chunks[0]: "it failed"})

  found = looks.train_looks(
    Looks((8, 16, 24), lambda population: population[0] == 16),
    execute,
    [],
    chunks,
    Progress(quiet=True),
    lambda size, outcome: (size, outcome),
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
  looked = Looks((4, 8, 12), lambda population: False)
  population = train_population(blobs, arms, seeds=12, chunk_size=4, until_decided=looked)
  assert population.seeds == tuple(range(12))
  for name, values in planned.metrics.items():
    np.testing.assert_array_equal(population.metrics[name][:8], values, err_msg=name)


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

  for executor in ("array", "multihost"):
    refused(f"not for {executor}", executor=executor)
  refused("chooses some of them", choose=lambda experiment, population: population)
  refused("the budget of seeds must be an integer >= 16, not 15", replace(experiment, num_seeds=15))
  refused("num_resamples 10 is too small", replace(experiment, num_resamples=10))
  with pytest.raises(InputError, match="until_decided must be True or False, not 8"):
    replace(experiment, until_decided=8)
  with pytest.raises(InputError, match="continued_from must be an integer <= 24, not 25"):
    replace(experiment, continued_from=25)
