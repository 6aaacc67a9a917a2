"""TextWorld: games from seeds, states to go on from, a player to clone. Needs the extra."""

import itertools
import json
import shutil

import pytest

from qvlib import environments, pipeline
from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.episodes import visited
from qvlib.environments import contract
from qvlib.environments.textworld import TextWorld, build, games
from qvlib.models.prompts import compact, plain
from qvlib.pipeline.params import make

textworld = pytest.importorskip(
    "textworld", reason="needs textworld: pip install 'qvlib[textworld]'"
)

from qvlib.environments.textworld.environment import looks  # noqa: E402
from qvlib.environments.textworld.generator import generate, plan, write_games  # noqa: E402
from qvlib.environments.textworld.machine import Machines, happened, readable  # noqa: E402
from qvlib.environments.textworld.player import Player  # noqa: E402
from qvlib.environments.textworld.settings import TextWorldSettings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Game .* is not fully supported")
PLANNED = plan("cooking", 6, 0, 0.2, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games")
    list(generate(folder, PLANNED))
    return folder


@pytest.fixture(scope="module")
def world_of_games(folder):
    return build(folder)


def walk(environment, task, seed=0):
    """Random admissible commands; the states before, between and after them."""
    rng, states = generator(seed, task.id), [environment.reset(task)]
    while not states[-1].done:
        states.append(environment.step(states[-1], str(rng.choice(states[-1].admissible))))
    return states


def test_contract(world_of_games):
    assert contract.check_environment(world_of_games, Player(world_of_games), tasks=2) > 30


@pytest.mark.parametrize("kind", ["treasure_hunter", "coin_collector"])
def test_contract_on_other_kinds(tmp_path, kind):
    list(generate(tmp_path, plan(kind, 3, 0, 0.34, 0.34)))
    environment = build(tmp_path)
    assert contract.check_environment(environment, Player(environment), tasks=1) > 9


def test_it_is_the_game_that_textworld_plays(folder, world_of_games):
    """Text, commands, score and end are those of TextWorld's own environment on random walks."""
    asked = textworld.EnvInfos(
        admissible_commands=True, won=True, lost=True, score=True, max_score=True
    )
    for task in world_of_games.tasks("train"):
        env = textworld.start(str(folder / task.goal), asked)
        now = env.reset()
        assert task.instruction == now.objective
        for state in walk(world_of_games, task, 1):
            if state.history:
                now, _, over = env.step(state.history[-1].action)
                assert (
                    readable(now.feedback) == state.observation and now.score == state.world.score
                )
                assert state.done == (over or state.depth == world_of_games.max_steps)
                if state.done:
                    assert state.reward == (1.0 if now.won else now.score / now.max_score)
            if not state.done:
                assert tuple(now.admissible_commands) == state.admissible


def test_a_forgotten_moment_is_played_again(folder, world_of_games, monkeypatch):
    task = world_of_games.tasks("train")[0]
    states = walk(world_of_games, task)
    monkeypatch.setattr("qvlib.environments.textworld.machine.MOMENTS", 1)
    monkeypatch.setattr("qvlib.environments.textworld.machine.GAMES", 1)
    machines = Machines(folder)
    for other in (
        world_of_games.tasks("dev")[0],
        task,
    ):  # the first puts the other game out of memory
        machines.after(other.goal, ())
    assert len(machines._moments) == len(machines._games) == 1
    for state in reversed(states):
        assert machines.after(task.goal, state.world.commands).text == state.observation


def test_the_same_seeds_make_the_same_games(folder, tmp_path):
    some = [PLANNED[0], PLANNED[3], PLANNED[5]]
    for path in generate(tmp_path, some):
        assert games.content_hash(tmp_path / path) == games.content_hash(folder / path)
    assert [split for _, split, _ in some] == ["train", "dev", "test"]
    (other,) = generate(tmp_path, plan("cooking", 6, 1, 0.2, 0.3)[:1])
    assert games.content_hash(tmp_path / other) != games.content_hash(
        folder / "train" / "cooking-0.z8"
    )


def test_the_day_of_compiling_does_not_count(folder, tmp_path):
    for suffix in (".z8", ".json"):
        shutil.copy(folder / "train" / f"cooking-0{suffix}", tmp_path / f"a{suffix}")
    before, story = (
        games.content_hash(tmp_path / "a.z8"),
        bytearray((tmp_path / "a.z8").read_bytes()),
    )
    story[0x12:0x18] = b"991231"
    (tmp_path / "a.z8").write_bytes(story)
    assert games.content_hash(tmp_path / "a.z8") == before
    story[0x500] ^= 1
    (tmp_path / "a.z8").write_bytes(story)
    assert games.content_hash(tmp_path / "a.z8") != before


def test_foods_of_test_games_are_prepared_as_in_no_train_game(folder):
    prepared = {
        split: {
            tuple(i)
            for path in (folder / split).glob("*.json")
            for i in json.loads(path.read_text())["metadata"]["ingredients"]
        }
        for split in games.SPLITS
    }
    assert prepared["train"] and prepared["train"].isdisjoint(prepared["test"] | prepared["dev"])


def test_what_a_generation_left_is_not_made_again(folder, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cooking-0.z8").write_bytes(b"there")
    assert list(generate(tmp_path, PLANNED[:1])) == ["train/cooking-0.z8"]
    assert (tmp_path / "train" / "cooking-0.z8").read_bytes() == b"there"


def test_the_player_wins_without_errors_and_loses_some_with_them(world_of_games):
    def mean(error, seeds):
        rewards = [
            contract.play(world_of_games, task, Player(world_of_games, error), seed)[1][-1].reward
            for split in games.SPLITS
            for task in world_of_games.tasks(split)
            for seed in range(seeds)
        ]
        return sum(rewards) / len(rewards)

    assert mean(0.0, 1) == 1.0
    assert 0.4 < mean(Player(world_of_games).error, 3) < 0.95
    assert mean(1.0, 1) < 0.3


def test_looking_again_is_not_accepted(world_of_games):
    state = world_of_games.reset(world_of_games.tasks("train")[0])
    accepts = world_of_games.accepts
    assert (
        not accepts(state, "look")
        and accepts(state, "examine cookbook")
        and accepts(state, "INVENTORY")
    )
    read = world_of_games.step(state, "Examine  cookbook")
    assert read.valid and not accepts(read, "examine cookbook") and accepts(read, "inventory")
    opened = world_of_games.step(read, "open fridge")
    assert accepts(opened, "examine cookbook") and accepts(opened, "look")
    assert not accepts(opened, "fly") and not world_of_games.step(opened, "fly").valid
    assert looks("look") and looks("examine oven") and not looks("look for trouble")


def test_a_prompt_tells_the_room_that_a_game_began_in(world_of_games):
    for task in world_of_games.tasks("train"):
        states = walk(world_of_games, task)
        assert "fridge" in states[0].observation
        for state in (*states, world_of_games.step(states[0], "fly")):
            assert f"<page>{plain(states[0].observation)}<act>" in compact(state).text
        for before, after in itertools.pairwise(states):
            reply = compact(before).encode(after.history[-1].action)
            assert compact(after).text.startswith(f"{compact(before).text}{reply}<end>")


def test_an_unfinished_game_is_worth_its_score(folder):
    short = build(folder, max_steps=3, in_order=True)
    task = short.tasks("train")[0]
    state = short.reset(task)
    for command in ("open fridge", "fly", "examine cookbook"):
        state = short.step(state, command)
    assert not state.done  # what is refused is no command
    taken = next(
        c for c in state.admissible if c.startswith("take ") and c.split()[1] in state.observation
    )
    last = short.step(state, taken)
    assert last.done and last.reward == 1 / 5 and not last.admissible
    assert not short.step(last, taken).valid and not short.accepts(last, taken)


def test_texts():
    traced = (
        "\n[opening the fridge]\nYou open it.\n\n[opening the fridge - succeeded]\n"
        "[going (north) - succeeded]\n"
        "<score>\n2\n</score><moves>\n1\n</moves>\n>            -= Kitchen =-2/1"
    )
    assert readable(traced) == "You open it." and happened(traced) == ["opening the fridge"]
    ended = "\n*** The End ***\n\nYou scored 1.\n\n\nWould you like to RESTART, QUIT?\n> -= x =-"
    assert readable(ended) == "*** The End ***\nYou scored 1."


def test_a_folder_of_ones_own_games(folder, tmp_path):
    for path in sorted(folder.rglob("*.z8")):
        for suffix in (".z8", ".json"):
            shutil.copy(path.with_suffix(suffix), tmp_path)
    environment = build(tmp_path, dev_share=0.2, test_share=0.3)
    assert [len(environment.tasks(split)) for split in games.SPLITS] == [3, 1, 2]
    assert set(environment.data_hashes().values()) == set(build(folder).data_hashes().values())
    (tmp_path / "cooking-0.json").write_text("[]")
    with pytest.raises(QvlibError, match=r"cooking-0.z8.*tw-make"):
        build(tmp_path)
    (tmp_path / "cooking-0.json").unlink()
    with pytest.raises(QvlibError, match=r"cooking-0.z8.*has no .json"):
        build(tmp_path)
    with pytest.raises(QvlibError, match="no TextWorld games"):
        build(tmp_path / "elsewhere")


def test_games_of_several_kinds_are_not_put_in_order_of_kind(tmp_path):
    names = [f"{kind}-{i}" for kind in ("easy", "hard") for i in range(20)]
    for path in (*(f"train/{name}" for name in names), "test/easy-1", "train/.under-way/hard-99"):
        for suffix in (".z8", ".json"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).with_suffix(suffix).touch()
    found = games.find(tmp_path, 0.1, 0.3)
    assert sorted(found["train"]) == [f"train/{name}.z8" for name in sorted(names)] and found[
        "test"
    ] == ["test/easy-1.z8"]
    assert 5 < sum("easy" in path for path in found["train"][:20]) < 15
    assert games.find(tmp_path, 0.1, 0.3, in_order=True)["train"] == sorted(found["train"])


def test_by_name(tmp_path):
    params = make(
        {
            "environment": "textworld",
            "runs_dir": str(tmp_path),
            "games": "coin_collector",
            "game_count": 3,
            "processes": 1,
        }
    )
    context = pipeline.context_of(params)
    environment = context.environment
    assert isinstance(context.demonstrator(), Player)
    assert environment.max_steps == params.world.max_steps
    again = pipeline.load_environment(params)
    assert again.data_hashes() == environment.data_hashes()
    other = make({"environment": "textworld", "game_count": 11})
    assert params.digest("data") != other.digest("data")
    with pytest.raises(QvlibError, match="'game_count' belongs to environment textworld and"):
        make({"game_count": 11})  # other worlds have no games


@pytest.mark.parametrize("most", [3, 5, 10])
def test_a_tour_counts_the_points_that_the_game_speaks_of(folder, most):
    short, rewards = build(folder, max_steps=most), []
    for task in short.tasks("train"):
        tour = environments.tour_of(environments.world_of("textworld"), short, task)
        end = visited(short, task, tour.walk)[-1]
        assert (
            end.done
            and tour.by_hand == pytest.approx(end.reward)
            and len(tour.walk) <= most
            and "earn points" in tour.goal
        )
        rewards.append(end.reward)
    assert (
        all(reward == 1 for reward in rewards)
        if most == 10
        else all(0 < reward < 1 for reward in rewards)
    )


@pytest.mark.parametrize("kind", ["treasure_hunter", "coin_collector"])
def test_a_tour_of_a_game_without_points_on_the_way(tmp_path, kind):
    list(generate(tmp_path, plan(kind, 3, 0, 0.2, 0.2)[:1]))
    world = TextWorld(tmp_path, {"train": (games.make_task(tmp_path, f"train/{kind}-0.z8"),)})
    task = world.tasks("train")[0]
    tour = environments.tour_of(environments.world_of("textworld"), world, task)
    assert tour.by_hand == visited(world, task, tour.walk)[-1].reward == 1


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "textworld", None)
    with pytest.raises(QvlibError, match=r"pip install 'qvlib\[textworld\]'"):
        write_games(TextWorldSettings(), tmp_path)
    with pytest.raises(QvlibError, match="textworld"):
        build(tmp_path)


def test_the_benchmark_steps_alike(monkeypatch):
    from qvlib.tools.bench import worlds

    monkeypatch.setattr(worlds, "WALKS", 1)
    rows, result = worlds.run(1)
    steps = {row["way"]: row["steps"] for row in rows}
    assert (
        steps["walk, ours"] == steps["walk, TextWorld"] > 0
        and result["ratio"] > 0 < result["branching"]
    )
    assert (
        steps["branch, ours"]
        == steps["branch, TextWorld copied"]
        == steps["branch, TextWorld played again"]
    )
