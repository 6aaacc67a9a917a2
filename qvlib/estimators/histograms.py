"""Values as histograms: the mass of a Gaussian in bins, and the mean of logits over them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_atomic
from qvlib.base.paths import display_path

if TYPE_CHECKING:
    import torch

FILE = "bins.json"
NARROWEST = 0.1  # in units of reward: the range of values that are all the same


@dataclass(frozen=True)
class Bins:
    """Bins of equal width from ``low`` on; ``sigma`` in units of reward."""

    low: float
    width: float
    count: int
    sigma: float

    @classmethod
    def over(cls, values: Iterable[float], count: int, sigma: float) -> Bins:
        """From the lowest of the values to the highest, with 4 ``sigma`` (widths) beyond each.

        The paper takes a range of returns that is known. Values of trees lie in [-1, 1], mostly in
        a part of it, and often at 0 and 1: a Gaussian that is cut off there has another mean.
        """
        known = list(values)
        beyond = math.ceil(4 * sigma)
        spread = max(max(known) - min(known), NARROWEST)
        width = spread / (count - 2 * beyond)
        middle = (max(known) + min(known)) / 2
        return cls(middle - width * count / 2, width, count, sigma * width)

    @property
    def centres(self) -> list[float]:
        return [self.low + self.width * (i + 0.5) for i in range(self.count)]

    def histogram(self, value: float) -> tuple[float, ...]:
        """The mass of a Gaussian around the value in each bin, of all that is in the range."""
        edges = (self.low + self.width * i for i in range(self.count + 1))
        below = [math.erf((edge - value) / (math.sqrt(2) * self.sigma)) for edge in edges]
        whole = below[-1] - below[0]
        return tuple((right - left) / whole for left, right in pairwise(below))

    def mean(self, logits: torch.Tensor) -> torch.Tensor:
        """The mean of each histogram, [N]; logits [N, bins]."""
        return logits.softmax(-1) @ logits.new_tensor(self.centres)

    def save(self, folder: Path) -> None:
        """Write them into a folder that is there.

        Raises:
            QvlibError: it cannot be written.
        """
        write_atomic(folder / FILE, json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Bins:
        """What ``save`` wrote.

        Raises:
            QvlibError: it is gone or cannot be read.
        """
        path = folder / FILE
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            raise QvlibError(
                f"{display_path(path)}: no bins of a histogram can be read there; delete the "
                "stage's folder to fit it anew"
            ) from None
