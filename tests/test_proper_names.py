"""Names as aliases: found, shown again as they were, and stable while a text grows."""

from dataclasses import replace

import pytest

from qvlib.core.types import Request, State, Step, Task
from qvlib.environments import hotpotqa
from qvlib.environments.hotpotqa.generator import write_encyclopaedia
from qvlib.environments.hotpotqa.reader import Reader
from qvlib.models.prompts import ACT, compact
from qvlib.models.proper_names import MOST, Names
from qvlib.models.small import Demonstration, _encode, train_tokenizer


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Who directed The Silver Garden?", "Who directed #1?"),
        ("The film stars Ann Moor. It is set in Arl.", "The film stars #1. It is set in #2."),
        (
            "Did Ann Moor and Bob Lane study at the University of Arl?",
            "Did #1 and #2 study at the #3?",
        ),
        (
            "The University of Arl is in Arl. Ann's town is not the University of Arl.",
            "#1 is in #2. #3's town is not the #1.",
        ),
        (
            "Could not find [Moor]. Similar: ['Ann Moor', 'The Moor'].",
            "Could not find [#1]. Similar: ['#2', '#1'].",
        ),
        ("In which year was it founded?", "In which year was it founded?"),
        ("Jean-Luc Éluard was born in 1901.", "#1 was born in 1901."),
    ],
)
def test_what_is_a_name(text, hidden):
    names = Names()
    assert names.read(text).replace(" ", "") == hidden.replace(" ", "")
    assert names.hide(text) == names.read(text)  # nothing new the second time


def test_an_alias_is_shown_as_the_name_that_was_read_first():
    names = Names()
    names.read("It was made by The Bell of Arl, in Arl.")
    assert (
        names.show("search #1") == "search The Bell of Arl"
        and names.show("finish #2, #3") == "finish Arl, #3"
    )
    assert (
        names.hide("search[Bell of Arl]") == "search[ #1]"
        and names.hide("search[Bell]") == "search[Bell]"
    )


def test_names_beyond_the_last_alias_stay():
    names = Names()
    text = names.read(", ".join(f"Ann{i:03d}" for i in range(MOST + 2)))
    assert (
        f"#{MOST}," in text
        and f"Ann{MOST:03d}, Ann{MOST + 1:03d}" in text
        and len(names.aliases) == MOST
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    write_encyclopaedia(folder, 400, 0)
    return hotpotqa.build(folder)


def walks(environment, count):
    """The states and actions of readers that err, an episode each."""
    for task in environment.tasks("train")[:count]:
        state, steps = environment.reset(task), []
        while not state.done and len(steps) < environment.max_steps:
            ((proposal,),) = Reader(environment).propose(
                [Request(state, 1, (3, task.id, str(len(steps))))]
            )
            steps.append(Demonstration(state, proposal.action))
            state = environment.step(state, proposal.action)
        yield steps


def test_a_transcript_starts_with_the_one_before_and_its_reply(environment):
    for steps in walks(environment, 40):
        prompts = [compact(d.state) for d in steps]
        for d, before, after in zip(steps, prompts, prompts[1:], strict=False):
            assert after.text.startswith(f"{before.text}{before.encode(d.action)}<end>")


def test_an_episode_is_one_row_with_a_loss_on_each_action(environment):
    for steps in walks(environment, 20):
        tokenizer = train_tokenizer(steps, 400)
        ((ids, on_action),) = _encode(tokenizer, steps)
        replies = [compact(d.state).encode(d.action) for d in steps]
        learnt = tokenizer.decode(
            [i for i, is_action in zip(ids, on_action, strict=True) if is_action]
        )
        assert learnt == "".join(f"{reply}<end>" for reply in replies)
        assert tokenizer.decode(ids).count(ACT) == len(steps)


def test_no_name_is_left_in_a_prompt_of_the_encyclopaedia(environment):
    """Whoever is asked about: none of the names in a title, but for what its actions misspell."""
    for task in environment.tasks("test")[:40]:
        text = compact(environment.reset(task)).text
        for title in task.goal.titles:
            assert (
                title.removeprefix("The ").lower() not in text
                or title.lower() not in task.instruction.lower()
            )


def test_actions_that_a_world_does_not_list_stay_as_they_are():
    """Nothing tells a command of several words from ``verb[argument]`` there."""
    state = State(
        Task("t", "Go out."),
        "A Hall with a door.",
        (Step("open door to hall", "A Hall with a door."),),
    )
    for action in ("open door to kitchen", "search[red hall]", "look"):
        prompt = compact(state)
        assert prompt.decode(prompt.encode(action)) == action
    assert "open door to hall<end>" in prompt.text
    listed = compact(replace(state, admissible=("search[<words>]",)))
    assert (
        listed.decode(listed.encode("search[red hall]")) == "search[red hall]"
        and listed.encode("search[red]") == " search red"
    )
