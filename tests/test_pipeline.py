"""The stages: what they refuse, and a model that is given instead of cloned."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from killing import tiny
from tqdm import tqdm

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.core.preferences import hold_out
from qvlib.core.types import Request, Task
from qvlib.environments import webshop
from qvlib.models.prompts import compact
from qvlib.models.small import Demonstration, make_model, train_tokenizer
from qvlib.pipeline import agents, work
from qvlib.pipeline.data import check_disjoint, uses
from qvlib.pipeline.params import make
from qvlib.report import numbers, sentences
from qvlib.runs.stage import read_stage, stage_path

SMALL = {
    "catalogue_products": 200,
    "catalogue_seed": 3,
    "demonstrations": 5,
    "other_demonstrations": 0,
    "train_tasks": 5,
    "test_tasks": 5,
    "dev_share": 0.2,
    "processes": 1,
    "wandb_mode": "disabled",
}


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return make({**SMALL, "runs_dir": str(tmp_path_factory.mktemp("runs"))})


@pytest.fixture(scope="module")
def context(params):
    return pipeline.context_of(params)


@pytest.fixture(scope="module")
def shop(context):
    return context.environment


@pytest.fixture
def given(shop, tmp_path):
    """A folder with a small model and its tokenizer, of random weights."""
    state = shop.reset(shop.tasks("train")[0])
    tokenizer = train_tokenizer([Demonstration(state, "search[tea]")], 400)
    make_model(tokenizer, 16, 1, 2, 0).save_pretrained(tmp_path / "given")
    tokenizer.save_pretrained(tmp_path / "given")
    return tmp_path / "given"


def test_splits_share_no_product_and_say_what_they_are(params, shop):
    rows = read_stage(params, "data").facts["splits"]
    assert [r["split"] for r in rows] == ["train", "dev", "test"] and all(r["tasks"] for r in rows)
    groups = [{t.group for t in shop.tasks(s)} for s in ("train", "dev", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert rows[0] == pipeline.split_row(
        "train", shop.tasks("train")[::-1]
    )  # the hash is of the sorted ids
    assert rows[0]["ids"] != pipeline.split_row("train", shop.tasks("train")[1:])["ids"]


def test_a_shared_product_is_refused():
    def task(name, group):
        return Task(name, "buy", group)

    check_disjoint({"train": [task("a", "x")], "test": [task("b", "y")]})
    with pytest.raises(QvlibError, match="train and test share 1 groups, such as 'x'"):
        check_disjoint({"train": [task("a", "x")], "test": [task("b", "x")]})


def test_no_task_has_two_uses(params, shop):
    dealt = uses(make({**params.flat(), "other_demonstrations": 7}), shop)
    used = [
        t.id
        for part in (dealt.demonstrations, dealt.other_demonstrations, dealt.search, dealt.test)
        for t in part
    ]
    assert len(used) == len(set(used)) == 5 + 7 + 5 + 5


def test_test_tasks_that_choices_were_judged_on_can_be_left_out(params, shop):
    seen, fresh = (uses(make({**params.flat(), "test_skip": skip}), shop).test for skip in (0, 5))
    assert len(fresh) == len(seen) == 5
    assert not {t.group for t in seen} & {t.group for t in fresh}, "no product of them either"


def test_a_gpu_that_is_not_there_is_told_before_anything_is_made(params, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    missing = params.replace(**{"device": "cuda:1", "runs_dir": str(tmp_path / "none")})
    with pytest.raises(
        QvlibError, match=r"device: cuda:1, but torch .* finds 1 GPUs here; set device: cpu"
    ):
        pipeline.train_agents(missing)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "change, names",
    [
        ({"test_tasks": 10**6}, "test_tasks"),
        ({"test_skip": 10**6}, "test_skip"),
        ({"train_tasks": 10**6}, "train_tasks"),
    ],
)
def test_splits_that_are_too_small_are_told(params, shop, change, names):
    with pytest.raises(QvlibError, match=f"{names}.*raise catalogue_products"):
        uses(make({**params.flat(), **change}), shop)


def test_changed_data_stop_a_run(tmp_path):
    params = make({**SMALL, "runs_dir": str(tmp_path)})
    pipeline.prepare_data(params)
    file = next(f for f in stage_path(params, "data").glob("items_ins*") if f.is_file())
    pages = file.read_bytes()
    file.write_bytes(pages + b" " if file.suffix != ".gz" else pages + b"\0" * 8)
    with pytest.raises(QvlibError):
        pipeline.prepare_data(params)


def test_a_given_model_is_the_agent(params, shop, given):
    params = make({**params.flat(), "agent": str(given)})
    stage = pipeline.train_agents(params)
    assert stage.facts["model"] == str(given) and pipeline.cloning_curves(params) == {}
    context = pipeline.context_of(params)
    lm = context.model()
    assert lm.style.func is compact and lm.model.num_parameters() == stage.facts["parameters"]
    state = shop.reset(shop.tasks("train")[0])
    agent = context.sampler()
    assert agent.propose([Request(state, 2, (0, state.task.id, ""))])[0][0].log_prob < 0


@pytest.mark.parametrize(
    "missing, message", [("tokenizer*", "no tokenizer"), ("model*", "no causal language model")]
)
def test_a_folder_that_is_no_model_is_named(params, given, missing, message):
    for file in given.glob(missing):
        file.unlink()
    with pytest.raises(QvlibError, match=message) as caught:
        pipeline.train_agents(make({**params.flat(), "agent": str(given)}))
    assert str(given) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("trainer", ["loop", "trl"])
def test_pairs_beyond_the_context_are_counted(undisturbed, tmp_path, capsys, trainer):
    """A Q model whose base reads half of the pairs: how many were dropped is told."""
    from qvlib.estimators.data import encode

    run = pipeline.context_of(undisturbed)
    train, held = hold_out(
        pipeline.load_pairs(undisturbed), undisturbed.pairs.heldout_share, undisturbed.run.seed
    )
    lengths = [
        [
            len(row.prompt) + max(len(row.chosen), len(row.rejected))
            for row in encode(run.environment, run.model(), rows)
        ]
        for rows in (train, held)
    ]
    longest = int(np.median(lengths[0]))
    shutil.copytree(stage_path(undisturbed, "agent") / "model", tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "max_position_embeddings": longest})
    )
    params = undisturbed.replace(q_base=str(tmp_path / "base"), trainer=trainer, dpo_epochs=1)
    facts = pipeline.train_q(params).facts
    long = [sum(length > longest for length in part) for part in lengths]
    assert 0 < long[0] < len(train)
    assert (facts["dropped_pairs"], facts["dropped_held_out_pairs"]) == tuple(long)
    assert (facts["pairs"], facts["held_out_pairs"]) == (len(train) - long[0], len(held) - long[1])
    assert read_stage(params, "control").facts["controls"][0]["dropped_pairs"] == long[0]
    assert (
        f"({long[0]} longer than its context were dropped)"
        in (stage_path(params, "q_model") / "model" / "README.md").read_text()
    )
    said = (
        f"{long[0]} training and {long[1]} held-out pairs are longer than the model's context and "
        "were dropped."
    )
    assert capsys.readouterr().out == f"{said}\n"
    found = numbers.preferences(params)
    assert sentences.accuracy(found).endswith(said)
    assert "dropped" not in str(numbers.preferences(undisturbed)) + sentences.accuracy(
        numbers.preferences(undisturbed)
    )


def test_a_stage_names_the_notebook_that_is_missing(params, shop):
    with pytest.raises(QvlibError, match=r"not collected yet: run notebooks/02_collect\.ipynb"):
        pipeline.make_pairs(params)


@pytest.fixture
def builds(monkeypatch):
    """Grows by one with each environment that this process builds."""
    world, built = webshop.WORLD, []

    def build(settings, folder):
        built.append(folder)
        return world.build(settings, folder)

    monkeypatch.setattr(webshop, "WORLD", replace(world, build=build))
    return built


def test_a_stage_builds_the_environment_once(undisturbed, builds):
    """Rounds of collecting, the models that are fitted and whoever plays share one environment."""
    params = undisturbed.replace(
        rounds=2, train_tasks=4, iterations=10, min_margin=0.0, dpo_epochs=1, test_tasks=2
    )
    for stage in (pipeline.collect, pipeline.make_pairs, pipeline.train_q, pipeline.play):
        builds.clear()
        stage(params)
        assert len(builds) == 1, stage
    assert read_stage(params, "trees").facts == read_stage(params.round_before(), "trees").facts


def test_stages_of_one_context_build_nothing_more(undisturbed, builds):
    params = undisturbed.replace(iterations=9, test_tasks=2, dpo_epochs=1)
    run = pipeline.until("episodes", params)
    assert len(builds) == 1
    assert run.context.environment is run.environment
    assert len(run.episodes("q_n5")) == 2 and run.stage("trees").complete
    assert len(builds) == 1


def test_each_agent_that_is_cloned_has_one_bar(tmp_path, monkeypatch):
    drawn = []

    def bar(item, position):
        drawn.append((item.label, position))
        return tqdm(total=item.steps, disable=True)

    monkeypatch.setattr(agents, "_bar", bar)
    pipeline.until("agent", tiny(tmp_path))
    assert [position for _, position in drawn] == [0, 1]
    assert len(set(drawn)) == 2


@pytest.mark.parametrize("in_worker", [False, True])
def test_workers_share_a_gpu(params, monkeypatch, in_worker):
    told = {}
    monkeypatch.setattr(torch, "set_num_threads", lambda count: told.update(threads=count))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda how: told.update(how=how))
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda share, device: told.update(share=share, device=device),
    )
    parent = object() if in_worker else None
    monkeypatch.setattr(work.multiprocessing, "parent_process", lambda: parent)
    work.keep_to_share(params.replace(device="cuda:1", processes=5))
    assert told.pop("how") == "high"
    assert told == ({"threads": 1, "share": 0.9 / 6, "device": 1} if in_worker else {})
