"""A copy of a notebook's results in wandb, pushed once at its end. Our own files are the truth."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from qvlib.base.markup import visible
from qvlib.base.paths import resolve
from qvlib.pipeline.params import Params

if TYPE_CHECKING:
    import pandas as pd


def wandb_mode(params: Params) -> str:
    """``online``, ``offline`` or ``disabled``; auto is what WANDB_MODE says, as in wandb itself.

    Without it, auto is online where a key is set.
    """
    if params.run.wandb_mode != "auto":
        return params.run.wandb_mode
    told = os.environ.get("WANDB_MODE", "").lower()
    known = {"dryrun": "offline", "run": "online", "shared": "online"}
    keyed = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    told = known.get(told, told)
    return told if told in ("online", "offline", "disabled") else keyed


def run_name(params: Params, notebook: str) -> str:
    """The same parameters always give the same name."""
    return f"{params.run.name}-{notebook}-{params.fingerprint()}"


def log_run(
    params: Params,
    notebook: str,
    *,
    scalars: Mapping[str, float] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    figures: Mapping[str, str | Path] | None = None,
) -> None:
    """Log a notebook's results as one wandb run, grouped by ``params.run.name``.

    A network or service problem costs one printed line, never the notebook.

    Args:
        notebook: its name, ``05_evaluate``.
        figures: name -> image file.
    """
    mode = wandb_mode(params)
    if mode == "disabled":
        return
    os.environ.setdefault("WANDB_SILENT", "true")  # settings alone leave the login line
    import wandb

    folder = resolve(params.run.runs_dir)  # wandb makes its own folder `wandb` in it
    try:
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=20,
            finish_timeout=120,
            root_dir=str(folder),
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_save_requirements=False,
        )
        run = wandb.init(
            project=params.run.wandb_project,
            name=run_name(params, notebook),
            group=params.run.name,
            job_type=notebook,
            config=params.flat(),
            dir=str(folder),
            mode=mode,
            settings=settings,
        )
        run.log(_media(wandb, tables or {}, figures or {}) | dict(scalars or {}))
        run.summary.update(dict(scalars or {}))
        run.finish()
    except ValidationError as error:  # of a variable of wandb's
        first = error.errors()[0]
        _told(wandb, f"WANDB_{str(first['loc'][0]).upper()}: {first['msg']}")
    except (wandb.errors.Error, OSError) as error:
        _told(wandb, str(error) or type(error).__name__)


def _told(wandb: Any, reason: str) -> None:
    """Say in one line why nothing was logged, and go on."""
    reason = visible(" ".join(reason.split())[:200])
    print(f"wandb: not logged ({reason}); the results are in our own files")
    _abandon(wandb)


def _media(
    wandb: Any, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, str | Path]
) -> dict[str, Any]:
    logged: dict[str, Any] = {
        k: wandb.Table(dataframe=table.reset_index(drop=True)) for k, table in tables.items()
    }
    return logged | {k: wandb.Image(str(path)) for k, path in figures.items()}


def _abandon(wandb: Any) -> None:
    """Close what a failure left open, so that the next notebook cell or test starts clean."""
    if wandb.run is not None:
        try:
            wandb.run.finish(exit_code=1)
        except (wandb.errors.Error, OSError):
            wandb.teardown(exit_code=1)
