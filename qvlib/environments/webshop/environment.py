"""WebShop (Yao et al. 2022, arXiv 2207.01206) as pure functions of immutable states."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from qvlib.base.errors import QvlibError
from qvlib.core.types import State, Step, Task
from qvlib.environments.webshop import files, nouns, pages, search
from qvlib.environments.webshop import goals as goal_rules
from qvlib.environments.webshop.catalogue import GOLDEN_SEED, Catalogue, load
from qvlib.environments.webshop.pages import Page, View
from qvlib.environments.webshop.reward import reward
from qvlib.environments.webshop.splits import SPLITS, split_tasks

PAGE_SIZE = 10  # products on a page of results, as in the original
_ACTION = re.compile(r"([^\[\n]+)\[(.+)\]")
_START = pages.view(pages.start())
_NOTHING = View("", (), ())


@dataclass(frozen=True)
class WebShop:
    """The shop, after ``Environment`` of ``qvlib.core.types``.

    find: keywords -> asins, best first; None where a search is refused. nouns: title -> its nouns.
    splits: split -> tasks; skipped: goals left out because they have no attributes, so no reward.
    """

    catalogue: Catalogue = field(repr=False)
    find: Callable[[tuple[str, ...]], tuple[str, ...] | None] = field(repr=False)
    nouns: nouns.TitleNouns = field(repr=False)
    splits: Mapping[str, Sequence[Task]] = field(repr=False)
    skipped: int = 0
    noun_table: Path | None = None
    repair: bool = False
    show_attributes: bool = False
    observation_mode: Literal["text", "text_rich"] = "text"
    max_steps: int = 10
    timeout_value: float = -0.5
    name: str = "webshop"

    def __post_init__(self) -> None:
        # Views repeat from task to task; how many are kept bounds the memory.
        for method, size in (("_results", 4096), ("_item", 4096), ("_section", 2048)):
            object.__setattr__(self, method, functools.lru_cache(size)(getattr(self, method)))

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``train``, ``dev`` or ``test``, in a fixed order.

        Raises:
            QvlibError: no such split, or no product fell into it.
        """
        if split not in SPLITS:
            raise QvlibError(f"split {split!r}: the splits are {', '.join(SPLITS)}")
        if not self.splits[split]:
            raise QvlibError(
                f"split {split!r} is empty: no product with a goal fell into it; "
                f"raise its share or load more products"
            )
        return self.splits[split]

    def reset(self, task: Task) -> State:
        """The search page, with the task's instruction."""
        return self._state_on(State(task, ""), Page())

    def step(self, state: State, action: str) -> State:
        """The state after an action; as in the original, ``search`` works everywhere, always."""
        page = self._next(state, action)
        if page is None:
            refused = Step(action, state.observation, state.describe(action))
            return replace(state, history=(*state.history, refused), valid=False)
        return self._state_on(state, page, action)

    def accepts(self, state: State, action: str) -> bool:
        """False if the action would be refused, change nothing, or show a section again."""
        page: Page = state.world
        verb, argument = parse(action)
        if verb == "search":
            keywords = tuple(argument.split(" "))
            same = page.kind == "results" and page.page == 1 and page.keywords == keywords
            return not same and self.find(keywords) is not None
        view = self._view(page)
        if verb != "click" or argument == "search" or argument not in view.clickables:
            return False
        if argument in pages.SECTIONS:
            read = self.step(state, action).observation
            return all(step.observation != read for step in state.history)
        return (view.groups.get(argument), argument) not in page.options or argument in _FIXED

    def data_hashes(self) -> dict[str, str]:
        """File name -> sha256 of every file read, for manifests."""
        return self.catalogue.data_hashes() | (
            {self.noun_table.name: files.sha256(self.noun_table)} if self.noun_table else {}
        )

    def clickables(self, state: State) -> tuple[str, ...]:
        """What the original lists as clickable, in its order."""
        return self._view(state.world).clickables

    def rich(self, state: State) -> str:
        """The ``text_rich`` observation of a state."""
        page, task = state.world, state.task
        if page.kind == "done":
            return pages.rich(pages.done(page, page.parts.reward), "", ())
        segments = pages.header(task.instruction, page.kind == "init") + self._segments(page)
        return pages.rich(segments, pages.url(page, task.goal.index), page.visited)

    def _next(self, state: State, action: str) -> Page | None:
        page: Page = state.world
        verb, argument = parse(action)
        if verb == "search":
            return self._searched(page, tuple(argument.split(" ")), 1)
        if verb != "click" or argument == "search":
            return None
        view = self._view(page)
        if argument not in view.clickables:
            return None
        if argument == "buy now":
            return self._bought(state)
        if argument == "back to search":
            return Page()
        if argument in ("next >", "< prev"):
            place = pages.place(page)
            if place == "search_results":
                return self._searched(
                    page, page.keywords, page.page + (1 if argument == "next >" else -1)
                )
            if argument == "< prev" and place == "item_page":
                return self._searched(page, page.keywords, page.page)
        if argument in pages.SECTIONS:
            return replace(page, kind="sub", section=argument)
        return _opened(page, view, argument)

    def _searched(self, page: Page, keywords: tuple[str, ...], number: int) -> Page | None:
        if self.find(keywords) is None:
            return None
        return Page("results", keywords, number, visited=page.visited)

    def _bought(self, state: State) -> Page:
        page, product = state.world, self.catalogue.by_asin[state.world.asin]
        parts = reward(
            state.task.goal, product, page.options, product.price, self.nouns, repair=self.repair
        )
        return replace(page, kind="done", section="", parts=parts)

    def _state_on(self, state: State, page: Page, action: str | None = None) -> State:
        value = page.parts.reward if page.kind == "done" else 0.0
        view = self._view(page)
        if self.observation_mode == "text_rich":
            observation = self.rich(replace(state, world=page))
        elif page.kind == "done":
            observation = pages.text(pages.done(page, value))
        else:
            header = pages.header(state.task.instruction, page.kind == "init")
            observation = f"{pages.text(header)} [SEP] {view.body}"
        history = state.history
        if action is not None:
            history = (*history, Step(action, observation, state.describe(action)))
        return State(
            state.task,
            observation,
            history,
            view.admissible,
            value,
            page.kind == "done",
            True,
            page,
            view.descriptions,
        )

    def _view(self, page: Page) -> View:
        if page.kind == "results":
            return self._results(page.keywords, page.page)
        if page.kind == "item":
            return self._item(page.asin)
        if page.kind == "sub":
            return self._section(page.asin, page.section)
        return _START if page.kind == "init" else _NOTHING

    def _segments(self, page: Page) -> list[pages.Segment]:
        if page.kind == "init":
            return pages.start()
        if page.kind == "results":
            asins = self.find(page.keywords)
            on_page = asins[(page.page - 1) * PAGE_SIZE : page.page * PAGE_SIZE]
            return pages.results(
                [self.catalogue.by_asin[asin] for asin in on_page], page.page, len(asins)
            )
        product = self.catalogue.by_asin[page.asin]
        if page.kind == "item":
            return pages.item(product, self.show_attributes)
        return pages.section(product, page.section)

    def _results(self, keywords: tuple[str, ...], number: int) -> View:
        return pages.view(self._segments(Page("results", keywords, number)))

    def _item(self, asin: str) -> View:
        return pages.view(
            self._segments(Page("item", asin=asin)), pages.groups_of(self.catalogue.by_asin[asin])
        )

    def _section(self, asin: str, section: str) -> View:
        return pages.view(self._segments(Page("sub", asin=asin, section=section)))


_FIXED = frozenset({"back to search", "< prev", "next >", "buy now", *pages.SECTIONS})


def parse(action: str) -> tuple[str, str]:
    """``verb[argument]`` -> verb and lower-cased argument; two empty texts for other forms.

    The argument is the whole bracket, as in ``click[12 oz [pack of 2]]``, where the original takes
    the innermost and refuses; it may hold brackets in a search if they are closed.
    """
    match = _ACTION.match(action)
    if not match or (match[1] == "search" and "[" in match[2] and not _is_closed(match[2])):
        return "", ""
    return match[1], match[2].lower()


def _is_closed(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if depth < 0:
            return False
    return depth == 0


def _opened(page: Page, view: View, clicked: str) -> Page:
    """The item page after a product, an option or ``< prev`` of a sub page was clicked."""
    if clicked in view.links:
        asin = view.links[clicked]
        visited = page.visited if asin in page.visited else (*page.visited, asin)
        return replace(page, kind="item", asin=asin, visited=visited)
    if clicked in view.groups:
        options = dict(page.options)
        options[view.groups[clicked]] = clicked
        return replace(page, kind="item", options=tuple(options.items()))
    return replace(page, kind="item", section="")


def build(
    data_dir: str | Path,
    *,
    goals: Literal["synthetic", "human", "all"] = "synthetic",
    title_nouns: str | Path = "auto",
    repair: bool = False,
    show_attributes: bool = False,
    observation_mode: Literal["text", "text_rich"] = "text",
    max_steps: int = 10,
    timeout_value: float = -0.5,
    dev_share: float = 0.1,
    test_share: float = 0.3,
    seed: int = GOLDEN_SEED,
) -> WebShop:
    """WebShop on a folder of official data files.

    ``seed`` draws prices and price limits (the original draws them unseeded) and the splits.

    Raises:
        QvlibError: a parameter that is none of its values, or whatever is wrong with the files.
    """
    _one_of("goals", goals, ("synthetic", "human", "all"))
    _one_of("observation_mode", observation_mode, ("text", "text_rich"))
    catalogue = load(data_dir, seed=seed)
    kinds = ("synthetic", "human") if goals == "all" else (goals,)
    goal_sets = [goal_rules.build(catalogue, kind) for kind in kinds]
    table = nouns.table_path(title_nouns, data_dir)
    splits = split_tasks(goal_sets, dev_share, test_share, seed)
    return WebShop(
        catalogue=catalogue,
        find=search.engine(catalogue),
        nouns=nouns.title_nouns(table),
        noun_table=table,
        splits=splits,
        skipped=sum(map(len, goal_sets)) - sum(map(len, splits.values())),
        repair=repair,
        show_attributes=show_attributes,
        observation_mode=observation_mode,
        max_steps=max_steps,
        timeout_value=timeout_value,
    )


def _one_of(name: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise QvlibError(f"{name} {value!r}: choose {', '.join(values[:-1])} or {values[-1]}")
