"""Each environment by its name: data, world and demonstrator of a run's parameters."""

import pytest

from qvlib import environments
from qvlib.environments.hotpotqa import HotPotQA
from qvlib.environments.hotpotqa.reader import Reader
from qvlib.environments.webshop import WebShop
from qvlib.environments.webshop.shopper import Shopper
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import check_disjoint, uses, world


def params(tmp_path, name, **changes):
    return Params(
        environment=name,
        runs_dir=str(tmp_path),
        catalogue_products=400,
        max_steps=7,
        timeout_value=-1.0,
        demonstrations=100,
        other_demonstrations=50,
        train_tasks=20,
        test_tasks=40,
        **changes,
    )


@pytest.mark.parametrize(
    ("name", "kind", "demonstrator"),
    [("webshop", WebShop, Shopper), ("hotpotqa", HotPotQA, Reader)],
)
def test_by_name(tmp_path, name, kind, demonstrator):
    given = params(tmp_path, name)
    environment = world(given)
    assert isinstance(environment, kind) and isinstance(
        environments.demonstrator(given, environment), demonstrator
    )
    assert (environment.name, environment.max_steps, environment.timeout_value) == (name, 7, -1.0)
    check_disjoint({split: environment.tasks(split) for split in ("train", "dev", "test")})
    again = world(given)  # from the stage on disk
    assert (
        again.data_hashes() == environment.data_hashes()
        and again.tasks("test")[0] == environment.tasks("test")[0]
    )
    assert len(uses(given, again).demonstrations) == 100


def test_a_folder_of_official_data(tmp_path, hotpot, write):
    folder = write({"hotpot_dev_distractor_v1.json": hotpot["hotpot_tiny_v1.json"]})
    environment = environments.make(
        params(tmp_path, "hotpotqa", data_dir=str(folder)), tmp_path / "unused"
    )
    assert (
        set(environment.data_hashes()) == {"hotpot_dev_distractor_v1.json"}
        and len(environment.corpus) == 6
    )


def test_a_seed_of_the_encyclopaedia(tmp_path):
    first, second = (world(params(tmp_path, "hotpotqa", catalogue_seed=seed)) for seed in (0, 1))
    assert set(first.corpus.texts) != set(second.corpus.texts)
