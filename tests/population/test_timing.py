"""What is timed and what is not: order, warm-up, synchronisation, and the programs themselves."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import member, predict, train_member

from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.population import programs, timing, timing_process
from jaxdl.population.timing import Timings


class _Clock:
  """A clock that only moves when something is done."""

  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


class _Pending:
  """A result that takes time after the call that asked for it has returned."""

  def __init__(self, clock, seconds):
    self._clock, self._left = clock, seconds

  def block_until_ready(self):
    self._clock.now += self._left
    self._left = 0
    return self


def test_programs_take_turns_and_the_warm_up_is_not_counted():
  clock, calls = _Clock(), []

  def program(name, seconds):
    def step(carry):
      calls.append(name)
      clock.now += seconds + (100 if carry == 0 else 0)  # the first call compiles, say
      return carry + 1, None

    return step, 0

  programs = {"a": program("a", 1), "b": program("b", 2), "c": program("c", 3)}
  timings, carries = timing.take_turns(programs, rounds=40, num_warm_ups=2, clock=clock)
  rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
  assert len(rounds) == 42
  # Every round has every program once, and all six orders occur: none is always first.
  assert set(rounds) == {"abc", "acb", "bac", "bca", "cab", "cba"}
  assert timings.arms == ("a", "b", "c")
  np.testing.assert_array_equal(timings.seconds, [[[1, 2, 3]] * 40])
  np.testing.assert_array_equal(timings.of("b"), [2] * 40)
  assert carries == {"a": 42, "b": 42, "c": 42}


def test_the_time_ends_when_results_are_there_and_not_in_the_next_program():
  clock = _Clock()
  slow = lambda carry: (_Pending(clock, 5), _Pending(clock, 2))  # noqa: E731
  quick = lambda carry: (carry, None)  # noqa: E731
  pending = _Pending(clock, 1000)  # an input that is still being made
  timings, _ = timing.take_turns(
    {"slow": (slow, None), "quick": (quick, pending)}, rounds=2, num_warm_ups=0, clock=clock
  )
  np.testing.assert_array_equal(timings.seconds, [[[7, 0], [7, 0]]])


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"rounds": 1, "num_warm_ups": -1}])
def test_rounds_are_checked(settings):
  with pytest.raises(InputError, match="must be an integer >="):
    timing.take_turns({}, **settings)


def test_what_is_timed_is_the_training_and_nothing_is_compiled_meanwhile(blobs, mlp_arm):
  arm = replace(mlp_arm, patience=None, num_epochs=3)
  compiled, on = [], [False]

  def listen(event, seconds, **_):
    if on[0] and "compile" in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  device = jax.local_devices()[0]
  splits = programs.put_splits(blobs, device)
  bound = timing.bind_member("a", arm, blobs, splits, device)
  step, carry = timing.training_step(bound, arm.num_epochs)
  first = jax.tree.leaves(carry[0].params)[0]
  losses, on[0] = [], True
  for _ in range(arm.num_epochs):
    carry, epoch_metrics = step(carry)
    losses.append(epoch_metrics.train_loss)
  on[0] = False
  assert compiled == []
  assert first.is_deleted()  # it was donated
  assert carry[1] == arm.num_epochs
  recipe, *arguments = member(arm, blobs)
  expected, curves = train_member(recipe, *arguments)
  np.testing.assert_allclose(np.ravel(losses), curves.train_loss, rtol=1e-5)
  variables = jax.tree.map(lambda leaf: leaf[0, 0], carry[0].variables)
  for ours, theirs in zip(*map(jax.tree.leaves, (variables, expected.variables)), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)

  infer = timing.compile_inference(recipe, variables, splits[2].inputs)
  kept, logits = infer(variables)
  assert kept is variables
  np.testing.assert_allclose(logits, predict(recipe, variables, splits[2].inputs), rtol=1e-4)
  # The listener was live: a new program is noticed.
  on[0] = True
  jax.jit(lambda x: x * 2.71828)(np.ones(7, np.float32))
  on[0] = False
  assert compiled


def test_members_are_timed_in_the_order_of_the_arms(blobs, mlp_arm):
  arms = {"whole": replace(mlp_arm, batch_size=1000), "small": replace(mlp_arm, batch_size=8)}
  measured = timing.time_members(blobs, arms, train_rounds=2, inference_rounds=3)
  assert measured.train_epoch.arms == measured.inference.arms == ("whole", "small")
  assert measured.train_epoch.seconds.shape == (1, 2, 2)
  assert measured.inference.seconds.shape == (1, 3, 2)
  assert (measured.train_epoch.seconds > 0).all()
  assert list(measured.compile_seconds) == list(arms)
  assert min(measured.compile_seconds.values()) > 0
  with pytest.raises(InputError, match="inference_rounds must be an integer >= 1"):
    timing.time_members(blobs, arms, train_rounds=1, inference_rounds=0)


def test_verdicts_over_processes():
  """A shared drift between processes hides nothing: only differences within a process count."""
  drift = np.linspace(1, 3, 20)[:, None, None]  # [P, 1, 1]
  noise = np.random.default_rng(0).normal(0, 0.01, (20, 5, 3))
  timings = Timings(("a", "b", "c"), drift + noise + [0, 0, 0.5])
  verdicts = timing.compare(timings, "inference_seconds", relative_margin=0.05)
  found = {(v.arm_a, v.arm_b): v.verdict for v in verdicts}
  assert found == {
    ("a", "b"): stats.EQUIVALENT,
    ("a", "c"): stats.BETTER,  # less time
    ("b", "c"): stats.BETTER,
  }
  assert verdicts[0].margin == pytest.approx(0.05 * np.median(timings.seconds))
  assert verdicts[0].num_pairs == 20


def test_rounds_of_a_process_are_no_replications():
  """What a process makes slower in all of its rounds is one observation of a difference."""
  of_process = np.random.default_rng(0).normal(0, 0.1, (3, 1, 2))  # [P, 1, A]
  timings = Timings(("a", "b"), np.broadcast_to(1 + of_process, (3, 50, 2)))
  (verdict,) = timing.compare(timings, "inference_seconds", relative_margin=0.05)
  assert (verdict.verdict, verdict.num_pairs) == (stats.TOO_FEW_SEEDS, 3)


def test_processes_measure_what_one_does(blobs, mlp_arm):
  arms = {"whole": replace(mlp_arm, batch_size=1000), "small": replace(mlp_arm, batch_size=8)}
  measured = timing_process.time_in_processes(
    blobs, arms, processes=2, train_rounds=2, inference_rounds=3
  )
  assert measured.train_epoch.arms == measured.inference.arms == ("whole", "small")
  assert measured.train_epoch.seconds.shape == (2, 2, 2)
  assert measured.inference.seconds.shape == (2, 3, 2)
  assert (measured.inference.seconds > 0).all()
  assert len(np.unique(measured.train_epoch.seconds)) == 8  # each measured, none copied
  assert list(measured.compile_seconds) == list(arms)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"processes": 0}, "processes must be an integer >= 1"),
    ({"train_rounds": 0}, "train_rounds must be an integer >= 1"),
    ({"slice_size": 0}, "timing the arms failed with exit status 2; see above"),
  ],
)
def test_mistakes_in_processes(blobs, mlp_arm, change, message):
  settings = {"processes": 1, "train_rounds": 1, "inference_rounds": 1, **change}
  with pytest.raises(InputError, match=message):
    timing_process.time_in_processes(blobs, {"a": mlp_arm}, **settings)


def test_columns_hold_every_repetition():
  train_epoch = Timings(("a", "b"), np.array([[[1.0, 2.0], [3.0, 4.0]]]))
  inference = Timings(("a", "b"), np.array([[[5.0, 6.0]], [[7.0, 8.0]]]))
  assert timing.columns({"train_epoch": train_epoch, "inference": inference}) == {
    "arm": ["a", "b"] * 4,
    "kind": ["train_epoch"] * 4 + ["inference"] * 4,
    "process": [1, 1, 1, 1, 1, 1, 2, 2],
    "round": [1, 1, 2, 2, 1, 1, 1, 1],
    "seconds": [1, 2, 3, 4, 5, 6, 7, 8],
  }
