"""Claims: every verdict can come out, and is what the parts say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.stats import ledger


def _scores(difference, spread=0.001, n=10, higher_is_better=True):
  """Two arms whose paired difference is `difference`, give or take `spread`."""
  noise = spread * np.linspace(-1, 1, n)
  values = np.column_stack([0.9 + difference + noise, np.full(n, 0.9)])
  return stats.Scores(
    metric="test_accuracy",
    values=values,
    seeds=tuple(range(n)),
    arms=("a", "b"),
    axes=("seed", "arm"),
    higher_is_better=higher_is_better,
  )


_BETTER, _WORSE, _EQUAL = _scores(0.1), _scores(-0.1), _scores(0.0)
_OPEN = _scores(0.0, spread=0.5)


def _judge(asserts, *scores, needs_all=True):
  parts = [ledger.Part(s, asserts, margin=0.01) for s in scores]
  return ledger.judge(ledger.Claim("name", "sentence", "evidence", parts, needs_all)).verdict


@pytest.mark.parametrize(
  ("asserts", "better", "equal", "worse"),
  [
    (ledger.BETTER, "holds", "does not hold", "does not hold"),
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
  assert _judge(asserts, _scores(0.1, n=3)) == "undecided"  # too few seeds


def test_less_of_a_loss_is_better():
  assert _judge(ledger.BETTER, _scores(-0.1, higher_is_better=False)) == "holds"


def test_several_parts():
  assert _judge(ledger.BETTER, _BETTER, _BETTER) == "holds"
  assert _judge(ledger.BETTER, _BETTER, _OPEN) == "undecided"
  assert _judge(ledger.BETTER, _OPEN, _EQUAL) == "does not hold"
  assert _judge(ledger.DIFFERENT, _EQUAL, _BETTER, needs_all=False) == "holds"
  assert _judge(ledger.DIFFERENT, _EQUAL, _OPEN, needs_all=False) == "undecided"
  assert _judge(ledger.DIFFERENT, _EQUAL, _EQUAL, needs_all=False) == "does not hold"


def test_the_level_is_shared_by_the_parts():
  """Six pairs are enough for one comparison at 5% (2/64), and not for two (2/64 > 0.025)."""
  six = _scores(0.1, n=6)
  assert _judge(ledger.BETTER, six) == "holds"
  assert _judge(ledger.BETTER, six, six) == "undecided"


@given(st.integers(0, 2**32 - 1))
def test_a_claim_of_noise_seldom_holds(seed):
  """Unlikely (2 in 2^12) for twelve seeds without any difference to point one way."""
  values = np.random.default_rng(seed).normal(size=(12, 2))
  scores = stats.Scores(metric="m", values=values, seeds=tuple(range(12)), arms=("a", "b"),
                        axes=("seed", "arm"), higher_is_better=True)  # fmt: skip
  part = ledger.Part(scores, ledger.BETTER, margin=0.01)
  outcome = ledger.judge(ledger.Claim("n", "s", "e", [part]), alpha=0.001)
  assert (outcome.verdict == "holds") == (
    outcome.findings[0].verdict.p_value < 0.001 and outcome.findings[0].verdict.mean_difference > 0
  )


def test_against_a_number():
  beside = ledger.against_number(_scores(0.1), "b", "goal", 0.5)
  assert beside.arms == ("b", "goal")
  np.testing.assert_array_equal(beside.values, [[0.9, 0.5]] * 10)


def test_claims_that_rest_on_nothing_are_refused():
  with pytest.raises(InputError, match="rests on nothing"):
    ledger.judge(ledger.Claim("n", "s", "e", []))
