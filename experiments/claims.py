"""Which claims of the coursework and of textbooks hold, by how much, with how many seeds?

  jaxdl run claims --workdir=DIR [--collect=DIR,DIR,...]

runs the experiments that the claims need in `DIR/runs` and judges every claim. A finished run with
the same config, there or in a workdir that `--collect` names, is reused. A run with another config
in its place is replaced only if `--overwrite` is given. `CLAIMS.md`, `CLAIMS.html`, `claims.json`
and a picture are written to DIR.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from jaxdl import report
from jaxdl.errors import one_line
from jaxdl.report import figures, forest_plots
from jaxdl.stats import ledger
from jaxdl.store import files, locks

from . import CONFIGS, claims_page, claims_runs, command_line, textbook_claims
from .claims_runs import Found, damage_in
from .coursework_claims import CLAIMS

_COLLECT = flags.DEFINE_list("collect", [], "Workdirs of finished runs to take results from.")
_CONFIG_FILE = str(CONFIGS / "claims.py")
_FILES = ("CLAIMS.md", "CLAIMS.html", "claims.json", "figures")


def judge_all(config: ConfigDict):
  """Runs or collects the experiments, judges the claims, and writes the ledger."""
  runs, settings = claims_runs.read_runs(config), claims_runs.read_settings(config)
  wanted = [claims_runs.plan(name, variant, config) for name, variant in runs.items()]
  wanted += [claims_runs.plan_setting(name, setting, config) for name, setting in settings.items()]
  workdir = pathlib.Path(command_line.WORKDIR.value)
  files.check_replaceable(workdir, _FILES)
  places = [workdir / "runs" / run.name for run in wanted]
  others = [*map(files.expand_home, _COLLECT.value)]
  found = [claims_runs.obtain(run, at, others) for run, at in zip(wanted, places, strict=True)]
  outcomes = _judge(found, settings, config.alpha)
  publish(workdir, found, outcomes, config.alpha, config.registered, config.note)
  for _, outcome in outcomes:
    print(f"{outcome.verdict:15} {outcome.claim.sentence}")
  print(f"\nLedger: {one_line(workdir / 'CLAIMS.html')}")


def _judge(
  found: Sequence[Found], settings: Mapping[str, Any], alpha: float
) -> list[tuple[Found, ledger.Outcome]]:
  """Judges the claims that depend on the runs, in the order of the runs.

  Raises:
    InputError: the tables of a run are incomplete or damaged.
  """
  runs = {of.wanted.name: of.run for of in found}
  outcomes = []
  for of in found:
    name, experiment = of.wanted.name, of.wanted.experiment
    with damage_in(of.path):
      if name in settings:
        claims = textbook_claims.claims(settings[name], name, runs)
      else:
        claims = CLAIMS[name](of.run)
      budget = experiment.num_seeds if experiment.until_decided else None
      outcomes += [(of, ledger.judge(claim, alpha, budget)) for claim in claims]
  return outcomes


def publish(
  workdir: pathlib.Path,
  found: Sequence[Found],
  outcomes: Sequence[tuple[Found, ledger.Outcome]],
  alpha: float,
  registered: str = "",
  note: str = "",
):
  """Writes the ledger and its picture; all files are complete, or none is written."""
  with locks.Lock(workdir), files.staging(workdir, last=("CLAIMS.md",)) as stage:
    rows = [row for _, outcome in outcomes for row in claims_page.forest_rows(outcome)]
    (stage / "figures").mkdir()
    figures.save(forest_plots.forest(rows), stage / "figures" / "claims")
    text = claims_page.markdown(found, outcomes, alpha, registered, note)
    (stage / "CLAIMS.md").write_text(text, encoding="utf-8")
    (stage / "CLAIMS.html").write_text(report.html.document(text, stage), encoding="utf-8")
    files.write_json(stage / "claims.json", [claims_page.to_json(*pair) for pair in outcomes])


if __name__ == "__main__":
  command_line.main(judge_all, default_config=_CONFIG_FILE)
