"""compare: a question of the user's own, from a config."""

import json

import pandas as pd
import pytest
from absl.testing import flagsaver
from conftest import DEFAULT_FLAGS
from ml_collections import ConfigDict

from experiments import command_line, compare, own_question
from jaxdl import experiment as experiment_lib
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from ml_collections_configs import compare as configs


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_variants_fit_their_data(variant):
  experiment = own_question.create_experiment(configs.get_config(variant))
  dataset = experiment_lib.load_dataset(experiment)
  assert len(dataset.validation) > 0
  kind = experiment_lib.DeviceKind("cpu", "a CPU", None)
  groups = experiment_lib.plan_groups(experiment, dataset, kind)
  assert sum(len(group.layout.arms) for group in groups) == len(experiment.arms)


def test_arms_are_the_base_with_changes():
  experiment = own_question.create_experiment(configs.get_config())
  adam = Arm(model="mlp(16)", loss="categorical_cross_entropy", learning_rate=0.01, batch_size=16,
             num_epochs=20, patience=None, dropout_rate=0.0)  # fmt: skip
  lion = adam.replace(optimizer="optax:lion(b1=0.95)", learning_rate=0.003)
  assert experiment.arms == {"adam": adam, "lion": lion}
  assert experiment.validation_split == "stratified"


def test_smoke_run(tmp_path):
  experiment = own_question.create_experiment(configs.get_config("smoke"))
  with flagsaver.as_parsed(workdir=str(tmp_path), **DEFAULT_FLAGS):
    command_line.run_experiment(compare.SCRIPT, experiment)
  members = pd.read_csv(tmp_path / "members.csv")
  assert list(members.arm) == ["adam", "lion"] * 2
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["arms"]["lion"]["optimizer"] == "optax:lion(b1=0.95)"
  assert "178 examples with 13 numbers, 3 classes" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"arms": {"a": {"optimiser": "sgd"}}}, "unknown setting in arms.a 'optimiser'; did you mean"),
    ({"base": {"modle": "mlp"}}, "unknown setting in base 'modle'; did you mean 'model'"),
    (
      {"arms": {"a": {"learning_rate": -1.0}}},
      "arm 'a': learning_rate must be a finite number > 0",
    ),
    ({"arms": {"a": 3}}, "config key 'arms.a' must be a dict"),
    ({"question": None}, "the config has no key 'question'"),
    ({"modle": "mlp"}, "unknown config key 'modle'"),
  ],
)
def test_mistakes_are_one_line(changes, message):
  values = {**configs.get_config("smoke").to_dict(), **changes}
  config = ConfigDict({key: value for key, value in values.items() if value is not None})
  with pytest.raises(InputError, match=message):
    own_question.create_experiment(config)
