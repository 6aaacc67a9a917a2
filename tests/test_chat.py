"""Conversations: what a model reads, what is left out, what a reply means, what the loss sees."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from tokenizers import AddedToken
from toy import small_lm, states

from qvlib.core.preferences import Pair
from qvlib.core.types import Request, State, Step, Task
from qvlib.estimators.data import encode_pairs
from qvlib.models.chat import Chat, page
from qvlib.models.local import LocalAgent, LocalModel
from qvlib.models.nucleus import Sample
from qvlib.models.prompts import END
from qvlib.models.templates import PLAIN, ending

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TAGS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
TEMPLATES = {
    "plain": (PLAIN, END),
    "chatml": (CHATML, "<|im_end|>"),
    "headers": (HEADERS, "<|eot_id|>"),
    "tags": (TAGS, "<|end|>"),
    "no system": (NO_SYSTEM, "<end_of_turn>"),
}
RULES = "You are shopping. Actions: search[keywords], click[value]."


def told(template: str = "chatml", **options) -> LocalModel:
    """A small random model that reads conversations by a template."""
    base = reading(template)
    style = Chat(
        base.tokenizer,
        RULES,
        lambda task: f"Shop [SEP] {task.instruction} [SEP] Search all of our many lamps and shirts",
        **options,
    )
    return LocalModel(base.model, base.tokenizer, style, max_action_tokens=8)


@functools.cache
def reading(template: str) -> LocalModel:
    """The model and a tokenizer that knows the template's tokens."""
    base = small_lm("float32")
    text, end = TEMPLATES[template]
    base.tokenizer.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken(t, special=True, normalized=False)
                for t in (
                    "<|im_start|>",
                    "<|start_header_id|>",
                    "<|end_header_id|>",
                    "<|user|>",
                    "<|assistant|>",
                    "<|system|>",
                    end,
                )
            ]
        }
    )
    base.tokenizer.chat_template = text
    base.model.resize_token_embeddings(len(base.tokenizer), mean_resizing=False)
    return base


def after(*steps: tuple[str, str]) -> State:
    task = Task("t", "find me a red cotton shirt", "g")
    history = tuple(Step(action, seen) for action, seen in steps)
    return State(task, history[-1].observation if history else "Shop", history)


SHIRTS = (
    "Instruction: [SEP] find me a red cotton shirt [SEP] b012345678 [SEP] red cotton shirt "
    "[SEP] $9.0"
)
ITEM = "Instruction: [SEP] find me a red cotton shirt [SEP] red cotton shirt [SEP] Buy Now"
SEARCHED = after(("search[red shirt]", SHIRTS))
OPENED = after(("search[red shirt]", SHIRTS), ("click[b012345678]", ITEM))


def test_a_conversation_is_the_rules_the_task_and_what_was_done_and_seen():
    text = told().style(OPENED).text
    assert text == (
        "<|im_start|>system\nYou are shopping. Actions: search[keywords], click[value].\n"
        "Reply with `Action: ` and one action, nothing else.<|im_end|>\n"
        "<|im_start|>user\nTask: find me a red cotton shirt\n"
        "Observation: Shop\nSearch all of our many lamps and shirts<|im_end|>\n"
        "<|im_start|>assistant\nAction: search[red shirt]<|im_end|>\n"
        "<|im_start|>user\nObservation: b012345678\nred cotton shirt\n$9.0<|im_end|>\n"
        "<|im_start|>assistant\nAction: click[b012345678]<|im_end|>\n"
        "<|im_start|>user\nObservation: red cotton shirt\nBuy Now<|im_end|>\n"
        "<|im_start|>assistant\nAction:"
    )


def test_a_model_that_knows_the_rules_is_told_only_how_to_reply():
    lm = told()
    text = replace(lm.style, instructions="")(OPENED).text
    assert text == lm.style(OPENED).text.replace(
        "You are shopping. Actions: search[keywords], click[value].\n", ""
    )


def test_with_thoughts_the_model_writes_the_whole_reply():
    prompt = told(thoughts=True).style(SEARCHED)
    assert prompt.text.endswith("<|im_start|>assistant\n") and "`Thought: `" in prompt.text
    assert prompt.decode(prompt.encode("click[x]")) == "click[x]"
    assert prompt.decode("Thought: it fits, Action wise.\nAction: click[x: y]\n") == "click[x: y]"


def test_examples_come_before_the_task_and_end_with_their_last_action():
    text = told(examples=(OPENED,)).style(after()).text
    assert (
        text.count("Task: ") == 2
        and "Action: click[b012345678]<|im_end|>\n<|im_start|>user\nTask: " in text
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_starts_with_the_prompt_and_action_before_it(template):
    lm = told(template)
    chain = [after(), SEARCHED, OPENED]
    prompts = [lm.prompt(state) for state in chain]
    for (before, ids), (_, longer), state in zip(prompts, prompts[1:], chain[1:], strict=False):
        reply = lm.action_ids(before, state.history[-1].action)
        assert longer[: len(ids) + len(reply)] == ids + reply
        whole = lm.tokenizer(
            before.text + before.encode(state.history[-1].action), add_special_tokens=False
        )["input_ids"]
        assert (
            tuple(whole) == ids + reply[:-1]
        )  # text cut at the reply gives the same tokens as the whole


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_loss_sees_the_action_and_its_end_alone(template):
    lm = told(template)
    pair = Pair("t", "0", ("search[red shirt]",), "click[b012345678]", "click[buy now]", 1, 0, 1, 1)
    (row,) = encode_pairs(lm, [SEARCHED], [pair])
    end = TEMPLATES[template][1]
    assert (
        lm.tokenizer.decode(row.chosen) == f" click[b012345678]{end}"
        and lm.tokenizer.decode(row.rejected) == f" click[buy now]{end}"
    )
    assert ending(lm.tokenizer)[1] == lm.tokenizer.convert_tokens_to_ids(end) == lm.end


def test_a_reply_ends_at_the_turn_or_wherever_the_model_may_end(monkeypatch):
    lm = told("tags")
    monkeypatch.setattr(lm.model.generation_config, "eos_token_id", [lm.tokenizer.eos_token_id, 7])
    assert replace(lm).ends == {lm.end, lm.tokenizer.eos_token_id, 7}


# -- replies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("thoughts", [False, True])
def test_replies_that_name_no_action_are_counted(thoughts, monkeypatch):
    lm = told(thoughts=thoughts)
    said = {(1, lm.end): " click[buy now]", (2, lm.end): " no idea", (3, lm.end): " look"}
    samples = [Sample(0, k, None) for k in range(len(said))]
    for sample, ids in zip(samples, said, strict=True):
        sample.ids, sample.log_probs, sample.log_prob = ids, [-1.0] * len(ids), -2.0
    monkeypatch.setattr(LocalModel, "samples", lambda *_: [samples])
    monkeypatch.setattr(
        type(lm.tokenizer), "decode", lambda _, ids, **__: said.get((*ids, lm.end), "")
    )
    asked = Request(replace(after(), admissible=("look", "click[x]")), 3, (0, "t", "0"))
    assert [(p.action, p.cost.unparsable) for p in lm.agent(1.0, 1.0).propose([asked])[0]] == [
        ("click[buy now]", 0),
        ("no idea", 1),
        ("look", 0),
    ]
    asked = replace(asked, state=replace(asked.state, admissible=None))
    assert [p.cost.unparsable for p in lm.agent(1.0, 1.0).propose([asked])[0]] == (
        [0, 1, 1] if thoughts else [0, 0, 0]
    )


def test_two_tasks_of_one_instruction_have_each_their_own_beginning():
    lm = told()
    lm.style = replace(lm.style, first=lambda task: f"Room {task.id}")
    both = [replace(OPENED, task=replace(OPENED.task, id=name)) for name in ("a", "b")]
    assert [f"Room {name}" in lm.prompt(state)[0].text for name in "ab" for state in both] == [
        True,
        False,
        False,
        True,
    ]


def test_the_compact_style_counts_none():
    agent = small_lm().agent(1.0, 1.0)
    assert {
        p.cost.unparsable
        for row in agent.propose([Request(s, 4, (0, s.task.id, "0")) for s in states(4)])
        for p in row
    } == {0}


def test_a_page_leaves_out_the_instruction():
    task = Task("t", "find me a lamp")
    assert page("Instruction: [SEP] find me a lamp [SEP] Back [SEP] lamp", task) == "Back\nlamp"
    assert (
        page("You are in a kitchen.\nA lamp is here.", task)
        == "You are in a kitchen.\nA lamp is here."
    )


# -- what is left out ---------------------------------------------------------------------------


def shown(state: State, budget: int, **options) -> str:
    return told(budget=budget, **options).style(state).text


def tokens(text: str) -> int:
    return told().style.length(text)


def test_signs_of_several_tokens_count_as_such():
    """A sign is up to four tokens here: fewer characters than the budget may be too many tokens."""
    state = after(
        ("search[\N{TEACUP WITHOUT HANDLE}]", "\n".join(["\N{TEACUP WITHOUT HANDLE}" * 10] * 30))
    )
    whole = shown(state, 10_000)
    budget = len(whole) + 10
    assert tokens(whole) > budget >= tokens(shown(state, budget))


def test_old_observations_go_first_then_steps_then_the_newest_loses_its_last_lines():
    whole = shown(OPENED, 10_000)
    lengths, last = [], whole
    for budget in range(tokens(whole), 40, -1):
        text = shown(OPENED, budget)
        if text == last:
            continue
        lengths.append(tokens(text))
        last = text
        assert "Task: find me a red cotton shirt" in text and text.endswith(
            "<|im_start|>assistant\nAction:"
        )
        for line in text.splitlines():  # whole or not at all
            assert not line.startswith("Action: ") or line.removesuffix("<|im_end|>")[8:] in {
                s.action for s in OPENED.history
            }
    assert lengths == sorted(lengths, reverse=True)
    one = shown(OPENED, tokens(whole) - 1)
    assert (
        "Observation: (left out)" in one and "$9.0" in one and "Search all" not in one
    )  # the oldest page went
    two = shown(OPENED, tokens(one) - 1)
    assert "$9.0" not in two and "Buy Now" in two and "search[red shirt]" in two
    three = shown(OPENED, tokens(two) - 1)
    assert "search[red shirt]" not in three and "click[b012345678]" in three and "Buy Now" in three
    four = shown(OPENED, tokens(three) - 1)
    assert "Buy Now" not in four and "red cotton shirt<|im_end|>" in four


def test_examples_go_before_the_newest_observation_is_cut():
    text = shown(OPENED, tokens(shown(OPENED, 10_000)) - 30, examples=(OPENED,))
    assert text.count("Task: ") == 1 and "Buy Now" in text


@pytest.mark.parametrize("cache_tokens", [0, 5000])
def test_replies_are_the_same_alone_and_in_a_batch(cache_tokens):
    lm = told()
    shops = [
        replace(
            s,
            history=s.history
            and (*s.history[:-1], replace(s.history[-1], observation=s.observation)),
        )
        for s in states(5)
    ]
    agent = LocalAgent(replace(lm, cache_tokens=cache_tokens), 1.0, 0.9)
    asked = [Request(s, 3, (0, s.task.id, "0")) for s in shops]
    together = agent.propose(asked)
    agent.lm.forget()
    alone = [LocalAgent(replace(lm, cache_tokens=0), 1.0, 0.9).propose([r])[0] for r in asked]
    for row, other in zip(together, alone, strict=True):
        assert [p.action for p in row] == [p.action for p in other]
        assert [p.log_prob for p in row] == pytest.approx([p.log_prob for p in other], abs=1e-4)
