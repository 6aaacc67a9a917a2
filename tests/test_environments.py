"""Each environment by its name: the record of its world, its defaults, data and demonstrator."""

import inspect

import pytest
from pydantic import ValidationError

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.environments.hotpotqa import HotPotQA
from qvlib.environments.hotpotqa.reader import Reader
from qvlib.environments.webshop import WebShop
from qvlib.environments.webshop.shopper import Shopper
from qvlib.environments.world import (
    Names,
    WorldSettings,
    data_hashes,
    demonstrator,
    has_demonstrator,
    make_environment,
    names_of,
)
from qvlib.pipeline.context import context_of
from qvlib.pipeline.data import check_disjoint, prepare_data
from qvlib.pipeline.params import make


def params(tmp_path, name, **changes):
    return make(
        {
            "environment": name,
            "runs_dir": str(tmp_path),
            "catalogue_products": 400,
            "max_steps": 7,
            "timeout_value": -1.0,
            "demonstrations": 100,
            "other_demonstrations": 50,
            "train_tasks": 20,
            "test_tasks": 40,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("name", "kind", "script"),
    [("webshop", WebShop, Shopper), ("hotpotqa", HotPotQA, Reader)],
)
def test_by_name(tmp_path, name, kind, script):
    given = params(tmp_path, name)
    context = context_of(given)
    environment = context.environment
    assert isinstance(environment, kind) and isinstance(context.demonstrator(), script)
    assert (environment.name, environment.max_steps, environment.timeout_value) == (name, 7, -1.0)
    check_disjoint({split: environment.tasks(split) for split in ("train", "dev", "test")})
    again = prepare_data(given)  # from the stage on disk
    assert again is not environment
    assert (
        again.data_hashes() == environment.data_hashes()
        and again.tasks("test")[0] == environment.tasks("test")[0]
    )
    assert len(context_of(given).uses.demonstrations) == 100


def test_a_folder_of_official_data(tmp_path, hotpot, write):
    folder = write({"hotpot_dev_distractor_v1.json": hotpot["hotpot_tiny_v1.json"]})
    settings = params(tmp_path, "hotpotqa", data_dir=str(folder)).world
    world = environments.world_of("hotpotqa")
    environment = make_environment(world, settings, tmp_path / "unused")
    assert (
        set(environment.data_hashes()) == {"hotpot_dev_distractor_v1.json"}
        and len(environment.corpus) == 6
    )


def test_a_seed_of_the_encyclopaedia(tmp_path):
    first, second = (
        prepare_data(params(tmp_path, "hotpotqa", catalogue_seed=seed)) for seed in (0, 1)
    )
    assert set(first.corpus.texts) != set(second.corpus.texts)


def test_each_world_is_a_record_with_defaults_of_its_own():
    worlds = {name: environments.world_of(name) for name in environments.WORLDS}
    assert all(worlds[name].name == name for name in worlds)
    limits = {
        name: (settings.max_steps, settings.timeout_value)
        for name, settings in ((name, world.settings()) for name, world in worlds.items())
    }
    assert limits == {
        "webshop": (10, -0.5),
        "hotpotqa": (7, -1.0),
        "textworld": (10, -0.5),
        "scienceworld": (100, -0.5),
    }
    for name, record in worlds.items():
        assert record.settings().environment == name and record.instructions and record.names.kinds
        assert record.settings.decides("timeout_value") == ("trees", "search")
        assert record.settings.decides("catalogue_seed") == ("data",)
        assert len(inspect.signature(record.make_data).parameters) == 3
    with pytest.raises(ValidationError, match="goals"):
        worlds["hotpotqa"].settings(goals="human")


def test_the_settings_are_those_of_the_environment(tmp_path):
    world = environments.world_of("webshop")
    settings = world.settings(catalogue_products=200, max_steps=3, dev_share=0.2)
    world.make_data(settings, tmp_path)
    environment = make_environment(world, settings, tmp_path)
    assert (environment.max_steps, environment.timeout_value) == (3, -0.5)
    usual = make_environment(world, world.settings(), tmp_path)
    assert len(environment.tasks("dev")) > len(usual.tasks("dev"))
    assert data_hashes(world, environment) == environment.data_hashes()
    script = demonstrator(world, environment, 0.0)
    assert has_demonstrator(world, environment) and script.habits.hasty == 0.0


def test_more_tasks_come_from_the_folder_that_was_given():
    world = environments.world_of("hotpotqa")
    assert names_of(world, world.settings()).more == "raise catalogue_products"
    elsewhere = names_of(world, world.settings(data_dir="d"))
    assert elsewhere == Names("groups of questions", "put more into data_dir", world.names.kinds)
    own = environments.world_of("toy:Maze")
    assert names_of(own, WorldSettings(environment="toy:Maze", data_dir="d")) == Names()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("webshp", "did you mean webshop?"),
        ("kitchen:", "one of webshop, hotpotqa, textworld, scienceworld"),
        (":make", "module:factory"),
        ("a b:make", "module:WORLD"),
        ("kitchen.py", "module:factory"),
    ],
)
def test_neither_a_name_nor_a_path(name, hint):
    with pytest.raises(QvlibError) as error:
        environments.world_of(name)
    assert repr(name) in str(error.value) and hint in str(error.value)
