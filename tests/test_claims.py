"""Sentences say no more than was tested: fed with adverse numbers, and with other parameters."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from qvlib.pipeline.params import make
from qvlib.report import sentences

ROOT = Path(__file__).parents[1]


def entry(mean, low, high, relative=None, bounds=None):
    return {"mean": mean, "ci95": [low, high], "relative": relative, "relative_ci95": bounds}


NULL, GAIN, LOSS = entry(0.0, -0.1, 0.1), entry(0.1, 0.05, 0.15, 0.3), entry(-0.1, -0.15, -0.05)


def arm(reward, success=0.0, bounds=(0.0, 0.0126)):
    return {
        "reward_mean": reward,
        "success_rate": success,
        "success_ci95": list(bounds),
        "tasks": 300,
    }


@pytest.fixture
def metrics():
    """A run in which the method works."""
    gains = {"q_n5": GAIN, "q_n10": GAIN, "search": entry(0.2, 0.15, 0.25)}
    gains |= {"control_q_n5": NULL, "control_q_n10": NULL}
    gains |= {"foreign_q_n5": entry(0.09, 0.05, 0.13), "kind_only_n5": entry(0.07, 0.03, 0.11)}
    return {
        "arms": {"sample": arm(0.3), "q_n5": arm(0.4), "q_n10": arm(0.4), "search": arm(0.5)},
        "search_iterations": 30,
        "primary": "q_n5 minus foreign_q_n5",
        "primary_difference": GAIN,
        "against": {"q_n5": dict.fromkeys(RIVALS, GAIN), "q_n10": dict.fromkeys(RIVALS, GAIN)},
        "reads": True,
        "null": {"shuffles": [-0.05, *[0.0] * 6, 0.04], "rank_p": 1 / 9, "mean": GAIN},
        "gains": copy.deepcopy(gains),
        "gains_over_greedy": copy.deepcopy(gains),
        "control_shuffles": {"control_q_n5": [0.25, 0.35], "control_q_n10": [0.25, 0.35]},
        "gap_closed": 0.5,
        "gap_closed_n10": 0.5,
        "seeds": [0],
        "groups": "products",
        "splits": [{"split": "test played", "tasks": 300, "groups": 250}],
        "intervals": "bootstrap",
        "filter_actions": True,
        "refused_share": 0.1,
        "preferences": {
            "pairs_by_depth": {"0": 9, "1": 3},
            "held_out_pairs": 60,
            "held_out_accuracy": 0.62,
            "held_out_tasks": 12,
            "held_out_ci95": [0.55, 0.7],
            "control_held_out_accuracy": [0.5],
        },
    }


def everything(metrics):
    said = (sentences.claim, sentences.verdict, sentences.diagnosis, sentences.limits)
    return "\n".join(each(metrics) for each in said)


RIVALS = ("foreign", "kind_only", "within_kind", "likely", "script", "demonstrator")


@pytest.mark.parametrize("control", [NULL, GAIN, LOSS], ids=["null", "gain", "loss"])
def test_a_control_is_told_as_it_came_out(metrics, control):
    metrics["gains"] |= {"control_q_n5": control, "control_q_n10": control}
    said = everything(metrics)
    assert not re.search(r"as it must|misleads|must not|As it", said)
    assert ("shuffled labels gain too" in said) == (control is GAIN)


def test_a_gain_within_the_shuffles_is_told_with_its_rank(metrics):
    said = sentences.null(metrics)
    assert (
        "of 8 independent shuffles of the labels, none gain as much as Q (-0.050 to +0.040;" in said
    )
    assert "rank p = 0.11, the least that so few can give)" in said
    assert "Q minus its shuffles: +0.100 [+0.050, +0.150], significantly" not in said
    assert "+0.100 [+0.050, +0.150]: significantly above 0" in said
    metrics["null"] |= {"shuffles": [0.1, 0.2, *[0.0] * 6], "rank_p": 3 / 9, "mean": NULL}
    said = sentences.null(metrics)
    assert "2 gain as much as Q (+0.000 to +0.200; rank p = 0.33)" in said
    assert "not significant" in said and "the least" not in said
    assert said in sentences.verdict(metrics)
    del metrics["null"]  # an older run
    assert "0.250, 0.350, all less than with Q (0.400)" in sentences.verdict(metrics)
    metrics["control_shuffles"]["control_q_n5"] = [0.2, 0.416]
    assert "0.200, 0.416, the highest no less than with Q (0.400)" in sentences.verdict(metrics)


def test_only_what_q_beat_is_claimed(metrics):
    assert (
        "earns more than one sample, greedy decoding, the likeliest of them, Q told another task's "
        "instruction, the mean Q of the kind of action, Q within the kind of the first draw, the "
        "fixed script and the demonstrator." in sentences.claim(metrics)
    )
    metrics["against"]["q_n5"] |= {"script": LOSS, "demonstrator": NULL}
    said = sentences.claim(metrics)
    assert (
        "it is not shown to earn more than the demonstrator; it earns less than the fixed script."
        in said
    )
    metrics["gains"]["q_n5"] = NULL
    assert "is not shown to earn more than one sample and the demonstrator" in sentences.claim(
        metrics
    )


def test_what_is_added_to_q_is_said(metrics):
    """Of a weight of 3 much of a gain may be the agent's own."""
    assert "the highest Q of five" in sentences.claim(metrics)
    told = metrics | {"estimator": "agentrm", "prior_weight": 3.0}
    assert "the action with the highest Q of `agentrm` + 3 log π of five" in sentences.claim(told)
    assert sentences.scored({"estimator": "step_dpo", "prior_weight": 0.0}) == ""


def test_what_parts_of_q_gain_with_log_pi_beside_them_is_told_with_the_likeliest(metrics):
    """At 3 log pi any score gains what the likeliest alone does."""
    metrics["against"]["q_n5"]["foreign"], metrics["reads"] = NULL, False
    metrics["gains"]["likely_n5"] = entry(0.08, 0.04, 0.12)
    assert "without any Q" not in sentences.claim(metrics)
    said = sentences.claim(metrics | {"prior_weight": 3.0})
    assert "adds the same 3 log π" in said
    assert "the likeliest of the five, without any Q, has +0.080 [+0.040, +0.120]." in said


def test_a_gain_that_is_sure_only_as_a_difference_is_said_so(metrics):
    metrics["gains"]["q_n10"] = entry(0.1, 0.01, 0.19, 0.34, [-0.07, 0.74])
    said = sentences.verdict(metrics)
    assert "as a difference; as a share of the baseline it is not" in said
    metrics["gains"]["q_n10"] = entry(0.1, 0.01, 0.19, 0.34, [0.02, 0.74])
    assert "as a share of the baseline" not in sentences.verdict(metrics)


@pytest.mark.parametrize("rival", ["foreign", "kind_only"])
def test_reads_is_said_by_the_rule_alone(metrics, rival):
    assert "**Q reads**: +0.100 [+0.050, +0.150] over Q told another" in sentences.claim(metrics)
    metrics["against"]["q_n5"][rival], metrics["reads"] = NULL, False
    said = sentences.claim(metrics)
    assert "**Q reads**" not in said and "**That Q reads is not shown**" in said
    assert "+0.000 [-0.100, +0.100]" in said
    assert "+0.090 [+0.050, +0.130] are had with any instruction and +0.070" in said
    metrics["gains"]["q_n5"] = NULL  # of no gain nothing is made
    assert "are had" not in sentences.claim(metrics)
    metrics["reads"] = None
    assert "reads" not in sentences.claim(metrics)


def test_one_instruction_for_all_tasks_tests_no_reading(metrics):
    metrics["reads"] = None
    assert "reads" not in sentences.claim(metrics)
    metrics["splits"][-1]["instructions"] = 1
    told = "**Whether Q reads is not tested**: all test tasks have the same instruction."
    assert told in sentences.claim(metrics) and "**Q reads**" not in everything(metrics)


def test_few_chains_are_a_lead(metrics):
    assert "One chain of training: a lead, no headline." in sentences.claim(metrics)
    metrics["seeds"] = [0, 1]
    assert "2 chains of training: a lead, no headline." in sentences.claim(metrics)
    metrics["seeds"] = [0, 1, 2]
    assert "headline" not in sentences.claim(metrics)


def test_the_primary_comparison_is_told_whatever_came_out(metrics):
    assert "`q_n5 minus foreign_q_n5`: +0.100 [+0.050, +0.150]" in sentences.verdict(metrics)
    metrics["primary_difference"] = LOSS
    assert "-0.100 [-0.150, -0.050]: significantly below 0" in sentences.verdict(metrics)
    metrics["primary_difference"] = {}
    assert "`q_n5 minus foreign_q_n5`: not played in this run" in sentences.verdict(metrics)


def test_what_of_the_second_agents_gain_is_content(metrics):
    metrics["other_agent_gain"] = GAIN
    assert "**another agent, reranked by the same Q model**" in sentences.verdict(metrics)
    metrics["other_agent_against_foreign"] = NULL
    said = sentences.verdict(metrics)
    assert "Minus Q told another task's instruction: +0.000 [-0.100, +0.100]: not sig" in said


def test_no_share_of_the_way_is_given_of_a_gain_that_is_not_shown(metrics):
    said = sentences.verdict(metrics)
    assert "**Search** with the environment, which it may undo, 30 iterations a task: 0.500" in said
    assert (
        "of that gap reranking closes 50% with n = 5 and 50% with n = 10. It is no upper bound."
        in said
    )
    for nothing in (NULL, LOSS):
        metrics["gains"]["q_n5"] = nothing
        said = sentences.verdict(metrics)
        assert "closes none that is shown with n = 5 and 50% with n = 10" in said
    for nothing in (NULL, LOSS):
        metrics["gains"]["search"] = nothing
        said = sentences.verdict(metrics)
        assert "50%" not in said and "no gain of its own is shown" in said


def test_no_success_is_not_told_as_certain(metrics):
    assert "0.0% [0.0%, 1.3%] of tasks with one sample" in sentences.verdict(metrics)
    metrics["arms"]["sample"]["success_ci95"] = [0.0, 0.0]  # of an older run, a bootstrap's
    assert "0.0% of tasks with one sample" in sentences.verdict(metrics)
    assert "[0.0%, 0.0%]" not in sentences.verdict(metrics)


def test_a_relative_gain_has_its_interval(metrics):
    metrics["gains"]["q_n5"] = entry(0.1, 0.05, 0.15, 0.333, [0.1, 0.6])
    assert "+0.100 [+0.050, +0.150], +33% [+10%, +60%]: significantly" in sentences.verdict(metrics)
    metrics["gains"]["q_n5"] = entry(0.1, -0.05, 0.25, 9.0, None)  # of next to nothing
    assert "+0.100 [-0.050, +0.250], +900%: not significant" in sentences.verdict(metrics)


def test_chains_whose_sample_earned_nothing_have_no_relative_gain(metrics):
    nan = float("nan")
    metrics["by_seed"] = [
        {"seed": 0, "q_n5 relative": nan, "q_n10 relative": nan},
        {"seed": 1, "q_n5 relative": 0.25, "q_n10 relative": -0.5},
    ]
    said = sentences.verdict(metrics)
    assert "seed 0 - and -; seed 1 +25% and -50%" in said and "nan" not in said


def test_room_is_told_with_intervals_and_without_a_promise(metrics):
    metrics["gains"] |= {"search": LOSS, "q_n5": NULL}
    said = sentences.diagnosis(metrics)
    assert "improved" not in said
    assert "a search -0.100 [-0.150, -0.050]; by Q +0.000 [-0.100, +0.100] with n = 5" in said


def test_how_far_the_agent_is_from_its_demonstrator_is_told_where_that_was_played(metrics):
    metrics["arms"]["demonstrator"] = {**metrics["arms"]["sample"], "reward_mean": 0.2}
    metrics["gains"]["demonstrator"] = LOSS
    sampled = metrics["arms"]["sample"]["reward_mean"]
    said = sentences.diagnosis(metrics)
    assert f"**Agent**: one sample earns {sampled:.3f}, the scripted demonstrator" in said
    assert "0.200: -0.100 [-0.150, -0.050]." in said
    del metrics["gains"]["demonstrator"]
    assert "**Agent**" not in sentences.diagnosis(metrics)


def test_accuracy_is_judged_by_its_interval_over_tasks(metrics):
    preferences = metrics["preferences"]
    said = sentences.accuracy(preferences)
    assert "62.0% [55.0%, 70.0%] rightly, better than chance, the interval over 12 tasks" in said
    preferences["held_out_ci95"] = [0.45, 0.75]
    assert "not distinguishable from chance" in sentences.accuracy(preferences)
    del preferences["held_out_ci95"]
    for said in (sentences.accuracy(preferences), sentences.diagnosis(metrics)):
        assert "chance" not in said and "no interval is given" in said
    preferences |= {"held_out_accuracy": None}
    assert "tells no accuracy" in sentences.accuracy(preferences)


def test_few_groups_and_few_trainings_are_told(metrics):
    assert "too narrow" not in sentences.limits(metrics)
    metrics["splits"][-1]["groups"] = 6
    assert "With 6 products the intervals are too narrow" in sentences.limits(metrics)
    metrics |= {"seeds": [0, 1, 2], "intervals": "t"}
    said = sentences.limits(metrics)
    assert "t intervals over products and seeds" in said and "too narrow" not in said
    del metrics["intervals"]  # an older run, with percentiles over three chains
    metrics["splits"][-1]["groups"] = 60
    assert "which so few seeds make too narrow" in sentences.limits(metrics)


def test_the_filter_is_told_as_it_was(metrics):
    assert "10.0% of the draws" in sentences.refused(metrics)
    assert "same filter" in sentences.refused(metrics)
    metrics["filter_actions"] = False
    assert sentences.refused(metrics) == sentences.filtering(False)
    assert "No arm has a filter" in sentences.refused(metrics)
    assert sentences.filtering(None) == ""


def test_rules_are_told_by_what_was_shown():
    row = {"rule": "argmax", "control_low": -0.1, "q_low": 0.01, "groups": 40}
    row["verdict"] = sentences.rule_verdict(row)
    assert "of their control no gain is shown" in sentences.rules([row])
    assert "`rule_tasks`" not in sentences.rules([row])
    assert "With 4 groups" in sentences.rules([row | {"groups": 4}])


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_page_of_one_chain_says_which(seeds):
    said = sentences.chain(make({"seed": 5, "seeds": seeds}))
    assert ("one chain, seed 5" in said) == (seeds == 1)
    assert ("first of the run's 3 chains, seed 5 of 5, 6, 7" in said) == (seeds == 3)


# -- fixed prose ------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SOME_CHAIN = ("01", "02", "03", "04", "05", "06")  # notebooks that show a single chain

DEPENDS = (  # what a paragraph says -> what it must name, since a parameter can make it false
    (r"same\s+filter|are\s+(re)?drawn\s+again|redrawn|dropped\b", r"filter_actions"),
    (r"no-effect\s+actions", r"filter_actions"),
    (r"log π − log π_ref|\b[Bb]eta\b|\bratio\b", r"DPO|estimator|tuned\s+model"),
    (r"summed\s+over\s+the\s+action", r"log_prob"),
    (r"without\s+undo", r"search"),
    (r"highest\s+`V \+ c", r"uct"),
    (r"in\s+nats", r"DPO|tuned\s+model|log-probab"),
    (r"few\s+hundred", r"test_tasks|trial_tasks"),
)
NEVER = r"as it must|must not gain|(?<!no )upper bound|every (agent|arm) alike"


def paragraphs(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "markdown":
            parts = "".join(cell["source"]).split("\n\n")
            yield from (part for part in parts if not part.startswith("#"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_fixed_prose_names_the_parameter_that_could_make_it_false(path):
    for text in paragraphs(path):
        assert not re.search(NEVER, text), text
        for said, named in DEPENDS:
            if re.search(said, text):
                assert re.search(named, text), (said, text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_of_one_chain_says_so(path):
    assert ("sentences.chain(params)" in path.read_text()) == path.stem.startswith(SOME_CHAIN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_asks_for_an_estimator_by_name(path):
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("# Parameters"):
            assert "step_dpo" not in source and "(nats)" not in source
