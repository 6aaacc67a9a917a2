"""Comparison with recorded cases of the original environments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .environments.webshop import environment, files, goals, pages, search, splits
from .environments.webshop.analyzer import tokens
from .environments.webshop.goals import Goal
from .environments.webshop.reward import reward
from .errors import QvlibError
from .types import State

_ITEM_TEXTS = ("description", "features", "reviews", "attributes")


@dataclass(frozen=True, slots=True)
class Row:
    """How many records of a file come out the same, and where the first does not."""

    file: str
    matching: int
    total: int
    first_difference: str = ""


def check_webshop(data_dir: str | Path) -> list[Row]:
    """Replay every recorded file that lies beside the data.

    Raises:
        QvlibError: unusable data, or no recorded file beside them.
    """
    folder = Path(data_dir)
    found = {name: path for name in _CHECKS for path in sorted(folder.glob(f"{name}.jsonl*"))[:1]}
    if not found:
        raise QvlibError(f"{folder}: none of {', '.join(f'{n}.jsonl.gz' for n in _CHECKS)}; parity needs recorded "
                         "cases of the original beside the data files")
    shop = environment.build(folder)
    kinds = ("synthetic", "human") if any(p.human for p in shop.catalogue.products) else ("synthetic",)
    by_kind = {kind: goals.build(shop.catalogue, kind) for kind in kinds}
    return [_row(path, _CHECKS[name](shop, by_kind)) for name, path in found.items()]


def format_rows(rows: Iterable[Row]) -> str:
    """A plain table, one file a line."""
    rows = list(rows)
    width = max(len(row.file) for row in rows)
    return "\n".join(f"{row.file:{width}}  {row.matching:>6} of {row.total:<6}  "
                     f"{row.first_difference or 'same'}" for row in rows)


def _row(path: Path, differs: Callable[[dict[str, Any]], str | None]) -> Row:
    matching = total = 0
    first = ""
    for record in files.lines(path):
        total += 1
        try:
            difference = differs(record)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            difference = f"{type(error).__name__}: {error}"
        if difference is None:
            matching += 1
        elif not first:
            first = f"record {total}: {difference}"
    return Row(path.name, matching, total, first)


def _compare(**pairs: tuple[Any, Any]) -> str | None:
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            return f"{name}: {ours!r:.200} instead of {theirs!r:.200}"
    return None


def _goals(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        goal = by_kind[record["set"]][record["idx"]]
        options = dict(goal.options) if goal.kind == "synthetic" else list(goal.options)
        return _compare(
            asin=(goal.asin, record["asin"]), category=(goal.category, record["category"]),
            query=(goal.query, record["query"]), name=(goal.name, record["name"]),
            product_category=(goal.product_category, record["product_category"]),
            instruction=(goal.instruction, record["instruction_text"]),
            attributes=(list(goal.attributes), record["attributes"]),
            price_upper=(goal.price_upper, record["price_upper"]), options=(options, record["goal_options"]),
            weight=(goal.weight, record["weight"]), number=(goal.number, record["pre_shuffle_idx"]))

    return differs


def _rewards(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        goal = _overridden(by_kind[record["goal_set"]][record["goal_idx"]], record["goal_override"] or {})
        product = shop.catalogue.by_asin[record["asin"]]
        try:
            parts = reward(goal, product, tuple(record["options"].items()), record["price"], shop.nouns)
        except QvlibError as error:
            return None if "error" in record else f"refused: {error}"
        if "error" in record:
            return f"reward {parts.reward} where the original raises {record['error']}"
        return _compare(**{name: (getattr(parts, name), record.get(name)) for name in parts.__slots__})

    return differs


def _overridden(goal: Goal, override: dict[str, Any]) -> Goal:
    changes = dict(override)
    if "goal_options" in changes:
        options = changes.pop("goal_options")
        changes["options"] = tuple(options.items()) if isinstance(options, dict) else tuple(options)
    if "instruction_text" in changes:
        changes["instruction"] = changes.pop("instruction_text")
    if "attributes" in changes:
        changes["attributes"] = tuple(changes["attributes"])
    return replace(goal, **changes)


def _pages(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        product = shop.catalogue.by_asin[record["asin"]]
        view = pages.view(pages.item(product, False), pages.groups_of(product))
        texts = {name: (pages.text(pages.section(product, name)), record[name]) for name in _ITEM_TEXTS}
        return _compare(
            item=(view.body, record["item"]), clickables=(list(view.clickables), record["clickables"]),
            item_show_attrs=(pages.text(pages.item(product, True)), record["item_show_attrs"]), **texts)

    return differs


def _searches(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        found = shop.find(tuple(record["query"].lower().split(" ")))
        return _compare(tokens=(tokens(record["query"].lower()), record["tokens"]),
                        asins=(list(found or ()), record["asins"]))

    return differs


def _document_terms(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        return _compare(tokens=(tokens(search.document(shop.catalogue.by_asin[record["asin"]])), record["tokens"]))

    return differs


def _episodes(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        place = replace(shop, show_attributes=record["show_attrs"])
        goal = by_kind[record["goal_set"]][record["goal_idx"]]
        state = place.reset(splits.make_task(goal))
        difference = _seen(place, state, record["initial"])
        for number, step in enumerate(record["steps"], 1):
            if difference:
                return f"{record['kind']}, step {number - 1}: {difference}"
            state = place.step(state, step["action"])
            difference = _seen(place, state, step)
        return difference and f"{record['kind']}, step {len(record['steps'])}: {difference}"

    return differs


def _seen(shop: environment.WebShop, state: State, step: dict[str, Any]) -> str | None:
    if "error" in step:
        return _compare(valid=(state.valid, False))
    page, theirs = state.world, step["state"]
    difference = _compare(
        observation=(state.observation, step["observation"]),
        clickables=(list(shop.clickables(state)), step["available"]["clickables"]),
        search_bar=(page.kind == "init", step["available"]["has_search_bar"]),
        reward=(state.reward, step.get("reward", 0.0)), done=(state.done, step.get("done", False)),
        url=(pages.url(page, state.task.goal.index), step["url"]),
        keywords=(page.keywords and list(page.keywords), theirs["keywords"]),
        page=(page.page, theirs["page"]), asin=(page.asin, theirs["asin"]),
        options=(dict(page.options), theirs["options"]))
    if not difference and "observation_rich" in step:
        difference = _compare(observation_rich=(shop.rich(state), step["observation_rich"]))
    if not difference and "reward_info" in step:
        difference = _compare(**{k: (getattr(page.parts, k), v) for k, v in step["reward_info"].items()})
    return difference


_CHECKS = {
    "goals": _goals,
    "reward_golden": _rewards,
    "pages_golden": _pages,
    "search_golden": _searches,
    "doc_tokens": _document_terms,
    "episodes_golden": _episodes,
}
