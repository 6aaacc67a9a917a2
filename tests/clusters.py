"""Ray clusters of this machine, of one raylet a node."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qvlib.base.executors.ray import environment, lean


@contextmanager
def started(*cpus: int) -> Iterator[Any]:
    """A cluster of nodes with so many CPUs; the first is the driver's."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder, environment({"PYTHONPATH": lean(folder)}):
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": cpus[0], "include_dashboard": False}
        )
        try:
            for count in cpus[1:]:
                cluster.add_node(num_cpus=count)
            yield cluster
        finally:
            cluster.shutdown()
