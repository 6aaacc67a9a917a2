"""HotPotQA's rules row by row, and its states as values."""

import copy

import pytest

from qvlib.base.errors import QvlibError
from qvlib.environments.hotpotqa import build
from qvlib.environments.hotpotqa.environment import ADMISSIBLE, Reading


@pytest.fixture
def world(hotpot, write):
    return build(write(hotpot))


@pytest.fixture
def task(world):
    return next(t for tasks in world.splits.values() for t in tasks if t.id == "hotpotqa-q1")


def walk(world, task, *actions):
    state = world.reset(task)
    for action in actions:
        state = world.step(state, action)
    return state


def shows(world, task, *actions):
    return walk(world, task, *actions).observation


FILM = (
    "The Bell is a film directed by Ann Moor. It was shot in Arl. It runs long. Its score is loud. "
    "Arl liked it."
)


def test_an_episode(world, task):
    state = world.reset(task)
    assert (
        state.observation == "Question: Where was the director of The Bell born?"
        and state.admissible == ADMISSIBLE
    )
    state = walk(world, task, "search[The Bell]", "search[Ann Moor]")
    assert (state.depth, state.done, state.reward, state.world) == (
        2,
        False,
        0.0,
        Reading("Ann Moor"),
    )
    state = world.step(state, "finish[the Arl!]")
    assert (state.observation, state.done, state.reward) == (
        "Episode finished, reward = 1\n",
        True,
        1.0,
    )
    assert (state.world.answer, state.world.score.f1) == ("the Arl!", 1.0)


def test_search_shows_five_pieces(world, task):
    assert shows(world, task, "search[The Bell]") == FILM
    assert (
        shows(world, task, "search[Ann Moor]") == "Ann Moor was born in Arl. She lives there.."
    )  # the last has two stops


@pytest.mark.parametrize(
    ("entity", "title"),
    [
        ("the bell", "the bell"),
        ("THE BELL", "The Bell"),
        ("  The   Bell ", "The Bell"),
        ("ann moor", "Ann Moor"),
        ("Od\u00e9 town", "Ode\u0301  Town"),
    ],
)
def test_titles(world, task, entity, title):
    assert walk(world, task, f"search[{entity}]").world.title == title


@pytest.mark.parametrize(
    ("entity", "named"),
    [
        ("Bell", "Bell"),
        ("", ""),
        ("Ann Moor]", "Ann Moor]"),
        ("Moor", "[Moor]"),
        ("moor", "[moor]"),
    ],
)
def test_a_miss_leaves_page_and_lookup(world, task, entity, named):
    before = walk(world, task, "search[The Bell]", "lookup[it]")
    after = world.step(before, f"search[{entity}]")
    assert after.observation.startswith(
        f"Could not find {named}. Similar: ["
    ) and after.observation.endswith("].")
    assert after.world == before.world and after.valid
    assert shows(
        world, task, "search[The Bell]", "lookup[It ]", f"search[{entity}]", "lookup[It ]"
    ).startswith("(Result 2 / 3)")


def test_similar_titles_are_a_list(world, task):
    assert (
        shows(world, task, "search[Bell]")
        == "Could not find Bell. Similar: ['The Bell', 'the bell']."
    )


def test_lookup(world, task):
    start = ("search[The Bell]",)
    assert shows(world, task, *start, "lookup[ARL]") == "(Result 1 / 2) It was shot in Arl."
    assert (
        shows(world, task, *start, "lookup[Arl]", "lookup[Arl]") == "(Result 2 / 2) Arl liked it."
    )
    assert shows(world, task, *start, *["lookup[Arl]"] * 3) == "No more results.\n"
    assert shows(world, task, *start, *["lookup[Arl]"] * 4) == "No more results.\n"
    assert shows(world, task, *start, "lookup[Arl]", "lookup[arl]").startswith(
        "(Result 1 / 2)"
    )  # another case starts over
    assert shows(world, task, *start, "lookup[Arl]", "lookup[won]", "lookup[Arl]").startswith(
        "(Result 1 / 2)"
    )
    assert shows(world, task, *start, "lookup[won]") == "(Result 1 / 1) It won in 1999.."
    assert shows(world, task, *start, "lookup[]").startswith("(Result 1 / 6)")
    assert shows(world, task, *start, "lookup[zebra]") == "No more results.\n"
    assert shows(world, task, "lookup[Arl]") == "No more results.\n"
    assert shows(world, task, "lookup[Arl]", *start, "lookup[Arl]").startswith("(Result 1 / 2)")


def test_a_search_clears_the_lookup_and_a_thought_does_not(world, task):
    assert shows(
        world, task, "search[The Bell]", "lookup[Arl]", "search[The Bell]", "lookup[Arl]"
    ).startswith("(Result 1")
    assert shows(
        world, task, "search[The Bell]", "lookup[Arl]", "think[so]", "bogus", "lookup[Arl]"
    ).startswith("(Result 2")
    assert shows(world, task, "think[]") == "Nice thought."


@pytest.mark.parametrize(
    "action",
    [
        "",
        "search The Bell",
        "search[The Bell",
        "Search[The Bell]",
        "buy[x]",
        "search[a] now",
        "xsearch[a]",
    ],
)
def test_an_invalid_action_is_a_step_that_changes_nothing_else(world, task, action):
    before = walk(world, task, "search[The Bell]", "lookup[Arl]")
    after = world.step(before, action)
    assert (
        after.observation == f"Invalid action: {action}"
        and not after.valid
        and not world.accepts(before, action)
    )
    assert (after.world, after.admissible, after.done, after.reward) == (
        before.world,
        before.admissible,
        False,
        0.0,
    )
    assert after.depth == before.depth + 1 and after.history[-1].observation == after.observation
    assert world.step(after, "lookup[Arl]").valid


def test_outer_white_space_and_inner_brackets(world, task):
    assert shows(world, task, " \tsearch[The Bell]\n") == FILM
    assert walk(world, task, " finish[ [Arl] ]\r\n").world.answer == " [Arl] "
    assert walk(world, task, "finish[Arl\nor not]").world.answer == "Arl\nor not"


def test_the_reward_is_exact_match_and_f1_stands_beside(world, task):
    state = walk(world, task, "finish[in Arl]")
    assert (state.reward, state.done, state.world.score.f1) == (0.0, True, 2 / 3)
    assert state.observation == "Episode finished, reward = 0\n"
    after = world.step(state, "search[The Bell]")  # as in the original, the end stops nobody
    assert (after.done, after.reward, after.world.answer, after.world.score) == (
        False,
        0.0,
        None,
        None,
    )


def test_accepts_what_may_show_something_new(world, task):
    def accepted(action, *before):
        return world.accepts(walk(world, task, *before), action)

    opened = "search[The Bell]"
    assert (
        accepted(opened)
        and not accepted(opened, opened)
        and not accepted("search[THE BELL]", opened, "lookup[Arl]")
    )
    assert accepted(opened, opened, "search[Ann Moor]")
    assert accepted("search[Bell]") and not accepted("search[Bell]", "search[Bell]", opened)
    assert (
        not accepted("lookup[Arl]")
        and accepted("lookup[Arl]", opened)
        and accepted("lookup[Arl]", opened, "lookup[Arl]")
    )
    assert not accepted(
        "lookup[Arl]", opened, "lookup[Arl]", "lookup[Arl]"
    )  # (Result 2 / 2) tells that there is no more
    assert not accepted("lookup[Arl]", opened, "lookup[Arl]", "lookup[Arl]", "lookup[won]")
    assert accepted("lookup[Arl]", opened, "lookup[Arl]", "lookup[won]")
    assert accepted("lookup[zebra]", opened) and not accepted(
        "lookup[zebra]", opened, "lookup[zebra]", "lookup[won]"
    )
    assert accepted("lookup[Arl]", opened, "lookup[Arl]", "lookup[Arl]", "search[Ann Moor]", opened)
    assert accepted("think[so]") and not accepted("think[so]", "think[so]", opened)
    assert accepted("finish[]") and not accepted("finish")


def test_step_leaves_its_state_alone_and_replays(world, task):
    state = walk(world, task, "search[The Bell]", "lookup[Arl]")
    before = copy.deepcopy(state)
    ends = [
        walk(world, task, "search[The Bell]", "lookup[Arl]", "lookup[Arl]", "finish[Arl]")
        for _ in range(2)
    ]
    for action in ("lookup[Arl]", "search[Ann Moor]", "finish[x]", "bogus"):
        world.step(state, action)
    assert state == before and ends[0] == ends[1] and hash(state.world) == hash(before.world)


def test_limits_are_parameters(hotpot, write):
    folder = write(hotpot)
    assert (build(folder).max_steps, build(folder).timeout_value, build(folder).name) == (
        7,
        -1.0,
        "hotpotqa",
    )
    world = build(folder, max_steps=3, timeout_value=-0.5)
    assert (world.max_steps, world.timeout_value) == (3, -0.5)


def test_bad_splits(hotpot, write):
    folder = write(hotpot)
    with pytest.raises(QvlibError, match="split 'valid': the splits are train, dev, test"):
        build(folder).tasks("valid")
    with pytest.raises(QvlibError, match=r"split 'dev' is empty: .* raise its share or load more"):
        build(folder, dev_share=0.0).tasks("dev")
    with pytest.raises(QvlibError, match=r"dev_share 0.5 and test_share 0.5"):
        build(folder, dev_share=0.5, test_share=0.5)
