"""WebShop beside recorded cases of the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import State
from qvlib.environments.analyzer import tokens
from qvlib.environments.webshop import environment, goals, pages, search, splits
from qvlib.environments.webshop.goals import Goal
from qvlib.environments.webshop.reward import reward
from qvlib.tools.parity.rows import Row, compare, recorded, row

_ITEM_TEXTS = ("description", "features", "reviews", "attributes")


def check_webshop(data_dir: str | Path) -> list[Row]:
    """Replay every recorded file that lies beside the data.

    Raises:
        QvlibError: unusable data, or no recorded file beside them.
    """
    folder = Path(data_dir)
    files = recorded(folder, _CHECKS)
    shop = environment.build(folder)
    kinds = (
        ("synthetic", "human") if any(p.human for p in shop.catalogue.products) else ("synthetic",)
    )
    by_kind = {kind: goals.build(shop.catalogue, kind) for kind in kinds}
    return [row(path, _CHECKS[name](shop, by_kind)) for name, path in files.items()]


def _goals(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        goal = by_kind[record["set"]][record["idx"]]
        options = dict(goal.options) if goal.kind == "synthetic" else list(goal.options)
        return compare(
            asin=(goal.asin, record["asin"]),
            category=(goal.category, record["category"]),
            query=(goal.query, record["query"]),
            name=(goal.name, record["name"]),
            product_category=(goal.product_category, record["product_category"]),
            instruction=(goal.instruction, record["instruction_text"]),
            attributes=(list(goal.attributes), record["attributes"]),
            price_upper=(goal.price_upper, record["price_upper"]),
            options=(options, record["goal_options"]),
            weight=(goal.weight, record["weight"]),
            number=(goal.number, record["pre_shuffle_idx"]),
        )

    return differs


def _rewards(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        goal = _overridden(
            by_kind[record["goal_set"]][record["goal_idx"]], record["goal_override"] or {}
        )
        product = shop.catalogue.by_asin[record["asin"]]
        try:
            parts = reward(
                goal, product, tuple(record["options"].items()), record["price"], shop.nouns
            )
        except QvlibError as error:
            return None if "error" in record else f"refused: {error}"
        if "error" in record:
            return f"reward {parts.reward} where the original raises {record['error']}"
        return compare(
            **{name: (getattr(parts, name), record.get(name)) for name in parts.__slots__}
        )

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
        texts = {
            name: (pages.text(pages.section(product, name)), record[name]) for name in _ITEM_TEXTS
        }
        return compare(
            item=(view.body, record["item"]),
            clickables=(list(view.clickables), record["clickables"]),
            item_show_attrs=(pages.text(pages.item(product, True)), record["item_show_attrs"]),
            **texts,
        )

    return differs


def _searches(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        results = shop.find(tuple(record["query"].lower().split(" ")))
        return compare(
            tokens=(tokens(record["query"].lower()), record["tokens"]),
            asins=(list(results or ()), record["asins"]),
        )

    return differs


def _document_terms(shop: environment.WebShop, by_kind: dict[str, tuple[Goal, ...]]):
    def differs(record: dict[str, Any]) -> str | None:
        return compare(
            tokens=(
                tokens(search.document(shop.catalogue.by_asin[record["asin"]])),
                record["tokens"],
            )
        )

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
        return compare(valid=(state.valid, False))
    page, theirs = state.world, step["state"]
    difference = compare(
        observation=(state.observation, step["observation"]),
        clickables=(list(shop.clickables(state)), step["available"]["clickables"]),
        search_bar=(page.kind == "init", step["available"]["has_search_bar"]),
        reward=(state.reward, step.get("reward", 0.0)),
        done=(state.done, step.get("done", False)),
        url=(pages.url(page, state.task.goal.index), step["url"]),
        keywords=(page.keywords and list(page.keywords), theirs["keywords"]),
        page=(page.page, theirs["page"]),
        asin=(page.asin, theirs["asin"]),
        options=(dict(page.options), theirs["options"]),
    )
    if not difference and "observation_rich" in step:
        difference = compare(observation_rich=(shop.rich(state), step["observation_rich"]))
    if not difference and "reward_info" in step:
        difference = compare(
            **{k: (getattr(page.parts, k), v) for k, v in step["reward_info"].items()}
        )
    return difference


_CHECKS = {
    "goals": _goals,
    "reward_golden": _rewards,
    "pages_golden": _pages,
    "search_golden": _searches,
    "doc_tokens": _document_terms,
    "episodes_golden": _episodes,
}
