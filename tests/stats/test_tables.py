"""Scores from tables, arms that share no seed, several tasks: second definitions and refusals."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from experiments import compare_scores
from jaxdl import stats
from jaxdl.errors import InputError

COLUMNS = {"metric": "acc", "arm": "optimizer", "seed": "seed"}


def table(num_seeds=4, arms=("sgd", "adam"), **changes):
  """A long table, rows in no order, with columns replaced."""
  rows = [(arm, seed) for arm in arms for seed in range(num_seeds)]
  order = np.random.default_rng(0).permutation(len(rows))
  frame = pd.DataFrame(
    {
      "optimizer": [rows[i][0] for i in order],
      "seed": [rows[i][1] for i in order],
      "acc": [0.5 + 0.1 * arms.index(rows[i][0]) + 0.01 * rows[i][1] for i in order],
    }
  )
  return frame.assign(**changes)


# Tables


def test_a_table_becomes_scores_whatever_the_order_of_its_rows():
  scores = stats.Scores.from_frame(table(), **COLUMNS, higher_is_better=False)
  assert (scores.metric, scores.paired, scores.higher_is_better) == ("acc", True, False)
  for i, seed in enumerate(scores.seeds):
    for j, arm in enumerate(scores.arms):
      expected = 0.5 + 0.1 * ("sgd", "adam").index(arm) + 0.01 * seed
      assert scores.values[i, j] == pytest.approx(expected)


def test_a_row_without_a_score_is_a_run_that_diverged():
  frame = table()
  frame.loc[2, "acc"] = np.nan
  scores = stats.Scores.from_frame(frame, **COLUMNS)
  place = scores.seeds.index(frame.seed[2]), scores.arms.index(frame.optimizer[2])
  assert np.argwhere(np.isnan(scores.values)).tolist() == [list(place)]


def test_arms_that_share_no_seed_are_not_paired():
  scores = stats.Scores.from_frame(table(seed=range(8)), **COLUMNS)
  assert (scores.paired, scores.seeds, scores.values.shape) == (False, (0, 1, 2, 3), (4, 2))


def test_seeds_may_be_read_as_floats():
  assert stats.Scores.from_frame(table(seed=table().seed.astype(float)), **COLUMNS).seeds


def test_tasks():
  frame = pd.concat([table(4).assign(data="a"), table(6).assign(data="b")])
  tasks = stats.Scores.from_frame(frame, **COLUMNS, task="data")
  assert {name: scores.values.shape for name, scores in tasks.items()} == {"a": (4, 2), "b": (6, 2)}


def test_float32_needs_a_resolution():
  accuracies = np.array([0.9712, 0.9713, 0.9801, 0.9712, 0.97, 0.9699, 0.9704, 0.9712])
  frame = table(acc=accuracies.astype(np.float32).astype(float))
  with pytest.raises(InputError, match="numbers of 32 bits"):
    stats.Scores.from_frame(frame, **COLUMNS)
  scores = stats.Scores.from_frame(frame, **COLUMNS, resolution=1e-4)
  assert set(np.ravel(scores.values).round(12)) == set(accuracies)
  assert len(set(np.ravel(scores.values))) == len(set(accuracies))
  stats.Scores.from_frame(table(acc=[0.5, 0.25] * 4), **COLUMNS)  # exact in 32 bits


def change(row, column, value):
  frame = table().astype({column: object})
  frame.loc[row - 1, column] = value
  return frame


@pytest.mark.parametrize(
  ("frame", "message"),
  [
    (table().rename(columns={"acc": "accuracy"}), "unknown column 'acc'; did you mean 'accuracy'"),
    (table().iloc[:0], "the table has no row"),
    (table().T, "unknown column 'acc'"),
    (pd.concat([table(), table()[["acc"]]], axis=1), "2 columns called 'acc'"),
    (table(acc=table().optimizer), "the score 'acc' in row 1 must be a finite number.*not '"),
    (table(seed=table().optimizer, optimizer=table().seed), "the seed in row 1 must be an integer"),
    (change(3, "acc", "fast"), "the score 'acc' in row 3 .*not 'fast'"),
    (change(3, "acc", True), "the score 'acc' in row 3 .*not True"),
    (change(3, "acc", math.inf), "the score 'acc' in row 3 .*not inf"),
    (change(5, "seed", 1.5), r"the seed in row 5 must be an integer, not 1\.5"),
    (change(5, "seed", None), "the seed in row 5 must be an integer"),
    (change(5, "optimizer", None), "row 5 has no arm"),
    (change(5, "optimizer", " "), "row 5 has no arm"),
    (pd.concat([table(), table()[4:5]]), "row 9 repeats arm '.*' with seed ., of row 5"),
    (table()[:-1], "row . has seed . of arm '.*', and no row has it of arm"),
    (table(seed=range(8))[:-1], "arm '.*' has 4 runs, the last in row 7, and arm '.*' has 3"),
  ],
)
def test_what_is_no_balanced_table_is_refused_in_one_line(frame, message):
  with pytest.raises(InputError, match=message) as error:
    stats.Scores.from_frame(frame, **COLUMNS)
  assert "\n" not in str(error.value)


def test_a_task_without_an_arm_is_refused():
  frame = pd.concat([table().assign(data="a"), table(arms=("sgd",)).assign(data="b")])
  with pytest.raises(InputError, match="arm 'adam' has no row in task 'b', which row 9 is"):
    stats.Scores.from_frame(frame, **COLUMNS, task="data")


# Arms that share no seed


def unpaired(a, b, metric="acc"):
  return stats.Scores(
    metric=metric,
    values=np.column_stack([a, b]).astype(float),
    seeds=tuple(range(len(a))),
    arms=("a", "b"),
    axes=stats.AXES,
    higher_is_better=True,
    paired=False,
  )


@given(
  st.lists(st.integers(0, 4), min_size=3, max_size=4),
  st.lists(st.integers(0, 4), min_size=2, max_size=4),
)
def test_law_the_permutation_test_counts_all_assignments(a, b):
  """Values are small integers, so that sums tie and samples without spread occur."""

  def statistic(x, y):
    if np.mean(x) == np.mean(y):
      return 0.0
    if np.ptp(x) == np.ptp(y) == 0:
      return math.inf
    error = np.var(x, ddof=1) / len(x) + np.var(y, ddof=1) / len(y)
    return abs(np.mean(x) - np.mean(y)) / math.sqrt(error)

  values = np.array([*a, *b], float)
  observed, count, total = statistic(a, b), 0, 0
  for chosen in itertools.combinations(range(len(values)), len(a)):
    rest = np.delete(values, chosen)
    count += statistic(values[list(chosen)], rest) >= observed - 1e-9
    total += 1
  found = stats.permutation_test(np.array(a, float), np.array(b, float))
  assert found == pytest.approx(count / total if observed else 1.0)


def test_the_permutation_test_by_random_assignments_agrees():
  a, b = np.random.default_rng(0).normal([[0], [1]], size=(2, 8))
  exact = stats.permutation_test(a, b)
  assert stats.permutation_test(a, b, num_resamples=9_999) == pytest.approx(exact, abs=0.01)
  assert exact != stats.permutation_test(a, b, num_resamples=9_999)


def test_a_verdict_on_unpaired_arms_is_welch_s():
  a, b = np.random.default_rng(0).normal([[0], [1.5]], [[1], [2]], size=(2, 20))
  (verdict,) = stats.compare(unpaired(a, b), margin=0.5)
  t_test = scipy.stats.ttest_ind(a, b, equal_var=False)
  interval = t_test.confidence_interval(0.95)
  assert (verdict.ci_low, verdict.ci_high) == pytest.approx((interval.low, interval.high))
  assert verdict.p_value == pytest.approx(t_test.pvalue, abs=0.005)
  assert (verdict.verdict, verdict.num_pairs, verdict.design) == ("worse", 20, stats.UNPAIRED)
  sides = [
    scipy.stats.ttest_ind(a + 0.5, b, equal_var=False, alternative="greater").pvalue,
    scipy.stats.ttest_ind(a - 0.5, b, equal_var=False, alternative="less").pvalue,
  ]
  assert stats.welch_tost(a, b, 0.5) == pytest.approx(max(sides))
  text = stats.sentence(verdict)
  assert "Welch, over 20 or more runs of each arm, which share no seed" in text


def test_unpaired_verdicts():
  zeros, ones = np.zeros(16), np.ones(16)
  (verdict,) = stats.compare(unpaired(ones, zeros), margin=0.5)
  assert (verdict.verdict, verdict.beyond_margin) == ("better", True)
  assert math.isnan(verdict.ci_low)
  (verdict,) = stats.compare(unpaired(zeros, zeros), margin=0.5)
  assert (verdict.verdict, verdict.p_equivalence) == ("equivalent", 0.5**16)
  # 2 / C(6, 3) = 0.1, 2 / C(8, 4) = 0.029.
  (verdict,) = stats.compare(unpaired(ones[:3], zeros[:3]), margin=0.5)
  assert (verdict.verdict, verdict.seeds_needed) == ("too few seeds", 4)
  (verdict,) = stats.compare(unpaired(ones[:4], zeros[:4]), margin=0.5)
  assert (verdict.verdict, verdict.p_value) == ("better", pytest.approx(2 / 70))


def test_seeds_needed_of_unpaired_arms_have_the_power_they_promise():
  """About 80% of new runs of that size are decided."""
  rng = np.random.default_rng(0)
  a = np.linspace(-1, 1, 10) / np.std(np.linspace(-1, 1, 10), ddof=1)
  (verdict,) = stats.compare(unpaired(a + 0.8, a), margin=0.1)
  needed = verdict.seeds_needed
  assert verdict.verdict == "undecided"
  assert 24 <= needed <= 30  # 26 by the usual formula, two-sided
  decided = 0
  for _ in range(60):
    fresh = unpaired(rng.normal(0.8, 1, needed), rng.normal(0, 1, needed))
    decided += stats.compare(fresh, 0.1, num_resamples=499)[0].verdict != "undecided"
  assert 38 <= decided <= 58


# Several tasks


def tasks(num_seeds=8, **shifts):
  """Task -> scores of arms a and b, b better by the shift of the task."""
  rng = np.random.default_rng(1)
  found = {}
  for name, shift in shifts.items():
    values = rng.normal([0, shift], size=(num_seeds, 2))
    found[name] = stats.Scores(
      metric="acc", values=values, seeds=tuple(range(num_seeds)), arms=("a", "b"),
      axes=stats.AXES, higher_is_better=True,
    )  # fmt: skip
  return found


def test_interquartile_mean_is_scipy_s_trimmed_mean():
  of = tasks(x=0, y=1, z=2)
  found = stats.interquartile_mean(of, num_resamples=500)
  for index, arm in enumerate(("a", "b")):
    everything = np.concatenate([scores.values[:, index] for scores in of.values()])
    assert found[arm].estimate == pytest.approx(scipy.stats.trim_mean(everything, 0.25))
    assert found[arm].low < found[arm].estimate < found[arm].high


def test_probability_of_improvement_is_mann_and_whitney_s():
  of = tasks(x=0, y=1)
  expected = [
    scipy.stats.mannwhitneyu(scores.values[:, 1], scores.values[:, 0]).statistic / 64
    for scores in of.values()
  ]
  found = stats.probability_of_improvement(of, "b", "a", num_resamples=500)
  assert found.estimate == pytest.approx(np.mean(expected))
  assert found.low < found.estimate < found.high
  other = stats.probability_of_improvement(of, "a", "b", num_resamples=500)
  assert other.estimate == pytest.approx(1 - found.estimate)
  assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low), abs=0.02)


def test_intervals_over_tasks_cover():
  """Of 150 experiments with 16 seeds of two tasks, about 95% have the truth in the interval."""
  rng = np.random.default_rng(0)
  covered = np.zeros(2)
  truth = scipy.stats.norm.cdf(0.5 / math.sqrt(2))
  for _ in range(150):
    of = {name: unpaired(rng.normal(size=16), rng.normal(0.5, 1, size=16)) for name in ("x", "y")}
    low, high = stats.interquartile_mean(of, num_resamples=400)["a"][1:]
    covered[0] += low <= 0 <= high
    low, high = stats.probability_of_improvement(of, "b", "a", num_resamples=400)[1:]
    covered[1] += low <= truth <= high
  assert (covered >= 0.87 * 150).all(), covered
  assert (covered <= 149).all(), covered


def test_a_run_that_diverged_is_worse_than_all_others():
  values = np.array([[1.0, 3.0], [2.0, np.nan]])
  for higher in (True, False):
    of = {
      "x": stats.Scores(
        metric="m", values=values, seeds=(0, 1), arms=("a", "b"), axes=stats.AXES,
        higher_is_better=higher,
      )
    }  # fmt: skip
    expected = 0.5 if higher else 1.0  # b's 3 beats both runs of a, or neither
    found = stats.probability_of_improvement(of, "a", "b", num_resamples=10)
    assert found.estimate == expected


def test_mean_over_tasks_matches_seeds():
  of = tasks(num_seeds=3, x=0, y=1)
  turned = of["y"].values[::-1]
  of["y"] = stats.Scores(
    metric="acc", values=turned, seeds=(2, 1, 0), arms=("a", "b"), axes=stats.AXES,
    higher_is_better=True,
  )  # fmt: skip
  expected = (of["x"].values + turned[::-1]) / 2
  np.testing.assert_allclose(stats.mean_over_tasks(of).values, expected)
  with pytest.raises(InputError, match="task 'z' has 4 seeds, and the first task 3"):
    stats.mean_over_tasks({**of, "z": tasks(num_seeds=4, z=0)["z"]})


# The script


def run(tmp_path, frame, *more):
  file = tmp_path / "runs.csv"
  frame.to_csv(file, index=False)
  return compare_scores.main(
    [
      "compare_scores",
      f"--scores={file}",
      *("--metric=acc", "--arm=optimizer", "--seed=seed", "--margin=0.01"),
      f"--workdir={tmp_path / 'out'}",
      *more,
    ]
  )


def test_the_script_leaves_what_a_run_does(tmp_path, capsys):
  assert run(tmp_path, table(num_seeds=8)) == 0
  output = capsys.readouterr()
  assert "adam is better than sgd by more than the margin" in output.out.replace(
    "sgd is worse than adam", "adam is better than sgd"
  )
  (verdict,) = json.loads((tmp_path / "out" / "verdicts.json").read_text())
  expected = stats.compare(stats.Scores.from_frame(table(num_seeds=8), **COLUMNS), 0.01)
  assert [verdict] == [json.loads(json.dumps(stats.to_json(v))) for v in expected]
  text = (tmp_path / "out" / "report.md").read_text()
  assert "paired by seed" in text
  for name in ("metric_distribution", "differences"):
    assert f"figures/{name}.png" in text
    assert (tmp_path / "out" / "figures" / f"{name}.png").is_file()
  assert run(tmp_path, table(num_seeds=8)) == 0  # its own files are replaced


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("flags", [(), ("--anytime",), ("--budget=16",), ("--reference=o7",)])
def test_the_script_compares_many_arms_with_one(tmp_path, capsys, flags):
  arms = tuple(f"o{i}" for i in range(15))
  frame = table(num_seeds=16, arms=arms)
  assert run(tmp_path, frame, *flags) == 0
  verdicts = json.loads((tmp_path / "out" / "verdicts.json").read_text())
  assert len(verdicts) == 14
  assert {v["arm_b"] for v in verdicts} == {"o7" if "--reference=o7" in flags else "o14"}
  text = (tmp_path / "out" / "report.md").read_text()
  assert "| o13 |" in text
  assert "| o4 |" not in text  # the ninth to the eleventh are neither the best nor the worst
  assert "o4 " not in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
  ("frame", "flags", "expected"),
  [
    (table(num_seeds=16, seed=range(32)), (), "No two arms share a seed"),
    (table(num_seeds=16), ("--budget=32",), "after every 8, in the order of the table, and at"),
    (table(num_seeds=16), ("--anytime",), "a test by betting"),
    (table(num_seeds=16), ("--overlap=0.25",), "The splits of the seeds overlap"),
    (
      pd.concat([table(8).assign(data=data) for data in ("x", "y")]),
      ("--task=data",),
      "probability that a is better",
    ),
    (
      pd.concat([table(16).assign(data=data) for data in ("x", "y")]),
      ("--task=data", "--overlap=0.25"),
      "There are no intervals: a bootstrap needs seeds whose splits do not overlap",
    ),
    (table(num_seeds=8, arms=("sgd",)), (), "There is one arm only"),
    (table(num_seeds=2), ("--lower_is_better", "--reference=sgd"), "No claim can be made"),
  ],
)
def test_the_script_says_its_design(tmp_path, frame, flags, expected):
  assert run(tmp_path, frame, *flags) == 0
  assert expected in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("--metric=loss",), "unknown column 'loss'"),
    (("--margin=0",), "margin must be positive"),
    (("--margin=x",), "margin"),
    (("--scores=nothing.csv",), "there is no file 'nothing.csv'"),
    (("--scores=runs.xlsx",), "--scores must be a file .csv, .tsv, .parquet"),
    (("--budget=32", "--anytime"), "two designs"),
    (("--overlap=0",), "--overlap must be positive and finite, not 0.0"),
    (("--overlap=0.25", "--anytime"), "seeds that are splits of the same examples"),
    (("--workdir=",), "--workdir is empty"),
    (("more",), "unknown argument 'more'"),
    (("--reference=lion",), "unknown reference arm 'lion'"),
  ],
)
def test_the_script_refuses_in_one_line_and_writes_nothing(tmp_path, capsys, flags, message):
  assert run(tmp_path, table(), *flags) == 2
  output = capsys.readouterr()
  assert message in output.err
  assert (output.out, output.err.count("\n")) == ("", 1)
  assert not (tmp_path / "out").exists()
