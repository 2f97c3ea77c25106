"""The ledger: every claim can come out either way; runs that are there are not made again."""

import dataclasses
import hashlib
import importlib
import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from experiments import claims_page, claims_runs, coursework_claims
from experiments.coursework_claims import CLAIMS, Run
from jaxdl.errors import InputError
from jaxdl.stats import ledger
from ml_collections_configs import claims as configs

_SEEDS = 16
_CONFIG = configs.get_config()


def _experiment(name, variant=None):
  variant = variant or _CONFIG.runs[name]
  config = importlib.import_module(f"ml_collections_configs.{name}").get_config(variant)
  return importlib.import_module(f"experiments.{name}").SCRIPT.create_experiment(config)


def _noise(scale=1e-4):
  return scale * np.linspace(-1, 1, _SEEDS)


def _run(name, accuracy=None, epochs=None, to_target=None, tables=None, default=0.5):
  """Makes up a finished run; `accuracy` and the others are arm -> mean over seeds."""
  experiment = _experiment(name)
  rows = []
  for arm, settings in experiment.arms.items():
    rows.append(
      pd.DataFrame(
        {
          "seed": range(_SEEDS),
          "arm": arm,
          "status": "finished",
          "test_accuracy": (accuracy or {}).get(arm, default) + _noise(),
          "test_accuracy_at_half": (accuracy or {}).get(arm, default) + _noise(),
          "epochs": (epochs or {}).get(arm, settings.num_epochs),
          "epochs_to_target": (to_target or {}).get(arm, 3) + _noise(),
        }
      )
    )
  return Run(name, experiment, pd.concat(rows), tables or {})


def _verdicts(run):
  return {c.name: ledger.judge(c).verdict for c in CLAIMS[run.name](run)}


def _timings(train, inference):
  """`arm -> seconds` of an epoch and of the test set, in twelve processes of one round."""
  rows = [
    (arm, kind, r + 1, 1, seconds * (1 + 0.001 * np.sin(r + len(arm))))
    for kind, of in (("train_epoch", train), ("inference", inference))
    for arm, seconds in of.items()
    for r in range(_SEEDS)
  ]
  return {
    "timings": pd.DataFrame(rows, columns=["arm", "kind", "process", "round", "seconds"]),
    "test_curves": _test_curves(mini=0.6),
  }


def _test_curves(mini):
  """Ten epochs of 1 s of mini-batches, at `mini` from the fifth on, and six of batch, at 0.5."""
  rows = [
    (seed, arm, epoch, epoch * seconds, (mini if epoch >= 5 else 0.1) if seconds == 1 else 0.5)
    for arm, epochs, seconds in (("mini_batch", 10, 1), ("batch_equal_time", 6, 0.9))
    for epoch in range(1, epochs + 1)
    for seed in range(_SEEDS)
  ]
  table = pd.DataFrame(rows, columns=["seed", "arm", "epoch", "seconds", "test_accuracy"])
  return table.assign(test_accuracy=table.test_accuracy + _noise()[table.seed])


_EVEN = {"batch": 1.0, "stochastic": 1.0, "mini_batch": 1.0, "batch_equal_time": 1.0}
_SLOW = {**_EVEN, "stochastic": 9.0}


def _rates(best):
  rows = [(name, rate) for name, rate in best.items()]
  return {"best_rates": pd.DataFrame(rows, columns=["optimizer", "learning_rate"])}


def _ensembles(gain):
  rows = [("base", 2, g, 0.5 + gain + e, 0.5) for g, e in enumerate(_noise())]
  names = ["arm", "k", "group", "accuracy", "mean_member_accuracy"]
  return {"ensembles": pd.DataFrame(rows, columns=names)}


def _vanishing(relu, sigmoid):
  experiment = _experiment("gradient_flow")
  values = {"relu": relu, "sigmoid": sigmoid}
  rows = []
  for arm in experiment.arms:
    activation, initializer, depth = re.fullmatch(r"(.*)/(.*)/depth (\d+)", arm).groups()
    for seed, noise in enumerate(_noise()):
      ratio = values.get(activation, 0.0) + noise
      rows.append((seed, arm, activation, initializer, int(depth), ratio))
  names = ["seed", "arm", "activation", "initializer", "depth", "log10_gradient_ratio"]
  return {"vanishing": pd.DataFrame(rows, columns=names)}


_BEST = {"sgd": 0.1, "adam": 0.001}
_DEEP = "depth 10"

# Claim -> a run in which it holds, and one in which it does not.
_CASES = {
  **{
    f"random normal is best, at {threshold}": (
      lambda: _run("compare_initializers", {"random_normal": 0.9}),
      lambda: _run("compare_initializers", {"glorot_uniform": 0.9}),
    )
    for threshold in (0.9, 0.5)
  },
  **{
    f"initializers are equal, at {threshold}": (
      lambda: _run("compare_initializers"),
      lambda: _run("compare_initializers", {"glorot_uniform": 0.9}),
    )
    for threshold in (0.9, 0.5)
  },
  "early stopping halves the epochs (CNN)": (
    lambda: _run(
      "compare_initializers",
      epochs={"random_normal": 9, "glorot_uniform": 10, "random_uniform": 7},
    ),
    lambda: _run("compare_initializers"),
  ),
  "batch is less accurate": (
    lambda: _run("compare_batch_sizes", {"batch": 0.3}, tables=_timings(_EVEN, _EVEN)),
    lambda: _run("compare_batch_sizes", {"stochastic": 0.3}, tables=_timings(_EVEN, _EVEN)),
  ),
  "batch is less accurate at equal time": (
    lambda: _run("compare_batch_sizes", {"mini_batch": 0.6}, tables=_timings(_EVEN, _EVEN)),
    lambda: _run(
      "compare_batch_sizes",
      tables={**_timings(_EVEN, _EVEN), "test_curves": _test_curves(mini=0.4)},
    ),
  ),
  "mini-batch beats stochastic": (
    lambda: _run("compare_batch_sizes", {"mini_batch": 0.6}, tables=_timings(_EVEN, _EVEN)),
    lambda: _run("compare_batch_sizes", {"stochastic": 0.6}, tables=_timings(_EVEN, _EVEN)),
  ),
  "stochastic takes longest": (
    lambda: _run("compare_batch_sizes", tables=_timings(_SLOW, _EVEN)),
    lambda: _run("compare_batch_sizes", tables=_timings({**_SLOW, "batch": 10}, _EVEN)),
  ),
  "inference time depends on training": (
    lambda: _run("compare_batch_sizes", tables=_timings(_EVEN, {**_EVEN, "batch": 1.2})),
    lambda: _run("compare_batch_sizes", tables=_timings(_EVEN, _EVEN)),
  ),
  "cross-entropy is best": (
    lambda: _run("compare_losses", {"categorical_cross_entropy": 0.6}),
    lambda: _run("compare_losses", {"hinge": 0.6}),
  ),
  "Adam converges faster": (
    lambda: _run("compare_optimizers", to_target={"adam 0.001": 1}, tables=_rates(_BEST)),
    lambda: _run("compare_optimizers", to_target={"sgd 0.1": 1}, tables=_rates(_BEST)),
  ),
  "extreme learning rates": (
    lambda: _run(
      "compare_optimizers",
      to_target={"sgd 1e-05": 9, "adam 1e-05": 9, "sgd 10": 9, "adam 10": 9},
      tables=_rates(_BEST),
    ),
    lambda: _run("compare_optimizers", tables=_rates(_BEST)),
  ),
  "early stopping is free (MLP)": (
    lambda: _run("compare_strategies", epochs={"early_stopping": 5}, tables=_ensembles(0)),
    lambda: _run(
      "compare_strategies",
      {"early_stopping": 0.4},
      epochs={"early_stopping": 5},
      tables=_ensembles(0),
    ),
  ),
  "an ensemble": (
    lambda: _run("compare_strategies", tables=_ensembles(0.05)),
    lambda: _run("compare_strategies", tables=_ensembles(-0.05)),
  ),
  "an ensemble against one network": (
    lambda: _run("compare_strategies", tables=_ensembles(0.05)),
    lambda: _run("compare_strategies", {"wide": 0.9}, tables=_ensembles(0.05)),
  ),
  "ReLU against vanishing gradients": (
    lambda: _run("gradient_flow", tables=_vanishing(0.0, -5.0)),
    lambda: _run("gradient_flow", tables=_vanishing(-5.0, -5.0)),
  ),
  "the right initial scale": (
    lambda: _run(
      "gradient_flow",
      to_target={f"relu/he_normal/{_DEEP}": 1},
      tables=_vanishing(0, 0),
    ),
    lambda: _run(
      "gradient_flow",
      to_target={f"relu/he_normal/{_DEEP}": 5},
      tables=_vanishing(0, 0),
    ),
  ),
  **{
    name: (
      lambda arm=arm: _run("compare_strategies", {arm: 0.6}, tables=_ensembles(0)),
      lambda arm=arm: _run("compare_strategies", {arm: 0.4}, tables=_ensembles(0)),
    )
    for name, arm in {
      "halving the rate": "step_decay",
      "augmentation": "augmentation",
      "dropout": "dropout",
      "L2": "l2",
      "a CNN": "cnn",
    }.items()
  },
}


@pytest.mark.parametrize("name", _CASES)
def test_every_claim_can_come_out_either_way(name):
  right, wrong = (_verdicts(make())[name] for make in _CASES[name])
  assert (right, wrong) == ("holds", "does not hold")


def test_an_improvement_of_nothing_is_too_small_to_count():
  verdicts = _verdicts(_run("compare_strategies", tables=_ensembles(0)))
  assert verdicts["dropout"] == verdicts["an ensemble"] == "too small to count"


def test_every_claim_has_its_cases():
  runs = {make().name for pair in _CASES.values() for make in pair}
  assert runs == set(CLAIMS)
  names = [name for case in _CASES.values() for name in _verdicts(case[0]())]
  assert set(names) == set(_CASES)


def test_divergence_counts_where_a_claim_says_so():
  """A member that diverged never reaches the target."""
  make = _CASES["extreme learning rates"][0]
  run = make()
  diverged = run.members.arm.isin(["sgd 10", "adam 10"])
  run.members.loc[diverged, "status"] = "diverged"
  run.members.loc[diverged, ["test_accuracy", "epochs_to_target"]] = np.nan
  assert _verdicts(run)["extreme learning rates"] == "holds"

  flow = _run("gradient_flow", to_target={f"relu/he_normal/{_DEEP}": 1}, tables=_vanishing(0, 0))
  diverged = flow.members.arm == f"relu/he_normal(3)/{_DEEP}"
  flow.members.loc[diverged, "status"] = "diverged"
  flow.members.loc[diverged, "epochs_to_target"] = np.nan
  (claim,) = [c for c in CLAIMS["gradient_flow"](flow) if c.name == "the right initial scale"]
  outcome = ledger.judge(claim)
  assert outcome.verdict == "holds"
  assert [finding.num_pairs for finding in outcome.findings] == [_SEEDS, _SEEDS]


def test_a_run_without_what_a_claim_needs_is_refused():
  run = _run("compare_losses")
  with pytest.raises(InputError, match="no arm 'mse'"):
    run.scores("test_accuracy", "mse")
  with pytest.raises(InputError, match="no metric 'f1'"):
    run.scores("f1", "hinge")
  lost = dataclasses.replace(run.experiment, arms={"hinge": run.experiment.arms["hinge"]})
  with pytest.raises(InputError, match="no arm"):
    coursework_claims.loss_functions(run._replace(experiment=lost))


def test_the_ledger_says_whether_its_list_has_changed(tmp_path, monkeypatch):
  lists = [tmp_path / name for name in claims_page._LISTS]
  for file in lists:
    file.parent.mkdir()
    file.write_text("claims = 1\n")
  monkeypatch.setattr(claims_page, "ROOT", tmp_path)
  assert " revision " not in claims_page._registered("0123456")  # there is no history

  def git(*arguments):
    command = ["git", "-c", "user.name=me", "-c", "user.email=me", *arguments]
    return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

  git("init")
  git("add", ".")
  git("commit", "-m", "registered")
  revision = git("rev-parse", "HEAD").strip()
  lists[1].write_text("claims = 2\n")
  text = claims_page._registered(revision)
  assert text.count(f"unchanged since revision {revision}") == 1
  assert text.count(f", changed since revision {revision}") == 1
  assert hashlib.sha256(b"claims = 1\n").hexdigest()[:16] in text


def test_the_ledger_states_its_own_level():
  """With 12 equal differences, 0.01^(1/12) = 68% of seeds or more give the same."""
  text = claims_page.markdown([], [], 0.01)
  assert "5%" not in text
  assert "up to 1%, and nothing corrects" in text
  assert (
    "with 99% confidence, that at least 0.01^(1/n) of all seeds give the same, which is" in text
  )
  assert "68% for 12" in text


def test_smoke_run_then_collected(tmp_path, run_module):
  """One experiment is run; the second time nothing is, wherever its workdir was moved to."""
  one = [f"--config.runs.{name}=" for name in CLAIMS if name != "compare_losses"]
  one.append("--config.textbook=")
  arguments = (f"--config={ROOT}/ml_collections_configs/claims.py:smoke", *one)
  workdir = tmp_path / "ledger"
  result = run_module("experiments.claims", *arguments, f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  assert "compare_losses: running" in result.stderr
  assert re.search(r"undecided +Cross-entropy gives", result.stdout)
  text = (workdir / "CLAIMS.md").read_text()
  assert "1 claims. Holds: 0, does not hold: 0, too small to count: 0, undecided: 1." in text
  assert "python -m experiments.compare_losses --config=ml_collections_configs/" in text
  assert str(tmp_path) not in text
  assert (workdir / "figures" / "claims.png").read_bytes().startswith(b"\x89PNG")
  (record,) = json.loads((workdir / "claims.json").read_text())
  assert record["verdict"] == "undecided"
  assert [part["meaning"] for part in record["parts"]] == ["undecided"] * 3
  assert [part["low"] for part in record["parts"]] == [None] * 3  # two seeds give no bounds

  there = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  refused = run_module(
    "experiments.claims", *arguments, f"--workdir={workdir}", "--config.num_seeds=3"
  )
  assert refused.returncode == 2
  assert "holds a run of another config (num_seeds: 2 there, 3 now)" in refused.stderr
  assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == there

  moved = tmp_path / "elsewhere"
  (workdir / "runs" / "compare_losses").rename(moved)
  arguments += (f"--workdir={tmp_path / 'second'}", f"--collect=nowhere,{moved}")
  again = run_module("experiments.claims", *arguments)
  assert again.returncode == 0, again.stderr
  assert f"compare_losses: collected from {moved}" in again.stderr
  assert (tmp_path / "second" / "CLAIMS.md").read_text() == text
  assert not (tmp_path / "second" / "runs").exists()

  table = pd.read_csv(moved / "members.csv")
  table.assign(test_accuracy=table.test_accuracy - 0.3).to_csv(moved / "members.csv", index=False)
  edited = run_module("experiments.claims", *arguments)
  assert edited.returncode == 2
  assert f"{str(moved / 'members.csv')!r} is missing, or has changed" in edited.stderr


def test_figures_that_are_not_of_a_ledger_are_refused_before_anything_runs(tmp_path, run_module):
  (tmp_path / "figures").mkdir()
  (tmp_path / "figures" / "mine.png").write_text("mine")
  result = run_module("experiments.claims", f"--workdir={tmp_path}")
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert "mine.png' was made by no run" in line
  assert len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"alpha": 2.0}, "alpha must be between 0 and 0.5"),
    ({"num_seeds": -1}, "num_seeds must be an integer >= 0"),
    ({"registered": "--output=x"}, "registered must be a revision of git, not '--output=x'"),
    ({"runs": dict.fromkeys(CLAIMS, ""), "textbook": ""}, "the config names no run"),
  ],
)
def test_mistakes_in_the_config(settings, message):
  config = configs.get_config()
  config.update(settings)
  with pytest.raises(InputError, match=message):
    claims_runs.read_runs(config)


def test_unknown_variants_are_refused():
  with pytest.raises(InputError, match="unknown variant 'smok'; did you mean 'smoke'"):
    claims_runs.plan("compare_losses", "smok", _CONFIG)


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.runs.compare_loses=smoke", "did you mean 'runs.compare_losses'"),
    ("--workdir=", "workdir is empty"),
  ],
)
def test_a_mistake_gets_one_line_and_status_2(argument, message, tmp_path, run_module):
  result = run_module("experiments.claims", f"--workdir={tmp_path / 'ledger'}", argument)
  assert result.returncode == 2
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert message in result.stderr
  assert not (tmp_path / "ledger").exists()


def test_an_experiment_of_another_config_is_not_collected(tmp_path):
  experiment = _experiment("compare_losses", "smoke")
  (tmp_path / "config.json").write_text(json.dumps(experiment.to_json()))
  assert claims_runs.is_run_of(experiment, tmp_path)
  assert not claims_runs.is_run_of(dataclasses.replace(experiment, seed=1), tmp_path)
  assert not claims_runs.is_run_of(experiment, tmp_path / "nowhere")
  (tmp_path / "config.json").write_text("{")
  assert not claims_runs.is_run_of(experiment, tmp_path)
