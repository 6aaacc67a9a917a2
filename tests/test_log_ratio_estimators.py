"""Policies tuned otherwise than by step-level DPO: losses by hand, and a taste that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from toy import Maze, small_lm
from trl import DPOTrainer

from qvlib.base.errors import QvlibError
from qvlib.core.dpo import dpo_loss
from qvlib.core.episodes import replay
from qvlib.core.preferences import build_pairs, hold_out, shuffle_winners
from qvlib.estimators import Problem, estimator_of, step_dpo_loop, step_dpo_trl
from qvlib.estimators.data import encode, pair_log_probs
from qvlib.estimators.dealing import dealt
from qvlib.estimators.rebel import rebel_loss, valued
from qvlib.estimators.trajectories import (
    best_and_worst,
    encode_trajectories,
    trajectory_log_probs,
)
from qvlib.estimators.trajectory_dpo import trajectory_loss
from qvlib.estimators.vpo import vpo_loss
from qvlib.models.loading import load_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
WORTH = {"a": 1.0, "b": 0.5, "c": 0.0}
NAMES = ("trajectory_dpo", "sweet_rl", "vpo", "rebel")
FOUR = [
    torch.tensor(v, dtype=torch.float64)
    for v in ([-1.0, -2.0], [-3.0, -1.0], [-1.5, -2.0], [-2.0, -4.0])
]
GAPS = [(-1 + 1.5) - (-3 + 2), (-2 + 2) - (-1 + 4)]
"""Of the log-ratios of ``FOUR``, nats."""


@dataclass(frozen=True)
class Taste(Maze):
    """A maze of two steps in which a is better than b and b than c, in every task and state."""

    depth: int = 2

    def reward(self, task, world):
        return float(np.mean([WORTH[choice] for choice in world]))


def tree(environment: Maze, task) -> dict:
    """The record of the whole tree: each node visited, worth acting at random from there."""
    nodes = []
    for depth in range(environment.depth + 1):
        for world in product(environment.choices, repeat=depth):
            ended = depth == environment.depth
            value = environment.uniform(task, world)
            nodes.append(
                {
                    "node": ".".join(world),
                    "parent": ".".join(world[:-1]) if world else None,
                    "action": world[-1] if world else "",
                    "visits": 3,
                    "value": value,
                    "value_sum": 3 * value,
                    "reward": value if ended else 0.0,
                    "terminal": ended,
                    "best_reward": environment.best(task, world),
                }
            )
    return {"task": task.id, "best_actions": [], "nodes": nodes}


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    environment = Taste()
    trees = [tree(environment, task) for task in environment.tasks("train")]
    train, held_out = hold_out(build_pairs(trees, "all_siblings"), 0.3, 0)
    assert train and held_out
    scratch = tmp_path_factory.mktemp("scratch")
    return Problem(environment, small_lm(), train, held_out, lambda: trees, 0, "fit", scratch)


def moved(seed: int = 5):
    """The small model with other weights, as after some training."""
    lm, generator = small_lm(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in lm.model.parameters():
            p += 0.05 * p.abs().mean() * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return lm


def states_of(problem: Problem, pairs):
    tasks = {task.id: task for task in problem.environment.tasks("train")}
    return [replay(problem.environment, tasks[pair.task], pair.path) for pair in pairs]


# -- losses by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize("optimism", [False, True])
def test_vpo_is_dpo_and_a_signed_term(optimism):
    found = vpo_loss(*FOUR, 0.5, 0.2, optimism)
    plain = [math.log(1 + math.exp(-0.5 * gap)) for gap in GAPS]
    chosen, rejected = (-1 + 1.5, -2 + 2), (-3 + 2, -1 + 4)
    terms = [
        0.2 * 0.5 * (c + r) / 2 if optimism else -0.2 * 0.5 * c
        for c, r in zip(chosen, rejected, strict=True)
    ]
    np.testing.assert_allclose(found, np.add(plain, terms), rtol=1e-6)
    assert torch.equal(vpo_loss(*FOUR, 0.5, 0.0, optimism), dpo_loss(*FOUR, 0.5))


def test_rebel_is_a_squared_difference():
    found = rebel_loss(*FOUR, torch.tensor([0.25, 0.5], dtype=torch.float64), 0.1)
    np.testing.assert_allclose(found, [(0.1 * GAPS[0] - 0.25) ** 2, (0.1 * GAPS[1] - 0.5) ** 2])


def test_rebel_with_equal_differences_is_trls_ipo(problem, tmp_path):
    """(beta gap - 1)^2 = beta^2 (gap - 1 / beta)^2, IPO with a beta of half of ours."""
    rows = encode(problem.environment, problem.reference, problem.train[:6])
    trainer = trainer_of(problem, rows, tmp_path, rule="mean", beta=0.05)
    trainer.loss_types, trainer.loss_weights = ["ipo"], [1.0]
    theirs, four = their_loss_and_four(trainer, problem, rows, "mean")
    ours = rebel_loss(*four, torch.ones(6), 0.1).mean() / 0.1**2
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)
    assert same_gradient(trainer, theirs, ours)


def test_pessimistic_vpo_is_trls_dpo_with_a_supervised_loss(problem, tmp_path):
    """TRL's is a mean over tokens and has no reference, which moves no weight: of one pair."""
    rows = encode(problem.environment, problem.reference, problem.train[:1])
    trainer = trainer_of(problem, rows, tmp_path, rule="sum", beta=0.1)
    length = len(rows[0].chosen)
    trainer.loss_types, trainer.loss_weights = ["sigmoid", "sft"], [1.0, 0.1 * 0.3 * length]
    theirs, four = their_loss_and_four(trainer, problem, rows, "sum")
    ours = vpo_loss(*four, 0.1, 0.3, optimism=False).mean()
    constant = 0.1 * 0.3 * four[2].mean()
    assert theirs.item() == pytest.approx((ours - constant).item(), rel=1e-5)
    assert same_gradient(trainer, theirs, ours)


def trainer_of(problem: Problem, rows, folder, rule: str, beta: float):
    """TRL's trainer on these rows, whose policy has moved."""
    trainer = step_dpo_trl.make_trainer(
        problem.reference,
        rows,
        (),
        beta=beta,
        lr=1e-3,
        epochs=1,
        batch=len(rows),
        rule=rule,
        seed=0,
        schedule="linear",
        lora_rank=0,
        folder=folder,
        label="",
    )
    trainer.model.load_state_dict(moved().model.state_dict())
    return trainer


def their_loss_and_four(trainer, problem: Problem, rows, rule: str):
    """(TRL's own, unchanged compute_loss, the four log-probabilities that ours is made of)."""
    lm = problem.reference
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    theirs = DPOTrainer.compute_loss(trainer, trainer.model, batch)
    with torch.no_grad():
        reference = pair_log_probs(lm.model, rows, rule, lm.end)
    return theirs, (*pair_log_probs(trainer.model, rows, rule, lm.end), *reference)


def same_gradient(trainer, theirs, ours) -> bool:
    got, want = (
        torch.autograd.grad(loss, trainer.model.lm_head.weight)[0] for loss in (theirs, ours)
    )
    scale = float((want * got).sum() / (want * want).sum())
    assert scale == pytest.approx(1.0, rel=1e-4)
    return torch.allclose(got, want, atol=1e-5 * float(want.abs().max()), rtol=1e-3)


# -- trajectories -------------------------------------------------------------------------------


def row(node: str, value: float, visits: int = 1, terminal: bool = False, reward: float = 0.0):
    parent = None if node == "" else node.rpartition(".")[0]
    return {
        "node": node,
        "parent": parent,
        "action": node.rpartition(".")[2],
        "visits": visits,
        "value": value,
        "reward": reward,
        "terminal": terminal,
    }


def record(*rows) -> dict:
    return {"task": "train-0", "nodes": [row("", 0.2, 9), *rows], "best_actions": ["x", "x"]}


def test_the_best_and_the_worst_end_that_was_visited():
    ends = (
        row("a", 0.5, 4),
        row("b", 0.4, 3),
        row("a.a", 0.9, 1, True, 0.9),
        row("a.b", 0.0, 0, True, 1.0),  # never visited
        row("b.a", 0.3, 1, True, 0.3),
        row("b.b", -1.0, 1),  # no end
    )
    assert best_and_worst(record(*ends), 10) == (("a", "a"), ("b", "a"))
    assert best_and_worst(record(*ends), 2) == (("a", "a"), ("b", "b"))  # now it is cut off
    assert best_and_worst(record(*ends[:4]), 10) is None


def test_among_equal_ends_the_shortest_counts():
    ends = (
        row("a", 0.5, 4),
        row("b", 1.0, 3, True, 1.0),
        row("c", 0.0, 3, True, 0.0),
        row("a.a", 1.0, 1, True, 1.0),
        row("a.b", 0.0, 1, True, 0.0),
    )
    assert best_and_worst(record(*ends), 10) == (("b",), ("c",))


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_a_trajectory_is_the_sum_of_its_steps(problem, rule):
    """Of all its steps; those that both begin with are left out, as they cancel."""
    lm, environment = problem.reference, problem.environment
    task = environment.tasks("train")[0]
    shared = record(row("a", 0.5, 4), row("a.a", 1.0, 2, True, 1.0), row("a.c", 0.0, 2, True, 0.0))
    apart = record(
        row("b", 0.5, 4), row("c", 0.5, 4), row("b.a", 1.0, 1, True), row("c.b", 0.0, 1, True)
    )
    rows = encode_trajectories(environment, lm, iter([shared, apart]))
    assert [(len(r.chosen), len(r.rejected), r.sequences) for r in rows] == [(1, 1, 2), (2, 2, 4)]
    policy = moved()

    def by_hand(path: Sequence[str]) -> float:
        total = 0.0
        for i, action in enumerate(path):
            prompt, ids = lm.prompt(replay(environment, task, path[:i]))
            reply = lm.action_ids(prompt, action)
            for model, sign in ((policy.model, 1), (lm.model, -1)):
                logits = model(input_ids=torch.tensor([ids + reply])).logits[0, len(ids) - 1 : -1]
                tokens = torch.log_softmax(logits, -1)[range(len(reply)), list(reply)]
                total += sign * float(tokens.sum() if rule == "sum" else tokens.mean())
        return total

    with torch.no_grad():
        ours, theirs = (
            trajectory_log_probs(model.model, rows, rule, lm.end) for model in (policy, lm)
        )
        wanted = [by_hand("aa") - by_hand("ac"), by_hand("ba") - by_hand("cb")]
    gaps = (ours[0] - theirs[0]) - (ours[1] - theirs[1])
    np.testing.assert_allclose(gaps, wanted, atol=1e-9)
    losses = trajectory_loss(*ours, *theirs, 0.3)
    np.testing.assert_allclose(losses, [math.log(1 + math.exp(-0.3 * g)) for g in wanted])


def test_trees_without_two_ends_are_told(problem):
    none = replace(problem, trees=lambda: [record(row("a", 0.5, 4))])
    for name in ("trajectory_dpo", "sweet_rl"):
        estimator = estimator_of(name)
        with pytest.raises(
            QvlibError, match="no tree has two visited ends of different worth"
        ) as e:
            estimator.fit(none, estimator.settings())
        assert "\n" not in str(e.value)


def test_passes_of_trajectories_hold_no_more_tokens_than_asked(problem):
    """Cut in passes a batch is the same batch."""
    environment, lm = problem.environment, problem.reference
    rows = encode_trajectories(environment, lm, problem.train_trees())
    how = {"beta": 0.1, "lr": 3e-3, "epochs": 1, "batch": 4, "rule": "sum", "seed": 0}
    how |= {"packed": False, "log_probs": trajectory_log_probs}
    whole, cut = (
        step_dpo_loop.train(replace(lm, batch_tokens=tokens), rows, (), **how)[1]
        for tokens in (8192, 1)
    )
    for one, other in zip(whole, cut, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


# -- what is learnt -----------------------------------------------------------------------------


WHOLE = ("trajectory_dpo", "sweet_rl")
LONG = {name: {"dpo_lr": 3e-3, "dpo_epochs": 8, "dpo_batch": 4} for name in WHOLE} | {
    name: {"dpo_lr": 5e-3, "dpo_epochs": 5, "dpo_batch": 12} for name in ("vpo", "rebel")
}


def fitted(name: str, problem: Problem, folder, **settings):
    """(what was fitted, scores of each choice in the states of held-out tasks [states, 3])."""
    estimator = estimator_of(name)
    chosen = estimator.settings(**LONG[name] | settings)
    found = estimator.fit(problem, chosen)
    found.save(folder)
    q = estimator.load(folder, problem.reference, chosen, lambda f, d: load_folder(f, dtype=d))
    states = list({str(s.history): s for s in states_of(problem, problem.held_out)}.values())
    scores = np.array(q.score(states, [list("abc")] * len(states)))
    return found, scores


@pytest.fixture(scope="module", params=NAMES)
def learnt(request, problem, tmp_path_factory):
    """(name, what ``fitted`` gives)."""
    folder = tmp_path_factory.mktemp(request.param) / "m"
    return request.param, *fitted(request.param, problem, folder)


def test_a_taste_is_learnt_and_holds_on_other_tasks(problem, learnt):
    name, found, scores = learnt
    facts = found.facts
    assert facts["held_out_accuracy"] > 0.9
    assert facts["held_out_pairs"] == len(problem.held_out)
    trees = len(list(problem.train_trees()))
    assert facts["pairs"] == (trees if name in WHOLE else len(problem.train))
    assert "packed" not in facts
    a, b, c = scores.T
    assert (a > c).all() and a.mean() > b.mean() > c.mean()
    first = found.curve[0]
    assert first["margin"] == pytest.approx(0, abs=1e-9)
    assert found.curve[-1]["split"] == "held-out" and found.curve[-1]["loss"] < first["loss"]
    assert estimator_of(name).policy and estimator_of(name).unit == "nats"


def test_controls_learn_no_taste(problem, learnt, tmp_path):
    """Of winners drawn by a coin, or of dealt trees; what is held out is the truth in either."""
    name, _, truth = learnt
    apart, right = [], []
    for shuffle in range(6):
        control = replace(
            problem,
            train=shuffle_winners(problem.train, 0, shuffle),
            trees=lambda s=shuffle: [dealt(t, 0, s) for t in problem.trees()],
        )
        found, scores = fitted(name, control, tmp_path / str(shuffle))
        apart.append(float((scores[:, 0] - scores[:, 2]).mean()))
        right.append(found.facts["held_out_accuracy"])
    gained = float((truth[:, 0] - truth[:, 2]).mean())
    assert abs(np.mean(apart)) < 0.4 * gained, (gained, apart)
    assert 0.2 < np.mean(right) < 0.8, right


def test_rebel_learns_how_far_apart_values_are(problem, tmp_path):
    """Log-ratios differ by eta times the values: 1 / beta."""
    _, scores = fitted("rebel", problem, tmp_path / "m", beta=0.5, dpo_epochs=12)
    a, b, c = scores.mean(0) * 0.5
    assert a - b == pytest.approx(0.25, abs=0.08) and b - c == pytest.approx(0.25, abs=0.08)


def test_a_control_of_rebel_is_fitted_to_its_own_winners(problem):
    """Values turned round with their actions would tell which is better."""
    coins = shuffle_winners(problem.train, 0, 0)
    turned = [pair for pair in coins if pair.margin < 0]
    assert turned and all(r.difference > 0 for r in valued(problem, coins))
    (row,) = valued(problem, turned[:1])
    prompt, _ = problem.reference.prompt(states_of(problem, turned[:1])[0])
    assert row.chosen == problem.reference.action_ids(prompt, turned[0].chosen)
    assert row.difference == turned[0].rejected_value - turned[0].chosen_value


def test_vpo_without_its_term_is_step_dpo(problem, tmp_path):
    """To the last bit of every weight."""
    estimator, plain = estimator_of("vpo"), estimator_of("step_dpo")
    ours = estimator.fit(problem, estimator.settings(vpo_alpha=0.0, dpo_lr=3e-3))
    theirs = plain.fit(problem, plain.settings(dpo_lr=3e-3))
    assert ours.curve == theirs.curve and ours.facts == theirs.facts
    pessimist = estimator.fit(problem, estimator.settings(vpo_alpha=2.0, dpo_lr=3e-3))
    optimist = estimator.fit(
        problem, estimator.settings(vpo_alpha=2.0, dpo_lr=3e-3, vpo="optimism")
    )
    last = [run.curve[-1]["log_prob_chosen"] for run in (optimist, ours, pessimist)]
    assert last == sorted(last)


def test_a_killed_training_is_known_by_its_loss(problem, tmp_path):
    """Another weight of the term is another training: its checkpoint is not gone on from."""
    estimator = estimator_of("vpo")
    at = replace(problem, scratch=tmp_path)
    for alpha in (0.1, 0.5):
        estimator.fit(at, estimator.settings(vpo_alpha=alpha))
    assert len(list(tmp_path.glob("checkpoints-*"))) == 2


# -- a critic that is told solutions ------------------------------------------------------------


def test_a_policy_is_tuned_on_what_a_critic_prefers_that_read_solutions(
    problem, tmp_path, monkeypatch
):
    """The critic reads a solution with every prompt, the policy never; its score is a sum."""
    from qvlib.estimators import sweet_rl, tuning

    asked, tuned_on = [], []

    def solution(task):
        asked.append(task.id)
        return f"Solution: a of {task.id}"

    told = replace(problem, solution=solution)
    with monkeypatch.context() as patch:
        by_loop = tuning.fit_by_loop

        def spy(problem, settings, rows, held_out, method, **loop):
            tuned_on.extend(rows)
            return by_loop(problem, settings, rows, held_out, method, **loop)

        patch.setattr(tuning, "fit_by_loop", spy)
        found, scores = fitted("sweet_rl", told, tmp_path / "m", sweet_privileged=True)
    held = {pair.task for pair in problem.held_out}
    assert set(asked) == {task.id for task in problem.environment.tasks("train")} - held
    states = list(problem.train_siblings())
    assert found.facts["pairs"] == len(tuned_on) == len(states)
    decode = problem.reference.tokenizer.decode
    assert not any("Solution" in decode(row.prompt) for row in tuned_on)
    chosen, rejected = (
        [decode(getattr(r, w)).strip()[0] for r in tuned_on] for w in ("chosen", "rejected")
    )
    assert chosen.count("a") > 0.8 * len(chosen) and rejected.count("c") > 0.8 * len(rejected)
    assert found.facts["held_out_accuracy"] > 0.9
    a, b, c = scores.mean(0)
    assert a > b > c
    settings = sweet_rl.SweetRLSettings(sweet_privileged=True)
    assert settings.of_policy.log_prob == "sum" and settings.log_prob == "mean"


def test_a_critic_is_told_solutions_where_it_is_asked(problem):
    from qvlib.estimators.sweet_rl import SweetRLSettings, _preferred

    seen = []
    lm = problem.reference

    class Listening(type(lm)):
        def prompt(self, state):
            seen.append(state.task.instruction)
            return super().prompt(state)

    listening = Listening(lm.model, lm.tokenizer, lm.style)
    there = replace(problem, reference=listening, solution=lambda task: f"Solution: {task.id}!")
    pairs = list(_preferred(there, SweetRLSettings(sweet_privileged=True)))
    assert pairs and seen and all("Solution: train-" in text for text in seen)
    assert all(pair.margin > 0 for pair in pairs)


def test_a_world_without_solutions_is_told(problem):
    estimator = estimator_of("sweet_rl")
    with pytest.raises(QvlibError, match="this world tells none"):
        estimator.fit(problem, estimator.settings(sweet_privileged=True))
