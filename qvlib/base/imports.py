"""Things of one's own that a parameter names: ``module:attribute``.

A module is looked for where Python looks, then in the current folder and in the project's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from qvlib.base.errors import QvlibError, one_line
from qvlib.base.paths import project_root


def attribute(path: str, kind: str) -> Any:
    """What ``module:attribute`` names.

    kind: what it is meant to be, for messages: ``estimator``, ``environment``, ...

    Raises:
        QvlibError: no such module, or it has no such attribute.
    """
    name, _, member = path.partition(":")
    loaded, _ = module(path, kind)
    if not hasattr(loaded, member):
        raise QvlibError(
            f"{kind} {path!r}: the module {name} has no {member!r}; define it there, or correct "
            "the name"
        )
    return getattr(loaded, member)


def module(path: str, kind: str) -> tuple[ModuleType, str]:
    """The module of ``module:attribute``, and the sha256 of its file when it was imported.

    What is edited later is not what runs. A module without a file has the hash "".

    Raises:
        QvlibError: no such module, it is not Python, or it raises.
    """
    name = path.partition(":")[0]
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", path):
        raise QvlibError(f"{kind} {path!r}: one of your own is named module:ATTRIBUTE")
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise QvlibError(
            f"{kind} {path!r}: the module {name} is Python's own and has none; name one of yours"
        )
    try:
        return _imported(name)
    except SyntaxError as error:
        file = Path(error.filename or name).name
        raise QvlibError(
            f"{kind} {path!r}: {file}, line {error.lineno}: {error.msg}; mend it there"
        ) from None
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise QvlibError(
            f"{kind} {path!r}: no module {error.name!r}; put {name.replace('.', '/')}.py into "
            "the project's folder, or install it"
        ) from None
    except QvlibError:
        raise  # it names what is wrong by itself
    except (Exception, SystemExit) as error:  # a user's code may raise whatever it likes
        frames = traceback.extract_tb(error.__traceback__)
        at = next((f for f in reversed(frames) if f.filename.endswith(".py")), frames[-1])
        raise QvlibError(
            f"{kind} {path!r}: {Path(at.filename).name}, line {at.lineno}: "
            f"{type(error).__name__}: {one_line(error)}; mend it there"
        ) from None


@functools.cache
def _imported(name: str) -> tuple[ModuleType, str]:
    for folder in (os.getcwd(), str(project_root())):
        if folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()  # the file may be newer than the last look
    loaded = importlib.import_module(name)
    file = getattr(loaded, "__file__", None)
    return loaded, hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
