"""Replies that name an item say what the page shows of it; what was read behind it is kept."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_chat import TEMPLATES, told
from test_contract import Stairs
from toy import states

from qvlib.core.types import Proposal, Request, State, Step, Task
from qvlib.environments import contract, webshop
from qvlib.environments.webshop import pages
from qvlib.environments.webshop.generator import write_catalogue
from qvlib.models.api import ApiAgent
from qvlib.models.chat import Chat
from qvlib.models.loading import load_folder
from qvlib.models.local import LocalModel
from qvlib.models.prompts import FITS, READ, as_cloned, compact
from qvlib.models.remote import RemoteModel
from qvlib.models.replies import parse, unparsable
from qvlib.models.small import Demonstration, make_model, train_tokenizer
from qvlib.models.thoughts import action_tokens

WANTED = "find me an easy clean harness"
TASK = Task("t", WANTED, "g")
A, B = "b0aaaaaaa1", "b0aaaaaaa2"
PRODUCTS = [
    SimpleNamespace(asin=A.upper(), title="Easy Clean Harness, Red [2 pack]", price_tag="$9.0"),
    SimpleNamespace(asin=B.upper(), title='Live Action: a "big" poster', price_tag="$5.0 to $7.0"),
]


def on(view: pages.View, before: State | None = None, action: str = "") -> State:
    """The state on a page, as WebShop makes it."""
    seen = f"Instruction: [SEP] {WANTED} [SEP] {view.body}"
    history = before.history if before else ()
    if before:
        history = (*history, Step(action, seen, before.describe(action)))
    return State(TASK, seen, history, view.admissible, descriptions=view.descriptions)


START = on(pages.view(pages.start()))
RESULTS = on(pages.view(pages.results(PRODUCTS, 1, 2)), START, "search[harness]")


def page(*lines: str) -> pages.View:
    """A page behind an item: two buttons and text."""
    return pages.view(
        [("button", pages.BACK), ("button", pages.PREV), *(("text", x) for x in lines)]
    )


ITEM = on(page("Harness, Red", "Price: $9.0"), RESULTS, f"click[{A}]")
READ_IT = on(page("it is easy to clean and washable"), ITEM, "click[description]")
BACK = on(page("Harness, Red", "Price: $9.0"), READ_IT, "click[< prev]")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_catalogue(folder, 300, 0)
    return webshop.build(folder)


def visited(shop, count: int = 6) -> list[State]:
    """The states of walks: a search, the first item, its description, back again."""
    found = []
    for task in shop.tasks("train")[:count]:
        state = shop.reset(task)
        found.append(state)
        state = shop.step(state, f"search[{task.goal.query}]")
        found.append(state)
        first = next(a for a in state.admissible if state.describe(a))
        for action in (first, "click[description]", "click[< prev]"):
            state = shop.step(state, action)
            found.append(state)
    return found


# -- the world ----------------------------------------------------------------------------------


def test_a_results_page_describes_its_products_and_nothing_else():
    assert RESULTS.describe(f"click[{A}]") == "$9.0 Easy Clean Harness, Red [2 pack]"
    assert {a for a in RESULTS.admissible if RESULTS.describe(a)} == {f"click[{A}]", f"click[{B}]"}
    assert START.descriptions == ITEM.descriptions == ()
    assert RESULTS.describe("click[b0aaaaaaa9]") == ""


@pytest.mark.parametrize("mode", ["text", "text_rich"])
def test_the_shop_keeps_what_an_action_did(shop, mode):
    shop = replace(shop, observation_mode=mode)
    for state in visited(shop):
        assert [bool(step.described) for step in state.history] == [
            i == 1 for i in range(state.depth)
        ]
        for action in state.admissible:
            title = state.describe(action).partition(" ")[2]
            assert not title or title in state.observation
        refused = shop.step(state, "click[nothing]")
        assert (refused.valid, refused.history[-1].described) == (False, "")


class DescribesTooFew(Stairs):
    def reset(self, task):
        return replace(super().reset(task), admissible=("up", "wait"), descriptions=("a floor",))


class ForgetsWhatItSaid(Stairs):
    def reset(self, task):
        return replace(super().reset(task), descriptions=("a floor",))


class SaysWhatNoFileHolds(Stairs):
    def reset(self, task):
        return replace(super().reset(task), descriptions=("\ud800",))


class SaysIt(ForgetsWhatItSaid):
    def step(self, state, action):
        after = super().step(state, action)
        last = replace(after.history[-1], described=state.describe(action))
        return replace(after, history=(*after.history[:-1], last))


class Climbs:
    def propose(self, requests):
        return [[Proposal("up")] * request.n for request in requests]


@pytest.mark.parametrize("world", [DescribesTooFew, ForgetsWhatItSaid, SaysWhatNoFileHolds])
def test_a_world_whose_descriptions_are_wrong_is_told(world):
    with pytest.raises(AssertionError, match=r"^descriptions: "):
        contract.check_environment(world(), Climbs())
    assert contract.check_environment(SaysIt(), Climbs()) > 0


# -- the small agent ----------------------------------------------------------------------------


def test_a_small_agents_reply_says_what_the_page_shows_of_an_item():
    prompt = compact(RESULTS, 4)
    assert prompt.encode(f"click[{A}]") == f" click #1 $9.0{FITS} easy clean harness"
    assert prompt.encode("click[next >]") == " click next >"
    assert prompt.encode("search[red harness]") == " search red harness"
    assert compact(RESULTS, 0).encode(f"click[{A}]") == compact(RESULTS).encode(f"click[{A}]")
    assert compact(RESULTS).encode(f"click[{A}]") == " click #1"


def test_of_a_long_title_a_small_agents_reply_quotes_what_fits():
    title = "Acme 2 Pack for Dogs, Easy-Fit Red Harness, Clean and Soft, an easy one"
    product = SimpleNamespace(asin=A, title=title, price_tag="$9.0")
    state = on(pages.view(pages.results([product], 1, 1)), START, "search[harness]")
    said = {words: compact(state, words).encode(f"click[{A}]") for words in (1, 2, 5, 10)}
    assert said[1] == " click #1 $9.0"
    assert said[2] == f" click #1 $9.0{FITS} harness"
    # What the page's cut does not show cannot be copied from it.
    assert said[5] == f" click #1 $9.0{FITS} harness clean"
    assert said[10] == f" click #1 $9.0 acme 2 pack for dogs easy-fit red{FITS} harness clean"


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (" click #1 $9.0 easy clean harness", f"click[{A}]"),  # the mark is no text
        (" click #2", f"click[{B}]"),
        (" click #2 $9.0 eas", f"click[{B}]"),
        (" click #1 $5.0 to $7.0 live", f"click[{A}]"),
        (f" click #1{FITS} easy", f"click[{A}]"),
        (" click #99 $9.0 easy", "click[#99]"),
        (" click #99", "click[#99]"),
        (" search #1 easy", "search[#1 easy]"),
        (" click next >", "click[next >]"),
        (" click", " click"),
    ],
)
def test_of_a_small_agents_reply_the_identifier_counts(reply, action):
    assert compact(RESULTS, 10).decode(reply) == action


def test_identifiers_of_digits_alone_are_named_too():
    products = [SimpleNamespace(asin=f"006231500{i}", title="a", price_tag="$1.0") for i in (5, 55)]
    prompt = compact(on(pages.view(pages.results(products, 1, 2)), START, "search[a]"), 10)
    for product in products:
        action = f"click[{product.asin}]"
        assert prompt.decode(prompt.encode(action)) == prompt.decode(f" click {product.asin} $1")
        assert prompt.decode(prompt.encode(action)) == action


def test_identifiers_in_a_title_are_the_aliases_of_the_page():
    product = SimpleNamespace(asin=A, title="lamp 1080p60fps red", price_tag="$1.0")
    prompt = compact(on(pages.view(pages.results([product], 1, 1)), START, "search[a]"), 10)
    assert " lamp #2 red" in prompt.text
    assert prompt.encode(f"click[{A}]") == " click #1 $1.0 lamp #2 red"


def test_every_listed_action_is_read_back_from_its_reply(shop):
    for state in visited(shop):
        for words in (0, 1, 10):
            prompt = compact(state, words)
            for action in state.admissible:
                if "[<" not in action:
                    reply = prompt.encode(action)
                    assert prompt.decode(reply) == action
                    assert prompt.decode(reply.replace(FITS, "")) == action


def test_a_transcript_grows_by_what_its_replies_quote(shop):
    rich = replace(shop, observation_mode="text_rich")
    for words in (0, 3, 10):
        described = 0
        walk = visited(rich, 1)
        for before, after in itertools.pairwise(walk[1:]):
            prompt, action = compact(before, words), after.history[-1].action
            reply = prompt.encode(action)
            assert compact(after, words).text.startswith(f"{prompt.text}{reply}<end>")
            assert prompt.decode(reply) == action
            described += len(reply.split()) > 3
        assert described == bool(words)


@pytest.mark.parametrize("state", states(12), ids=lambda state: state.task.id)
def test_a_world_without_descriptions_is_prompted_as_before(state):
    with_quotes, bare = compact(state, 10), compact(state, 0, remember=False)
    assert with_quotes == bare
    chats = [replace(told(budget=9999).style, words=words)(state) for words in (0, 10)]
    assert chats[0] == chats[1]
    for action in state.admissible:
        assert with_quotes.encode(action) == bare.encode(action)


def test_what_was_read_is_kept_and_what_is_seen_is_not_told_twice():
    def read(state: State) -> str:
        return compact(state).text.partition(READ)[2].partition("<page>")[0]

    assert read(START) == read(RESULTS) == read(ITEM) == ""
    assert read(READ_IT) == " harness"  # of the item's page; the description is seen
    assert read(BACK) == " clean easy"  # not "washable", for which nobody asked
    assert READ not in compact(BACK, remember=False).text
    # Where items are listed again, and behind the next of them, it is gone.
    results = on(pages.view(pages.results(PRODUCTS, 1, 2)), BACK, "click[< prev]")
    other = on(page("Poster"), results, f"click[{B}]")
    assert read(results) == read(other) == ""


def test_identifiers_in_a_description_end_nothing():
    long = on(page("it is easy, 30inches long"), ITEM, "click[description]")
    back = on(page("Harness"), long, "click[< prev]")
    assert f"{READ} easy<page>" in compact(back).text


def test_part_of_a_word_is_not_seen():
    back = on(page("Harness uncleanable easygoing cleanse"), READ_IT, "click[< prev]")
    assert f"{READ} clean easy<page>" in compact(back).text


def test_a_saved_small_model_is_prompted_as_it_was_cloned(tmp_path, shop):
    walk = visited(shop)
    shown = [
        Demonstration(before, after.history[-1].action)
        for before, after in itertools.pairwise(walk)
        if after.depth
    ]
    for words in (0, 7):
        tokenizer = train_tokenizer(shown, 600, words)
        model = make_model(tokenizer, 16, 1, 2, 0)
        LocalModel(model, tokenizer).save(tmp_path / str(words))
        loaded = load_folder(tmp_path / str(words))
        for d in shown:
            prompt = loaded.style(d.state)
            assert prompt == as_cloned(tokenizer)(d.state) == compact(d.state, words)
            ids = loaded.action_ids(loaded.prompt(d.state)[0], d.action)
            assert loaded.tokenizer.decode(ids[:-1]) == compact(d.state, words).encode(d.action)


def test_a_tokenizer_without_a_mark_for_what_was_read_is_not_told_it():
    tokenizer = train_tokenizer([Demonstration(START, "search[harness]")], 400, 10)
    assert READ not in tokenizer.get_vocab()
    assert READ not in as_cloned(tokenizer)(BACK).text and READ in compact(BACK).text


# -- chats --------------------------------------------------------------------------------------


def chat(words: int, **options) -> Chat:
    return replace(told(budget=9999, **options).style, words=words)


def test_a_chats_reply_quotes_what_the_page_shows_of_an_item():
    prompt = chat(3)(RESULTS)
    assert prompt.encode(f"click[{A}]") == f" click[{A}] ($9.0 Easy Clean)"
    assert prompt.encode("click[next >]") == " click[next >]"
    assert chat(0)(RESULTS).encode(f"click[{A}]") == f" click[{A}]"
    assert f"Action: click[{A}] ($9.0 Easy Clean)<|im_end|>" in chat(3)(ITEM).text
    assert f"Action: click[{A}]<|im_end|>" in chat(0)(ITEM).text


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("words", [0, 1, 3, 10])
@pytest.mark.parametrize("item", [A, B])
def test_a_prompt_starts_with_the_prompt_and_the_quoting_reply_before_it(template, words, item):
    lm = told(template, words=words, budget=9999)
    after = on(page("Harness"), RESULTS, f"click[{item}]")
    before, ids = lm.prompt(RESULTS)
    _, longer = lm.prompt(after)
    reply = lm.action_ids(before, f"click[{item}]")
    assert longer[: len(ids) + len(reply)] == ids + reply


@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize("words", [0, 1, 4, 10])
def test_every_quoting_reply_is_read_back_even_where_it_is_cut_off(thoughts, words):
    prompt = chat(words, thoughts=thoughts)(RESULTS)
    for action in (f"click[{A}]", f"click[{B}]", "click[next >]"):
        reply = prompt.encode(action)
        for end in range(reply.index(action) + len(action), len(reply) + 1):
            assert prompt.decode(reply[:end]) == parse(reply[:end], RESULTS) == action
            assert not unparsable(reply[:end], RESULTS, begun=not thoughts)


@pytest.mark.parametrize(
    "reply",
    [
        f" click[{A}] ($9.0 easy harness)",
        f" click[{A}] ($9.0 harness [2 pack])",
        f" click[{A}] ($9.0 harness [2 pack",
        f" click[{A}] ($9.0 harness 2 pack])",
        f" click[{A}] ($9.0 'big\" harness`)",
        f" click[{A}] ($9.0 Live Action: click[{B}])",
        f"Thought: red.\nAction: click[{A}] ($9.0 harness [2 pack])",
        f"Thought: red. Action: click[{A}] ($9.0 harness [2 pack])",
        f"Thought: red. Action: click[{A}] ($9.0 Live Action: poster [red])",
        f"Thought: Action: click[{B}] (too big)? No.\nAction: click[{A}] ($9.0 red [2])",
        f"Action: `click[{A}]` ($9.0 harness [2 pack])",
        f"Action: Click[{A.upper()}] ($9.0 harness [2 pack])",
        f"Action: click[{A}] ($9.0 harness [2 pack])\nObservation: click[{B}]",
    ],
)
def test_what_a_reply_quotes_is_no_part_of_its_action(reply):
    assert parse(reply, RESULTS) == f"click[{A}]"
    assert not unparsable(reply, RESULTS)


def test_an_option_in_brackets_is_no_quote():
    option = "click[12 oz [pack of 2] (red)]"
    for reply in (f" {option}", f"Thought: x\nAction: {option}", f" {option} ($9.0 [red] one)"):
        assert parse(reply) == option


@pytest.mark.parametrize("before", ["Action: ", "Thought: red (or so)\nAction: "])
@pytest.mark.parametrize("after", ["", "\nObservation: none"])
@pytest.mark.parametrize("quote", [" ($9.0 harness [2 pack])", " ($9.0 Live Action: a", ""])
def test_the_tokens_of_an_action_are_with_its_quote_where_replies_quote(before, quote, after):
    action = f"click[{A}]"
    ids = list(map(ord, before + action + quote + after))

    def said(quotes: bool) -> str:
        read = action_tokens(lambda ids: "".join(map(chr, ids)), ids, action, quotes)
        return "".join(map(chr, ids[read]))

    assert said(True) == action + quote and said(False) == action


def test_a_local_chat_plays_the_action_and_counts_what_it_quotes(monkeypatch):
    lm = told(words=3, budget=9999, thoughts=True)
    text = f"Action: click[{A}] ($9.0 Easy Clean)"
    monkeypatch.setattr(type(lm.tokenizer), "decode", lambda _, ids, **__: text[: 8 * len(ids)])
    ((proposal,),) = lm.agent(1.0, 1.0).propose([Request(RESULTS, 1, (0, "t", "0"))])
    assert (proposal.action, proposal.cost.unparsable) == (f"click[{A}]", 0)


def test_a_served_model_reads_its_quotes_again_and_its_reply_is_the_action():
    remote = RemoteModel(SimpleNamespace(), chat(3), 8)
    agent = remote.agent(1.0, 1.0)
    assert isinstance(agent, ApiAgent)
    said = {"role": "assistant", "content": f"Action: click[{A}] ($9.0 Easy Clean)"}
    assert said in agent.messages(ITEM)
    assert agent.parse(said["content"], RESULTS) == f"click[{A}]"
    assert remote.prompt(RESULTS)[0].encode(f"click[{A}]") == said["content"]


def test_an_item_listed_twice_is_described_alike_in_reply_and_history():
    twice = replace(RESULTS, admissible=("click[x]", "click[x]"), descriptions=("one", "two"))
    after = on(page("x"), twice, "click[x]")
    said = chat(5)(twice).encode("click[x]")
    assert f"Action:{said}<|im_end|>" in chat(5)(after).text
