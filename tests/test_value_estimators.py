"""Estimators with value heads: what each is fitted to, and losses that were computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_heads import asked_of_fit, fitted_scores, known_steps
from test_heads import problem as problem
from test_step_values import TREE, row

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import replay
from qvlib.core.step_values import backed_up, outcomes, siblings
from qvlib.estimators import estimator_of, head_loop
from qvlib.estimators.bradley_terry import preference
from qvlib.estimators.dealing import dealt
from qvlib.estimators.heads import Group, encode_paths
from qvlib.estimators.histograms import Bins
from qvlib.estimators.pqm import ranking
from qvlib.estimators.tvm import probability, success_shares
from qvlib.models.heads import Head, load_head
from qvlib.models.hidden import Headless, last_hidden

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    "name, values",
    [("rover", True), ("hl_gauss", True), ("tvm", True), ("pqm", False), ("bradley_terry", False)],
)
def test_scores_in_units_of_reward_compare_states(name, values):
    estimator = estimator_of(name)
    assert estimator.compares_states(estimator.settings()) is values


# -- ROVER ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sweeps", [0, 1])
def test_rover_fits_the_uniform_policy_that_dynamic_programming_knows(problem, monkeypatch, sweeps):
    maze = problem.environment
    tasks = {task.id: task for task in maze.tasks("train")}

    def true(task, world):
        """Acting at random after ``sweeps`` greedy steps; the trees are two steps deep."""
        if not sweeps or len(world) == 2:
            return maze.uniform(task, world)
        return max(maze.uniform(task, (*world, a)) for a in maze.choices)

    groups, _ = asked_of_fit(monkeypatch, "rover", problem, sweeps=sweeps)
    steps = [g for t in problem.train_trees() for g in siblings(t, backed_up(t))]
    for group, step in zip(groups, steps, strict=True):
        worlds = [(*step.path, action) for action in step.actions]
        assert group.targets == pytest.approx([true(tasks[step.task], w) for w in worlds])
    assert len(groups) > 10


# -- HL-Gauss ---------------------------------------------------------------------------------


def test_a_histogram_is_the_mass_of_a_gaussian_in_each_bin():
    bins = Bins.over([-0.5, 0.2, 1.0], 51, 0.75)
    assert bins.width == pytest.approx(1.5 / 45) and bins.sigma == pytest.approx(0.75 * 1.5 / 45)
    assert bins.low == pytest.approx(-0.5 - 3 * bins.width)
    for value in (-0.5, 0.2, 1.0):
        found = np.array(bins.histogram(value))
        fine = np.linspace(bins.low, bins.low + 51 * bins.width, 51 * 400 + 1)
        density = np.exp(-(((fine - value) / bins.sigma) ** 2) / 2)
        density = (density[1:] + density[:-1]) / 2  # trapezia
        mass = density.reshape(51, 400).sum(1)
        np.testing.assert_allclose(found, mass / mass.sum(), atol=1e-6)
        # Nothing is cut off at the ends, so the mean is the value.
        assert np.dot(found, bins.centres) == pytest.approx(value, abs=1e-4)


def test_a_bin_of_its_own_has_the_mass_that_tables_give():
    """Bins as wide as the deviation, around the value: 38.29, 24.17 and 6.06 per cent."""
    bins = Bins(low=-2.5, width=1.0, count=5, sigma=1.0)
    whole = 0.3829 + 2 * 0.2417 + 2 * 0.0606
    assert bins.histogram(0.0)[2] == pytest.approx(0.3829 / whole, abs=1e-4)
    assert bins.histogram(0.0)[1] == pytest.approx(0.2417 / whole, abs=1e-4)
    assert Bins.over([0.3, 0.3], 51, 0.75).width > 0  # values that are all the same


def test_hl_gauss_fits_histograms_whose_means_are_the_values(problem, monkeypatch):
    groups, loss = asked_of_fit(monkeypatch, "hl_gauss", problem)
    known = known_steps(problem)[2]
    bins = Bins.over(known, 51, 0.75)
    targets = np.concatenate([g.targets for g in groups])
    np.testing.assert_allclose(targets @ np.array(bins.centres), known, atol=1e-4)
    logits = torch.arange(6, dtype=torch.float64).view(2, 3)
    told = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)
    log_whole = math.log(1 + math.e + math.e**2)  # of softmax (0, 1, 2), and of (3, 4, 5) above 3
    expected = [log_whole - (0.5 * 1 + 0.3 * 2), log_whole - 2]
    assert loss(logits, told).tolist() == pytest.approx(expected)


def test_hl_gauss_scores_are_means_of_histograms_as_they_were_saved(problem, tmp_path):
    frozen = {"features": "frozen", "fit_lr": 1e-2, "fit_epochs": 3}
    scores = fitted_scores("hl_gauss", problem, tmp_path / "m", **frozen)
    known = known_steps(problem)[2]
    assert scores.std() > 0 and known.min() - 0.1 < scores.min() < scores.max() < known.max() + 0.1
    bins = Bins.load(tmp_path / "m")
    one_hot = torch.full((1, 51), -1e9)
    one_hot[0, 7] = 0.0
    assert bins.mean(one_hot).tolist() == pytest.approx([bins.low + 7.5 * bins.width])
    (tmp_path / "m" / "bins.json").write_text("{}")
    with pytest.raises(QvlibError, match="no bins of a histogram can be read"):
        Bins.load(tmp_path / "m")


# -- TVM --------------------------------------------------------------------------------------


def test_a_share_is_of_paths_and_each_end_counts_once():
    nodes = [
        row("", 0.5, 12),
        row("a", 0.7, 9),
        row("b", 1.0, 2),  # a leaf: its episode got 1
        row("c", 0.0, 0),
        row("a.x", 1.0, 6, 1.0, True),
        row("a.y", -0.5, 1),
        row("a.z", 0.4, 1, 0.4, True),
        row("a.u", 0.0, 0, 1.0, True),  # an end that the search did not visit
    ]
    tree = {"task": "t", "nodes": nodes}
    third = {"": 2 / 4, "a": 1 / 3, "b": 1.0, "a.x": 1.0, "a.y": 0.0, "a.z": 0.0}
    assert success_shares(tree, 1.0) == third
    assert success_shares(tree, 0.4) == third | {"": 3 / 4, "a": 2 / 3, "a.z": 1.0}
    bare = [{key: n[key] for key in ("node", "parent", "action", "visits", "value")} for n in nodes]
    assert success_shares({"task": "t", "nodes": bare}, 1.0) == third  # of a tree without rewards
    assert set(success_shares(dealt(TREE, 0), 0.5)) == set(backed_up(TREE))
    with pytest.raises(QvlibError, match="lacks 'parent'"):
        success_shares({"task": "t", "nodes": [{"node": ""}]}, 1.0)


def test_a_rollout_that_succeeded_is_a_success_however_far_its_end_was():
    """The search's value of a leaf is discounted, and would never reach the reward of an end."""
    leaf = row("a", 0.9**3, 1) | {"best_reward": 1.0}
    nothing, penalty = row("b", 0.0, 1), row("c", -1.0, 1) | {"best_reward": 0.7}
    opened = row("d", 0.81, 2) | {"best_reward": 1.0}  # two episodes: their mean stands
    tree = {"task": "t", "nodes": [row("", 0.3, 5), leaf, nothing, penalty, opened]}
    assert outcomes(tree) == {"": 0.3, "a": 1.0, "b": 0.0, "c": -1.0, "d": 0.81}
    assert success_shares(tree, 1.0) == {"": 1 / 4, "a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    bare = [{k: v for k, v in node.items() if k != "best_reward"} for node in tree["nodes"]]
    assert outcomes({"task": "t", "nodes": bare})["a"] == 0.9**3


def test_tvm_fits_shares_by_cross_entropy(problem, monkeypatch):
    groups, loss = asked_of_fit(monkeypatch, "tvm", problem, success_reward=0.5)
    known = known_steps(problem, partial(success_shares, success_reward=0.5))[2]
    assert np.concatenate([g.targets for g in groups]).tolist() == known.tolist()
    assert 0 < known.mean() < 1 and len(set(known)) > 2  # shares of three, too
    sure = math.log(4)  # logits that are probabilities of 1/4 and 1/2
    terms = loss(column(-math.log(3), 0.0), torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert terms.tolist() == pytest.approx([0.5 * sure - 0.5 * math.log(3 / 4), math.log(2)])
    assert probability(column(-math.log(3), 0.0)).tolist() == pytest.approx([0.25, 0.5])
    with pytest.raises(QvlibError, match="lower success_reward"):
        asked_of_fit(monkeypatch, "tvm", problem)  # the maze's rewards are below 1


# -- PQM --------------------------------------------------------------------------------------


def test_right_steps_ascend_and_wrong_ones_lie_a_margin_below():
    """Equation 10 written out for two right steps and two wrong ones."""
    e = math.exp
    first, wrong, second, last = 0.5, -1.0, 0.8, -0.3
    w = e(wrong + 4) + e(last + 4)
    terms = [
        -math.log(1 / (1 + w)),
        -math.log(e(first) / (1 + e(first) + w)),
        -math.log(e(second) / (1 + e(first) + e(second) + w)),
    ]
    outputs = column(first, wrong, second, last)
    assert ranking(outputs, torch.tensor([1.0, 0, 1, 0])).tolist() == pytest.approx(terms)
    right = -math.log(e(first) / (1 + e(first)))
    assert ranking(column(first), torch.ones(1)).tolist() == pytest.approx([right])
    alone = -math.log(1 / (1 + e(wrong + 2)))  # no right step: below the start alone
    assert ranking(column(wrong), torch.zeros(1), 2.0).tolist() == pytest.approx([alone])


def test_pqm_fits_paths_to_the_last_visited_actions(problem, monkeypatch):
    paths, loss = asked_of_fit(monkeypatch, "pqm", problem, right_above=0.4, rank_margin=2.0)
    maze, lm = problem.environment, problem.reference
    trees = list(problem.train_trees())
    assert len(paths) == 9 * len(trees)  # two levels of three choices
    task = next(t for t in maze.tasks("train") if t.id == trees[0]["task"])
    for path, world in zip(paths[:9], [a + b for a in "abc" for b in "abc"], strict=True):
        first, second = lm.prompt(replay(maze, task, ())), lm.prompt(replay(maze, task, world[0]))
        assert path.prompts == (first[1], second[1])
        actions = (lm.action_ids(first[0], world[0]), lm.action_ids(second[0], world[1]))
        assert path.replies == actions
        right = [maze.uniform(task, tuple(world[: k + 1])) > 0.4 for k in range(2)]
        assert path.targets == tuple(map(float, right))
    assert loss(column(0.0), torch.zeros(1)).item() == pytest.approx(math.log(1 + math.e**2))
    for above, message in ((-0.9, "every step of the trees is right"), (0.95, "lower right_above")):
        with pytest.raises(QvlibError, match=message):
            asked_of_fit(monkeypatch, "pqm", problem, right_above=above)


def test_steps_of_a_path_pass_as_each_would_alone(problem):
    lm = problem.reference
    found = encode_paths(problem, (siblings(t, backed_up(t)) for t in problem.train_trees()))[:4]
    model = Headless(lm.model)
    head = Head((model.width, 1), seed=1, zero=False).double()
    known = [
        head(last_hidden(model, list(zip(p.prompts, p.replies, strict=True)), lm.end))
        for p in found
    ]
    for packed, tokens in ((True, lm.batch_tokens), (False, lm.batch_tokens), (True, 1)):
        passes = list(head_loop._tuned(lm.end, packed, tokens, model, head, found))
        assert len(passes) == (len(found) if tokens == 1 else 1)
        for outputs, alone in zip((o for part in passes for o in part), known, strict=True):
            torch.testing.assert_close(outputs, alone, atol=1e-9, rtol=0)


# -- Bradley and Terry ------------------------------------------------------------------------


def test_bradley_terry_fits_the_training_pairs(problem, monkeypatch):
    groups, loss = asked_of_fit(monkeypatch, "bradley_terry", problem)
    assert len(groups) == len(problem.train)
    lm, pair, group = problem.reference, problem.train[0], groups[0]
    assert [lm.tokenizer.decode(reply[:-1]).strip() for reply in group.replies] == [
        pair.chosen,
        pair.rejected,
    ]
    assert group.targets == (1.0, 0.0) and isinstance(group, Group)
    assert loss is preference
    expected = math.log(1 + math.exp(-1.5))
    assert preference(column(1.0, -0.5), torch.tensor([1.0, 0.0])).tolist() == [
        pytest.approx(expected)
    ]
    assert preference(column(-0.5, 1.0), torch.tensor([0.0, 1.0])).tolist() == [
        pytest.approx(expected)
    ]
    with pytest.raises(QvlibError, match="set features: tuned"):
        asked_of_fit(monkeypatch, "bradley_terry", problem, trainer="trl", features="frozen")


def test_trl_takes_the_same_steps_on_the_same_pairs(problem, tmp_path, monkeypatch):
    """Three steps by the loop and by TRL's ``RewardTrainer``, stopped once: one curve, one head."""
    from qvlib.estimators import bradley_terry_trl

    few = replace(problem, train=problem.train[:20], scratch=tmp_path / "scratch")
    estimator = estimator_of("bradley_terry")

    def fitted(trainer):
        chosen = {"trainer": trainer, "fit_lr": 3e-3, "head_lr": 1e-2, "head_width": 8}
        return estimator.fit(few, estimator.settings(**chosen))

    def stop(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    compute = bradley_terry_trl.PairTrainer.compute_loss
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bradley_terry_trl.PairTrainer, "compute_loss", stop)
        fitted("trl")
    loop, trl = fitted("loop"), fitted("trl")
    steps = [[r for r in each.curve if r["split"] == "train"] for each in (loop, trl)]
    assert [[r["pairs"] for r in rows] for rows in steps] == [[8, 8, 4]] * 2
    losses = [[r["loss"] for r in rows] for rows in steps]
    np.testing.assert_allclose(*losses, atol=1e-6)
    assert losses[0][0] == pytest.approx(math.log(2)) and abs(losses[0][2] - math.log(2)) > 1e-3
    assert loop.facts == trl.facts and loop.curve[-1]["accuracy"] == trl.curve[-1]["accuracy"]
    for name, each in (("loop", loop), ("trl", trl)):
        each.save(tmp_path / name)
    heads = [load_head(tmp_path / name).state_dict() for name in ("loop", "trl")]
    for name, weights in heads[0].items():
        torch.testing.assert_close(heads[1][name], weights, atol=1e-5, rtol=0)
