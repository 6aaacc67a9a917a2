"""Frozen hidden states, computed once for a set of trees and shared by all that read them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path
from qvlib.estimators.estimator import Problem
from qvlib.models.hidden import Row, headless, read_hidden

ROWS = 2048  # actions that are computed between two looks at the progress bar


def frozen(problem: Problem, rows: Sequence[Row]) -> torch.Tensor:
    """The reference's ``last_hidden`` of (prompt, action) rows, [rows, D], on the CPU.

    They are kept in ``problem.features``, a file for each model and set of rows: estimators,
    controls and tries on the same trees compute them once. Without a folder nothing is kept.

    Raises:
        QvlibError: a file there cannot be read.
    """
    distinct = list(dict.fromkeys(rows))
    place = {row: i for i, row in enumerate(distinct)}
    path = None
    if problem.features is not None:
        path = problem.features / f"{_name(problem, distinct)}.npy"
    if path is not None and path.is_file():
        try:
            known = torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            raise QvlibError(
                f"{display_path(path)}: no features can be read there; delete it to compute them "
                "anew"
            ) from None
    else:
        known = _computed(problem, distinct)
        if path is not None:
            buffer = io.BytesIO()
            np.save(buffer, known.numpy(), allow_pickle=False)
            write_atomic(path, buffer.getvalue())
    return known[torch.tensor([place[row] for row in rows])]


def _computed(problem: Problem, rows: Sequence[Row]) -> torch.Tensor:
    lm = headless(problem.reference)
    parts = []
    with tqdm(total=len(rows), desc=f"{problem.label}: features", unit="action") as bar:
        for start in range(0, len(rows), ROWS):
            parts.append(read_hidden(lm, rows[start : start + ROWS]))
            bar.update(len(parts[-1]))
    return torch.cat(parts).to(problem.reference.model.dtype)


def _name(problem: Problem, rows: Sequence[Row]) -> str:
    """A name for these rows read by this model alone."""
    digest = hashlib.blake2b(digest_size=12)
    for name, weights in problem.reference.model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().view(torch.uint8).numpy())
    digest.update(repr(rows).encode())
    return digest.hexdigest()
