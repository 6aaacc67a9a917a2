"""The parameters of a notebook: what its parameters cell set, and nothing else.

A kernel holds more plain values than parameters: those of cells that ran before, of an IPython
start-up file, names that a later cell took again. So the values are read from the source of the
parameters cell, which begins with ``MARK``, and of the cell that papermill adds below it.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Mapping, Sequence
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.pipeline.params import Params, make

PAPERMILLS = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")
"""What ``papermill --inject-paths`` sets beside the parameters."""
MARK = "# Parameters"
"""The first line of a parameters cell begins so; of papermill's it is this and nothing more."""


def notebook_parameters(namespace: Mapping[str, Any]) -> Params:
    """The parameters that the last run parameters cell, and papermill below it, have set.

    namespace: the notebook's ``globals()``.

    Raises:
        QvlibError: no parameters cell was run, it does more than set names, or a name or value is
            wrong.
    """
    values: dict[str, Any] = {}
    for source in parameter_cells(_history(namespace)):
        values |= assigned(source, namespace)
    typed = {name: value for name, value in values.items() if name not in PAPERMILLS}
    return make(typed, "notebook parameters")


def _history(namespace: Mapping[str, Any]) -> Sequence[str]:
    """The cells that were run; of a client that keeps no history, such as nbval, those compiled."""
    history = namespace.get("In", ())
    if "get_ipython" not in namespace or any(source.startswith(MARK) for source in history):
        return history
    # IPython notes the source of each cell without a time, files have one.
    return ["".join(noted[2]) for noted in linecache.cache.values() if noted[1:2] == (None,)]


def parameter_cells(history: Sequence[str]) -> list[str]:
    """The last parameters cell in a kernel's history and papermill's cells after it.

    Where none but cells such as papermill's were run, the last of them that stand together: the
    notebook's own may begin as papermill's does, or be missing.
    """
    marked = [i for i, source in enumerate(history) if source.startswith(MARK)]
    if not marked:
        raise QvlibError(
            f"no parameters cell was run: run the cell that begins with {MARK!r}, then this one"
        )
    own = [i for i in marked if not _is_injected(history[i])]
    if own:
        return [history[i] for i in marked if i >= own[-1]]
    first = next(i for i in reversed(marked) if i - 1 not in marked)
    return [history[i] for i in marked if i >= first]


def _is_injected(source: str) -> bool:
    return source.splitlines()[0].strip() == MARK


def assigned(source: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell of plain assignments sets, computed anew from its source."""
    values: dict[str, Any] = {}
    try:
        body = ast.parse(source).body
    except SyntaxError as error:  # of a magic, such as %time
        raise _not_a_value(error.lineno) from None
    for node in body:
        simple = isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not simple or not all(isinstance(target, ast.Name) for target in targets):
            raise _not_a_value(node.lineno)
        code = compile(ast.Expression(node.value), "<parameters>", "eval")
        value = eval(code, {**namespace, **values})
        for target in targets:
            if target.id in values:
                raise QvlibError(
                    f"notebook parameters: line {node.lineno} of the parameters cell sets "
                    f"{target.id} again; keep one of the two"
                )
            values[target.id] = value
    return values


def _not_a_value(line: int | None) -> QvlibError:
    return QvlibError(
        f"notebook parameters: line {line} of the parameters cell is not `name = value`; nothing "
        "else belongs there"
    )
