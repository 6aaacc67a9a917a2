"""The benchmarks run and what they compare is the same thing; speed itself is never tested."""

import json
from types import ModuleType

import numpy as np
import pytest
import torch
from test_chat import told
from toy import small_lm, states

from qvlib import pipeline
from qvlib.base import executors
from qvlib.base.errors import QvlibError
from qvlib.cli import main
from qvlib.core.types import Request
from qvlib.models.local import LocalAgent
from qvlib.pipeline.params import make
from qvlib.tools import bench
from qvlib.tools.bench import cells, cluster, common, conversations, env, precision, scoring, search


def test_turns_and_medians():
    order = []
    seconds = common.interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2
    )
    assert (
        order == ["a", "b"] * 3
        and set(seconds) == {"a", "b"}
        and all(s >= 0 for s in seconds.values())
    )


def test_scoring_and_sampling_compare_equal_numbers(monkeypatch):
    monkeypatch.setattr(scoring, "LENGTHS", {"one prompt": (40,), "mixed lengths": (10, 30, 40)})
    model = scoring._model
    monkeypatch.setattr(scoring, "_model", lambda width, layers: model(32, 1))
    rows, result = scoring.run(1)
    assert len(rows) == 8 and result["largest_difference"] < 1e-4
    assert (
        result["ratio"]
        == min(r["ratio"] for r in rows if r["replies"] == "scoring")
        > 0
        < result["sampling_ratio"]
    )
    assert rows[0]["limit"] == pytest.approx(5 * 48 / (40 + 5 * 7))
    assert all(1 < row["limit"] < 5 for row in rows)


def test_conversations_are_the_same_however_they_are_paid_for(monkeypatch):
    for name, value in {"EPISODES": 2, "HEAD": 30, "GROWTH": 8, "STEPS": 3}.items():
        monkeypatch.setattr(conversations, name, value)
    rows, result = conversations.compare(small_lm("float32"), 1)
    assert [(row["work"], row["way"]) for row in rows] == [
        (work, way) for work in ("sampling", "scoring") for way in ("singly", "shared", "kept")
    ]
    assert 0 < result["largest_difference"] < result["most_difference"] == 1e-4
    prompts = 2 * (30 + 38 + 46)
    # Kept: every token once, and the last of each prompt again for the scores.
    paid = {
        "singly": (5 * prompts, 5 * prompts),
        "shared": (prompts, prompts),
        "kept": (2 * 46, 2 * 3),
    }
    found = {
        row["way"]: (*(r["prompt tokens"] for r in rows if r["way"] == row["way"]),) for row in rows
    }
    assert found == paid
    assert result["fewer_tokens"] == 5 and result["kept_against_shared"] == 2 * prompts / sum(
        paid["kept"]
    )
    assert result["kept_fewer_tokens"] == 10 * prompts / sum(paid["kept"])
    assert (
        result["ratio"]
        == min(row[conversations.FAST] for row in rows if row["way"] == "shared")
        > 0
    )


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A small random chat model with opinions, in a folder."""
    lm, made = told("tags"), tmp_path_factory.mktemp("chatty")
    lm.model.save_pretrained(made)
    lm.tokenizer.save_pretrained(made)
    return str(made)


def test_bfloat16_is_compared_with_float32_on_one_policy(chatty, monkeypatch):
    for name, value in {"STATES": 5, "PAIRS": 4, "BATCH": 2, "LR": 1e-3}.items():
        monkeypatch.setattr(precision, name, value)
    rows, result = precision.run(1, chatty)
    assert [row["Q"] for row in rows] == ["all in bfloat16", "weights in bfloat16"]
    for row in rows:
        assert (
            row["states"] == 5
            and row["share"] == pytest.approx(row["changed"] / 5)
            and (row["lost"] > 0) == (row["changed"] > 0)
        )
        assert (
            0 < row["a token"] < row["difference a reply"] < 5 and row["spread in float32"] > 0.01
        )
    assert (
        result["ratio"] == rows[0]["share"]
        and result["weights"] == rows[1]["share"]
        and result["pairs"] == 4
    )
    assert result["loss"][0] == pytest.approx(np.log(2), abs=1e-4) and len(result["loss"]) == 2


def test_bfloat16_rounds_weights_and_results_and_not_positions(chatty):
    lm = small_lm("float32")
    prompts, replies = [tuple(range(20, 60))], [[(5, 6, 7), (8, 9)]]
    exact = lm.log_probs(prompts, replies)
    for way, dtype in ((precision.computed, torch.bfloat16), (precision.stored, torch.float32)):
        rounded = way(lm)
        assert {weight.dtype for weight in rounded.model.parameters()} == {dtype}
        assert all(torch.equal(w, w.bfloat16().to(w.dtype)) for w in rounded.model.parameters())
        assert rounded.reply_logits(
            [(prompts[0], replies[0][0])]
        ).float().bfloat16().double().equal(
            rounded.reply_logits([(prompts[0], replies[0][0])])
        ) == (dtype == torch.bfloat16)
        assert 0 < abs(rounded.log_probs(prompts, replies)[0][0] - exact[0][0]) < 0.5
    lm.forget()
    assert lm.log_probs(prompts, replies) == exact  # the model itself is as it was


def test_candidates_are_distinct_actions_of_the_page(tmp_path):
    params = make({**precision.WORLD, "runs_dir": str(tmp_path)})
    shop = pipeline.context_of(params).environment
    episodes = precision.choices(shop, 12)
    assert sum(map(len, episodes)) == 12 and episodes == precision.choices(shop, 12)
    for state, actions in (row for episode in episodes for row in episode):
        assert (
            len(set(actions)) == 5
            and set(actions) <= set(state.admissible)
            and "search[<keywords>]" not in actions
        )
        assert all(shop.step(state, action).valid for action in actions)
    assert any("click[< prev]" in actions for episode in episodes for _, actions in episode)


def test_a_walk_is_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(env, "EPISODES", 40)
    env._write(tmp_path, 300)
    row = env.measure(tmp_path, 300)
    assert row["steps/s"] > 0 and row["products"] == 300 and row["goals"] == 2400
    assert (
        row["peak MB"] >= row["MB loaded"] > 0
        and row["MB after a tenth"] > 0
        and row["MB after all"] is None
    )
    monkeypatch.setattr(env, "DEFAULT", 300)
    longer = env.measure(tmp_path, 300)
    assert longer["MB after half"] > 0 and longer["MB after all"] > 0


def test_growth_with_the_catalogue_is_carried_on():
    rows = [
        {"products": 10, "MB": 1.0},
        {"products": 100, "MB": 3.0},
        {"products": 1000, "MB": 12.0},
    ]
    assert env.carried_on(rows, "MB", 10_000) == 102 and env.carried_on(rows, "MB", 1000) == 12


def test_a_search_counts_its_calls_and_singly_gives_the_same():
    requests = [Request(state, 3, (0, state.task.id, "")) for state in states(4)]
    answers = {}
    for singly in (False, True):
        counting = search.Counting(small_lm(max_action_tokens=6), singly)
        answers[singly] = [
            [p.action for p in row] for row in LocalAgent(counting, 1.0, 0.9).propose(requests)
        ]
        assert counting.calls == (12 if singly else 1) and len(counting.met) == 4
    assert answers[True] == answers[False]


def test_what_was_found_is_printed_and_kept(tmp_path, capsys):
    def run(repeats):
        """What the columns mean.

        Raises:
            QvlibError: never.
        """

    module = ModuleType("fast")
    module.run = run
    rows, result = [{"products": 1000, "ratio": 2.5}], {"ratio": 2.5}
    assert common.write(module, "fast", rows, result, tmp_path) == tmp_path
    common.show("fast", rows, result)
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1]) == {"benchmark": "fast", "ratio": 2.5}
    text, kept = (
        (tmp_path / "fast.md").read_text(),
        json.loads((tmp_path / "fast.json").read_text()),
    )
    assert (
        text.startswith("What the columns mean.\n\n" + "\n".join(printed[:-1]))
        and printed[-1] in text
    )
    assert (
        f"{kept['machine']['cpus']} processors" in text
        and f"torch {kept['packages']['torch']}" in text
    )
    assert kept["rows"] == rows and kept["ratio"] == 2.5 and {"git", "finished"} <= set(kept)
    assert not list(tmp_path.glob("*.png"))


def test_the_curve_is_drawn(tmp_path):
    rows = [
        {
            "products": n,
            "load (s)": n / 1e4,
            "MB loaded": n / 1e3,
            "peak MB": n / 900,
            "search (ms)": n / 1e5,
            "search, 95 % (ms)": n / 5e4,
        }
        for n in (1000, 10_000, 100_000)
    ]
    full = {
        "products": env.FULL,
        **{column: env.carried_on(rows, column) for column in env.GROWING},
    }
    common.write(env, "env", rows, {"ratio": 1.0, "full": full}, tmp_path)
    assert (tmp_path / "env.png").read_bytes().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left") for axes in env.figure(rows, {"full": full}).axes]
    assert titles == ["Load time", "Memory of the process", "A search not asked before"]


def test_a_steady_state_begins_with_the_last_worker_and_ends_with_the_first():
    spans = [[(0, 2), (2, 3), (3.5, 4.5), (4.5, 5.5)], [(1, 3), (3, 4), (4, 5)]]
    workers = [[cluster.Part(i, *span, 0.5) for span in w] for i, w in enumerate(spans)]
    found = cluster.steady(-1.0, workers)  # from 3 to 5: one part and a half, and two
    assert found == cluster.Measured(startup=3.0, rate=1.75, cpu=0.5, busy=0.4375)
    halves = {("ray", workers): [cluster.Measured(0, 3 * workers**0.5, 1, 1)] for workers in (1, 2)}
    assert cluster._efficiencies("ray", halves) == [pytest.approx(2**-0.5)]


def test_parts_of_the_cluster_benchmark_are_the_same_work(monkeypatch, tmp_path):
    for name, value in {"PARTS": 4, "TASKS": 2}.items():
        monkeypatch.setattr(cluster, name, value)
    small = {"demonstrations": 10, "agent_width": 32, "agent_layers": 1, "vocabulary": 512}
    params = make({**cluster.AGENT, **small, "runs_dir": str(tmp_path)})
    pipeline.train_agents(params)
    trees = []
    with executors.make("processes", workers=1) as executor:
        found = cluster.measure(executor, params, trees)
    assert found.rate > 0 and found.cpu > 0 and 0 < found.busy < 1.1
    assert len(trees) == 8 and all(trees[i] == trees[i % 2] for i in range(8))
    assert {tree["task"] for tree in trees} == {task.id for task in tasks_of(params)}


def tasks_of(params):
    return pipeline.load_environment(params).tasks("dev")[:2]


def test_a_worker_that_came_too_late_is_told():
    class Alone:
        workers = 2

        def stream(self, work, parts):
            for number in range(len(parts)):
                yield number, cluster.Part(7, number, number + 1.0, 0.9)

    with pytest.raises(QvlibError, match="a worker came too late"):
        cluster.measure(Alone(), None, [])


def test_every_benchmark_has_a_command(monkeypatch):
    called = []
    monkeypatch.setattr(bench, "run", lambda *given: called.append(given))
    for name in bench.NAMES:
        assert main(["bench", name, "--repeats", "2"]) == 0
    assert main(["bench", "env", "--save", "--model", "m"]) == 0
    assert called == [(name, 2, False, "") for name in bench.NAMES] + [("env", 3, True, "m")]


def test_a_model_is_given_to_the_benchmarks_that_have_one(monkeypatch, capsys):
    monkeypatch.setattr(
        conversations,
        "run",
        lambda repeats, model="smollm2": ([{"x": 1}], {"ratio": 1, "model": model}),
    )
    for given, met in (("", "smollm2"), ("folder", "folder")):
        bench.run("conversations", 1, model=given)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == met
    with pytest.raises(QvlibError, match="--model: the benchmark env makes its own models"):
        bench.run("env", 1, model="folder")
    with pytest.raises(QvlibError, match="nowhere/at all: no such folder"):
        bench.run("precision", 1, model="nowhere/at all")


def test_cells_together_play_what_they_play_alone(undisturbed, monkeypatch):
    weights = (0.0, 0.5)
    monkeypatch.setattr(cells, "WEIGHTS", weights)
    monkeypatch.setattr(
        cells,
        "_contexts",
        lambda: [
            pipeline.Context(undisturbed.replace(prior_weight=w, trial_tasks=4)) for w in weights
        ],
    )
    rows, result = cells.run(1)
    assert [row["way"] for row in rows] == ["together", "one after the other"]
    assert result["same_episodes"] == result["of_episodes"] == 2 * 2 * 4
    assert rows[0]["tokens an episode"] < rows[1]["tokens an episode"]
    assert result["ratio"] == rows[0]["times one after the other"] > 0
