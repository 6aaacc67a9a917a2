"""Environments of your own: the parameter ``environment: module:factory`` names a function that makes one.

``factory(params)`` returns an object that meets ``qvlib.core.types.Environment``. It may read the parameters of the stage
``data`` (``qvlib params`` lists them), which name the folders of the work. The module is looked for where Python looks,
then in the project's folder. The environment may also have

- ``demonstrator()``: the scripted agent that a small agent is cloned from,
- ``data_hashes()``: file name -> hash of what it read; the module's own file is always counted,
- ``skipped``: how many tasks were left out.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

from qvlib.base.errors import QvlibError
from qvlib.base.paths import project_root
from qvlib.core.types import Agent, Environment
from qvlib.pipeline.params import Params

MEMBERS = ("name", "max_steps", "timeout_value", "tasks", "reset", "step", "accepts")


def make(params: Params) -> Environment:
    """The environment that ``params.environment`` names.

    Raises:
        QvlibError: no such module or function, or what it makes is no environment.
    """
    name, _, function = params.environment.partition(":")
    module, _ = _imported(name)
    factory = getattr(module, function, None)
    if not callable(factory):
        raise QvlibError(
            f"environment {params.environment!r}: the module has no function {function!r}; "
            f"write `def {function}(params)` that returns the environment"
        )
    environment = factory(params)
    missing = [member for member in MEMBERS if not hasattr(environment, member)]
    if missing:
        raise QvlibError(
            f"environment {params.environment!r}: what {function}(params) returned has no {', '.join(missing)}; "
            "see qvlib.core.types.Environment"
        )
    return environment


def data_hashes(params: Params, environment: Environment) -> dict[str, str]:
    """The hash of the module as it was imported, and what the environment itself tells."""
    module, sha256 = _imported(params.environment.partition(":")[0])
    told = environment.data_hashes() if hasattr(environment, "data_hashes") else {}
    return {Path(module.__file__ or module.__name__).name: sha256} | told


def demonstrator(params: Params, environment: Environment) -> Agent:
    """What ``environment.demonstrator()`` gives.

    Raises:
        QvlibError: it has no such method, or cannot err more or less.
    """
    if not hasattr(environment, "demonstrator"):
        raise QvlibError(
            f"environment {params.environment!r} has no demonstrator() to clone a small agent from; "
            "write one, or set agent to the folder or hub name of a model"
        )
    if params.demonstrator_errors != 1.0:
        raise QvlibError(
            f"demonstrator_errors: how often the demonstrator() of {params.environment!r} errs is for itself to say; leave it at 1.0"
        )
    return environment.demonstrator()


@functools.cache
def _imported(name: str) -> tuple[ModuleType, str]:
    """The module, and the sha256 of its file when it was imported: what is edited later is not what runs."""
    root = str(project_root())
    if root not in sys.path:
        sys.path.append(root)
    importlib.invalidate_caches()  # the file may be newer than the last look
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise QvlibError(
            f"environment '{name}:...': no module {error.name!r}; put {name.replace('.', '/')}.py into "
            "the project's folder, or install it"
        ) from None
    file = getattr(module, "__file__", None)
    return module, hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
