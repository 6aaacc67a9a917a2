"""Small random models with real vocabularies and templates: prompted, sampled, scored, tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from chat_templates import (
    CHANNELS,
    CHATML,
    DEAF,
    GEMMA,
    LLAMA_2,
    LLAMA_3,
    MISTRAL,
    NEMO,
    QWEN_3,
    R1,
    TAGS,
)
from test_chat import OPENED, RULES, SEARCHED, after
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
)
from vocabularies import byte_level, sentence_pieces, unigram

from qvlib.agents.fine_tuning import transcripts
from qvlib.core.preferences import Pair
from qvlib.core.types import Request
from qvlib.estimators import step_dpo_loop
from qvlib.estimators.data import action_log_probs, encode_pairs
from qvlib.models.chat import Chat
from qvlib.models.loading import load_model
from qvlib.models.local import LocalModel, quiet
from qvlib.models.nucleus import Sample

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
llama, qwen2 = partial(LlamaConfig, **SIZES), partial(Qwen2Config, **SIZES)
mistral = partial(MistralConfig, **SIZES, sliding_window=None)
windowed = partial(MistralConfig, **SIZES, sliding_window=24)
phi3 = partial(Phi3Config, **SIZES, sliding_window=None)
phi = partial(PhiConfig, **SIZES, partial_rotary_factor=0.5)
gemma2 = partial(Gemma2Config, **SIZES, head_dim=8)
gpt2 = partial(GPT2Config, n_embd=16, n_layer=2, n_head=2, n_positions=1024)

HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TURNS = ("<start_of_turn>", "<end_of_turn>")
CHANNEL = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>")


@dataclass(frozen=True)
class Kind:
    """vocabulary: makes the tokenizer. bos: how often a prompt holds it, where it has one.

    rewrites: whether the template writes a reply otherwise once it is older.
    """

    vocabulary: object
    template: str | None
    config: object
    bos: int = 0
    rewrites: bool = False


KINDS = {
    "Llama 2": Kind(sentence_pieces, LLAMA_2, llama, bos=3),
    "Llama 2, a first blank alone": Kind(partial(sentence_pieces, legacy=False), LLAMA_2, llama, 3),
    "Mistral": Kind(sentence_pieces, MISTRAL, mistral, bos=1),
    "Mistral with a window": Kind(partial(sentence_pieces, legacy=False), MISTRAL, windowed, 1),
    "Nemo": Kind(sentence_pieces, NEMO, mistral, bos=1),
    "Phi-3": Kind(partial(sentence_pieces, *ROLES), TAGS, phi3),
    "SentencePiece, no template": Kind(sentence_pieces, None, llama, bos=1),
    "Gemma": Kind(partial(unigram, *TURNS), GEMMA, gemma2, bos=1),
    "Unigram, no template": Kind(unigram, None, llama),
    "Llama 3": Kind(partial(byte_level, *HEADERS, bos="<|begin_of_text|>"), LLAMA_3, llama, bos=1),
    "Qwen 2": Kind(byte_level, CHATML, qwen2),
    "Zephyr without a system": Kind(partial(byte_level, *ROLES), DEAF, llama),
    "Phi, no template": Kind(byte_level, None, phi),
    "GPT-2, no template": Kind(byte_level, None, gpt2),
    "Qwen 3": Kind(byte_level, QWEN_3, qwen2, rewrites=True),
    "R1": Kind(partial(byte_level, "<|User|>", "<|Assistant|>", bos="<|begin|>"), R1, qwen2, 1),
    "channels": Kind(partial(byte_level, *CHANNEL), CHANNELS, llama),
}
DECISIONS = [
    (after(), "search[red shirt]"),
    (SEARCHED, "click[b012345678]"),
    (OPENED, "click[Buy Now, 9.00]"),
]


def style(tokenizer, thoughts: bool = False) -> Chat:
    """How all are talked to."""
    return Chat(tokenizer, RULES, lambda task: f"Shop [SEP] {task.instruction}", thoughts=thoughts)


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def lm(kind, tmp_path_factory) -> LocalModel:
    """The model as it is loaded from a folder."""
    tokenizer, folder = kind.vocabulary(), tmp_path_factory.mktemp("model")
    tokenizer.chat_template = kind.template
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = kind.config(vocab_size=len(tokenizer), pad_token_id=tokenizer.eos_token_id, **ids)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 8  # a random model is nearly uniform
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_model(folder, chat=style, max_action_tokens=16)


def with_cache(lm: LocalModel) -> LocalModel:
    return LocalModel(lm.model, lm.tokenizer, lm.style, lm.max_action_tokens, cache_tokens=4000)


def alone(lm: LocalModel, prompt, reply) -> float:
    """Log-probability of a reply by one plain pass over the conversation."""
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([prompt + reply])).logits[0].double()
    told = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return float(told.gather(1, torch.tensor(reply)[:, None]).sum())


def test_the_rules_are_told_once_and_a_text_begins_once(lm, kind):
    prompt, ids = lm.prompt(OPENED)
    assert prompt.text.count(RULES) == 1 and prompt.text.endswith("Action:")
    assert prompt.text.index(RULES) < prompt.text.index("Task: find me a red cotton shirt")
    if lm.tokenizer.bos_token_id is not None:
        assert ids.count(lm.tokenizer.bos_token_id) == kind.bos
    assert kind.bos == 0 or ids[0] == lm.tokenizer.bos_token_id


def test_a_reply_has_the_tokens_it_has_in_its_place(lm, kind):
    """A prompt and its reply are how the next prompt begins, in text and in tokens."""
    for (state, action), (after_it, _) in pairwise(DECISIONS):
        prompt, ids = lm.prompt(state)
        reply = lm.action_ids(prompt, action)
        whole = lm.tokenizer(prompt.text + prompt.encode(action), add_special_tokens=False)
        assert whole["input_ids"] == [*ids, *reply][: len(whole["input_ids"])]
        assert len(ids) + len(reply) - len(whole["input_ids"]) <= 2  # its end, a blank before it
        assert not kind.rewrites or "<think>\n\n</think>" in prompt.text
        if not kind.rewrites:
            assert lm.prompt(after_it)[1][: len(ids) + len(reply)] == ids + reply


def test_an_episode_is_one_row_to_learn_from(lm, kind):
    rows = list(transcripts(lm, DECISIONS))
    assert len(rows) == (len(DECISIONS) if kind.rewrites else 1)
    learnt = [i for row in rows for i, own in zip(row.ids, row.own, strict=True) if own]
    scored = [i for state, action in DECISIONS for i in lm.action_ids(lm.prompt(state)[0], action)]
    assert learnt == scored


def test_scores_from_kept_caches_are_those_of_plain_passes(lm, kind):
    shared = with_cache(lm)
    actions = ["search[red shirt]", "click[Buy Now, 9.00]", "open door"]
    for state, _ in DECISIONS:
        prompt, ids = shared.prompt(state)
        replies = [shared.action_ids(prompt, action) for action in actions]
        np.testing.assert_allclose(
            shared.log_probs([ids], [replies])[0],
            [alone(lm, ids, reply) for reply in replies],
            atol=2e-4,
        )
    if not kind.rewrites and kind.config is not windowed:
        longest = len(lm.prompt(OPENED)[1])
        assert shared.usage["computed_prompt_tokens"] < longest + 80  # not once a step


def test_the_likelihood_of_a_sample_is_its_score(lm, monkeypatch):
    """Whoever draws the tokens of an action is told that action, and its score."""
    state, action = DECISIONS[1]
    prompt, ids = lm.prompt(state)
    wanted = lm.action_ids(prompt, action)

    def step(self, nucleus):
        i = int(np.flatnonzero(nucleus.tokens == wanted[len(self.ids)])[0])
        self.ids = (*self.ids, int(nucleus.tokens[i]))
        self.log_probs.append(float(nucleus.log_probs[i]))
        self.log_prob += self.log_probs[-1]

    other = with_cache(lm)
    other.max_action_tokens = 40
    monkeypatch.setattr(Sample, "step", step)
    (drawn,) = other.agent(1.0, 1.0).propose([Request(state, 1, (0, "t", "0"))])[0]
    assert (drawn.action, drawn.cost.unparsable) == (action, 0)
    assert drawn.cost.tokens == len(wanted)
    assert drawn.log_prob == pytest.approx(alone(lm, ids, wanted), abs=2e-4)


def test_what_is_trained_is_what_is_scored(lm):
    pairs = [Pair("t", "0", (), a, "open door", 1, 0, 1, 1) for _, a in DECISIONS]
    rows = encode_pairs(lm, [state for state, _ in DECISIONS], pairs)
    prompts = [row.prompt for row in rows]
    scores = np.array(lm.log_probs(prompts, [[r.chosen, r.rejected] for r in rows]))
    both = [(r.prompt, a) for r in rows for a in (r.chosen, r.rejected)]
    with torch.no_grad():
        plain = action_log_probs(lm.model, both, "sum", lm.end).view(-1, 2)
    np.testing.assert_allclose(plain, scores, atol=5e-4)


def test_the_loop_begins_at_the_scores(lm, kind):
    if kind not in (KINDS["Llama 2"], KINDS["R1"]):
        return  # two are enough: what packed rows do to architectures is tested elsewhere
    pairs = [Pair("t", "0", (), a, "open door", 1, 0, 1, 1) for _, a in DECISIONS]
    rows = encode_pairs(lm, [state for state, _ in DECISIONS], pairs)
    scores = lm.log_probs([r.prompt for r in rows], [[r.chosen, r.rejected] for r in rows])
    how = {"beta": 0.1, "lr": 1e-2, "epochs": 1, "batch": 3, "rule": "sum", "seed": 0}
    _, curve = step_dpo_loop.train(lm, rows, (), **how)
    assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    chosen, rejected = np.mean(scores, axis=0)
    assert curve[0]["log_prob_chosen"] == pytest.approx(chosen, abs=1e-3)
    assert curve[0]["log_prob_rejected"] == pytest.approx(rejected, abs=1e-3)
