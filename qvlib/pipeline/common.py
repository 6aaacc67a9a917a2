"""What the stages share: writing tables and models whole, and keeping a process to one core."""

from __future__ import annotations

import functools
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import process_count, rank
from qvlib.base.files import write_atomic
from qvlib.models.names import is_remote
from qvlib.pipeline.params import Params
from qvlib.runs.stage import Stage


def write_table(stage: Stage, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table made at once, whole or not at all."""
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer, index=False)
    write_atomic(stage.path / f"{name}.parquet", buffer.getvalue())


def save_model(
    stage: Stage, model: Any, tokenizer: Any, name: str = "model", card: str = ""
) -> None:
    """Save a model and tokenizer as transformers does, then move the folder into place whole."""
    from qvlib.models.local import quiet

    def write(folder: Path) -> None:
        with quiet():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    save_folder(stage, name, write, card)


def save_folder(stage: Stage, name: str, write: Callable[[Path], Any], card: str = "") -> None:
    """A folder of a stage, written beside its place and moved there whole; ``card`` is its README.md."""
    temporary, final = stage.path / f".{name}.tmp", stage.path / name
    for folder in (temporary, final):
        shutil.rmtree(folder, ignore_errors=True)
    write(temporary)
    if card:
        (temporary / "README.md").write_text(card)
    os.replace(temporary, final)


def processes(params: Params) -> int:
    """Processes of a run; one where a server does the work, whose limit of requests holds in each, or a launcher made several."""
    if is_remote(params.agent) or is_remote(params.other_agent) or rank()[1] > 1:
        return 1
    return process_count(params.processes, params.device)


def on_own_device(params: Params) -> Params:
    """The parameters with this process's own GPU, where a launcher started one process a GPU."""
    if rank()[1] == 1 or params.device != "cuda":
        return params
    return params.model_copy(update={"device": f"cuda:{os.environ['LOCAL_RANK']}"})


def check_device(params: Params) -> None:
    """Raise QvlibError where the GPU that is asked for is not there."""
    if params.device == "cpu":
        return
    import torch

    number = int(params.device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise QvlibError(
            f"device: {params.device}, but torch {torch.__version__} finds {torch.cuda.device_count()} GPUs here; set device: cpu, "
            "or install a torch for CUDA and its driver"
        )


def one_thread(params: Params) -> None:
    """On the CPU a process keeps to one core: threads that wait for each other cost more than they do."""
    set_threads(params, 1)


def set_threads(params: Params, count: int) -> None:
    """Threads of this process on the CPU; more than one pays where one process trains a large model alone."""
    if params.device == "cpu":
        import torch

        torch.set_num_threads(count)


def for_each_seed(make: Callable[[Params], Stage]) -> Callable[[Params], Stage]:
    """Make a stage for every chain of a run, one after the other; gives the first chain's."""

    @functools.wraps(make)
    def all_seeds(params: Params) -> Stage:
        return [make(chain) for chain in params.each_seed()][0]

    return all_seeds
