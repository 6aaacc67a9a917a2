"""Work on disk: stages that resume, and what made them."""

from importlib.util import find_spec

from qvlib.base.errors import QvlibError

if find_spec("fcntl") is None or find_spec("resource") is None:
    raise QvlibError(
        "qvlib needs Linux or macOS: this system cannot lock folders; on Windows use WSL"
    )
