"""Replies of chat models, as models write them: which action they name, and which name none."""

from __future__ import annotations

import pytest

from qvlib.core.types import State, Task
from qvlib.environments.hotpotqa.environment import ADMISSIBLE
from qvlib.environments.hotpotqa.environment import parse as hotpotqa_action
from qvlib.environments.webshop.environment import parse as webshop_action
from qvlib.models.replies import parse, unparsable
from qvlib.models.templates import thought_end
from qvlib.models.thoughts import action_tokens

LISTED = ("search[<keywords>]", "click[b00e]", "click[buy now]")


def at(*admissible: str) -> State:
    return State(Task("t", "find me a lamp"), "Shop", admissible=admissible or None)


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (" click[buy now]", "click[buy now]"),
        ("Thought: hm\nAction: search[red: shirt]", "search[red: shirt]"),
        ("**Action**: click[b]", "click[b]"),
        ("Action 2: click[b]", "click[b]"),
        ("I will look.\nsearch[lamp]", "search[lamp]"),
        ("search[a\nb]", "search[a\nb]"),
        ("Action:\n", "Action:"),
        ("buy the red one", "buy the red one"),
        ("", ""),
        # An invented future: the first action counts.
        ("Action: search[a]\nObservation: none\nAction: click[b]", "search[a]"),
        ("Action: search[a]\nObservation: none\nThought: buy.\nAction: click[b]", "search[a]"),
        ("Action: search[a]\n\n**Observation 1:** none\nclick[b]", "search[a]"),
        (" search[a]\nObservation: a lamp", "search[a]"),
        (" open fridge\nObservation: it is open", "open fridge"),
        ("Action: search[a]\nAction: click[b]", "search[a]"),
        # Marks and quotes.
        ("Action: `search[desk lamp]`", "search[desk lamp]"),
        ('**Action:** "search[x]"', "search[x]"),
        ("Action: **search[x]**", "search[x]"),
        ("**Action: open fridge**", "open fridge"),
        ("Action: 'open fridge'", "open fridge"),
        ("Action: “search[x]”", "search[x]"),
        ("Action:\n```\nsearch[x]\n```", "search[x]"),
        ("Action:\n```text\nopen fridge\n```", "open fridge"),
        ("Action:\nopen fridge", "open fridge"),
        ("### Action: search[x]", "search[x]"),
        ("> Action: search[x]", "search[x]"),
        ("1. Action: search[x]", "search[x]"),
        ("2) **Action 1:** search[x]", "search[x]"),
        ("- Action: search[x]", "search[x]"),
        ("* search[x]", "search[x]"),
        ("Action：search[x]", "search[x]"),
        ("Action: finish[yes].", "finish[yes]"),
        ("finish[yes].", "finish[yes]"),
        ("Action: search[x]\r\n", "search[x]"),
        ("Action: open fridge\r\nObservation: x", "open fridge"),
        ("Action: search[x]<|im_end|>", "search[x]"),
        ("Action: open fridge<|eot_id|>\n<|im_start|>user\nAction: no", "open fridge"),
        ("Action: open fridge</s>", "open fridge"),
        ("Action: click[12 oz [pack of 2]]", "click[12 oz [pack of 2]]"),
        # Thoughts.
        ("<think>\nAction: search[red] is too broad.\n</think>\n\nsearch[lamp]", "search[lamp]"),
        ("Action: search[red]?</think>\nAction: search[lamp]", "search[lamp]"),
        ("<think>a</think><think>Action: b</think>Action: click[c]", "click[c]"),
        ("[THINK]Or\nAction: search[a]?[/THINK]Action: click[b]", "click[b]"),
        ("◁think▷Or\nAction: search[a]?◁/think▷\nAction: click[b]", "click[b]"),
        ("<seed:think>Or\nAction: search[a]?</seed:think>Action: click[b]", "click[b]"),
        ("<think time=3>\nAction: search[a]\n</think>\nAction: click[b]", "click[b]"),
        ("<scratchpad>\nAction: search[a]\n</scratchpad>\nAction: click[b]", "click[b]"),
        (
            "<|begin_of_thought|>\nAction: search[a]\n<|end_of_thought|>\n"
            "<|begin_of_solution|>\nopen fridge\n<|end_of_solution|>",
            "open fridge",
        ),
        (
            "<|channel|>analysis<|message|>Or\nAction: search[a]?<|end|><|start|>assistant"
            "<|channel|>final<|message|>Action: click[b]<|return|>",
            "click[b]",
        ),
        ("<|channel|>final <|constrain|>json<|message|>Action: click[b]", "click[b]"),
        # The input of an action on a line of its own.
        ("Thought: hm\nAction: search\nAction Input: desk lamp", "search[desk lamp]"),
        ('Action: Finish\r\nAction Input: "yes"\r\nObservation: x', "Finish[yes]"),
        ("**Action:** `search`\n**Action Input:** `desk lamp`\n", "search[desk lamp]"),
        ("Action: search[a]\nAction Input: b", "search[a]"),
        # Further words on its line.
        ("Action: click[b] (since it is red)", "click[b]"),
        ("Action: finish[yes] because [1] says so", "finish[yes]"),
        ("**Action:** `search[a [b]]`, then click[buy now]", "search[a [b]]"),
        ("Action: search[size [x] or y", "search[size [x] or y"),
        ("Action: search[a] b]", "search[a] b]"),
        ("Action: open fridge (to look)", "open fridge (to look)"),
        # Marks that nobody sees.
        ("\u200bAction: \u200bclick[buy now]\u200b", "click[buy now]"),
        ("\ufeffAction: open\u00ad fridge\u2060", "open fridge"),
        ("Thought: I see it. Action: Search[Kiel Canal (Germany)]", "Search[Kiel Canal (Germany)]"),
        ("Thought: the door is shut. Action: open door", "open door"),
        ("Thought: the Action: search[red] was too broad.\nsearch[lamp]", "search[lamp]"),
        ("Thought: Action: search[a] or not?\nAction: click[b]", "click[b]"),
    ],
)
def test_what_a_reply_means(reply, action):
    assert parse(reply) == action


@pytest.mark.parametrize(
    ("reply", "admissible", "action"),
    [
        ("Action 1: Search[Some Title]", ADMISSIBLE, "search[Some Title]"),
        ("Finish[yes].", ADMISSIBLE, "finish[yes]"),
        ("Action: LOOKUP[Born]", ADMISSIBLE, "lookup[Born]"),
        ("Click[E000120xxx]", LISTED, "click[E000120xxx]"),
        ("Click[B00E]", LISTED, "click[b00e]"),
        ("Search[Desk Lamp]", LISTED[1:], "search[Desk Lamp]"),  # works though it is not listed
        ("Action: Open  Fridge.", ("open fridge", "look"), "open fridge"),
        ("Action: click[a\u200bb]", ("click[a\u200bb]",), "click[a\u200bb]"),
        ("go[north]", ("Go[north]", "Go[south]"), "Go[north]"),
        ("take[key]", ("Go[north]", "Take[<thing>]"), "Take[key]"),
        ("Take[key]", ("Go[north]", "Take[<thing>]"), "Take[key]"),
        ("Take[key]", ("Go[north]",), "Take[key]"),
        ("Take[key]", (), "Take[key]"),
    ],
)
def test_the_action_is_written_as_the_environment_lists_it(reply, admissible, action):
    assert parse(reply, at(*admissible)) == action


@pytest.mark.parametrize(
    "thought",
    ["I need to find the canal.", "It does not say where: the page is too short.", "So, 1,800 m."],
)
@pytest.mark.parametrize(
    "action",
    [
        "Search[Colorado orogeny]",
        "Lookup[eastern sector]",
        "Search[High Plains]",
        "Search[High Plains (United States)]",
        "Finish[1,800 to 7,000 ft]",
        "Search[Guitars for Wounded Warriors]",
        "Search[New Paltz (village), New York]",
        "Finish[Ulster County]",
        "Search[Milhouse]",
        "Lookup[named after]",
        "Finish[President Richard Nixon]",
    ],
)
def test_the_example_replies_of_the_published_prompt_are_read(thought, action):
    """Thought and action on one line, verbs with a capital."""
    reply, state = f"Thought: {thought} Action: {action}", at(*ADMISSIBLE)
    verb, argument = hotpotqa_action(parse(reply, state))
    assert (verb.capitalize(), argument) == (action.split("[")[0], action.split("[")[1][:-1])
    assert not unparsable(reply, state)


def test_the_example_replies_of_the_published_shop_are_read():
    for reply in ("Thought: I think ...\nAction: click[Buy Now]", "Action: Click[Buy Now]"):
        assert webshop_action(parse(reply, at(*LISTED))) == ("click", "buy now")


@pytest.mark.parametrize(
    ("reply", "admissible", "begun", "named"),
    [
        (" click[buy now]", ("click[buy now]",), True, True),
        (" click[gone]", ("click[buy now]",), True, True),
        ("Thought: hm\nAction: wait", None, False, True),
        (" let me think", ("search[<keywords>]",), True, False),
        (" Open  Fridge", ("open fridge", "look"), True, True),
        (" open door", ("open fridge", "look"), True, False),
        ("open fridge", ("open fridge",), False, True),
        (" open fridge", None, True, True),
        ("open fridge", None, False, False),
        (" open\nfridge", None, True, False),
        (" open fridge\nObservation: open", None, True, True),
        (" open fridge\nObservation: open", ("open fridge",), True, True),
        ("", None, True, False),
        ("Action:\n", (), True, False),
        ("<think>\nAction: search[red] is too broad", ("search[<keywords>]",), False, False),
        ("<think>Action: search[red]</think>", ("search[<keywords>]",), False, False),
        ("[THINK]\nAction: search[red] or", ("search[<keywords>]",), False, False),
        (
            "<|channel|>analysis<|message|>\nAction: search[red]",
            ("search[<keywords>]",),
            False,
            False,
        ),
    ],
)
def test_what_names_no_action(reply, admissible, begun, named):
    state = State(Task("t", "find me a lamp"), "Shop", admissible=admissible)
    assert unparsable(reply, state, begun) is not named


def test_a_thought_that_was_cut_off_is_no_action():
    reply = "<think>\nAction: search[red] is too broad, so I would rather try"
    assert webshop_action(parse(reply))[0] not in ("search", "click")


def letters(ids) -> str:
    """A tokenizer of a token a letter."""
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("before", "action", "after"),
    [
        ("Thought: hm\nAction: ", "search[a]", ""),
        ("<think>Action: search[a]?</think>\nAction: ", "search[a]", ""),
        ("[THINK]Action: click[b] or search[a]?[/THINK]Action: ", "search[a]", ""),
        ("<|channel|>analysis<|message|>search[a]<|channel|>final<|message|>", "search[a]", ""),
        ("", "search[a]", "\nObservation: none\nsearch[a]"),
        ("Action: ", "search[a]", "\nObservation: none\nAction: search[a]"),
        ("I will search[a].\n", "search[a]", ""),
    ],
)
def test_the_tokens_of_an_action_are_those_that_are_read_as_it(before, action, after):
    reply = before + action + after
    assert parse(reply) == action
    read = action_tokens(letters, list(map(ord, reply)), action)
    assert read == slice(len(before), len(before) + len(action))


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("<think>", "</think>"),
        ("<seed:think>", "</seed:think>"),
        ("<think time=3>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ],
)
def test_a_thought_that_a_prompt_opens_is_closed_by_the_mark_that_ends_it(begin, end):
    assert thought_end(f"user: hm{end}\n{begin}\n") == f"\n{end}\n\n"
    assert thought_end(f"{begin}hm{end}\n") == thought_end("hm") == ""
    assert parse(f"Action: wait{thought_end(begin)}Action: search[a]") == "search[a]"


def test_a_local_chat_model_plays_the_action_as_it_is_listed(monkeypatch):
    from test_chat import SEARCHED, told

    from qvlib.core.types import Request

    lm = told()
    monkeypatch.setattr(type(lm.tokenizer), "decode", lambda *_, **__: " `Click[Buy Now]`.")
    state = State(SEARCHED.task, "Shop", SEARCHED.history, ("click[buy now]",))
    (row,) = lm.agent(1.0, 1.0).propose([Request(state, 1, (0, "t", "0"))])
    assert (row[0].action, row[0].cost.unparsable) == ("click[buy now]", 0)
