"""What each world says of itself: kinds of actions, places, a fixed script, parts of the reward."""

from dataclasses import replace

import pytest

from qvlib import environments
from qvlib.core.episodes import demonstrate, replay
from qvlib.core.types import Request, State, Task
from qvlib.environments import hotpotqa, webshop
from qvlib.environments.hotpotqa.splits import make_task
from qvlib.environments.webshop.generator import write_catalogue
from qvlib.environments.webshop.shopper import Shopper

SHOP, QUESTIONS, GAMES, SCIENCE = map(
    environments.world_of, ("webshop", "hotpotqa", "textworld", "scienceworld")
)
OPEN = ("search[cotton shirt]", "click[b000000001]")
BELL, ANN = "search[The Bell]", "search[Ann Moor]"


@pytest.fixture
def shop(official, write):
    return webshop.build(write(official), dev_share=0.1, test_share=0.2, show_attributes=True)


@pytest.fixture
def shirt(shop):
    """The task to buy the small red shirt."""
    tasks = (task for split in shop.splits.values() for task in split)
    return next(t for t in tasks if t.goal.options == (("color", "red"), ("size", "small")))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    write_catalogue(folder, 300, 0)
    return webshop.build(folder)


@pytest.fixture
def reading(hotpot, write):
    return hotpotqa.build(write(hotpot), dev_share=0, test_share=0)


@pytest.fixture
def questions(reading):
    """Task by the end of its id; q1 asks where the director of The Bell was born: in Arl."""
    return {task.id.rpartition("-")[2]: task for task in reading.tasks("train")}


def changed(task, **goal):
    return replace(task, goal=replace(task.goal, **goal))


def test_a_world_that_says_nothing_has_verbs_and_no_places():
    world = environments.World("bare", environments.WorldSettings, lambda settings, folder: None)
    state = State(Task("a", "do it"), "")
    assert world.kind(state, "press[red button]") == "press"
    assert world.kind(state, "go north now") == "go" and world.kind(state, "") == ""
    assert world.place(state) == "" and world.script is None and world.parts is None


@pytest.mark.parametrize("world", [GAMES, SCIENCE])
def test_commands_are_told_apart_by_their_first_word(world):
    state = State(Task("a", "do it"), "A room.", admissible=("take knife", "go north"))
    kinds = [world.kind(state, action) for action in ("take knife", "go north", "look around")]
    assert kinds == ["take", "go", "look"] and world.place(state) == "" and world.parts is None


NAVIGATE = ("click[back to search]", "navigate")


@pytest.mark.parametrize(
    ("path", "place", "expected"),
    [
        (
            (),
            "init",
            [("search[tea]", "query"), ("click[search]", "other"), ("click[b000000001]", "other")],
        ),
        (
            OPEN[:1],
            "results",
            [
                NAVIGATE,
                ("click[next >]", "navigate"),
                ("click[< prev]", "other"),  # there is no page before the first
                ("click[b000000001]", "product"),
                ("click[B000000001]", "product"),
                ("click[b000000009]", "other"),
                ("search[tea]", "query"),
                ("click[buy now]", "other"),
            ],
        ),
        (
            OPEN,
            "item",
            [
                NAVIGATE,
                ("click[< prev]", "navigate"),
                ("click[small]", "option"),
                ("click[Red]", "option"),
                ("click[green]", "other"),
                ("click[description]", "section"),
                ("click[features]", "section"),
                ("click[reviews]", "section"),
                ("click[attributes]", "section"),
                ("click[buy now]", "buy"),
                ("search[tea]", "query"),
                ("buy now", "other"),
                ("", "other"),
            ],
        ),
        (
            (*OPEN, "click[features]"),
            "sub",
            [NAVIGATE, ("click[< prev]", "navigate"), ("click[small]", "other")],
        ),
        ((*OPEN, "click[buy now]"), "done", [("click[buy now]", "other")]),
    ],
)
def test_places_and_kinds_of_the_shop(shop, shirt, path, place, expected):
    state = replay(shop, shirt, path)
    assert SHOP.place(state) == place
    assert [(action, SHOP.kind(state, action)) for action, _ in expected] == expected


@pytest.mark.parametrize("action", ["search[<a> soft]", "search[<c>]", "search[<c> garden]"])
def test_what_the_shop_refuses_to_search_is_of_no_kind(shop, shirt, action):
    state = shop.reset(shirt)
    assert (SHOP.kind(state, action) == "other") == (not shop.step(state, action).valid)


def test_other_is_exactly_what_the_shop_refuses(embedded):
    """On the pages of some episodes, each with the actions of all of them."""
    tasks = embedded.tasks("train")[:6]
    records = demonstrate(embedded, tasks, Shopper(embedded), 0, 4)
    actions = {action for record in records for action in record["actions"]}
    for task, record in zip(tasks, records, strict=True):
        for at in range(len(record["actions"])):
            state = replay(embedded, task, record["actions"][:at])
            for action in actions | set(state.admissible) - {"search[<keywords>]"}:
                refused = not embedded.step(state, action).valid
                assert (SHOP.kind(state, action) == "other") == refused, (state.world, action)


def test_kinds_of_actions_on_questions(reading, questions):
    state = reading.reset(questions["q1"])
    actions = (BELL, "lookup[won]", "think[well]", " finish[Arl] ", "open[The Bell]", "")
    kinds = [QUESTIONS.kind(state, action) for action in actions]
    assert kinds == ["search", "lookup", "think", "answer", "other", "other"]
    assert QUESTIONS.place(state) == ""


def test_the_script_of_the_shop(embedded):
    tasks = embedded.tasks("dev")[:60]
    records = demonstrate(embedded, tasks, SHOP.script(embedded), 0, 16)
    assert records == demonstrate(embedded, tasks, SHOP.script(embedded), 1, 1)
    rewards = [record["reward"] for record in records]
    assert 0.3 < sum(rewards) / len(rewards) < 0.7
    for task, record in zip(tasks, records, strict=True):
        assert record["actions"][0] == f"search[{task.goal.query.lower()}]"
        assert record["done"] and record["actions"][-1] == "click[buy now]"


def test_the_script_of_the_shop_step_by_step(shop, shirt):
    asked = changed(shirt, query="shirt")
    (record,) = demonstrate(shop, [asked], SHOP.script(shop), 0, 1)
    first = shop.step(shop.reset(asked), "search[shirt]").admissible[2]
    assert record["actions"][:2] == ["search[shirt]", first] and record["done"]
    item = replay(shop, shirt, OPEN)
    assert act(SHOP.script(shop), item) == "click[red]"
    assert act(SHOP.script(shop), shop.step(item, "click[red]")) == "click[small]"
    both = replay(shop, shirt, (*OPEN, "click[red]", "click[small]"))
    assert act(SHOP.script(shop), both) == "click[buy now]"
    assert act(SHOP.script(shop), shop.step(item, "click[features]")) == "click[< prev]"


def test_where_nothing_is_found_the_last_word_is_searched(shop, shirt):
    (record,) = demonstrate(shop, [changed(shirt, query="Zyx Shirt")], SHOP.script(shop), 0, 1)
    assert record["actions"][0] == "search[zyx shirt]"  # one word of it is enough to find some
    empty = changed(shirt, query="Zyx Wvu")
    (record,) = demonstrate(shop, [empty], SHOP.script(shop), 0, 1)
    assert record["actions"][:3] == ["search[zyx wvu]", "click[back to search]", "search[wvu]"]
    assert not record["done"]


def act(script, state):
    """The two actions proposed are the same."""
    ((first, second),) = script.propose([Request(state, 2, (0, state.task.id, "0"))])
    assert first == second
    return first.action


def test_the_script_of_questions(reading, questions):
    script = QUESTIONS.script(reading)
    start = reading.reset(questions["q1"])
    assert act(script, start) == BELL
    opened = reading.step(start, BELL)
    assert act(script, opened) == ANN, "the sentence that tells who directed it"
    assert act(script, reading.step(opened, ANN)) == "finish[Arl]"
    assert act(script, reading.step(start, "search[Nothing]")) == "finish[yes]"
    for asked, answer in (
        ("Was The Bell directed by Ann Moor?", "finish[yes]"),
        ("Which is older, The Bell or Ann Moor?", "finish[Ann Moor]"),
    ):
        assert act(script, reading.reset(replace(questions["q1"], instruction=asked))) == answer
    nameless = replace(questions["q1"], instruction="When did it win in 1999?")
    assert act(script, reading.reset(nameless)) == "search[When]"


def test_the_script_of_questions_is_the_same_again(encyclopaedia):
    world = hotpotqa.build(encyclopaedia)
    tasks = world.tasks("dev")[:60]
    records = demonstrate(world, tasks, QUESTIONS.script(world), 0, 16)
    assert records == demonstrate(world, tasks, QUESTIONS.script(world), 1, 1)
    assert all(record["done"] and len(record["actions"]) <= 3 for record in records)
    assert 0.05 * len(records) < sum(record["reward"] for record in records) < 0.5 * len(records)


@pytest.mark.filterwarnings("ignore:Game .* is not fully supported")
def test_the_script_of_games(tmp_path):
    pytest.importorskip("textworld", reason="needs textworld: pip install 'qvlib[textworld]'")
    from qvlib.environments.textworld import build
    from qvlib.environments.textworld.generator import generate, plan

    list(generate(tmp_path, plan("cooking", 4, 0, 0.25, 0.25)))
    world = build(tmp_path)
    tasks = world.tasks("train")
    script = GAMES.script(world)
    records = demonstrate(world, tasks, script, 0, 2)
    assert records == demonstrate(world, tasks, script, 1, 1)
    for task, record in zip(tasks, records, strict=True):
        start = world.reset(task)
        assert record["done"] and record["actions"][0] in start.admissible
        made = replace(start, admissible=("look", "go north", "take egg", "eat egg", "eat meal"))
        assert act(script, made) == "eat meal"
        assert act(script, replace(made, admissible=made.admissible[:4])) == "take egg"
        refused = world.step(replace(made, admissible=()), "take egg")
        assert act(script, replace(refused, admissible=made.admissible[:4])) == "take egg"
        seen = replace(refused, observation=start.observation, admissible=made.admissible[:4])
        assert act(script, seen) == "go north"  # the game says what it said before that command


def test_science_has_no_script():
    assert SCIENCE.script is None


def test_parts_add_up_to_the_reward_of_the_shop(embedded):
    tasks = embedded.tasks("train")[:40]
    records = demonstrate(embedded, tasks, Shopper(embedded), 0, 16)
    bought = 0
    for task, record in zip(tasks, records, strict=True):
        parts = SHOP.parts(embedded, task, record["actions"])
        goal, end = task.goal, replay(embedded, task, record["actions"])
        assert all(0 <= share <= 1 for share in parts.values())
        assert ("options" in parts) == bool(goal.options)
        if not record["done"]:
            assert set(parts.values()) == {0.0} and record["reward"] == 0
            continue
        earned = (
            parts["attributes"] * len(goal.attributes)
            + parts.get("options", 0.0) * len(goal.options)
            + parts["price"]
        )
        most = len(goal.attributes) + len(goal.options) + 1
        assert record["reward"] == pytest.approx(end.world.parts.r_type * earned / most)
        assert parts["product"] == (end.world.asin == goal.asin)
        bought += 1
    assert bought > 20


def test_parts_of_a_purchase_and_of_none(shop, shirt):
    right = (*OPEN, "click[small]", "click[red]", "click[buy now]")
    full = {"attributes": 1.0, "options": 1.0, "price": 1.0, "product": 1.0}
    assert SHOP.parts(shop, shirt, right) == full
    assert SHOP.parts(shop, shirt, (*OPEN, "click[small]", "click[buy now]"))["options"] == 0.5
    assert (
        SHOP.parts(shop, shirt, right[:-1])
        == SHOP.parts(shop, shirt, ())
        == dict.fromkeys(full, 0.0)
    )
    plain = changed(shirt, options=())
    assert list(SHOP.parts(shop, plain, right)) == ["attributes", "price", "product"]
    other = SHOP.parts(shop, shirt, (OPEN[0], "click[b000000002]", "click[buy now]"))
    assert other["product"] == 0 and other["options"] == 0


@pytest.mark.parametrize(
    ("actions", "search", "hop", "answer"),
    [
        ([], 0, 0, 0),
        ([BELL], 1, 0, 0),
        ([ANN], 1, 0, 0),  # any of those needed
        (["search[Moor]", "finish[Ode]"], 0, 0, 0),
        ([BELL, ANN], 1, 1, 0),
        ([BELL, ANN, "finish[in Arl]"], 1, 1, 0),
        ([BELL, ANN, "finish[Arl]"], 1, 1, 1),
        (["finish[the arl.]"], 0, 0, 1),
    ],
)
def test_parts_of_a_question(reading, questions, actions, search, hop, answer):
    assert QUESTIONS.parts(reading, questions["q1"], actions) == {
        "search": search,
        "second hop": hop,
        "answer": answer,
    }


def test_a_question_of_one_article_has_no_second_hop(reading, questions):
    assert QUESTIONS.parts(reading, questions["q2"], [BELL, "finish[1999]"]) == {
        "search": 1.0,
        "answer": 1.0,
    }
    unsupported = make_task(replace(questions["q2"].goal, facts=()), "g")
    assert QUESTIONS.parts(reading, unsupported, [BELL]) == {"answer": 0.0}


def test_a_solution_names_what_the_instruction_does_not(embedded, questions, shirt):
    hidden = [
        t for t in embedded.tasks("train") if SHOP.solution(embedded, t)[10:] not in t.instruction
    ]
    assert len(hidden) == len(embedded.tasks("train"))
    told = SHOP.solution(embedded, shirt)
    assert told == f"Solution: {shirt.goal.name}; red; small"
    assert QUESTIONS.solution(None, questions["q1"]) == "Solution: Arl"
    assert "Arl" not in questions["q1"].instruction
    assert GAMES.solution is None and SCIENCE.solution is None
