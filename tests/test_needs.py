"""What a run needs: every number by hand from a made-up record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from needing import FILE, LENGTHS, PHI, arm, finished
from transformers import AutoConfig, AutoModelForCausalLM

from qvlib.agents.beam import BEAM
from qvlib.agents.best_first import BEST_FIRST
from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings
from qvlib.cli import main
from qvlib.estimators import Estimator
from qvlib.models.local import LocalModel
from qvlib.pipeline import context
from qvlib.pipeline.params import make
from qvlib.tools import needs
from qvlib.tools.needs import Measured, Tokens, Work, gpu_memory, parts
from qvlib.tools.needs.gpu_memory import KNOWN, Shape, memory, shape
from qvlib.tools.needs.prompts import GAMES

PAPER = Path(__file__).parents[1] / "params" / "paper"
VALUES = Estimator("told", Settings, lambda *_: None, lambda *_: None, values=True)


@pytest.fixture
def results(tmp_path):
    return finished(tmp_path)


def test_counts_of_a_run(results):
    run = needs.measured(results, make(FILE))
    assert run.search == Work(80, 40, 70) and run.arms["q_n5"] == Work(5, 8, 30)
    assert (run.pairs, run.rule, run.refused) == (4.0, "all_nodes", 0.2)
    assert (run.prompt, run.reply, run.speed) == (60, 4, pytest.approx((24_000 + 2_800) / 67))


def test_pairs_are_those_of_the_files_own_rule_where_the_run_tried_it(results):
    (results / "tables").mkdir()
    (results / "tables" / "pair_rules.csv").write_text(
        "rule,min visits,min margin,pairs,pairs a tree\n"
        "best_path,1,0.0,25,2.5\nbest_path,1,0.1,20,2.0\n"
    )
    run = needs.measured(results, make(FILE))
    assert (run.pairs, run.rule) == (2.5, "best_path")
    assert needs.measured(results, make({**FILE, "min_margin": 0.2})).rule == "all_nodes"


def test_tokens_follow_by_hand(results):
    """Redraws, a fifth of 70 replies, are not paid for.

    40 - 14 prompts and 70 - 14 replies a tree, in 7.5 expansions of 5.
    """
    params = make(FILE)
    run = needs.measured(results, params)
    rows = {row.part: row for row in needs.tokens(params, run, LENGTHS)}
    assert list(rows) == [
        "collecting",
        "training Q and controls",
        "arm sample",
        "arm greedy",
        "arm random_n5",
        "arm q_n5",
        "arm q_n10",
        "arm foreign_q_n5",
        "arm foreign_q_n10",
        "arm kind_only_n5",
        "arm kind_only_n10",
        "arm within_kind_n5",
        "arm within_kind_n10",
        "arm oracle_n5",
        "arm oracle_n10",
        "arm tuned_policy",
        "arm search",
        "arm control_q_n5",
        "arm control_q_n10",
        "scoring pairs",
    ]
    assert rows["collecting"] == Tokens(
        "collecting", "agent", 200, 200 * 26, 200 * 26 * 1000, 200 * 56 * 50, 0
    )
    assert rows["arm q_n5"] == Tokens(
        "arm q_n5", "agent", 20, 20 * 5, 20 * 5 * 1000, 20 * 25 * 50, 2 * 20 * (5 * 1000 + 25 * 10)
    )
    assert rows["arm sample"] == Tokens(
        "arm sample", "agent", 20, 20 * 4, 20 * 4 * 1000, 20 * 4 * 50, 0
    )
    assert (
        rows["arm control_q_n5"].tasks == 3 * 20
        and rows["arm control_q_n5"].q == 3 * rows["arm q_n5"].q
    )
    searching = rows["arm search"]  # thrice the iterations of that run
    assert searching.prompts == pytest.approx(3 * 20 * (20 - 7))
    assert searching.completion == pytest.approx(3 * 20 * (35 - 7) * 50)
    # 30 visited nodes are six times five siblings: 60 pairs of each of 20 trees, each read by the Q
    # model and its reference under two instructions
    assert rows["scoring pairs"].q == 20 * 60 * 4 * (1000 + 2 * 10)
    many = needs.tokens(params.replace(test_tasks=200), run, LENGTHS)[-1]
    assert many.q == 2000 * 4 * (1000 + 2 * 10)  # at most so many are drawn
    # seven visited nodes are five siblings and two, eleven pairs
    few = needs.tokens(params.replace(search_iterations=7, seeds=2, agent=PHI), run, LENGTHS)[-1]
    assert (few.part, few.tasks, few.q) == ("scoring pairs", 40, 40 * 11 * 5 * (1000 + 2 * 10))
    assert (
        rows["arm tuned_policy"].q == 20 * (4 * 1000 + 4 * 50)
        and rows["arm tuned_policy"].prompt == 0
    )
    # 4 pairs a tree, 4 passes (forward, twice backward, reference) over two prompts and two
    # actions, the Q model and 3 controls
    assert rows["training Q and controls"].q == 800 * 4 * 2 * (1000 + 10) * 4
    assert needs.usd(params, rows["arm sample"]) == pytest.approx((80_000 * 2 + 4_000 * 10) / 1e6)
    assert needs.usd(params, rows["training Q and controls"]) is None


def test_a_file_scales_the_search_by_tasks_iterations_candidates_and_chains(results):
    run = needs.measured(results, make(FILE))
    few = needs.tokens(make({**FILE, "filter_actions": True}), run, LENGTHS)[0]
    assert (few.prompts, few.completion) == (200 * 40, 200 * 70 * 50)
    more = needs.tokens(
        make({**FILE, "filter_actions": True, "iterations": 60, "seeds": 2, "expand_n": 9}),
        run,
        LENGTHS,
    )[0]
    assert (more.tasks, more.prompts) == (400, 400 * 40 * 2)
    assert (
        more.completion == 400 * 2 * (70 + 4 * 7.5) * 50
    )  # (70 - 40) / 4 expansions, each of 4 more
    shorter = {row.part: row for row in needs.tokens(make({**FILE, "max_steps": 2}), run, LENGTHS)}
    assert (
        shorter["arm q_n10"].prompts == 20 * 2 and shorter["arm q_n10"].completion == 20 * 20 * 50
    )
    # of 30 iterations 7.5 expanded a leaf; at the first visit all do, each 4 replies more
    first = make({**FILE, "filter_actions": True, "expand_at": "first_visit"})
    sooner = needs.tokens(first, run, LENGTHS)[0]
    assert run.iterations == 30 and sooner.prompts == 200 * 40
    assert sooner.completion == 200 * (70 + 4 * 22.5) * 50
    again = needs.tokens(first, replace(run, expand_at="first_visit"), LENGTHS)[0]
    assert again.completion == few.completion
    each = needs.tokens(make({**FILE, "api_n": "each"}), run, LENGTHS)[0]
    assert each.prompts == 200 * 56  # every reply pays for its prompt


def test_a_second_agent_is_billed_where_it_is_served(results):
    params = make(
        {
            **FILE,
            "agent": PHI,
            "other_agent": "api:gpt",
            "other_demonstrations": 1,
            "device": "cuda",
        }
    )
    rows = {row.part: row for row in needs.tokens(params, needs.measured(results, params), LENGTHS)}
    second = rows["arm other_agent_q_n5"]
    assert (
        second.who == "other_agent"
        and second.prompts == rows["arm q_n5"].prompts
        and second.q == rows["arm q_n5"].q
    )
    assert needs.usd(params, second) == pytest.approx((100_000 * 2 + 25_000 * 10) / 1e6)
    assert (
        needs.usd(params, rows["collecting"]) is None
        and needs.usd(params, rows["arm q_n5"]) is None
    )


def test_whole_episodes_are_counted_each(results):
    """Three episodes of 12.5 steps together; five make 5 / 3 of all that.

    A shorter limit shortens each.
    """
    metrics, manifest = (
        json.loads((results / f"{name}.json").read_text()) for name in ("metrics", "manifest")
    )
    metrics["arms"]["best_of_n"] = arm(12.5, 15, 15)
    manifest["parameters"]["best_of"] = 3
    (results / "metrics.json").write_text(json.dumps(metrics))
    (results / "manifest.json").write_text(json.dumps(manifest))
    run = needs.measured(results, make(FILE))
    for changes, prompts in (
        ({"filter_actions": True}, 20 * 15 * 5 / 3),
        ({"filter_actions": False}, 20 * 12 * 5 / 3),
        ({"filter_actions": True, "max_steps": 2}, 20 * 15 * 5 / 3 * 6 / 12.5),
    ):
        rows = {
            row.part: row
            for row in needs.tokens(make({**FILE, "best_of": 5, **changes}), run, LENGTHS)
        }
        assert rows["arm best_of_n"].prompts == pytest.approx(prompts, abs=1)


def test_what_is_tried_first_is_counted_as_often_as_it_is_tried(results):
    """Two trials of 8 steps together, a beam of 2 with 9 steps, 12 steps of a best-first search.

    Three iterations of LATS. A world of 10 steps lets each try be as long as it was.
    """
    metrics, manifest = (
        json.loads((results / f"{name}.json").read_text()) for name in ("metrics", "manifest")
    )
    tried = {"reflexion": 8, "reflexion_q": 8, "beam": 9, "best_first": 12, "lats": 90}
    metrics["arms"] |= {name: arm(steps, 10, 30) for name, steps in tried.items()}
    manifest["parameters"] |= {
        "reflexion_trials": 2,
        "beam_width": 2,
        "best_first_steps": 40,
        "lats_iterations": 3,
    }
    (results / "metrics.json").write_text(json.dumps(metrics))
    (results / "manifest.json").write_text(json.dumps(manifest))
    given = {**FILE, "filter_actions": True, "reflexion_trials": 3, "lats_iterations": 6}
    given |= {"self_consistency": True, "max_steps": 10}
    run = needs.measured(results, make(given))

    def rows(**changes):
        told = needs.tokens(make({**given, **changes}), run, LENGTHS)
        return {row.part: row for row in told}

    of, short = rows(), rows(max_steps=2)
    for name, times in {"reflexion": 1.5, "reflexion_q": 1.5, "lats": 2}.items():
        assert of[f"arm {name}"].prompts == pytest.approx(20 * 10 * times)
    assert short["arm reflexion"].prompts == pytest.approx(20 * 10 * 1.5 * 4 / 8)
    assert short["arm lats"].prompts == of["arm lats"].prompts
    # The Q model reads what it scores; a chat model judges for itself.
    assert of["arm reflexion_q"].q and not of["arm reflexion"].q and not of["arm lats"].q
    small = {"agent": "small", "q_base": "", "trainer": "loop"}
    assert rows(**small)["arm lats"].q
    assert of["arm self_consistency_n5"].prompts == of["arm random_n5"].prompts
    valued = {k: v for k, v in given.items() if k != "trainer"}
    valued["estimator"] = f"{__name__}:VALUES"
    # Searches by value, whose estimators the table of tokens does not know.
    for width, limit, times in ((3, 10, 1.5), (3, 2, 1.5 * 4 / 9)):
        params = make({**valued, "beam_width": width, "max_steps": limit})
        work = parts._arm(BEAM, run, params)
        assert work.prompts == pytest.approx(10 * times)
    for steps, times in ((60, 1.0), (6, 0.5)):
        params = make({**valued, "best_first_steps": steps})
        assert parts._arm(BEST_FIRST, run, params).steps == pytest.approx(12 * times)


def test_memory_by_hand():
    """Phi-1.5 as the agent and, trained in full, as the Q model."""
    p, layers, width = 1_418_270_720, 24, 2048
    params = make(
        {
            "agent": PHI,
            "q_base": PHI,
            "other_demonstrations": 0,
            "dtype": "bfloat16",
            "trainer": "trl",
            "prompt_tokens": 900,
            "max_action_tokens": 100,
            "batch_size": 4,
            "cache_tokens": 5000,
            "control_shuffles": 2,
            "dpo_batch": 64,
        }
    )
    found = memory(params)
    assert found["collecting"] == {
        "weights": 2 * p,
        "training": 0,
        "working": 2 * layers * width * 2 * (5000 + 6 * 4000),
    }
    # in float32: model and reference; gradients and two moments; a pass of as many pairs as 8,192
    # tokens hold, or of one pair
    assert found["training Q"] == {
        "weights": 2 * p * 4,
        "training": 3 * p * 4,
        "working": 27 * layers * width * 4 * 8192,
    }
    for changes, tokens in (({"dpo_batch": 3}, 6000), ({"prompt_tokens": 8900}, 18_000)):
        assert (
            memory(params.replace(**changes))["training Q"]["working"]
            == 27 * layers * width * 4 * tokens
        )
    token = 2 * layers * width
    assert found["playing"] == {
        "weights": 2 * p + 4 * p * 4,
        "training": 0,
        "working": token * 2 * 5000 + 4 * token * 4 * 5000 + token * 4 * 11 * 4000,
    }
    lora = memory(params.replace(**{"lora_rank": 8}))
    assert lora["training Q"]["training"] == 3 * 8 * 884_736 * 4
    assert lora["training Q"]["weights"] == (2 * p + 8 * 884_736) * 4
    assert lora["playing"]["weights"] == 2 * p + (p + 3 * 8 * 884_736) * 4
    served = memory(params.replace(**{"agent": "api:gpt"}))
    assert set(served) == {"training Q", "playing"} and served["playing"]["weights"] == 4 * p * 4
    own = memory(params.replace(**{"q_base": "", "dtype": "float32"}))  # the agent is the reference
    assert own["playing"]["weights"] == (p + 3 * p) * 4


@pytest.mark.parametrize(
    ("family", "config", "kept"),
    [
        ("phi", {"intermediate_size": 256}, gpu_memory.KEPT),
        ("llama", {"intermediate_size": 176}, 21),
        ("phi3", {"intermediate_size": 176, "pad_token_id": None, "eos_token_id": 1}, 24),
    ],
)
def test_activations_are_what_a_layer_keeps_for_the_pass_backward(family, config, kept):
    """Counted: the storage of all that autograd saves, weights aside.

    Of three layers less that of one.
    """
    sizes = []
    for layers in (1, 3):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(
                family,
                vocab_size=32,
                hidden_size=64,
                num_hidden_layers=layers,
                num_attention_heads=2,
                num_key_value_heads=2,
                **config,
            )
        )
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        saved = {}

        def keep(tensor, saved=saved):
            saved[tensor.untyped_storage().data_ptr()] = (
                tensor  # held, so that no address comes twice
            )
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train().model(input_ids=torch.zeros((1, 50), dtype=torch.long), use_cache=False)
        sizes.append(
            sum(t.untyped_storage().nbytes() for at, t in saved.items() if at not in weights)
        )
    assert (sizes[1] - sizes[0]) / 2 / 50 / (64 * 4) == pytest.approx(kept, rel=0.05)


def test_a_call_is_as_long_as_the_local_models():
    assert gpu_memory.WINDOW == LocalModel.batch_tokens


@pytest.mark.parametrize(
    ("name", "family", "config"),
    [
        (
            "microsoft/phi-3-mini-4k-instruct",
            "phi3",
            {
                "vocab_size": 32064,
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
        ),
        (
            "meta-llama/llama-3.1-8b-instruct",
            "llama",
            {
                "vocab_size": 128256,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
            },
        ),
        (
            PHI,
            "phi",
            {
                "vocab_size": 51200,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
            },
        ),
        (
            "smollm2",
            "llama",
            {
                "vocab_size": 49152,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "tie_word_embeddings": True,
            },
        ),
    ],
)
def test_the_table_is_what_the_published_configurations_give(tmp_path, name, family, config):
    AutoConfig.for_model(family, **config).save_pretrained(tmp_path)
    assert shape(make({}), str(tmp_path)) == KNOWN[name]


def test_the_small_agent_has_the_size_of_its_parameters():
    assert shape(
        make({"agent_width": 32, "agent_layers": 1, "agent_heads": 2, "vocabulary": 300}), "small"
    ) == Shape(300 * 32 + 4 * 32 * 32 + 3 * 32 * 96 + 3 * 32, 1, 32, 32, 4 * 64 + 3 * 128)
    other = shape(
        make({"other_width": 16, "other_layers": 2, "agent_heads": 2, "vocabulary": 300}),
        "small",
        "other_agent",
    )
    assert (other.layers, other.hidden) == (2, 16)


def test_an_unknown_model_is_told(tmp_path):
    with pytest.raises(
        QvlibError,
        match=r"acme/Rocket-1: its size is not known: it is none of .*phi-1_5.*fetch the model",
    ):
        memory(make({"agent": "acme/Rocket-1", "other_demonstrations": 0}))


def test_results_that_are_not_there_or_lack_an_arm_are_told(results, tmp_path):
    with pytest.raises(
        QvlibError, match=r"nowhere: no results of a run \(metrics\.json is missing.*--from"
    ):
        needs.measured(tmp_path / "nowhere", make(FILE))
    run = needs.measured(results, make(FILE))
    with pytest.raises(
        QvlibError, match="results 'tiny' have no arm 'search'; give other results with --from"
    ):
        needs.tokens(
            make(FILE),
            replace(run, arms={k: v for k, v in run.arms.items() if k != "search"}),
            LENGTHS,
        )
    (results / "metrics.json").write_text("{}")
    with pytest.raises(QvlibError, match=r"KeyError 'arms' in its metrics\.json"):
        needs.measured(results, make(FILE))


def test_hours_and_their_origin(results):
    params = make({**FILE, "agent": PHI, "api_price_prompt": 0.0, "api_price_completion": 0.0})
    run = needs.measured(results, params)
    silent = needs.report(params, run, LENGTHS)
    assert (
        "| hours" not in silent
        and "USD" not in silent
        and "speed on your machine: --q-tokens-per-second" in silent
    )
    told = needs.report(params, run, LENGTHS, 1000.0, 4000.0)
    # 200 trees of 26 prompts of 1,000 tokens and 56 replies of 50, at 1,000 a second
    (row,) = (
        line for line in told.splitlines() if line.startswith("| collecting") and "5,200" in line
    )
    assert row.split("|")[-2].strip() == f"{(200 * (26_000 + 2_800)) / 1000 / 3600:.1f}" == "1.6"
    assert (
        "1,000 tokens a second of the agent, as given" in told
        and "4,000 tokens a second of the Q model, as given" in told
    )
    same = needs.report(params, replace(run, agent=PHI, speed=500.0), LENGTHS)
    assert "500 tokens a second of the agent, as in the collecting of that run" in same


def test_the_command_says_what_a_file_of_the_paper_needs(results, capsys):
    assert (
        main(
            [
                "needs",
                str(PAPER / "webshop-gpt-4o-mini.yml"),
                "--from",
                str(results),
                "-p",
                "catalogue_products",
                "200",
                "--reply-tokens",
                "60",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "| training Q | " in printed and "| arm q_n5" in printed and "| in all" in printed
    assert (
        "results tiny (webshop, agent small)" in printed
        and "a reply has 60 tokens: as given" in printed
    )
    assert (
        "in the embedded world, since data/webshop-full is not here, 4 characters counted as a "
        "token" in printed
    )
    assert (
        "0.15 a million prompt tokens" in printed
        and "2 pairs" not in printed
        and "4.00 pairs a tree" in printed
    )


def test_prompts_are_counted_in_the_files_own_conversation():
    """An example makes them longer, and prompt_tokens bounds what a local model reads."""
    small = {"agent": PHI, "catalogue_products": 200, "environment": "hotpotqa"}
    plain, shown = (needs.lengths(make({**small, **more})) for more in ({}, {"examples": 1}))
    assert (
        shown.prompt > plain.prompt + 50
        and shown.action == plain.action
        and plain.reply == plain.action + 1
    )
    assert needs.lengths(make({**small, "prompt_tokens": 64})).prompt == 64
    thoughts = make({**small, "thoughts": True, "max_action_tokens": 99})
    told = needs.lengths(thoughts)
    assert told.reply == 99 and any(
        "the most that max_action_tokens allows" in line for line in told.origin
    )
    run = Measured(
        "probe",
        "hotpotqa",
        PHI,
        Work(1, 1, 1),
        {},
        30,
        10,
        5,
        0.0,
        1.0,
        "best_path",
        777.0,
        55.0,
        1.0,
    )
    told = needs.lengths(thoughts, run)
    assert (told.prompt, told.reply) == (777, 55) and any(
        "as in arm greedy of that run" in line for line in told.origin
    )
    assert (
        needs.lengths(thoughts, run, 11.0).reply == 11
        and needs.lengths(thoughts, replace(run, environment="webshop")).reply == 99
    )


def test_no_more_games_are_made_than_prompts_are_measured_on(monkeypatch):
    class Asked(Exception):
        """Enough is known; games take seconds each to make."""

    def context_of(params):
        raise Asked(params.flat()["game_count"])

    monkeypatch.setattr(context, "context_of", context_of)
    for wanted, made in ((370, GAMES), (6, 6)):
        with pytest.raises(Asked, match=f"^{made}$"):
            needs.lengths(make({"environment": "textworld", "game_count": wanted}))


def test_without_results_named_those_of_the_nearest_run_are_taken(results):
    where = {"results_dir": str(results.parent)}
    assert needs.nearest(make({**where, "name": results.name})) == str(results)
    for given, name in (
        ({}, "quick"),
        ({"environment": "hotpotqa"}, "hotpotqa-quick"),
        ({"environment": "textworld"}, "textworld"),
        ({"environment": "scienceworld"}, "quick"),
        ({"agent": "smollm2"}, "smollm2-mini"),
        ({"agent": "smollm2", "environment": "hotpotqa"}, "smollm2-mini"),
        # None of these plays the arm; these do.
        ({"lats_iterations": 1}, "smoke"),
        ({"environment": "hotpotqa", "estimator": "agentrm", "beam_width": 2}, "value-search"),
        (
            {"estimator": "agentrm", "beam_width": 2, "lats_iterations": 1},
            "quick",
        ),  # which tells what is missing
    ):
        assert needs.nearest(make({**where, "name": "none", **given})) == f"results/{name}"
