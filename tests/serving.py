"""``transformers serve`` on loopback with a model from a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST = 120  # seconds after which a server that should listen is taken to hang


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The base URL of a server of the model in ``folder``, whose generation_config samples.

    On leaving, the server is gone.
    """
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'qvlib[api,test]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / f"{folder.name}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "transformers.cli.transformers",
                "serve",
                str(folder),
                "--device",
                "cpu",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            stdout=file,
            stderr=file,
            cwd=folder.parent,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "HF_HOME": str(folder.parent / "hub"),
                "OMP_NUM_THREADS": "1",
            },
        )
    try:
        end = time.monotonic() + LONGEST
        while not listens(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """Whether anyone takes connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
