"""A Ray cluster of this machine, of one raylet a node."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qvlib.base.executors.ray import environment, lean


@contextmanager
def started(cpus: int) -> Iterator[Any]:
    """A cluster of one node, the driver's."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster()
    try:
        _add(cluster, cpus, include_dashboard=False)
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def another_node(cluster: Any, cpus: int) -> Iterator[Any]:
    """One more node, for a while."""
    node = _add(cluster, cpus)
    try:
        yield node
    finally:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def _add(cluster: Any, cpus: int, **options: Any) -> Any:
    with TemporaryDirectory() as folder, environment(PYTHONPATH=lean(folder)):
        return cluster.add_node(num_cpus=cpus, **options)
