"""What is scored says what it does: replies that name an item quote what the page shows of it."""

from dataclasses import replace

import pytest

from qvlib.core.types import State, Step, Task
from qvlib.environments import contract
from qvlib.environments.webshop import build
from qvlib.environments.webshop.generator import write_catalogue
from qvlib.models.chat import Chat
from qvlib.models.loading import as_cloned
from qvlib.models.prompts import READ, WORDS, compact, cut
from qvlib.models.replies import parse
from qvlib.models.small import Demonstration, train_tokenizer


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    write_catalogue(folder, 300, 0)
    return build(folder)


@pytest.fixture(scope="module")
def results(shop) -> State:
    """A results page of the first task."""
    task = shop.tasks("train")[0]
    return shop.step(shop.reset(task), f"search[{task.goal.query.lower()}]")


def items(state):
    return [a for a, d in zip(state.admissible, state.descriptions, strict=True) if d]


def test_a_product_is_described_by_its_price_and_title(shop, results):
    action = items(results)[0]
    product = shop.catalogue.by_asin[action[6:-1].upper()]
    assert results.describe(action) == f"{product.price_tag} {product.title}"
    assert results.describe("click[back to search]") == results.describe("click[no]") == ""
    opened = shop.step(results, action)
    assert opened.history[-1].described == results.describe(action)
    assert opened.descriptions == () and opened.describe("click[buy now]") == ""


def test_the_small_agents_reply_quotes_it_and_parsing_takes_the_identifier(results):
    bare, quoting = compact(results), compact(results, 10)
    assert bare.text == quoting.text and len(items(results)) > 2
    for number, action in enumerate(items(results), 1):
        assert bare.encode(action) == f" click #{number}"
        reply = quoting.encode(action)
        assert reply.startswith(f" click #{number} $") and len(reply.split()) > 3
        for form in (
            reply,
            f" click #{number}",
            f" click #{number} $1.0 something else",
            reply[:14],
        ):
            assert quoting.decode(form) == action
    assert quoting.decode(" click #99") == "click[#99]"
    assert quoting.encode("click[next >]") == bare.encode("click[next >]") == " click next >"
    assert len(compact(results, 1).encode(items(results)[0]).split()) == 3


@pytest.mark.parametrize("thoughts", [False, True])
def test_a_chats_reply_quotes_it_and_so_does_its_history(shop, results, thoughts):
    style = Chat(None, "", lambda task: "at start", thoughts=thoughts, words=6)
    prompt_of = replace(style)._quotes
    for action in items(results):
        quote = prompt_of(results)[action]
        assert quote == f" ({cut(results.describe(action), 6)})"
        assert parse(f"Action: {action}{quote}", results) == action
        said = style.messages(shop.step(results, action))[-2]["content"]
        assert said == f"Action: {action}{quote}"
    assert prompt_of(results).keys() == set(items(results))
    bare = replace(style, words=0)
    assert bare._quotes(results) == {}
    assert "(" not in bare.messages(shop.step(results, items(results)[0]))[-2]["content"]


@pytest.mark.parametrize("title", ["a [b] c", "x] (y", 'say "z"', "Action: no", "a\tb"])
def test_odd_titles_do_not_hide_the_identifier(title):
    state = State(
        Task("t", "find it"),
        "Results [SEP] b0abcdefg1",
        admissible=("click[b0abcdefg1]", "click[next >]"),
        descriptions=(f"$9.0 {title}", ""),
    )
    quote = Chat(None, "", lambda task: "", words=10)._quotes(state)["click[b0abcdefg1]"]
    assert parse(f"Action: click[b0abcdefg1]{quote}", state) == "click[b0abcdefg1]"
    prompt = compact(state, 10)
    assert prompt.decode(prompt.encode("click[b0abcdefg1]")) == "click[b0abcdefg1]"


def test_a_world_that_describes_nothing_changes_nothing():
    state = State(
        Task("t", "open it"), "You are here. [SEP] look", admissible=("look", "open door")
    )
    assert compact(state, 10) == compact(state)


def test_a_cloned_model_is_prompted_again_as_it_was_cloned(results, tmp_path):
    from transformers import AutoTokenizer

    told = [Demonstration(results, action) for action in items(results)]
    for words in (0, 7):
        train_tokenizer(told, 400, words).save_pretrained(tmp_path / str(words))
        again = AutoTokenizer.from_pretrained(tmp_path / str(words))
        assert again.init_kwargs[WORDS] == words
        assert as_cloned(again)(results) == compact(results, words)


def test_what_was_read_behind_a_page_is_kept_until_the_next_list(shop):
    for task in shop.tasks("train")[:60]:
        state = shop.step(shop.reset(task), f"search[{task.goal.query.lower()}]")
        wanted = f"click[{task.goal.asin.lower()}]"
        if wanted not in items(state):
            continue
        state = shop.step(state, wanted)
        for action in ("click[description]", "click[< prev]"):
            assert READ not in compact(state).text or action == "click[< prev]"
            state = shop.step(state, action)
        shown = state.history[-2].observation.lower().replace(task.instruction.lower(), "")
        read = compact(state).text.partition(READ)[2].partition("<page>")[0].strip()
        asked = [
            a for a in task.goal.attributes if a in shown and a not in state.observation[-400:]
        ]
        if read and asked:
            assert asked[0] in read
            again = shop.step(state, "click[back to search]")
            again = shop.step(again, f"search[{task.goal.query.lower()}]")
            assert READ not in compact(again).text
            return
    pytest.fail("no description told what was asked for")


def test_a_world_whose_descriptions_do_not_fit_is_told(results, shop):
    with pytest.raises(AssertionError, match=r"descriptions: .* 1 for "):
        contract.check_descriptions([replace(results, descriptions=("x",))])
    with pytest.raises(AssertionError, match="no text that a file can hold"):
        contract.check_descriptions(
            [replace(results, descriptions=("\ud800",) * len(results.admissible))]
        )
    after = shop.step(results, items(results)[0])
    forgot = replace(
        after, history=(*after.history[:-1], Step(items(results)[0], after.observation))
    )
    with pytest.raises(AssertionError, match="its last step is described as ''"):
        contract.check_descriptions([results, forgot])
    contract.check_descriptions([results, after])
