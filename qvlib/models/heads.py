"""Heads on hidden states: a small network, saved beside the model that it reads or alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path
from qvlib.base.seeding import generator
from qvlib.models.saving import saving

WEIGHTS, SHAPE = "head.safetensors", "head.json"


class Head(torch.nn.Module):
    """Linear layers with ReLU between, [..., D] -> [..., outputs].

    sizes: (D, hidden sizes ..., outputs). Weights are drawn from the seed as torch draws them for
    ``Linear``; ``zero`` makes the last layer 0, so that training starts from 0 everywhere.
    """

    def __init__(self, sizes: Sequence[int], seed: int = 0, zero: bool = True) -> None:
        super().__init__()
        self.sizes = tuple(int(size) for size in sizes)
        pairs = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self.layers = torch.nn.ModuleList(
            torch.nn.utils.skip_init(torch.nn.Linear, wide, out) for wide, out in pairs
        )
        self.register_buffer("centre", torch.zeros(self.sizes[0]))
        self.register_buffer("scale", torch.ones(self.sizes[0]))
        rng = generator(seed, "head", *self.sizes)
        with torch.no_grad():
            for i, layer in enumerate(self.layers):
                bound = 0.0 if zero and i == len(pairs) - 1 else pairs[i][0] ** -0.5
                for weights in (layer.weight, layer.bias):
                    drawn = rng.uniform(-1, 1, tuple(weights.shape)) * bound
                    weights.copy_(torch.from_numpy(drawn))

    def standardise(self, hidden: torch.Tensor) -> None:
        """Read hidden states less the mean of these, over their deviation; [N, D]."""
        self.centre.copy_(hidden.mean(0))
        self.scale.copy_(hidden.std(0, correction=0).clamp(min=1e-6))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = (hidden - self.centre) / self.scale
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        return self.layers[-1](hidden)

    def save(self, folder: str | Path, name: str = "head") -> None:
        """Write weights and sizes into a folder that is there.

        Raises:
            QvlibError: it cannot be written.
        """
        folder = Path(folder)
        with saving(folder):
            weights = {key: value.contiguous() for key, value in self.state_dict().items()}
            save_file(weights, folder / WEIGHTS.replace("head", name))
            (folder / SHAPE.replace("head", name)).write_text(json.dumps({"sizes": self.sizes}))


class Beside(torch.nn.Module):
    """Heads that read the same hidden states and share nothing, [..., D] -> [..., all outputs]."""

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleDict(heads)

    def standardise(self, hidden: torch.Tensor) -> None:
        """As ``Head.standardise``, all of them."""
        for head in self.heads.values():
            head.standardise(hidden)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([head(hidden) for head in self.heads.values()], dim=-1)

    def save(self, folder: str | Path) -> None:
        """As ``Head.save``, each under its name."""
        for name, head in self.heads.items():
            head.save(folder, name)


def load_beside(folder: str | Path, names: Sequence[str]) -> Beside:
    """Some of the heads that ``Beside.save`` wrote; raises as ``load_head``."""
    return Beside({name: load_head(folder, name) for name in names}).eval()


def load_head(folder: str | Path, name: str = "head") -> Head:
    """The head that ``Head.save`` wrote, with the precision that it was saved in.

    Raises:
        QvlibError: it is gone or cannot be read.
    """
    folder = Path(folder)
    path = folder / WEIGHTS.replace("head", name)
    try:
        sizes = json.loads((folder / SHAPE.replace("head", name)).read_text())["sizes"]
        weights = load_file(path)
        head = Head(sizes).to(next(iter(weights.values())).dtype)
        head.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError, StopIteration, SafetensorError):
        raise QvlibError(
            f"{display_path(path)}: no head can be read there; delete the stage's folder to fit it "
            "anew"
        ) from None
    return head.eval()
