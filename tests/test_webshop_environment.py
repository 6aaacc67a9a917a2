"""The shop as an environment: actions, pages, splits, values that never change."""

import copy

import pytest

from qvlib.base.errors import QvlibError
from qvlib.environments.webshop import WORLD, build
from qvlib.environments.webshop.settings import WebShopSettings


@pytest.fixture
def shop(official, write):
    return build(write(official), dev_share=0.1, test_share=0.2)


@pytest.fixture
def task(shop):
    tasks = [t for split in shop.splits.values() for t in split]
    return next(t for t in tasks if t.goal.options == (("color", "red"), ("size", "small")))


def walk(shop, task, *actions):
    state = shop.reset(task)
    for action in actions:
        state = shop.step(state, action)
    return state


OPEN = ("search[cotton shirt]", "click[b000000001]")


def test_an_episode(shop, task):
    state = shop.reset(task)
    assert state.observation == f"WebShop [SEP] Instruction: [SEP] {task.instruction} [SEP] Search"
    assert state.admissible == ("search[<keywords>]",)
    state = shop.step(state, "search[Cotton Shirt]")
    assert (
        "Back to Search [SEP] Page 1 (Total results: 2) [SEP] Next > [SEP] B000000001"
        in state.observation
    )
    assert state.admissible[:3] == ("click[back to search]", "click[next >]", "click[b000000001]")
    state = shop.step(state, "click[B000000001]")
    assert " [SEP] size [SEP] small [SEP] large | tall [SEP] color [SEP] red" in state.observation
    state = shop.step(shop.step(state, "click[small]"), "click[red]")
    assert state.world.options == (("size", "small"), ("color", "red")) and not state.done
    state = shop.step(state, "click[buy now]")
    assert state.done and state.reward == 1.0 == state.world.parts.reward and state.depth == 5
    assert 'options [SEP] {"color": "red", "size": "small"}' in state.observation
    assert state.history[-1].observation == state.observation


def test_refused_actions_change_nothing_else(shop, task):
    state = walk(shop, task, *OPEN)
    for action in (
        "click[search]",
        "click[nowhere]",
        "buy",
        "",
        "Click[small]",
        "search[]",
        "search[<a> wool]",
    ):
        after = shop.step(state, action)
        assert not after.valid and not shop.accepts(state, action)
        assert (after.observation, after.world, after.admissible) == (
            state.observation,
            state.world,
            state.admissible,
        )
        assert after.depth == state.depth + 1 and after.history[-1].action == action
    assert shop.step(shop.step(state, "buy"), "click[small]").valid


def test_accepts_tells_no_effect(shop, task):
    results = walk(shop, task, OPEN[0])
    assert not shop.accepts(results, OPEN[0]) and shop.accepts(results, "search[tea]")
    assert shop.accepts(shop.step(results, "click[next >]"), OPEN[0])
    item = walk(shop, task, *OPEN)
    chosen = shop.step(item, "click[small]")
    assert shop.accepts(item, "click[small]") and not shop.accepts(chosen, "click[small]")
    assert shop.accepts(chosen, "click[large | tall]") and shop.accepts(
        chosen, "click[description]"
    )
    assert not shop.accepts(shop.reset(task), "click[search]")


def test_accepts_opens_a_section_once(shop, task):
    item = walk(shop, task, *OPEN)
    read = walk(shop, task, *OPEN, "click[description]")
    back = shop.step(read, "click[< prev]")
    assert shop.accepts(item, "click[description]") and shop.accepts(read, "click[< prev]")
    assert not shop.accepts(back, "click[description]") and shop.accepts(back, "click[features]")
    assert not shop.accepts(
        shop.step(back, "click[small]"), "click[description]"
    )  # options do not change the text
    assert shop.step(
        back, "click[description]"
    ).valid  # the rules stay the original's: only the filter knows


def test_moving_between_pages(shop, task):
    item = walk(shop, task, *OPEN, "click[small]")
    sub = shop.step(item, "click[features]")
    assert sub.observation.endswith("< Prev [SEP] Soft. [SEP] ")  # the second feature is empty
    assert shop.step(sub, "click[< prev]").world == item.world
    back = shop.step(item, "click[< prev]")
    assert back.world.kind == "results" and back.world.options == ()
    far = walk(shop, task, OPEN[0], "click[next >]", "click[next >]")
    assert far.observation.endswith("Page 3 (Total results: 2) [SEP] < Prev [SEP] Next >")
    assert shop.step(far, "click[back to search]").observation == shop.reset(task).observation


def test_step_leaves_its_state_alone_and_replays(shop, task):
    state = walk(shop, task, *OPEN)
    before = copy.deepcopy(state)
    ends = [walk(shop, task, *OPEN, "click[small]", "click[buy now]") for _ in range(2)]
    shop.step(state, "click[red]")
    shop.step(state, "click[buy now]")
    assert state == before and ends[0] == ends[1]
    assert hash(state.world) == hash(before.world)


def test_text_rich(official, write):
    settings = WebShopSettings(observation_mode="text_rich", test_share=0.2)
    shop = WORLD.build(settings, write(official))
    task = next(t for split in shop.splits.values() for t in split if t.group == "B000000001")
    state = walk(shop, task, *OPEN, "click[small]")
    assert state.observation.startswith("You have clicked small.\nInstruction:\n")
    assert (
        "\n  [clicked button] small [clicked button_]\n  [button] large | tall [button_]\n"
        in state.observation
    )
    back = shop.step(state, "click[< prev]")
    assert "\n\n[clicked button] B000000001 [clicked button_]\n" in back.observation


def test_attributes_are_shown_on_demand(official, write):
    shop = WORLD.build(WebShopSettings(show_attributes=True, goals="all"), write(official))
    task = next(t for split in shop.splits.values() for t in split)
    state = walk(shop, task, *OPEN, "click[attributes]")
    assert (
        "machine washable [SEP] cotton [SEP] fashion [SEP] shirts [SEP] Clothing"
        in state.observation
    )


def test_splits(official, write):
    folder = write(official)
    shop = build(folder, goals="all", dev_share=0.2, test_share=0.3)
    groups = {name: {t.group for t in tasks} for name, tasks in shop.splits.items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))
    ids = [t.id for tasks in shop.splits.values() for t in tasks]
    assert len(ids) == len(set(ids)) == 7 and shop.skipped == 1
    assert "webshop-B000000001-3" in ids and "webshop-B000000003-h0" in ids
    again = build(folder, goals="all", dev_share=0.2, test_share=0.3)
    assert {name: list(tasks) for name, tasks in again.splits.items()} == {
        n: list(t) for n, t in shop.splits.items()
    }


def test_tasks_are_made_on_demand_as_a_sequence_of_equal_values(official, write):
    tasks = build(write(official), goals="all", dev_share=0.0, test_share=0.0).tasks("train")
    made = list(tasks)
    assert (
        len(tasks) == len(made) == 7
        and tasks[2] == made[2] == tasks[-5]
        and tasks[1:6:2] == tuple(made[1:6:2])
    )
    assert made[3] in tasks and tasks.index(made[3]) == 3
    with pytest.raises(IndexError):
        tasks[7]


def test_bad_parameters(official, write):
    folder = write(official)
    with pytest.raises(QvlibError, match="goals 'both': choose synthetic, human or all"):
        build(folder, goals="both")
    with pytest.raises(QvlibError, match="dev_share"):
        build(folder, dev_share=0.5, test_share=0.6)
    with pytest.raises(QvlibError, match="split 'valid'"):
        build(folder).tasks("valid")
    with pytest.raises(QvlibError, match="'dev' is empty"):
        build(folder, dev_share=0.0).tasks("dev")


def test_hashes_name_every_file(shop, official):
    assert set(shop.data_hashes()) == set(official)


def test_memory_is_bounded(shop):
    assert (
        shop._results.cache_info().maxsize
        and shop._item.cache_info().maxsize
        and shop.find.cache_info().maxsize
    )


def test_the_whole_bracket_is_the_argument(official, write):
    values = ("12 oz [pack of 2]", "[new] red", "size [xl", "a] b", "[[x]]")
    official["items_shuffle_1000.json"][0]["customization_options"] = {
        "Kind": [{"value": value} for value in values]
    }
    shop = build(write(official))
    task = next(t for t in shop.tasks("train") if t.goal.asin == "B000000001")
    state = shop.step(shop.step(shop.reset(task), "search[red shirt]"), "click[b000000001]")
    for action in state.admissible:  # whatever is listed can be done
        assert shop.step(state, action).valid and shop.accepts(state, action), action
    chosen = shop.step(state, "click[12 oz [pack of 2]]")
    assert chosen.world.options == (("kind", "12 oz [pack of 2]"),)
    assert shop.step(state, "search[red [cotton] shirt]").world.keywords[1] == "[cotton]"
    for action in ("search[red] click[buy now]", "search[a][b]", "click[[buy now]]", "click[x"):
        assert not shop.step(state, action).valid, action
