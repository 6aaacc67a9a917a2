"""Estimators as things: found by name, fitted to a problem, saved, loaded, asked for scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path

import pytest
import torch
from toy import Maze, small_lm

from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import replay
from qvlib.core.preferences import build_pairs, hold_out
from qvlib.estimators import ESTIMATORS, Card, Estimator, Fitted, Problem, estimator_of
from qvlib.estimators.data import encode
from qvlib.estimators.log_ratio import LogRatio
from qvlib.models.adapters import is_adapter
from qvlib.models.loading import load_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


# -- an estimator of one's own, as outside the package ----------------------------------------


class WinsSettings(Settings):
    stage = "q_model"
    smoothing: float = setting(1.0, "wins and losses that every action starts with", gt=0)


@dataclass
class Wins:
    """Q of an action: the share of its pairs that it won."""

    share: dict[str, float]

    def score(self, states, actions):
        return [[self.share.get(a, 0.5) for a in row] for row in actions]


def fit_wins(problem: Problem, settings: WinsSettings) -> Fitted:
    won = Counter(p.chosen for p in problem.train)
    lost = Counter(p.rejected for p in problem.train)
    s = settings.smoothing
    share = {a: (won[a] + s) / (won[a] + lost[a] + 2 * s) for a in won | lost}

    def save(folder: Path) -> None:
        folder.mkdir()
        (folder / "share.json").write_text(json.dumps(share))

    facts = {
        "pairs": len(problem.train),
        "held_out_pairs": len(problem.held_out),
        "held_out_accuracy": None,
        "dropped_pairs": 0,
        "dropped_held_out_pairs": 0,
        "nodes": sum(len(tree["nodes"]) for tree in problem.trees()),
    }
    card = Card("json", (), "Shares in (0, 1).", f"counting, smoothing {s:g}")
    return Fitted(save, [{"step": 0, "split": "train", "pairs": len(problem.train)}], facts, card)


def load_wins(folder, reference, settings, open_model) -> Wins:
    return Wins(json.loads((folder / "share.json").read_text()))


WINS = Estimator("wins", WinsSettings, fit_wins, load_wins)
OWN = f"{__name__}:WINS"


# -- a problem --------------------------------------------------------------------------------


def tree(environment: Maze, task) -> dict:
    """The record of a tree of two levels whose nodes have the values of acting at random."""
    nodes = [{"node": "", "parent": None, "action": "", "visits": 9, "value": 0.0}]
    for choices in chain(product(environment.choices), product(environment.choices, repeat=2)):
        node = {
            "node": ".".join(choices),
            "parent": ".".join(choices[:-1]),
            "action": choices[-1],
            "visits": 3,
            "value": environment.uniform(task, choices),
        }
        nodes.append(node)
    return {"task": task.id, "nodes": nodes}


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    """Pairs of a maze that is known whole, and a small random model."""
    environment = Maze()
    trees = [tree(environment, task) for task in environment.tasks("train")]
    train, held_out = hold_out(build_pairs(trees), 0.3, 0)
    assert len(train) > 10 and held_out
    scratch = tmp_path_factory.mktemp("scratch")
    return Problem(environment, small_lm(), train, held_out, lambda: trees, 0, "DPO", scratch)


def scored(estimator: Estimator, problem: Problem, settings: Settings, folder: Path):
    """(fitted, the scores of ``asked`` by the model that was saved and loaded)."""
    fitted = estimator.fit(problem, settings)
    fitted.save(folder)
    q = estimator.load(folder, small_lm(), settings, lambda at, dtype: load_folder(at, dtype=dtype))
    return fitted, q.score(*asked(problem))


def asked(problem: Problem):
    """(states, actions) of the first training pairs."""
    environment = problem.environment
    tasks = {task.id: task for task in environment.tasks("train")}
    pairs = problem.train[:6]
    states = [replay(environment, tasks[pair.task], pair.path) for pair in pairs]
    return states, [[pair.chosen, pair.rejected] for pair in pairs]


FACTS = {
    "pairs",
    "held_out_pairs",
    "held_out_accuracy",
    "dropped_pairs",
    "dropped_held_out_pairs",
}


def test_one_of_ones_own_is_found_fitted_saved_loaded_and_asked(problem, tmp_path):
    estimator = estimator_of(OWN)
    assert list(estimator.sources) == ["test_estimators.py"]
    assert replace(estimator, sources={}) == WINS
    assert estimator.settings.decides("smoothing") == ("q_model",)
    fitted, scores = scored(estimator, problem, estimator.settings(), tmp_path / "wins")
    assert FACTS < set(fitted.facts) and fitted.facts["nodes"] == 8 * 13
    assert len(scores) == 6 and all(0 < q < 1 for row in scores for q in row)
    smoother = estimator.fit(problem, estimator.settings(smoothing=99.0))
    assert smoother.card.recipe == "counting, smoothing 99"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", r"estimator 'nonsense': no such name \(one of step_dpo, trajectory"),
        ("step-dpo", "did you mean step_dpo"),
        ("no_such_module:X", "no module 'no_such_module'; put no_such_module.py into"),
        (f"{__name__}:NOTHING", "has no 'NOTHING'"),
        (f"{__name__}:Wins", "it is a type; make it a qvlib.estimators.Estimator"),
    ],
)
def test_a_name_that_gives_no_estimator_is_told(name, message):
    with pytest.raises(QvlibError, match=message) as caught:
        estimator_of(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\nraise ValueError('boom')", "line 2: ValueError: boom; mend it there"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3; mend it there"),
        ("raise NotImplementedError", "line 1: NotImplementedError"),
    ],
)
def test_a_module_that_raises_is_told_by_its_line(tmp_path, monkeypatch, code, message):
    """Whatever it raises: leaving Python would leave the user without a word."""
    name = f"raises_{len(code)}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(QvlibError, match=f"estimator '{name}:X': {name}.py, {message}"):
        estimator_of(f"{name}:X")


def test_a_module_of_the_projects_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "of_mine.py").write_text("from test_estimators import WINS\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert estimator_of("of_mine:WINS").name == "wins"


# -- step-level DPO through the interface -----------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"trainer": "trl"}, {"trainer": "trl", "lora_rank": 4}])
def test_step_dpo_is_its_trainer(problem, tmp_path, changes):
    """The curve, the weights and the scores of the trainer that is called directly."""
    from qvlib.estimators import step_dpo_loop, step_dpo_trl

    estimator = estimator_of("step_dpo")
    settings = estimator.settings(dpo_lr=3e-3, dpo_epochs=2, **changes)
    torch.manual_seed(0)  # what a LoRA starts from
    problem = replace(problem, scratch=tmp_path / "scratch")
    fitted, scores = scored(estimator, problem, settings, tmp_path / "model")

    lm, environment = small_lm(), problem.environment
    rows, held = (encode(environment, lm, part) for part in (problem.train, problem.held_out))
    options = {"beta": 0.1, "lr": 3e-3, "epochs": 2, "batch": 8, "rule": "sum", "seed": 0}
    torch.manual_seed(0)
    if changes:
        rank = changes.get("lora_rank", 0)
        policy, curve = step_dpo_trl.train(
            lm, rows, held, **options, lora_rank=rank, folder=tmp_path / "direct"
        )
    else:
        policy, curve = step_dpo_loop.train(lm, rows, held, **options)
    assert fitted.curve == curve
    by_task = fitted.facts["held_out_by_task"]
    assert {task: pairs for task, (_, pairs) in by_task.items()} == Counter(
        pair.task for pair in problem.held_out
    )
    right = sum(count for count, _ in by_task.values())
    assert right == pytest.approx(len(held) * curve[-1]["accuracy"])
    assert {key: value for key, value in fitted.facts.items() if key != "held_out_by_task"} == {
        "pairs": len(rows),
        "held_out_pairs": len(held),
        "held_out_accuracy": curve[-1]["accuracy"],
        "dropped_pairs": 0,
        "dropped_held_out_pairs": 0,
    }
    assert is_adapter(tmp_path / "model") == ("lora_rank" in changes)
    assert (tmp_path / "model" / "tokenizer.json").is_file()
    expected = LogRatio(policy, lm).score(*asked(problem))
    assert max(abs(q) for row in scores for q in row) > 1e-3
    for row, direct in zip(scores, expected, strict=True):
        assert row == pytest.approx(direct, abs=1e-9)


def test_a_task_that_the_environment_has_not_is_told(problem):
    stranger = replace(problem.train[0], task="elsewhere")
    estimator = estimator_of("step_dpo")
    with pytest.raises(QvlibError, match="pair of task 'elsewhere': no such training task"):
        estimator.fit(replace(problem, train=[stranger]), estimator.settings())


def test_the_list_is_read_without_torch():
    """Settings of estimators are read wherever parameters are: that must stay light."""
    names = "from qvlib.estimators import ESTIMATORS, estimator_of; "
    load_all = "[estimator_of(name) for name in ESTIMATORS]; import sys; "
    heavy = "print([m for m in ('torch', 'transformers', 'trl', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", names + load_all + heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert all(estimator_of(name).name == name for name in ESTIMATORS)
