"""Claims: every verdict can come out, and is what the parts say."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.stats import ledger


def _scores(difference, spread=0.001, n=16, higher_is_better=True):
  """Two arms whose paired difference has exactly this mean, and this standard deviation."""
  noise = np.linspace(-1, 1, n)
  noise *= spread / np.std(noise, ddof=1) if n > 1 else 0
  values = np.column_stack([0.9 + difference + noise, np.full(n, 0.9)])
  return stats.Scores(
    metric="test_accuracy",
    values=values,
    seeds=tuple(range(n)),
    arms=("a", "b"),
    axes=("seed", "arm"),
    higher_is_better=higher_is_better,
  )


_MARGIN = 0.01
_BETTER, _WORSE, _EQUAL = _scores(0.1), _scores(-0.1), _scores(0.0)
_OPEN = _scores(0.0, spread=0.5)
_ASSERTIONS = (ledger.BETTER, ledger.NOT_WORSE, ledger.EQUIVALENT, ledger.DIFFERENT)


def _outcome(asserts, *scores, needs_all=True, alpha=0.05):
  parts = [ledger.Part(s, asserts, _MARGIN) for s in scores]
  return ledger.judge(ledger.Claim("name", "sentence", "evidence", parts, needs_all), alpha)


def _judge(asserts, *scores, **options):
  return _outcome(asserts, *scores, **options).verdict


@pytest.mark.parametrize(
  ("asserts", "better", "equal", "worse"),
  [
    (ledger.BETTER, "holds", "too small to count", "does not hold"),
    (ledger.NOT_WORSE, "holds", "holds", "does not hold"),
    (ledger.EQUIVALENT, "does not hold", "holds", "does not hold"),
    (ledger.DIFFERENT, "holds", "does not hold", "holds"),
  ],
)
def test_one_part(asserts, better, equal, worse):
  assert _judge(asserts, _BETTER) == better
  assert _judge(asserts, _EQUAL) == equal
  assert _judge(asserts, _WORSE) == worse
  assert _judge(asserts, _OPEN) == "undecided"
  assert _judge(asserts, _scores(0.1, n=3)) == "undecided"  # 2^-3 > 0.05: no bounds


def test_less_of_a_loss_is_better():
  loss = _scores(-0.1, higher_is_better=False)
  finding, _ = _outcome(ledger.BETTER, loss, loss).findings
  assert finding.meaning == "holds"
  assert (finding.low_alpha, finding.high_alpha) == (0.025, 0.05)  # the upper one decides to hold
  assert finding.difference == pytest.approx(-0.1)
  assert finding.low < finding.difference < finding.high < 0


def test_several_parts():
  better, different, alike = ledger.BETTER, ledger.DIFFERENT, ledger.EQUIVALENT
  assert _judge(better, _BETTER, _BETTER) == "holds"
  assert _judge(better, _BETTER, _OPEN) == "undecided"
  assert _judge(better, _OPEN, _EQUAL) == "too small to count"
  assert _judge(better, _OPEN, _EQUAL, _WORSE) == "does not hold"
  assert _judge(different, _EQUAL, _BETTER, needs_all=False) == "holds"
  assert _judge(different, _EQUAL, _OPEN, needs_all=False) == "undecided"
  assert _judge(different, _EQUAL, _EQUAL, needs_all=False) == "does not hold"
  assert _judge(alike, _EQUAL, _EQUAL) == "holds"


def _judge_by_hand(asserts, mean, std, n, alpha=0.05):
  """A second definition for one part, in the unit of the standard error."""
  error = std / math.sqrt(n)
  low, high = (mean + s * error * scipy.stats.t.isf(alpha, n - 1) for s in (-1, 1))
  wide_low, wide_high = (mean + s * error * scipy.stats.t.isf(alpha / 2, n - 1) for s in (-1, 1))
  inside = n >= 16 and low > -_MARGIN and high < _MARGIN
  outside = wide_low > _MARGIN or wide_high < -_MARGIN
  if asserts == ledger.BETTER:
    if low > 0 or high < 0:
      return "holds" if low > 0 else "does not hold"
    return "too small to count" if high < _MARGIN else "undecided"
  if asserts == ledger.NOT_WORSE:
    if low > -_MARGIN or high < -_MARGIN:
      return "holds" if low > -_MARGIN else "does not hold"
    return "undecided"
  if asserts == ledger.EQUIVALENT:
    return "holds" if inside else "does not hold" if outside else "undecided"
  return "does not hold" if inside else "holds" if outside else "undecided"


@pytest.mark.parametrize("asserts", _ASSERTIONS)
@given(st.floats(-3, 3), st.sampled_from([0.1, 0.7, 1, 2, 5]))
def test_more_seeds_with_the_same_estimate_never_reverse_a_verdict(asserts, mean, std):
  mean, std = mean * _MARGIN, std * _MARGIN
  sizes = (6, 8, 12, 16, 30, 100, 1000)
  verdicts = [_judge(asserts, _scores(mean, std, n)) for n in sizes]
  assert verdicts == [_judge_by_hand(asserts, mean, std, n) for n in sizes]
  assert not {"holds", "does not hold"} <= set(verdicts)
  decided = [v for v in verdicts if v in ("holds", "does not hold")]
  assert verdicts[len(verdicts) - len(decided) :] == decided  # once decided, decided


def test_an_estimate_within_the_margin_is_no_evidence_against_being_alike():
  """README's own pair: 0.187 points, margin 0.2; significant at 16 seeds, within at 2,048."""
  scale = _MARGIN / 0.2
  few, many = (_scores(0.187 * scale, 0.1986 * scale, n) for n in (16, 2048))
  assert [_judge(ledger.BETTER, s) for s in (few, many)] == ["holds", "holds"]
  assert [_judge(ledger.EQUIVALENT, s) for s in (few, many)] == ["undecided", "holds"]
  notes = [_outcome(ledger.BETTER, s).findings[0].note for s in (few, many)]
  assert notes == ["whether by more than the margin is open", "by less than the margin"]
  assert _outcome(ledger.BETTER, _BETTER).findings[0].note == "by more than the margin"


def test_fewer_than_sixteen_pairs_show_nothing_alike():
  fifteen = _scores(0.0, n=15)
  assert _judge(ledger.EQUIVALENT, fifteen) == "undecided"
  assert _judge(ledger.DIFFERENT, fifteen) == "undecided"
  (finding,) = _outcome(ledger.EQUIVALENT, fifteen).findings
  assert "16 are needed" in finding.note


def test_only_what_decides_alone_is_corrected_for_the_number_of_parts():
  """A lower bound at 5% is above 0, one at 2.5% is not."""
  n, std = 16, 0.4
  error = std / math.sqrt(n)
  mean = error * (scipy.stats.t.isf(0.05, n - 1) + scipy.stats.t.isf(0.025, n - 1)) / 2
  gain, loss = _scores(mean, std, n), _scores(-mean, std, n)
  assert _judge(ledger.BETTER, gain, gain) == "holds"
  assert _judge(ledger.BETTER, loss, loss) == "undecided"
  assert _judge(ledger.BETTER, gain, gain, needs_all=False) == "undecided"
  assert _judge(ledger.BETTER, loss, loss, needs_all=False) == "does not hold"
  (first, _) = _outcome(ledger.BETTER, gain, gain).findings
  assert (first.low_alpha, first.high_alpha) == (0.05, 0.025)


def test_the_bounds_are_those_that_decide():
  """Within the margin at 5% each; beyond it at 2.5% each."""
  (inside,) = _outcome(ledger.EQUIVALENT, _scores(0.0, 0.01, 16)).findings
  assert (inside.low, inside.high) == pytest.approx(
    np.array([-1, 1]) * 0.01 / 4 * scipy.stats.t.isf(0.05, 15)
  )
  (outside,) = _outcome(ledger.EQUIVALENT, _BETTER).findings
  assert outside.low_alpha == outside.high_alpha == 0.025
  assert outside.low == pytest.approx(0.1 - 0.001 / 4 * scipy.stats.t.isf(0.025, 15))


def test_equal_differences_decide_and_the_margin_itself_does_not():
  assert _judge(ledger.BETTER, _scores(0.1, 0, n=5)) == "holds"
  (finding,) = _outcome(ledger.BETTER, _scores(_MARGIN, 0)).findings
  assert finding.note == "whether by more than the margin is open"
  assert _judge(ledger.EQUIVALENT, _scores(_MARGIN, 0)) == "undecided"


@pytest.mark.parametrize(
  ("asserts", "mean", "wrong"),
  [
    (ledger.BETTER, 0.0, "holds"),
    (ledger.NOT_WORSE, -1.0, "holds"),
    (ledger.NOT_WORSE, -1.0, "does not hold"),
    (ledger.EQUIVALENT, 1.0, "holds"),
    (ledger.EQUIVALENT, 0.9, "does not hold"),
    (ledger.DIFFERENT, 0.9, "holds"),
    (ledger.DIFFERENT, 1.0, "does not hold"),
  ],
)
def test_a_wrong_verdict_is_as_rare_as_it_says(asserts, mean, wrong):
  """Effect in margins, and a margin of one standard deviation."""
  rng = np.random.default_rng(0)
  num_trials, n = 600, 16
  count = 0
  for run in rng.normal(mean * _MARGIN, _MARGIN, size=(num_trials, n)):
    values = np.column_stack([run, np.zeros(n)])
    scores = stats.Scores(metric="m", values=values, seeds=range(n), arms=("a", "b"),
                          axes=("seed", "arm"), higher_is_better=True)  # fmt: skip
    count += _judge(asserts, scores) == wrong
  assert count <= scipy.stats.binom.isf(scipy.stats.norm.sf(4), num_trials, 0.05)


def test_against_a_number():
  beside = ledger.against_number(_scores(0.1), "b", "goal", 0.5)
  assert beside.arms == ("b", "goal")
  np.testing.assert_array_equal(beside.values, [[0.9, 0.5]] * 16)


def test_claims_that_rest_on_nothing_are_refused():
  with pytest.raises(InputError, match="rests on nothing"):
    ledger.judge(ledger.Claim("n", "s", "e", []))


def test_splits_that_overlap_are_refused():
  scores = dataclasses.replace(_scores(0.02), overlap=0.25)
  with pytest.raises(InputError, match="splits that overlap"):
    ledger.judge(ledger.Claim("n", "s", "e", [ledger.Part(scores, ledger.BETTER, _MARGIN)]))


def test_a_level_holds_over_all_looks():
  """Without a difference, a run that ends at the first look that decides is as rarely wrong."""
  rng = np.random.default_rng(1)
  num_trials, budget, wrong = 400, 32, 0
  for run in rng.normal(0, _MARGIN, size=(num_trials, budget)):
    for n in stats.looks(budget):
      part = ledger.Part(_paired(run[:n]), ledger.BETTER, _MARGIN)
      outcome = ledger.judge(ledger.Claim("n", "s", "e", [part]), 0.05, budget)
      if outcome.verdict == ledger.HOLDS:
        wrong += 1
        break
  assert wrong <= scipy.stats.binom.isf(scipy.stats.norm.sf(4), num_trials, 0.05)


def _paired(differences):
  values = np.column_stack([differences, np.zeros(len(differences))])
  return stats.Scores(metric="m", values=values, seeds=tuple(range(len(values))),
                      arms=("a", "b"), axes=stats.AXES, higher_is_better=True)  # fmt: skip


def test_bounds_have_the_level_of_their_look():
  (finding,) = ledger.judge(_claim_of(16), 0.05, budget=64).findings
  every = stats.looks(64)
  levels = stats.nominal_levels(0.05, tuple(n / 64 for n in every))
  assert finding.low_alpha == levels[every.index(16)] < 0.05
  with pytest.raises(InputError, match="a run with a budget of 20 seeds is not looked at after 12"):
    ledger.judge(_claim_of(12), 0.05, budget=20)


@pytest.mark.parametrize("asserts", [ledger.DIFFERENT, ledger.EQUIVALENT])
def test_a_difference_to_either_side_has_half_of_the_level_of_all_looks(asserts):
  part = ledger.Part(_scores(0.02, n=24), asserts, _MARGIN)
  (finding,) = ledger.judge(ledger.Claim("n", "s", "e", [part]), 0.05, budget=64).findings
  every = stats.looks(64)
  levels = stats.nominal_levels(0.025, tuple(n / 64 for n in every))
  assert finding.low_alpha == finding.high_alpha == levels[every.index(24)]
  assert finding.meaning == (ledger.HOLDS if asserts == ledger.DIFFERENT else ledger.FAILS)


def _claim_of(n):
  return ledger.Claim("n", "s", "e", [ledger.Part(_scores(0.02, n=n), ledger.BETTER, _MARGIN)])


@pytest.mark.parametrize("asserts", _ASSERTIONS)
@pytest.mark.parametrize("mean", [-0.013, -0.003, -0.002, 0.001, 0.003, 0.0075, 0.013])
def test_how_often_a_verdict_comes_again(asserts, mean):
  """Against drawing the true difference, then fresh seeds; n is large, so that t is normal."""
  n, spread = 200, 0.02
  outcome = _outcome(asserts, _scores(mean, spread, n))
  rng = np.random.default_rng(2)
  true = rng.normal(mean, spread / math.sqrt(n), 1000)
  again = [_judge(asserts, _paired(_exactly(rng, t, spread, n))) for t in true]
  share = np.mean([verdict == outcome.verdict for verdict in again])
  if outcome.verdict == ledger.UNDECIDED:
    assert math.isnan(outcome.repeats)
  else:
    assert abs(share - outcome.repeats) < 0.05


def _exactly(rng, true, spread, n):
  """Differences with this spread, and a mean drawn around the true one."""
  return _scores(rng.normal(true, spread / math.sqrt(n)), spread, n).values[:, 0] - 0.9


def test_a_claim_comes_again_if_what_decides_it_does():
  near = _scores(0.0012, spread=0.002)
  (finding,) = _outcome(ledger.BETTER, near).findings
  assert 0.5 < finding.repeats < 1
  both = _outcome(ledger.BETTER, near, near)
  assert both.verdict == ledger.HOLDS
  assert both.repeats == pytest.approx(finding.repeats**2)
  either = _outcome(ledger.BETTER, _BETTER, near, needs_all=False)
  assert either.repeats == max(f.repeats for f in either.findings)
  equal = _outcome(ledger.BETTER, _scores(0.1, spread=0.0, n=8))
  assert math.isnan(equal.repeats)
