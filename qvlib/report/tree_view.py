"""A search tree as a small SVG and as collapsible HTML; an episode's candidates side by side.

All take plain records (``mcts.tree_record``, ``evaluate.episode`` with its trace), made by anyone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from qvlib.base import markup
from qvlib.base.files import write_atomic
from qvlib.base.paths import resolve
from qvlib.core.trees import children_by_parent
from qvlib.pipeline.params import Params
from qvlib.report.formats import signed

Node = Mapping[str, Any]
WIDTH, HEIGHT, GAP_X, GAP_Y = 148, 46, 12, 34


def svg(tree: Mapping[str, Any], most_nodes: int = 22, most_children: int = 3) -> str:
    """A tree's most visited part: in each box an action, its visits N and value V.

    The darker, the higher V. Kept are the ``most_nodes`` most visited nodes, at most
    ``most_children`` below one; how many children that hides is written into the box. A thick
    border ends an episode, with its reward r.
    """
    children = _children(tree)
    root = tree["nodes"][0]
    kept: dict[str, list[Node]] = {root["node"]: []}
    first = {child["node"] for siblings in children.values() for child in siblings[:most_children]}
    # stable, so parents stay before children
    for node in sorted(tree["nodes"][1:], key=lambda n: -n["visits"]):
        below, room = kept.get(node["parent"]), len(kept) < most_nodes
        if below is not None and node["node"] in first and room and node["visits"]:
            below.append(node)
            kept[node["node"]] = []
    place: dict[str, tuple[float, int]] = {}
    columns = _place(root, kept, place, 0, [0])
    levels = max(level for _, level in place.values()) + 1
    width, height = columns * (WIDTH + GAP_X) + GAP_X, levels * (HEIGHT + GAP_Y) + 8
    parts = []
    for node in tree["nodes"]:
        if node["node"] in place:
            x, y = _corner(place[node["node"]])
            for child in kept.get(node["node"], ()):
                cx, cy = _corner(place[child["node"]])
                start, end = x + WIDTH / 2, cx + WIDTH / 2
                parts.append(
                    f'<path d="M{start:.0f} {y + HEIGHT}C{start:.0f} {y + HEIGHT + 18} '
                    f'{end:.0f} {cy - 18} {end:.0f} {cy}" fill="none" stroke="#999"/>'
                )
            hidden = len(children.get(node["node"], ())) - len(kept.get(node["node"], ()))
            parts.append(_box(node, x, y, hidden))
    label = markup.html(f"Search tree of: {tree.get('instruction', tree.get('task', ''))}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" style="max-width:100%;height:auto" role="img" '
        f'font-family="sans-serif"><title>{label}</title>{"".join(parts)}</svg>'
    )


def html(tree: Mapping[str, Any]) -> str:
    """The whole tree as nested ``<details>``, the most visited child first; the root is open."""
    children = _children(tree)
    style = (
        "<style>.tree details,.tree div.leaf{margin-left:1.2em;font:13px sans-serif}"
        ".tree summary{cursor:pointer}.tree .v{display:inline-block;min-width:3em;padding:0 .3em;"
        "border-radius:3px;text-align:right}.tree small{color:#666}</style>"
    )
    return f'{style}<div class="tree">{_details(tree["nodes"][0], children)}</div>'


def side_by_side(
    with_q: Mapping[str, Any], without: Mapping[str, Any], instruction: str = ""
) -> str:
    """One task played with and without Q, step by step.

    Each step's candidates stand with Q and log-probability, the executed one marked. The two draw
    alike: while their histories are the same, the agent without Q executes the first draw.

    Args:
        with_q: an episode's record with its ``trace``.
        without: the record of the same task without Q.
    """
    rows = []
    for number, (step, action) in enumerate(zip_longest(with_q["trace"], without["actions"]), 1):
        reranked = "" if step is None else _candidates(step)
        sampled = "" if action is None else f"<code>{markup.html(action)}</code>"
        rows.append(f"<tr><td>{number}</td><td>{reranked}</td><td>{sampled}</td></tr>")
    style = (
        "<style>.episode td,.episode th{vertical-align:top;text-align:left!important;"
        "font:13px sans-serif}.episode table td{padding:0 .6em 0 0;border:0}"
        ".episode table tr{background:none!important}.episode .number{white-space:nowrap}"
        ".episode .chosen{font-weight:bold}</style>"
    )
    head = (
        f'<p class="tex2jax_ignore mathjax_ignore"><b>Task.</b> {markup.html(instruction)}</p>'
        if instruction
        else ""
    )
    return (
        f'{style}{head}<table class="episode"><thead><tr><th>step</th>'
        f"<th>with Q: candidates, reward {with_q['reward']:.2f}</th>"
        f"<th>without Q: one sample, reward {without['reward']:.2f}</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def clearest(
    with_q: Sequence[Mapping[str, Any]], without: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The task where Q gained most, the shortest such episode, ties by task.

    A picture, not evidence.
    """
    base = {r["task"]: r for r in without}
    best = min(
        with_q,
        key=lambda r: (base[r["task"]]["reward"] - r["reward"], len(r["actions"]), r["task"]),
    )
    return best, base[best["task"]]


def save(params: Params, name: str, text: str) -> Path:
    """Write ``results/<name>/figures/<name>`` (with its ending, ``tree.svg``); returns its path."""
    page = (
        f'<!doctype html><meta charset="utf-8"><title>{markup.html(name)}</title>{text}\n'
        if name.endswith(".html")
        else f"{text}\n"
    )
    return write_atomic(resolve(params.run.results_dir) / params.run.name / "figures" / name, page)


def _candidates(step: Mapping[str, Any]) -> str:
    lines = []
    for action, times in Counter(c["action"] for c in step["candidates"]).items():
        candidate = next(c for c in step["candidates"] if c["action"] == action)
        q, log_prob = (signed(candidate[key], 2) or "-" for key in ("q", "log_prob"))
        chosen = action == step["action"]
        lines.append(
            f"<tr{' class=chosen' if chosen else ''}><td>{'&#9654;' if chosen else ''}</td>"
            f"<td><code>{markup.html(action)}</code>{f' &times;{times}' if times > 1 else ''}</td>"
            f"<td class=number>Q {q}</td><td class=number>log p {log_prob}</td></tr>"
        )
    return f"<table>{''.join(lines)}</table>"


def _children(tree: Mapping[str, Any]) -> dict[str, list[Node]]:
    """The children of each node, the most visited first."""
    return {
        parent: sorted(children, key=lambda node: (-node["visits"], -node["value"]))
        for parent, children in children_by_parent(tree).items()
    }


def _place(
    node: Node,
    kept: Mapping[str, list[Node]],
    place: dict[str, tuple[float, int]],
    level: int,
    next_column: list[int],
) -> int:
    """Leaves take the next free column, a parent the middle of its children.

    Returns the number of columns.
    """
    below = kept.get(node["node"], [])
    for child in below:
        _place(child, kept, place, level + 1, next_column)
    if below:
        column = (place[below[0]["node"]][0] + place[below[-1]["node"]][0]) / 2
    else:
        column = next_column[0]
        next_column[0] += 1
    place[node["node"]] = (column, level)
    return next_column[0]


def _corner(at: tuple[float, int]) -> tuple[float, int]:
    return GAP_X + at[0] * (WIDTH + GAP_X), 4 + at[1] * (HEIGHT + GAP_Y)


def _box(node: Node, x: float, y: int, hidden: int) -> str:
    fill, ink = _shade(node)
    action = node["action"] or "start"
    short = action if len(action) <= 22 else f"{action[:21]}…"
    end = (
        f" · r {node.get('reward', 0.0):.2f}"
        if node.get("terminal")
        else f" · +{hidden} more"
        if hidden > 0
        else ""
    )
    figures = (
        f"N {node['visits']} · V {node['value']:.2f}{end}"
        if node["visits"]
        else f"not visited{end}"
    )
    border = ' stroke-width="2.5"' if node.get("terminal") else ""
    return (
        f'<g><title>{markup.html(action)}</title><rect x="{x:.0f}" y="{y}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="6" fill="{fill}" stroke="#333"{border}/>'
        f'<text x="{x + WIDTH / 2:.0f}" y="{y + 19}" font-size="12" text-anchor="middle" '
        f'fill="{ink}">{markup.html(short)}</text><text x="{x + WIDTH / 2:.0f}" y="{y + 36}" '
        f'font-size="11" text-anchor="middle" fill="{ink}">{figures}</text></g>'
    )


def _shade(node: Node) -> tuple[str, str]:
    """(fill, ink): white at value 0 or less or without visits, dark blue at 1."""
    share = min(1.0, max(0.0, node["value"])) if node["visits"] else 0.0
    red, green, blue = (round(255 + share * (dark - 255)) for dark in (8, 69, 148))
    return f"#{red:02x}{green:02x}{blue:02x}", "#fff" if share > 0.55 else "#111"


def _details(node: Node, children: Mapping[str, list[Node]]) -> str:
    fill, ink = _shade(node)
    value = (
        f'<span class="v" style="background:{fill};color:{ink}">{node["value"]:.2f}</span>'
        if node["visits"]
        else '<span class="v">-</span>'
    )
    notes = [f"N {node['visits']}"] + (
        [f"reward {node.get('reward', 0.0):.2f}"] if node.get("terminal") else []
    )
    if node.get("valid") is False:
        notes.append("refused")
    action = markup.html(node["action"] or "start")
    text = f"{value} <code>{action}</code> <small>{', '.join(notes)}</small>"
    below = children.get(node["node"], [])
    if not below:
        return f'<div class="leaf">{text}</div>'
    inner = "".join(_details(child, children) for child in below)
    opened = " open" if node["parent"] is None else ""
    return f"<details{opened}><summary>{text}</summary>{inner}</details>"
