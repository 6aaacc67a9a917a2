"""Value heads: known values are learnt and kept, controls learn none, passes are what they seem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_estimators import tree
from toy import Maze, small_lm

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import replay
from qvlib.core.preferences import build_pairs, hold_out
from qvlib.core.step_values import backed_up, siblings
from qvlib.estimators import Card, Fitted, Problem, estimator_of
from qvlib.estimators.agentrm import squared_error
from qvlib.estimators.dealing import dealt
from qvlib.estimators.head_loop import fit_head
from qvlib.estimators.heads import Group, grouped
from qvlib.models.heads import Head, load_head
from qvlib.models.hidden import Headless, headless, last_hidden, packed_hidden, read_hidden
from qvlib.models.loading import load_folder


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    """Trees of a maze with the values of acting at random, and a small random model."""
    environment = Maze()
    trees = [tree(environment, task) for task in environment.tasks("train")]
    train, held_out = hold_out(build_pairs(trees, "all_siblings"), 0.3, 0)
    scratch = tmp_path_factory.mktemp("scratch")
    return Problem(environment, small_lm(), train, held_out, lambda: trees, 0, "fit", scratch)


def known_steps(problem: Problem, backup=backed_up):
    """(states, actions, values) of the training trees."""
    tasks = {task.id: task for task in problem.environment.tasks("train")}
    groups = [g for t in problem.train_trees() for g in siblings(t, backup(t))]
    states = [replay(problem.environment, tasks[g.task], g.path) for g in groups]
    return states, [g.actions for g in groups], np.concatenate([g.values for g in groups])


def fitted_scores(name: str, problem: Problem, folder, **settings) -> np.ndarray:
    """The scores of the training steps by a model that was fitted, saved and loaded."""
    estimator = estimator_of(name)
    chosen = estimator.settings(**settings)
    fitted = estimator.fit(problem, chosen)
    fitted.save(folder)
    q = estimator.load(folder, problem.reference, chosen, lambda f, d: load_folder(f, dtype=d))
    states, actions, _ = known_steps(problem)
    return np.concatenate(q.score(states, actions))


def asked_of_fit(monkeypatch, name: str, problem: Problem, **settings):
    """(groups, loss) that an estimator with a head asks the training loop to fit."""
    from qvlib.estimators import head_loop

    asked = []

    def fit_head(_, groups, __, loss, **___):
        asked.append((groups, loss))
        return Fitted(lambda folder: None, [], {}, Card("", (), "", ""))

    with monkeypatch.context() as patch:
        patch.setattr(head_loop, "fit_head", fit_head)
        estimator = estimator_of(name)
        estimator.fit(problem, estimator.settings(**settings))
    return asked[0]


LONG = {"fit_lr": 1e-2, "fit_epochs": 40, "fit_batch": 4}


@pytest.fixture(scope="module")
def knowing(problem, tmp_path_factory):
    """(the scores of a head that was tuned with its model, the model)."""
    folder = tmp_path_factory.mktemp("tuned") / "m"
    scores = fitted_scores("agentrm", problem, folder, **LONG)
    return scores, load_folder(folder / "backbone", dtype="float64")


def test_regression_learns_values_that_dynamic_programming_knows(problem, knowing):
    known, scores = known_steps(problem)[2], knowing[0]
    assert np.corrcoef(scores, known)[0, 1] > 0.9
    assert np.mean((scores - known) ** 2) < 0.3 * known.var()


def test_a_head_on_frozen_states_reads_what_their_model_knows(problem, knowing, tmp_path):
    there = replace(problem, reference=knowing[1])
    frozen = {"features": "frozen", "head_width": 16, "fit_lr": 1e-2, "fit_epochs": 60}
    scores = fitted_scores("agentrm", there, tmp_path / "m", **frozen)
    assert np.corrcoef(scores, known_steps(problem)[2])[0, 1] > 0.85
    assert not (tmp_path / "m" / "backbone").exists()


def test_max_backup_is_what_qlass_fits(problem, monkeypatch):
    groups, loss = asked_of_fit(monkeypatch, "qlass", problem)
    known = known_steps(problem, lambda t: backed_up(t, "max", 0.9))[2]
    assert np.concatenate([g.targets for g in groups]).tolist() == known.tolist()
    terms = loss(torch.tensor([[0.5], [1.0]]), torch.tensor([0.0, 1.0]))
    assert terms.tolist() == [0.25, 0.0]


def test_agentrm_fits_mean_values_or_what_they_are_above_their_siblings(problem, monkeypatch):
    known = known_steps(problem)[2]
    groups, _ = asked_of_fit(monkeypatch, "agentrm", problem)
    assert np.concatenate([g.targets for g in groups]).tolist() == known.tolist()
    held = {pair.task for pair in problem.held_out}
    assert held and not held & {g.task for g in groups}
    groups, _ = asked_of_fit(monkeypatch, "agentrm", problem, target="advantage")
    assert all(abs(sum(g.targets)) < 1e-9 for g in groups)
    spread = [max(g.targets) - min(g.targets) for g in groups]
    assert max(spread) > 0.3


def test_nothing_that_is_below_an_action_tells_a_control_its_value(problem):
    """Of dealt trees, the mean of all values below an action says nothing of its true value."""
    true, told = [], []
    for record in problem.trees():
        first = [row for row in record["nodes"] if row["parent"] == ""]
        mean = np.mean([row["value"] for row in first])
        for shuffle in range(60):
            nodes = dealt(record, 0, shuffle)["nodes"]
            for row in first:
                below = [n["value"] for n in nodes if n["node"].startswith(row["node"] + ".")]
                true.append(row["value"] - mean)
                told.append(np.mean(below))
    whole = problem.trees()[0]["nodes"]
    below = [np.mean([n["value"] for n in whole if n["node"].startswith(a + ".")]) for a in "abc"]
    assert np.corrcoef(below, [n["value"] for n in whole if n["parent"] == ""])[0, 1] > 0.99
    assert abs(np.corrcoef(true, told)[0, 1]) < 0.1


def test_packed_actions_are_what_they_are_alone(problem):
    lm = problem.reference
    steps = (g for t in problem.train_trees() for g in siblings(t, backed_up(t)))
    groups = grouped(problem, steps)[:5]
    model = Headless(lm.model)
    rows = [(g.prompt, r) for g in groups for r in g.replies]
    alone = last_hidden(model, rows, lm.end)
    together = packed_hidden(model, [(g.prompt, g.replies) for g in groups], lm.end)
    read = read_hidden(headless(lm), rows)
    assert torch.allclose(alone, together, atol=1e-9)
    assert torch.allclose(alone, read, atol=1e-9)
    assert alone.shape == (len(rows), model.width) and alone.std() > 0.1


def test_a_pass_holds_no_more_tokens_than_allowed_and_steps_are_the_same(problem, tmp_path):
    lm = problem.reference
    narrow = replace(problem, reference=type(lm)(lm.model, lm.tokenizer, lm.style, batch_tokens=64))
    one, two = (
        fitted_scores("agentrm", p, tmp_path / str(i), fit_lr=1e-3)
        for i, p in enumerate((problem, narrow))
    )
    np.testing.assert_allclose(one, two, atol=1e-9)


def test_training_that_was_stopped_goes_on(problem, tmp_path, monkeypatch):
    import qvlib.models.training as training

    there = replace(problem, scratch=tmp_path / "stopped")
    whole = fitted_scores("agentrm", problem, tmp_path / "a", fit_lr=1e-3, fit_epochs=2)
    step, count = training.Checkpoint.step, []

    def stop(self):
        step(self)
        count.append(0)
        if len(count) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Checkpoint, "step", stop)
        fitted_scores("agentrm", there, tmp_path / "b", fit_lr=1e-3, fit_epochs=2)
    again = fitted_scores("agentrm", there, tmp_path / "c", fit_lr=1e-3, fit_epochs=2)
    np.testing.assert_array_equal(whole, again)


def test_features_are_computed_once(problem, tmp_path, monkeypatch):
    from qvlib.estimators import features

    kept = replace(problem, features=tmp_path / "features")
    first = fitted_scores("agentrm", kept, tmp_path / "a", features="frozen", fit_lr=1e-2)
    monkeypatch.setattr(features, "_computed", lambda *_: pytest.fail("computed again"))
    again = fitted_scores("qlass", kept, tmp_path / "b", features="frozen", fit_lr=1e-2)
    assert first.std() > 0 and again.std() > 0
    (file,) = (tmp_path / "features").iterdir()
    file.write_bytes(b"nothing")
    with pytest.raises(QvlibError, match="no features can be read"):
        fitted_scores("agentrm", kept, tmp_path / "c", features="frozen")


def test_what_does_not_fit_is_said(problem):
    steps = [g for t in problem.train_trees() for g in siblings(t, backed_up(t))]
    unknown = replace(steps[0], task="nowhere")
    with pytest.raises(QvlibError, match="nowhere"):
        grouped(problem, [unknown])


@pytest.mark.parametrize("features", ["tuned", "frozen"])
def test_states_beyond_the_context_are_dropped_and_counted(problem, features):
    lm = problem.reference
    steps = [g for t in problem.train_trees() for g in siblings(t, backed_up(t))]
    groups = grouped(problem, steps)
    most = lm.context - max(map(len, groups[0].replies))
    longest = replace(groups[0], prompt=(groups[0].prompt * most)[:most])
    long = replace(longest, prompt=(*longest.prompt, longest.prompt[0]))
    estimator = estimator_of("agentrm")
    settings = estimator.settings(features=features, fit_lr=1e-3)
    told = {"score": "", "recipe": ""}

    def fit(some):
        return fit_head(problem, some, settings, squared_error, **told)

    facts = fit([long, *groups[:3], longest, long]).facts
    assert facts["pairs"] == 4 and facts["dropped_pairs"] == 2
    assert facts["steps"] == sum(len(g.replies) for g in (*groups[:3], longest))
    with pytest.raises(QvlibError, match="no state of the trees fits"):
        fit([long])


def test_a_head_is_read_as_it_was_written(tmp_path):
    head = Head((4, 3, 2), seed=1, zero=False).double()
    head.save(tmp_path)
    again = load_head(tmp_path)
    hidden = torch.arange(8, dtype=torch.float64).view(2, 4)
    assert torch.equal(head(hidden), again(hidden)) and head(hidden).std() > 0
    assert not Head((4, 1))(hidden.float()).any()  # the last layer begins at 0
    (tmp_path / "head.json").unlink()
    with pytest.raises(QvlibError, match="no head can be read"):
        load_head(tmp_path)


def test_groups_know_their_size():
    group = Group("t", (1, 2, 3), ((4, 0), (5, 6, 0)), (0.0, 1.0))
    assert (group.longest, group.size) == (6, 8)
