"""Estimators compared: tuned alike on dev tasks, played once on test tasks, judged by intervals."""

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from killing import finished, tiny

from qvlib import pipeline
from qvlib.base.errors import Hindrance, QvlibError
from qvlib.base.paths import resolve
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import decisions
from qvlib.core.filtering import Filtered
from qvlib.core.types import Cost
from qvlib.estimators import ESTIMATORS, Card, Estimator, Fitted
from qvlib.pipeline import comparison, tuning
from qvlib.pipeline.cells import Cells
from qvlib.pipeline.context import Context, chains
from qvlib.pipeline.episodes import play_arms
from qvlib.pipeline.params import load, make
from qvlib.pipeline.scored import Judged
from qvlib.pipeline.until import Run
from qvlib.pipeline.work import Failed, guarded
from qvlib.report import estimators as tables
from qvlib.report import figures, numbers, sentences
from qvlib.report.figures.kit import panels, png
from qvlib.report.figures.placing import place_labels
from qvlib.runs.stage import is_complete, read_stage, stage_path

# -- an estimator of one's own, whose score is a value -------------------------------------------


class CountingSettings(Settings):
    stage = "q_model"
    smoothing: float = setting(1.0, "wins and losses that every action starts with", gt=0)
    fails: bool = setting(False, "whether it cannot be fitted")


@dataclass
class Wins:
    """Q of an action: the share of its pairs that it won."""

    share: dict[str, float]

    def score(self, states, candidates):
        return [[self.share.get(a, 0.5) for a in row] for row in candidates]


def fit_wins(problem, settings):
    if settings.fails:
        raise QvlibError("no luck with this one")
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
    }
    card = Card("json", (), "Shares in (0, 1).", f"counting, smoothing {s:g}")
    return Fitted(save, [{"step": 0, "split": "train", "pairs": len(problem.train)}], facts, card)


def load_wins(folder, reference, settings, open_model):
    return Wins(json.loads((folder / "share.json").read_text()))


COUNTING = Estimator("counting", CountingSettings, fit_wins, load_wins, values=True)
OWN = f"{__name__}:COUNTING"

FILE = f"""
published: [{{dpo_lr: 1.0e-4}}, {{dpo_lr: 1.0e-3}}]
step_dpo: [{{dpo_lr: 1.0e-4}}, {{dpo_lr: 1.0e-3}}]
counting: [{{estimator: "{OWN}", smoothing: 1.0}}, {{estimator: "{OWN}", fails: true}}]
broken:
  - {{estimator: "{OWN}", fails: true, smoothing: 1.0}}
  - {{estimator: "{OWN}", fails: true, smoothing: 2.0}}
"""


@dataclass(frozen=True)
class Shopper:
    """The world's scripted agent, which finds it likely to say little and what it says costs."""

    agent: Any

    def propose(self, requests):
        return [
            [
                replace(p, log_prob=-len(p.action) / 10, cost=Cost(tokens=3, prompt_tokens=20))
                for p in proposals
            ]
            for proposals in self.agent.propose(requests)
        ]


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """Two chains as far as a comparison needs them, and a comparison of four.

    A script proposes the actions, so that there are rewards without much cloning; Q models are
    tuned from the small model that was cloned a little.
    """
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "estimators.yml").write_text(FILE)
    made = tiny(
        folder,
        seeds=2,
        demonstrations=20,
        agent_width=16,
        other_demonstrations=0,
        train_tasks=6,
        test_tasks=6,
        trial_tasks=5,
        dpo_epochs=1,
        search_iterations=12,
        batch_size=64,
        name="estimators",
        compare=str(folder / "estimators.yml"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Context,
            "sampler",
            lambda self, *_, **__: Shopper(Filtered(self.demonstrator(2.0), self.environment)),
        )
        for stage in (pipeline.train_agents, pipeline.collect, pipeline.make_pairs):
            stage(made)
        played = [made.arm(name) for name in (*comparison.SHARED, "search")]
        for chain in chains(pipeline.context_of(made)):
            play_arms(chain, played)
        yield made


@pytest.fixture(scope="module")
def outcome(params):
    return comparison.run(params)


@pytest.fixture(scope="module")
def metrics(params, outcome):
    folder = resolve(params.run.results_dir) / params.run.name
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(
        json.dumps({"kept": 1, "seeds": [0, 1], "digest": params.fingerprint()})
    )
    told = numbers.write_comparison(params, outcome)
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(told))
    return told


# -- what is tried, chosen and played ------------------------------------------------------------


def test_settings_are_chosen_on_dev_tasks_and_a_failed_try_stops_nothing(params, outcome):
    table = outcome.tries
    assert list(table["estimator"]) == [
        n for n in "published step_dpo counting broken".split() for _ in range(2)
    ]
    assert (table["failed"] != "").tolist() == [False] * 5 + [True] * 3
    assert outcome.failed == {"broken": "no luck with this one"}
    dev = {t.id for t in pipeline.context_of(params).environment.tasks("dev")}
    for name, rows in table[table["failed"] == ""].groupby("estimator"):
        best = rows.loc[rows["reward"].idxmax()]
        assert rows["chosen"].sum() == 1 and best["chosen"]
        assert outcome.chosen[name].label == best["choice"]
    for one in tuning.read(params):
        if not one.params.flat().get("fails"):
            played = read_stage(tuning.tuned_on(one.params)[0], "trial").table("episodes")
            assert set(played["task"]) <= dev and played["task"].nunique() == 5
            row = table[(table["estimator"] == one.name) & (table["choice"] == one.label)].iloc[0]
            means = played.groupby("arm")["reward"].mean()
            assert row["reward"] == pytest.approx(means["q"])
            assert row["gain"] == pytest.approx(means["q"] - means["sample"])


def test_only_the_chosen_settings_see_test_tasks_and_every_chain_plays_them(params, outcome):
    chosen = {one.params.digest("q_model") for one in outcome.chosen.values()}
    played = {stage_path(one.params, "q_model").name for one in outcome.chosen.values()}
    assert len(chosen) == len(played) == 3
    for one in tuning.read(params):
        first, second = one.params.each_seed()
        is_chosen = outcome.chosen.get(one.name) == one
        for arm in comparison.PLAYED:
            assert is_complete(first, f"episodes/{arm}") == is_chosen
            assert is_complete(second, f"episodes/{arm}") == is_chosen
        assert not is_complete(second, "trial")  # compare_chains: first


def test_one_set_of_trees_but_for_the_published_discount(params, outcome):
    own = params.each_seed()[0]
    for name, one in outcome.chosen.items():
        chain = one.params.each_seed()[0]
        assert (chain.digest("trees") == own.digest("trees")) == (name != "published")
        assert chain.digest("agent") == own.digest("agent")
    published = outcome.chosen["published"].params
    assert (published.pairs.pairs, published.pairs.min_margin) == ("best_path", 0.0)
    assert published.search.discount == 1.0


def test_what_the_agent_sampled_is_scored_by_each_of_the_best(params, outcome):
    """Each action of its episodes, with what was then earned; replayed and scored again here."""
    for one in outcome.chosen.values():
        for chain in one.params.each_seed():
            rows = read_stage(chain, "followed").table("actions")
            context = pipeline.context_of(chain)
            q_model, tasks = context.q_model(), {task.id: task for task in context.uses.test}
            played = read_stage(chain, "episodes/sample").records("episodes")
            assert len(rows) == sum(len(record["actions"]) for record in played)
            for record in played:
                part = rows[rows["task"] == record["task"]]
                assert list(part["action"]) == record["actions"]
                assert set(part["reward"]) == {record["reward"]}
                assert list(part["left"]) == list(range(len(part)))[::-1]
                made = decisions(context.environment, tasks[record["task"]], record["actions"])
                scores = q_model.score([state for state, _ in made], [[a] for _, a in made])
                assert list(part["score"]) == pytest.approx([row[0] for row in scores])


def test_nothing_is_done_twice(params, outcome):
    kept = finished(params)
    again = comparison.run(params)
    pd.testing.assert_frame_equal(again.tries, outcome.tries)
    assert again.chosen == outcome.chosen and finished(params) == kept
    assert comparison.is_made(params) and comparison.seconds(params) > 0
    q_n5 = stage_path(outcome.chosen["counting"].params.each_seed()[1], "episodes/q_n5")
    hidden = q_n5.rename(q_n5.with_name("elsewhere"))
    assert not comparison.is_made(params)  # of one chain the best is not played
    hidden.rename(q_n5)
    nothing = params.replace(runs_dir=f"{params.run.runs_dir}-other")
    assert not comparison.is_made(nothing) and comparison.seconds(nothing) == 0


def test_pairs_are_those_that_the_run_found_and_its_own_model_shares_its_stage(params):
    own = params.each_seed()[0]
    other = own.replace(pairs="best_path", min_margin=0.0)
    assert Judged(own, own).digest("scored") == own.digest("scored")
    assert own.digest("episodes/search") != other.digest("episodes/search")
    assert Judged(other, own).digest("scored") not in (
        other.digest("scored"),
        own.digest("scored"),
    )


# -- numbers ---------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_episodes(params, outcome, metrics):
    assert metrics["kept"] == 1 and set(metrics["estimators"]) == set(outcome.chosen)
    sample = numbers.load_episodes(params, "episodes/sample")["reward"].mean()
    for name, entry in metrics["estimators"].items():
        chosen = outcome.chosen[name].params
        rewards = {
            arm: numbers.load_episodes(chosen, f"episodes/{arm}")["reward"].mean()
            for arm in comparison.PLAYED
        }
        assert entry["reward_mean"] == pytest.approx(rewards["q_n5"])
        assert entry["gain"]["mean"] == pytest.approx(rewards["q_n5"] - sample)
        foreign = entry["against"]["foreign"]["mean"]
        assert foreign == pytest.approx(rewards["q_n5"] - rewards["foreign_q_n5"])
        assert entry["null"]["mean"]["mean"] == pytest.approx(
            rewards["q_n5"] - rewards["control_q_n5"]
        )
        assert {"foreign", "kind_only", "within_kind", "likely", "greedy"} < set(entry["against"])
        low, high = entry["gain"]["ci95_tasks"]
        assert low <= entry["gain"]["mean"] <= high
        assert entry["accuracy_by_kind"]["all"]["pairs"] > 0
        assert entry["cost"]["env_steps"] > 0
        own = entry["cost"]["tokens"] + entry["cost"]["prompt_tokens"]
        assert entry["cost"]["q_tokens_at_most"] == pytest.approx((1 + (name != "counting")) * own)
        assert name == "counting" or entry["cost"]["fit_seconds"] > 0
        assert entry["tuned_on"]["tries"] == 2 and entry["tuned_on"]["seeds"] == [0]
        assert (entry["calibration"] is not None) == (name == "counting")
        assert entry["within_states"]["pairs"] == entry["accuracy_by_kind"]["all"]["pairs"]
        assert entry["own_trees"] == (name == "published")
    pairs = {e["accuracy_by_kind"]["all"]["pairs"] for e in metrics["estimators"].values()}
    assert len(pairs) == 1  # all are judged on the same pairs


def test_the_best_on_dev_tasks_stands_beside_the_published_form(params, outcome, metrics):
    dev = {name: e["tuned_on"]["reward"] for name, e in metrics["estimators"].items()}
    best = metrics["best"]
    assert dev[best] == max(dev.values())
    told = metrics["best_minus_published"]
    if best == "published":
        assert told is None
    else:
        assert told["dev"]["mean"] == pytest.approx(dev[best] - dev["published"])
        means = {n: e["reward_mean"] for n, e in metrics["estimators"].items()}
        assert told["test"]["mean"] == pytest.approx(means[best] - means["published"])
    for name, entry in metrics["estimators"].items():
        assert ("minus_best" in entry) == (name != best)
        assert ("minus_published" in entry) == (name != "published")
    counted = sum(
        1 + len(e["against"]) + 1 + ("minus_best" in e) + ("minus_published" in e)
        for e in metrics["estimators"].values()
    )
    assert metrics["comparisons"] == counted and metrics["tries"] == 8


def test_tables_and_pictures_are_made_of_them(params, outcome, metrics):
    table = tables.ranking(metrics)
    assert list(table["gain"]) == sorted(table["gain"], reverse=True)
    assert len(tables.display_ranking(metrics)) == len(table) == 3
    assert len(tables.display_tries(outcome.tries)) == 8
    assert set(tables.kinds(metrics)["estimator"]) == set(outcome.chosen)
    assert len(tables.display_kinds(metrics)) == len(tables.costs(metrics)) == 3
    assert set(tables.fitting(metrics)) == {
        "published seconds",
        "step dpo seconds",
        "counting seconds",
    }
    assert "broken" in sentences.compared(metrics)
    for figure in (figures.ranking(metrics), figures.gain_by_cost(metrics)):
        assert png(figure).startswith(b"\x89PNG")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such comparison"),
        ("[1, 2]", "a mapping `estimator: "),
        ("{}", "names no estimator"),
        ("step_dpo: 3", "'step_dpo' is no list of"),
        ("step_dpo: []", "'step_dpo' is no list of"),
        ("step_dpo: [3]", "'step_dpo' is no list of"),
        ("step_dqo: [{}]", "did you mean step_dpo"),
        ("step_dpo: [{betta: 1.0}]", "did you mean 'beta'"),
        ("step_dpo: [{fit_lr: 1.0e-3}]", "belongs to estimator"),
        ("step_dpo: [{beta: 0.1}]\nagentrm: [{}, {fit_lr: 1.0e-3}]", "give each as many"),
        ("step_dpo: [{beta: 0.1}, {beta: 0.1}]", "the same settings twice"),
        (
            "step_dpo: [{dpo_lr: 1.1e-4}, {dpo_lr: 1.10000004e-4}]",
            "'dpo_lr 0.00011' twice, to six digits",
        ),
        ("1: [{estimator: agentrm}]\n'1': [{estimator: qlass}]", "two lines have the same name"),
        ("step_dpo: [{control_shuffles: 9}]", "control_shuffles is the whole run's"),
        ("step_dpo: [{agent_width: 16}]", "changes the agent, its sampling or the test tasks"),
        ("step_dpo: [{temperature: 2.0}]", "changes the agent, its sampling or the test tasks"),
        ("step_dpo: [{test_tasks: 3}]", "changes the agent, its sampling or the test tasks"),
        ("published: [{pairs: all_nodes}]", "pairs is part of the published form"),
        ("step_dpo: [{trial_n: 3}]", "trial_n is the whole run's"),
        ("step_dpo: [{seeds: 3}]", "seeds is the whole run's"),
    ],
)
def test_what_would_not_be_a_fair_comparison_is_refused(tmp_path, text, message):
    path = tmp_path / "estimators.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QvlibError) as caught:
        tuning.read(make({"compare": str(path)}))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "estimators.yml" in str(caught.value)


def test_arms_that_compare_states_do_not_keep_others_from_being_compared(tmp_path):
    (tmp_path / "estimators.yml").write_text("step_dpo: [{}]\nagentrm: [{}]")
    given = {"estimator": "agentrm", "saycan": True, "beam_width": 2, "extra_arms": []}
    tries = tuning.read(make({**given, "compare": str(tmp_path / "estimators.yml")}))
    assert [one.params.q_model.estimator for one in tries] == ["step_dpo", "agentrm"]
    plain = make({"estimator": "agentrm", "trial_n": tuning.N})
    for stage in ("q_model", "control", "trial", *(f"episodes/{arm}" for arm in comparison.PLAYED)):
        assert tries[1].params.digest(stage) == plain.digest(stage)


def test_settings_are_chosen_at_the_temperature_at_which_they_are_played(tmp_path):
    (tmp_path / "estimators.yml").write_text("step_dpo: [{}]")
    given = {"trial_n": 2, "trial_temperature": 0.3, "compare": str(tmp_path / "estimators.yml")}
    (one,) = tuning.read(make(given))
    assert one.params.ablations.trial_temperature == 0.0  # the agent's own, as on test tasks
    assert one.params.ablations.trial_n == tuning.N


@pytest.mark.parametrize(
    "error", [Hindrance("in use by process 7"), RuntimeError("CUDA out of memory")], ids=str
)
def test_what_passes_is_no_failure_of_an_estimator(monkeypatch, error):
    """Else the ranking would be made without it, and never again."""

    def step(cell):
        raise error

    making = Cells(SimpleNamespace(params=make({}), environment=None), {"one": make({})})
    with pytest.raises(type(error), match=str(error)):
        making.each("trial", step)
    with pytest.raises(type(error), match=str(error)):
        list(guarded(step, "a model", 3))
    assert not making.failed


def test_what_raises_without_a_word_is_told_by_its_type():
    def step(cell):
        raise NotImplementedError

    making = Cells(SimpleNamespace(params=make({}), environment=None), {"one": make({})})
    making.each("trial", step)
    assert making.failed == {"one": "NotImplementedError"} and not making.todo
    assert list(guarded(step, "a model", 3)) == [Failed("a model", "NotImplementedError")]


def test_where_no_estimator_could_be_compared_the_reasons_are_told():
    nothing = report(failed=[("one", "no luck")], best=None)
    assert tables.ranking(nothing).empty and tables.display_ranking(nothing).empty
    assert "**Not compared**: `one`: no luck" in sentences.compared(nothing)


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[]", b"null"])
def test_damaged_metrics_are_made_anew(tmp_path, monkeypatch, content):
    params = make({"results_dir": str(tmp_path), "name": "run"})
    path = tmp_path / "run" / "metrics.json"
    path.parent.mkdir()
    path.write_bytes(content)
    module = sys.modules[numbers.write_comparison.__module__]
    monkeypatch.setattr(module, "metrics", lambda params: {"digest": "new"})
    monkeypatch.setattr(module, "comparison", lambda *_: {"best": "one"})
    assert numbers.write_comparison(params, None) == {"digest": "new", "best": "one"}
    assert json.loads(path.read_bytes())["best"] == "one"


def test_the_parameters_decide_no_stage_that_was_there():
    plain, more = make({}), make({"compare": "a.yml", "compare_chains": "all"})
    assert {s: more.digest(s) for s in plain.stages()} == {
        s: plain.digest(s) for s in plain.stages()
    }
    assert more.fingerprint() == plain.fingerprint()
    assert [len(tuning.tuned_on(p.replace(seeds=3))) for p in (plain, more)] == [1, 3]


@pytest.mark.parametrize("file", ["estimators", "estimators-hotpotqa"])
def test_the_comparisons_of_the_project_are_sound(file):
    """As many tries of each, and no estimator of the list is forgotten."""
    params = load(resolve(f"params/{file}.yml"))
    tries = Counter(one.name for one in tuning.read(params))
    named = {*ESTIMATORS, tuning.PUBLISHED, "sweet_rl_told"} - {"llm_value"}
    assert set(tries) == named
    assert len(set(tries.values())) == 1
    assert params.run.seeds == 3 and params.ablations.trial_tasks == 300
    assert params.evaluation.test_tasks == (300 if "hotpot" in file else 500)
    trees = {one.params.digest("trees") for one in tuning.read(params) if one.name != "published"}
    assert trees == {params.digest("trees")}
    quick = load(resolve(f"params/{'hotpotqa-quick' if 'hotpot' in file else 'quick'}.yml"))
    same = {"other_demonstrations": 0, "catalogue_seed": params.world.catalogue_seed}
    same["train_tasks"] = 500 if "hotpot" in file else quick.search.train_tasks
    assert trees == {quick.replace(**same).digest("trees")}


def test_the_comparison_on_a_language_model_asks_it_too():
    """On the trees that smollm2.yml makes, which are found again."""
    params = load(resolve("params/estimators-smollm2.yml"))
    tries = tuning.read(params)
    counts = Counter(one.name for one in tries)
    assert set(counts) == {*ESTIMATORS, tuning.PUBLISHED} and set(counts.values()) == {2}
    trees = {one.params.digest("trees") for one in tries if one.name != "published"}
    assert trees == {params.digest("trees"), load(resolve("params/smollm2.yml")).digest("trees")}
    assert len(trees) == 1
    asked = [one.params.q_model.q_base for one in tries if one.name == "llm_value"]
    assert asked == ["", "smollm2"]  # the agent itself, and what it was before its warm start


def test_the_smallest_comparison_of_the_project_is_sound():
    params = load(resolve("params/smoke.yml"), compare="params/grids/estimators-smoke.yml")
    names = [one.name for one in tuning.read(params)]
    assert set(names) == {*ESTIMATORS, tuning.PUBLISHED, "sweet_rl_told"} - {"llm_value"}
    assert len(names) == len(set(names))


# -- sentences: only what the intervals support ----------------------------------------------------


def told(mean, half=0.02):
    return {"mean": mean, "ci95": [mean - half, mean + half], "ci95_tasks": [mean, mean]}


def entry(gain=0.1, null=0.1, foreign=0.1, kind=0.1, likely=0.1, **more):
    against = {"foreign": foreign, "kind_only": kind, "likely": likely}
    return {
        "reward_mean": 0.4 + gain,
        "gain": told(gain),
        "gains": {arm: told(0.01) for arm in ("foreign_q_n5", "control_q_n5", "likely_n5")},
        "against": {rival: told(less) for rival, less in against.items() if less is not None},
        "null": {} if null is None else {"mean": told(null)},
        "calibration": None,
        "accuracy_by_kind": {},
        "held_out_accuracy": None,
        "cost": {"tokens": 100.0, "prompt_tokens": 400.0, "env_steps": 4.0, "fit_seconds": 9.0},
        "tuned_on": {"tries": 2, "tasks": 300, "seeds": [0], "chosen": "beta 0.1", "reward": 0.5},
        "own_trees": False,
    } | more


def report(seeds=3, best="one", versus=None, failed=(), **entries):
    return {
        "run": "made up",
        "seeds": list(range(seeds)),
        "chains": seeds,
        "arms": {"sample": {"tasks": 500, "tokens": 20, "prompt_tokens": 300, "env_steps": 4}},
        "gains": {"script": told(0.05), "demonstrator": told(0.2)},
        "estimators": entries,
        "comparisons": 40,
        "best": best,
        "best_minus_published": versus,
        "not_compared": dict(failed),
    }


def test_a_gain_that_exceeds_all_rivals_is_called_reading():
    said = sentences.compared(report(one=entry()))
    assert "**Gain over one sample**: `one` +0.100 [+0.080, +0.120]" in said
    assert "**Earned by labels and by reading**: the gain of `one` exceeds" in said
    assert "Of 40 differences" in said and "about 2 would miss zero by chance" in said


def test_a_comparison_in_brief_claims_what_the_whole_claims():
    said = sentences.compared_briefly(report(one=entry(), two=entry(foreign=-0.01)))
    assert (
        said.startswith("of 2, the gain of `one` exceeds that of its controls")
        and "`two`" not in said
    )
    assert "no gain exceeds all" in sentences.compared_briefly(report(two=entry(null=-0.1)))
    assert sentences.compared_briefly({"estimators": {}}) == ""


def test_settings_at_an_end_of_what_was_tried_are_told():
    tries = [tuning.Try("a", "", None, {"rate": rate, "k": 2}) for rate in (0.1, 0.2, 0.4)]
    assert [tuning.at_end(one, tries) for one in tries] == [["rate"], [], ["rate"]]
    assert tuning.at_end(tries[0], tries[:2]) == []  # of two each is an end
    ended = entry() | {"tuned_on": entry()["tuned_on"] | {"at_end": ["beta"]}}
    said = sentences.compared(report(one=ended, two=entry()))
    assert "so that settings beyond may earn more: `one` (beta 0.1)." in said
    assert "at an end" not in sentences.compared(report(one=entry()))


def test_without_a_gain_none_is_claimed():
    said = sentences.compared(report(one=entry(gain=0.01), two=entry(gain=-0.1)))
    assert "**Gain over one sample**: of none it is shown" in said
    assert "**No gain is shown** of `one`" in said and "**Worse than one sample**: `two`" in said
    assert "Earned" not in said and "gains, but" not in said


def test_a_null_that_gains_as_much_is_told():
    said = sentences.compared(report(one=entry(null=0.01)))
    assert "`one` gains, but is not shown to earn more than its controls, fitted to labels" in said
    assert "Earned" not in said


def test_a_foreign_instruction_that_does_as_well_is_told():
    said = sentences.compared(report(one=entry(foreign=-0.01), two=entry(likely=0.0, kind=0.0)))
    assert "`one` gains, but is not shown to earn more than itself told another task's" in said
    assert "more than its mean score of the kind of action and the likeliest of the same" in said
    assert "Earned" not in said


def test_what_was_not_played_is_not_claimed_either():
    """All test tasks with one instruction, or too few shuffles for an interval."""
    said = sentences.compared(report(one=entry(foreign=None, null=None)))
    assert "was not compared with its controls" in said and "Earned" not in said


def test_controls_that_are_too_few_are_told_by_how_many_gain_as_much():
    few = {"shuffles": [0.05, 0.12, 0.2], "found": [0.1], "rank_p": 0.75}
    said = sentences.compared(report(seeds=1, one=entry(null=None) | {"null": few}))
    assert "too few controls for an interval, of 3 of which 2 gain as much" in said
    assert "was not compared with" not in said and "Earned" not in said
    said = sentences.compared(
        report(seeds=1, one=entry(null=None) | {"null": few | {"shuffles": [0.0] * 3}})
    )
    assert "of 3 of which none gain as much" in said and "Earned" not in said


def test_what_earns_more_than_an_estimator_is_told_as_that():
    said = sentences.compared(report(one=entry(null=-0.1, kind=0.0)))
    assert "`one` gains, but earns less than its controls, fitted to labels dealt anew and" in said
    assert "and is not shown to earn more than its mean score of the kind" in said
    assert "Earned" not in said


def test_an_order_is_told_only_where_its_interval_tells_it():
    said = sentences.compared(
        report(
            one=entry(),
            two=entry(minus_best=told(-0.01)),
            three=entry(minus_best=told(-0.1)),
            four=entry(minus_best=told(0.1)),
        )
    )
    assert "**Best on dev tasks**: `one`" in said
    assert "`four` +0.100 [+0.080, +0.120] earns more" in said
    assert "`three` -0.100 [-0.120, -0.080] earns less" in said
    assert "`two` cannot be told from it" in said


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        (0.0, "not significant"),
        (0.1, "significantly above 0"),
        (-0.1, "significantly below 0"),
    ],
)
def test_the_published_form_is_beaten_only_on_test_tasks(test, verdict):
    """However high the best stands on the dev tasks, where it was chosen."""
    versus = {"dev": told(0.2), "test": told(test)}
    said = sentences.compared(report(one=entry(), published=entry(), versus=versus))
    assert f"{verdict}" in said and "On dev tasks, where it was chosen, +0.200" in said
    assert "**Against the published form**" in said
    alone = sentences.compared(report(best="published", published=entry()))
    assert "it is itself the best on dev tasks" in alone


def test_few_chains_failures_and_foreign_trees_are_told():
    entries = {"one": entry(own_trees=True)}
    said = sentences.compared(report(seeds=1, failed=[("two", "no `luck`")], **entries))
    assert "1 chain of training: a lead, no headline" in said
    assert "**Not compared**: `two`: no" in said and "trees of other settings" in said
    assert "no headline" not in sentences.compared(report(one=entry()))
    assert sentences.compared({}) == "- No estimator was compared."


def test_pictures_of_many_estimators_and_of_one():
    names = [f"estimator_{i}" for i in range(17)]
    many = {name: entry(gain=i / 100, minus_published=told(0.0)) for i, name in enumerate(names)}
    for metrics in (report(best=names[3], **many), report(one=entry(foreign=None))):
        for figure in (figures.ranking(metrics), figures.gain_by_cost(metrics)):
            assert png(figure).startswith(b"\x89PNG")
    axes = figures.ranking(report(best=names[3], **many)).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "estimator_16" and f"{names[3]}\n(best on dev)" in labels


def test_names_beside_points_do_not_cover_each_other():
    figure, (axes,) = panels(1, 1, (6, 4))
    points = [(i % 4, i // 4, f"name {i}") for i in range(12)]
    axes.plot([x for x, *_ in points], [y for _, y, _ in points], "o")
    place_labels(axes, points)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    room = axes.get_window_extent()
    assert all(room.x0 <= box.x0 and box.x1 <= room.x1 for box in boxes)


def test_the_notebook_compares_all_chains():
    """``run.context`` is of the first chain alone."""
    run = Run(make({"seeds": 3}), environment=None)
    assert (run.all_chains.params.run.seeds, run.context.params.run.seeds) == (3, 1)
    source = resolve("notebooks/08_estimators.ipynb").read_text()
    assert "comparison.run(run.all_chains)" in source
