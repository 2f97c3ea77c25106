"""The best arm of a sweep: hand-computed choices, ties, divergence, and the bootstrap's shares."""

import math

import numpy as np
import pytest
from made_up_scores import make_scores

from jaxdl.errors import InputError
from jaxdl.stats import sweeps

_NAN = math.nan


def test_the_highest_mean_is_best():
  # Means 0.5, 0.7, 0.6: b, though c has the best single seed.
  best = sweeps.best_arm(make_scores([[0.5, 0.7, 0.3], [0.5, 0.7, 0.9]]), "abc")
  assert best.arm == "b"
  assert not best.at_end


def test_a_loss_is_best_where_it_is_lowest():
  best = sweeps.best_arm(make_scores([[0.5, 0.7], [0.6, 0.8]], higher_is_better=False), "ab")
  assert (best.arm, best.low, best.high, best.at_end) == ("a", "a", "a", True)
  assert best.shares == {"a": 1.0, "b": 0.0}


def test_shares_of_two_seeds_by_hand():
  """Of resamples of two seeds a quarter is the first twice, a quarter the second twice.

  a wins in the first seed and in the mean, b in the second: a in 3/4 of the resamples.
  """
  best = sweeps.best_arm(make_scores([[0.9, 0.5], [0.6, 0.7]]), "ab")
  assert best.arm == "a"
  assert best.shares["a"] == pytest.approx(0.75, abs=0.02)  # standard error 0.004
  assert sum(best.shares.values()) == pytest.approx(1)
  assert (best.low, best.high) == ("a", "b")


def test_the_interval_holds_95_percent_in_the_order_of_the_sweep():
  """One seed of five for which c is far better: without it, (4/5)^5 = 33%, a is best."""
  values = [[0.5, 0.4, 0.3]] * 4 + [[0.5, 0.4, 3.0]]
  best = sweeps.best_arm(make_scores(values), "abc")
  assert best.arm == "c"
  assert best.shares["a"] == pytest.approx(0.8**5, abs=0.025)
  assert best.shares["b"] == 0
  assert (best.low, best.high) == ("a", "c")
  other_way = sweeps.best_arm(make_scores(values), "cba")
  assert (other_way.low, other_way.high) == ("c", "a")


def test_of_equal_means_the_first_is_best_however_they_are_rounded():
  # 0.1 + 0.2 > 0.3 in floating point.
  values = [[0.3, 0.1], [0.0, 0.2]]
  assert sum(values[k][1] for k in (0, 1)) > 0.3
  assert sweeps.best_arm(make_scores(values), "ab").arm == "a"
  assert sweeps.best_arm(make_scores(values), "ba").arm == "b"


def test_an_arm_that_diverged_once_is_not_chosen():
  best = sweeps.best_arm(make_scores([[0.5, _NAN], [0.5, 0.9], [0.5, 0.9]]), "ab")
  assert best.arm == "a"
  # Resamples without the diverged seed, (2/3)^3 of them, would choose b.
  assert best.shares["b"] == pytest.approx(8 / 27, abs=0.025)


def test_where_every_arm_diverged_somewhere_the_fewest_count():
  values = [[_NAN, _NAN, 0.4], [_NAN, 0.6, _NAN], [0.9, 0.6, 0.4]]
  assert sweeps.best_arm(make_scores(values), "abc").arm == "b"


def test_where_all_diverged_there_is_none():
  scores = make_scores([[_NAN, _NAN, 0.5], [_NAN, _NAN, 0.5]])
  assert sweeps.best_arm(scores, "ab") is None
  assert sweeps.best_arm(scores, "abc").arm == "c"


def test_resamples_without_any_trained_member_are_not_counted():
  best = sweeps.best_arm(make_scores([[0.5, 0.4], [_NAN, _NAN]]), "ab")
  assert best.arm == "a"
  assert best.shares == {"a": 1.0, "b": 0.0}


def test_one_seed_makes_no_interval():
  best = sweeps.best_arm(make_scores([[0.5, 0.4]]), "ab")
  assert (best.arm, best.low, best.high) == ("a", None, None)
  assert all(math.isnan(share) for share in best.shares.values())


def test_the_bootstrap_is_a_function_of_its_seed():
  values = np.random.default_rng(0).normal(size=(6, 4))
  shares = [sweeps.best_arm(make_scores(values), "abcd", seed=seed).shares for seed in (1, 1, 2)]
  assert shares[0] == shares[1]
  assert shares[0] != shares[2]


@pytest.mark.parametrize(
  ("arms", "settings", "message"),
  [
    ("", {}, "one arm or more"),
    ("az", {}, "unknown arm 'z'"),
    ("ab", {"num_resamples": 0}, "num_resamples"),
  ],
)
def test_bad_input(arms, settings, message):
  with pytest.raises(InputError, match=message):
    sweeps.best_arm(make_scores([[0.5, 0.4]]), arms, **settings)
