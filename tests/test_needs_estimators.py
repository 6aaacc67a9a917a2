"""What fitting each estimator takes: GPU memory and tokens, by hand."""

import pytest
from needing import FILE, LENGTHS, PHI, finished

from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings
from qvlib.estimators import ESTIMATORS, Estimator
from qvlib.pipeline.params import make
from qvlib.tools import needs
from qvlib.tools.needs import parts
from qvlib.tools.needs.fitting import SAYS, epochs, fitting
from qvlib.tools.needs.gpu_memory import memory

OWN = Estimator("told", Settings, lambda *_: None, lambda *_: None, values=True)
P, LAYERS, WIDTH = 1_418_270_720, 24, 2048  # of Phi-1.5
LINEAR, TWO = WIDTH + 1, WIDTH * 64 + 64 + 64 + 1  # a head of one layer, and of 64 between two
TOKEN = 27 * LAYERS * WIDTH * 4  # kept for the pass backward
CALL = 2 * LAYERS * WIDTH * 4 * 4000  # keys and values of a call of four prompts
GIVEN = {
    "agent": PHI,
    "q_base": PHI,
    "other_demonstrations": 0,
    "dtype": "bfloat16",
    "prompt_tokens": 900,
    "max_action_tokens": 100,
    "batch_size": 4,
    "expand_n": 5,
    "max_steps": 5,
    "control_shuffles": 2,
}


@pytest.mark.parametrize(
    ("given", "weights", "trained", "working"),
    [
        # model and head, and the reference beside them, which no pass reads: eight states of a
        # prompt with five actions pass as 8,192 tokens, two as 2,800
        ({"estimator": "agentrm"}, 2 * P + LINEAR, P + LINEAR, TOKEN * 8192),
        ({"estimator": "agentrm", "fit_batch": 2}, 2 * P + LINEAR, P + LINEAR, TOKEN * 2800),
        (
            {"estimator": "hl_gauss", "fit_batch": 1},
            2 * P + 51 * LINEAR,
            P + 51 * LINEAR,
            TOKEN * 1400,
        ),
        ({"estimator": "bradley_terry", "fit_batch": 3}, 2 * P + LINEAR, P + LINEAR, TOKEN * 6000),
        # all five steps of a path at once
        ({"estimator": "pqm", "fit_batch": 1}, 2 * P + LINEAR, P + LINEAR, TOKEN * 5000),
        # below the head nothing is trained: the model is read as it is played
        (
            {"estimator": "agentrm", "features": "frozen", "head_width": 64},
            P + TWO,
            TWO,
            CALL,
        ),
        # policy, value and reference
        ({"estimator": "oreo"}, 3 * P + LINEAR, 2 * P + LINEAR, 2 * TOKEN * 8192),
        ({"estimator": "oreo", "max_steps": 9}, 3 * P + LINEAR, 2 * P + LINEAR, 2 * TOKEN * 9000),
        # four critics with their target networks, which hold the tuned model too
        ({"estimator": "archer"}, 3 * P + 8 * TWO, P + 4 * TWO, TOKEN * 8192),
        ({"estimator": "digi_q"}, P + 8 * TWO, 4 * TWO, CALL),
        ({"estimator": "trajectory_dpo"}, 2 * P, P, TOKEN * 10_000),
        ({"estimator": "rebel", "dpo_batch": 2}, 2 * P, P, TOKEN * 4000),
        ({"estimator": "llm_value"}, P, 0, CALL),
    ],
)
def test_memory_of_training_by_hand(given, weights, trained, working):
    found = memory(make({**GIVEN, **given}))["training Q"]
    assert found["weights"] == 4 * weights
    assert found["training"] == 3 * 4 * trained
    assert found["working"] == working


@pytest.mark.parametrize(
    ("given", "each"),
    [
        ({"estimator": "step_dpo"}, P),
        ({"estimator": "agentrm"}, P + LINEAR),
        ({"estimator": "agentrm", "features": "frozen"}, LINEAR),
        ({"estimator": "oreo"}, P + LINEAR),
        ({"estimator": "archer"}, P + 4 * TWO),
        ({"estimator": "llm_value"}, 0),
    ],
)
def test_memory_of_playing_is_the_reference_and_what_each_q_model_keeps(given, each):
    """The Q model and two controls; the agent is in bfloat16, they are in float32."""
    found = memory(make({**GIVEN, **given}))["playing"]
    assert found["weights"] == 2 * P + 4 * (P + 3 * each) and found["training"] == 0


# 7.5 states of a tree of 30 iterations are expanded, 30 actions visited, 22.5 of them at an end
STATES, VISITED, LEAVES = 7.5, 30, 22.5


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"estimator": "step_dpo"}, 4 * (1000 + 2 * 10) * 4 * 4),  # four pairs, four models
        ({"estimator": "rebel", "dpo_epochs": 2}, 4 * 1020 * (3 * 2 + 1) * 4),
        ({"estimator": "trajectory_dpo"}, 2 * 3 * 1010 * 4 * 4),
        ({"estimator": "agentrm"}, (STATES * 1000 + VISITED * 10) * 3 * 4),
        ({"estimator": "archer"}, (STATES * 1000 + VISITED * 10) * 5 * 2 * 4),
        ({"estimator": "pqm"}, LEAVES * 3 * 1010 * 3 * 4),
        ({"estimator": "oreo"}, LEAVES * 3 * 1010 * 7 * 4),
        ({"estimator": "digi_q"}, VISITED * 1010),  # once for the Q model and its controls
        ({"estimator": "llm_value"}, 0),
    ],
)
def test_tokens_of_training_by_hand(tmp_path, given, read):
    file = {k: v for k, v in FILE.items() if k != "trainer"} | given
    run = needs.measured(finished(tmp_path), make(file))
    found = {row.part: row for row in needs.tokens(make(file), run, LENGTHS)}
    assert found["training Q and controls"].q == pytest.approx(200 * read)


def test_a_log_ratio_is_read_by_two_models_and_a_head_by_one(tmp_path):
    file = {k: v for k, v in FILE.items() if k != "trainer"}
    run = needs.measured(finished(tmp_path), make(file))
    ratio, head = (
        {row.part: row for row in needs.tokens(make({**file, "estimator": e}), run, LENGTHS)}
        for e in ("step_dpo", "agentrm")
    )
    assert ratio["arm q_n5"].q == 2 * head["arm q_n5"].q > 0
    assert head["scoring pairs"].q == 20 * 60 * 2 * (1000 + 2 * 10)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_of_the_list_is_known(name):
    params = make({**GIVEN, "estimator": name})
    told = memory(params)["training Q"]
    assert told["weights"] >= 4 * P and fitting(params).reads in SAYS
    assert bool(told["training"]) == (name != "llm_value")
    assert bool(epochs(params)) == (name != "llm_value")


def test_one_of_ones_own_is_not():
    params = make({**GIVEN, "estimator": f"{__name__}:OWN"})
    with pytest.raises(QvlibError, match="what fitting one of your own takes is not known"):
        memory(params)
    assert epochs(params) == 1


def test_tokens_of_a_lora_are_those_of_the_model(tmp_path):
    """Its memory is less, see test_needs; its passes are as long."""
    run = needs.measured(finished(tmp_path), make(FILE))
    whole, lora = (make({**FILE, "lora_rank": rank}) for rank in (0, 8))
    assert parts.training(whole, run, LENGTHS) == parts.training(lora, run, LENGTHS)
