"""Temporal differences and the soft Bellman equation find what dynamic programming knows."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_estimators import tree
from test_heads import fitted_scores
from toy import Maze, small_lm

from qvlib.base.errors import QvlibError
from qvlib.core.preferences import build_pairs, hold_out
from qvlib.core.step_values import found, siblings, trajectories
from qvlib.estimators import Problem, estimator_of, head_loop, heads, oreo_loop
from qvlib.estimators.data import action_log_probs
from qvlib.estimators.digi_q import READS, td_error
from qvlib.estimators.oreo import soft_bellman
from qvlib.estimators.oreo_loop import encoded
from qvlib.estimators.td import CRITICS, Taken, Targets, backup, transitions
from qvlib.models.heads import Beside, Head, load_beside
from qvlib.models.hidden import Headless, headless, hidden_around, packed_hidden, read_hidden

GAMMA = 0.9


def searched(environment: Maze, task) -> dict:
    """A tree of two levels whose actions were visited and drawn unevenly."""
    record = tree(environment, task)
    for i, node in enumerate(record["nodes"][1:]):
        node |= {"visits": 1 + i % 4, "samples": 1 + i % 3}
    return record


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    environment = Maze()
    trees = [searched(environment, task) for task in environment.tasks("train")]
    train, held_out = hold_out(build_pairs(trees, "all_siblings"), 0.3, 0)
    scratch = tmp_path_factory.mktemp("scratch")
    return Problem(environment, small_lm(), train, held_out, lambda: trees, 0, "fit", scratch)


def solved(record: dict, weight: str) -> tuple[dict, dict]:
    """(V of each state, Q of each action), by node, of acting as often as ``weight`` says."""
    below = {row["node"]: [] for row in record["nodes"]}
    for row in record["nodes"][1:]:
        below[row["parent"]].append(row)
    v, q = {}, {}
    for row in reversed(record["nodes"]):
        node, children = row["node"], below[row["node"]]
        if children:
            total = sum(child[weight] for child in children)
            v[node] = sum(child[weight] * q[child["node"]] for child in children) / total
        q[node] = GAMMA * v[node] if children else row["value"]
    return v, q


# -- temporal differences ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weight"), [("digi_q", "visits"), ("archer", "samples")])
def test_tabular_critics_find_the_values_of_dynamic_programming(
    problem, tmp_path, monkeypatch, name, weight
):
    """One-hot features and linear critics are a table; both of each are within 0.02 everywhere."""
    rows: dict = {}

    def one_hot(_, asked):
        for row in asked:
            rows.setdefault(row, len(rows))
        return torch.eye(48, dtype=torch.float64)[[rows[row] for row in asked]]

    monkeypatch.setattr(head_loop, "frozen", one_hot)
    monkeypatch.setattr(heads, "width_of", lambda lm: 48)
    records = problem.trees()[:3]
    few = replace(problem, trees=lambda: records, held_out=())
    form = {"features": "frozen", "head_width": 0, "td_discount": GAMMA, "td_tau": 0.3}
    estimator = estimator_of(name)
    settings = estimator.settings(fit_lr=0.05, fit_epochs=200, fit_batch=12, **form)
    fitted = estimator.fit(few, settings)
    assert fitted.facts["pairs"] == 12 and fitted.facts["steps"] == 36 and len(rows) == 48
    fitted.save(tmp_path / "m")
    table = load_beside(tmp_path / "m", CRITICS)(torch.eye(48, dtype=torch.float64))

    lm, seen = problem.reference, 0
    for record in records:
        v, q = solved(record, weight)
        steps = list(siblings(record, found(record)))
        for step, group in zip(steps, heads.grouped(few, steps), strict=True):
            state = table[rows[group.prompt, (lm.end,)]]
            assert state[2:].tolist() == pytest.approx([v[step.node]] * 2, abs=0.02)
            for node, reply in zip(step.nodes, group.replies, strict=True):
                action = table[rows[group.prompt, reply]]
                assert action[:2].tolist() == pytest.approx([q[node]] * 2, abs=0.02)
                seen += 1
    assert seen == 36
    by_visits, by_draws = (solved(records[1], which)[1] for which in ("visits", "samples"))
    assert abs(by_visits["a"] - by_draws["a"]) > 0.05  # the tolerance tells them apart


def test_a_backup_by_hand():
    """V expects Q of its own critic; Q of an end is what was found, else discounted V after it."""
    outputs = torch.tensor([[9.0, 9, 9, 9], [1, 2, 9, 9], [3, 6, 9, 9]])
    actions = [Taken(("a",), 0.7, 0.25), Taken(("b",), -0.2, 0.75)]
    after = [torch.tensor([9.0, 9.0, 0.5, 0.8]), None]
    targets = backup(outputs, actions, after, discount=0.5)
    assert torch.allclose(targets, torch.tensor([[2.5, 5.0], [0.25, 0.4], [-0.2, -0.2]]))


def test_the_error_of_two_critics_by_hand():
    outputs = torch.tensor([[9.0, 9, 1, 2], [1, 2, 9, 9], [3, 4, 9, 9]])
    targets = torch.tensor([[0.0, 0.5], [1, 1], [1, 1]])
    # Q_1: (0 + 4) / 2, Q_2: (1 + 9) / 2; V_1: 1, V_2: 2.25
    assert td_error(outputs, targets).tolist() == [3.0, 7.25]


def test_of_two_critics_the_smaller_scores_or_the_larger():
    outputs = torch.tensor([[1.0, 2.0, 9.0, 0.0], [4.0, 3.0, 9.0, 0.0]])
    assert READS["min"](outputs).tolist() == [1.0, 3.0]
    assert READS["max"](outputs).tolist() == [2.0, 4.0]


def test_target_networks_follow_and_give_the_targets(problem):
    """After a step of training a target weight is 0.9 of its own and 0.1 of the new one."""
    one = replace(problem, trees=lambda: problem.trees()[:1], held_out=())
    groups = transitions(one, "visits", 0.5)
    hidden = {
        id(g): torch.randn(4, 2, generator=torch.manual_seed(i)) for i, g in enumerate(groups)
    }
    head = Beside({name: Head((2, 1), i, zero=False) for i, name in enumerate(CRITICS)})

    def outputs_of(model, of, batch):
        yield [of(hidden[id(group)]) for group in batch]

    moving = Targets(0.5, 0.1, groups, torch.nn.Identity(), head, outputs_of)
    before = [weight.clone() for weight in head.parameters()]
    with torch.no_grad():
        for weight in head.parameters():
            weight += 1.0
    first = moving(groups[:1])[0]
    moving.follow()
    for target, old in zip(moving.network.parameters(), before, strict=True):
        assert torch.allclose(target, old + 0.1) and not target.requires_grad
    (root, *others) = groups
    told = moving([root])[0]
    known = moving.network["head"](hidden[id(root)])
    shares = torch.tensor([step.share for step in root.targets])
    assert torch.allclose(told[0], shares @ known[1:, :2])
    for i, child in enumerate(others, start=1):
        expected = 0.5 * moving.network["head"](hidden[id(child)][0])[2:]
        assert torch.allclose(told[i], expected)
    assert not torch.allclose(told, first)
    assert not told.requires_grad


def test_training_that_was_stopped_goes_on_with_its_target_networks(problem, tmp_path, monkeypatch):
    import qvlib.models.training as training

    few = {"fit_epochs": 3, "td_tau": 0.5}
    whole = fitted_scores("digi_q", problem, tmp_path / "a", **few)
    there = replace(problem, scratch=tmp_path / "stopped")
    step, count = training.Checkpoint.step, []

    def stop(self):
        step(self)
        count.append(0)
        if len(count) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Checkpoint, "step", stop)
        fitted_scores("digi_q", there, tmp_path / "b", **few)
    again = fitted_scores("digi_q", there, tmp_path / "c", **few)
    np.testing.assert_array_equal(whole, again)


def test_a_state_is_read_at_the_end_of_its_prompt(problem):
    """Alone, beside its actions, from the cache: the same hidden state."""
    lm = problem.reference
    model = Headless(lm.model)
    record = problem.trees()[0]
    groups = heads.grouped(problem, siblings(record, found(record)))[:3]
    rows = [(g.prompt, g.replies[0]) for g in groups]
    around = hidden_around(model, rows, lm.end)
    packs = [(g.prompt, ((lm.end,), g.replies[0])) for g in groups]
    together = packed_hidden(model, packs, lm.end).view(3, 2, -1)
    mixed = [row for row, _ in zip([(p, (lm.end,)) for p, _ in rows], rows, strict=True)]
    read = read_hidden(headless(lm), mixed)
    alone = torch.stack([model(input_ids=torch.tensor([p])).logits[0, -1] for p, _ in rows])
    assert torch.allclose(around, together, atol=1e-9)
    assert torch.allclose(around[:, 0], read, atol=1e-9)
    assert torch.allclose(around[:, 0], alone, atol=1e-9)
    assert (around[:, 0] - around[:, 1]).abs().max() > 0.1


def known_q(problem: Problem, weight: str) -> np.ndarray:
    """Q of the steps that ``fitted_scores`` scores."""
    values = []
    for record in problem.train_trees():
        _, q = solved(record, weight)
        values += [q[node] for step in siblings(record, found(record)) for node in step.nodes]
    return np.array(values)


def test_archer_tunes_a_model_to_know_values(problem, tmp_path):
    one = replace(problem, trees=lambda: problem.trees()[:1], held_out=())
    form = {"head_width": 0, "head_init": "zero", "td_tau": 0.5, "td_discount": GAMMA}
    long = {"fit_lr": 1e-2, "fit_epochs": 60, "fit_batch": 4}
    scores = fitted_scores("archer", one, tmp_path / "m", **form, **long)
    known = known_q(one, "samples")
    assert np.corrcoef(scores, known)[0, 1] > 0.9
    assert np.mean((scores - known) ** 2) < 0.3 * known.var()
    assert (tmp_path / "m" / "backbone").is_dir()


# -- the soft Bellman equation ----------------------------------------------------------------


def test_soft_bellman_by_hand():
    rho = torch.tensor([1.0, -2.0], requires_grad=True)
    before = torch.tensor([0.5, 0.1], requires_grad=True)
    after = torch.tensor([0.2, 0.9], requires_grad=True)
    value, policy = soft_bellman(rho, before, after, 1.0, 0.5)
    # Sums of beta rho: from t on -0.5, -1, after t -1, 0. Residuals: -1, -1.9 and -1.8, -0.1.
    assert value.item() == pytest.approx((1.0 + 3.61 + 3.24 + 0.01) / 2)
    assert policy.item() == pytest.approx((1.0 + 3.61) / 2)
    policy.backward()
    assert before.grad is None and after.grad is None
    assert rho.grad.tolist() == pytest.approx([-1.0 * 0.5, -1.9 * 0.5])  # of step t alone
    rho.grad = None
    value.backward()
    assert rho.grad is None
    assert before.grad.tolist() == pytest.approx([-1.0, -1.9])
    assert after.grad.tolist() == pytest.approx([-1.8, -0.1])


def test_tabular_policy_and_value_solve_the_soft_bellman_equation():
    """V = beta log sum_a pi_ref exp(Q / beta), pi = pi_ref exp((Q - V) / beta), within 0.01."""
    environment, beta = Maze(), 0.5
    record = tree(environment, environment.tasks("train")[0])
    ways = list(trajectories(record))
    states = sorted({way.actions[:t] for way in ways for t in range(2)})
    prefixes = sorted({way.actions[:t] for way in ways for t in (1, 2)})
    reference = torch.log_softmax(
        torch.randn(len(states), 3, generator=torch.manual_seed(0), dtype=torch.float64), 1
    )
    logits = reference.clone().requires_grad_()
    before, after = (
        torch.zeros(len(some), dtype=torch.float64, requires_grad=True)
        for some in (states, prefixes)
    )
    optimizer = torch.optim.Adam([logits, before, after], lr=0.05)
    at = [[states.index(way.actions[:t]) for t in range(2)] for way in ways]
    taken_there = [[environment.choices.index(a) for a in way.actions] for way in ways]
    reached = [[prefixes.index(way.actions[:t]) for t in (1, 2)] for way in ways]
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        rho = torch.log_softmax(logits, 1) - reference
        losses = [
            sum(soft_bellman(rho[s, a], before[s], after[p], way.value, beta))
            for way, s, a, p in zip(ways, at, taken_there, reached, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()

    value = {way.actions: way.value for way in ways}
    for state in sorted(states, key=len, reverse=True):
        q = torch.tensor([value[(*state, a)] for a in environment.choices], dtype=torch.float64)
        row = reference[states.index(state)]
        value[state] = (beta * torch.logsumexp(row + q / beta, 0)).item()
        policy = torch.log_softmax(logits, 1)[states.index(state)].exp()
        assert torch.allclose(policy, (row + (q - value[state]) / beta).exp(), atol=0.01)
        assert before[states.index(state)].item() == pytest.approx(value[state], abs=0.01)
    for prefix in prefixes:
        assert after[prefixes.index(prefix)].item() == pytest.approx(value[prefix], abs=0.01)


def test_oreo_scores_actions_by_the_value_of_the_prefix_that_ends_with_them(problem, tmp_path):
    one = replace(problem, trees=lambda: problem.trees()[:1], held_out=())
    settings = {"fit_lr": 1e-2, "fit_epochs": 45, "fit_batch": 9}
    scores = fitted_scores("oreo", one, tmp_path / "m", **settings)
    steps = siblings(problem.trees()[0], found(problem.trees()[0]))
    known = np.concatenate([step.values for step in steps])
    assert np.corrcoef(scores, known)[0, 1] > 0.8
    assert (tmp_path / "m" / "backbone").is_dir()


def test_the_loss_of_oreo_is_known_before_training_and_reaches_both_networks(problem):
    """A policy that is its reference and a value of 0 everywhere: L_V = 2 R^2, L_pi = R^2, KL 0."""
    lm = problem.reference
    batch = encoded(replace(problem, trees=lambda: problem.trees()[:1]))[0][:4]
    training = oreo_loop.Training("", kl=0.5, lr=1e-3, epochs=1, batch=4)
    loss = partial(soft_bellman, beta=0.03)
    policy, below = (copy.deepcopy(lm.model) for _ in range(2))
    head = Head((heads.width_of(lm), 1)).double()
    both = torch.nn.ModuleDict({"policy": policy, "value": Headless(below), "head": head})

    def share():
        (total,) = oreo_loop._losses(lm, both, training, loss, batch, [], "fit")
        return total

    first = share()
    assert first.item() == pytest.approx(sum(3 * w.weight * w.value**2 for w in batch) / 4)
    first.backward()
    assert policy.lm_head.weight.grad.abs().max() > 0
    assert head.layers[0].weight.grad.abs().max() > 0
    with torch.no_grad():
        policy.lm_head.weight += 0.1 * torch.sign(policy.lm_head.weight.grad)
        head.layers[0].bias += 0.3
    expected = 0.0
    for way in batch:
        ours, theirs = (action_log_probs(m, way.rows, "sum", lm.end) for m in (policy, lm.model))
        level = torch.full((2,), 0.3, dtype=torch.float64)
        terms = soft_bellman(ours - theirs, level, level, way.value, 0.03)
        expected += way.weight * (sum(terms).item() + 0.5 * kl_a_token(way.rows, policy, lm)) / 4
    assert share().item() == pytest.approx(expected)


def kl_a_token(rows, policy, lm) -> float:
    """KL(pi || pi_ref) at the tokens of the actions, their mean."""
    found = []
    for prompt, action in rows:
        ids = torch.tensor([prompt + action])
        ours, theirs = (
            torch.log_softmax(m(input_ids=ids).logits[0], 1) for m in (policy, lm.model)
        )
        found.append((ours.exp() * (ours - theirs)).sum(1)[len(prompt) - 1 : -1])
    kl = torch.cat(found).mean().item()
    assert kl > 0
    return kl


def test_passes_of_few_tokens_train_oreo_the_same(problem, tmp_path):
    lm = problem.reference
    narrow = replace(problem, reference=type(lm)(lm.model, lm.tokenizer, lm.style, batch_tokens=64))
    some = [replace(p, trees=lambda: problem.trees()[:2], held_out=()) for p in (problem, narrow)]
    one, two = (
        fitted_scores("oreo", p, tmp_path / str(i), fit_lr=1e-3) for i, p in enumerate(some)
    )
    np.testing.assert_allclose(one, two, atol=1e-9)


def test_trajectories_weigh_as_often_as_they_were_taken(problem):
    ways, dropped = encoded(problem)
    trees = list(problem.train_trees())
    assert len(ways) == 9 * len(trees) and dropped == 0
    assert {len(way.rows) for way in ways} == {2}
    visits = [way.visits for record in trees for way in trajectories(record)]
    assert [way.weight for way in ways] == pytest.approx([v / np.mean(visits) for v in visits])


def test_what_oreo_cannot_use_is_said(problem):
    stranger = [problem.trees()[0] | {"task": "nowhere"}]
    with pytest.raises(QvlibError, match="tree of task 'nowhere': no such training task"):
        encoded(replace(problem, trees=lambda: stranger))
    with pytest.raises(QvlibError, match="no trajectory of the trees fits"):
        encoded(replace(problem, trees=lambda: []))
