"""A Ray cluster of this machine, of one raylet a node."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qvlib.base.executors.ray import OWN, environment, lean


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
    variables = OWN | {"RAY_memory_monitor_refresh_ms": "0"}  # other tests may fill the memory
    with TemporaryDirectory() as folder, environment(PYTHONPATH=lean(folder), **variables):
        return cluster.add_node(num_cpus=cpus, **options)


def works(cluster: Any, seconds: float) -> str:
    """Why two actors of plain Ray, without a line of qvlib, do not answer here; "" if they do."""
    probe = subprocess.Popen(
        [sys.executable, "-c", _PROBE, cluster.address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = probe.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(probe.pid, signal.SIGKILL)
        probe.communicate()
        return f"two actors did not answer within {seconds:.0f} s; {_last_words(cluster)}"
    return "" if probe.returncode == 0 else said.strip()[-300:]


def _last_words(cluster: Any) -> str:
    """The end of the log of the node's Ray process."""
    logs = Path(cluster.head_node.get_logs_dir_path())
    return " | ".join(
        f"{log.name}: {log.read_text(errors='replace').strip()[-600:]}"
        for log in sorted(logs.glob("raylet.*"))
    )


_PROBE = """
import sys
import ray

ray.init(sys.argv[1], log_to_driver=False)


@ray.remote(num_cpus=1)
class Actor:
    def answer(self, number):
        return bytes(number)


actors = [Actor.remote() for _ in range(2)]
for number in range(50):
    assert ray.get([actor.answer.remote(number) for actor in actors]) == [bytes(number)] * 2
"""
