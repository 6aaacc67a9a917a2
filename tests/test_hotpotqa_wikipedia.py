"""Live Wikipedia with a transport of its own: what is asked, what is kept, the same rules on top."""

import io
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from qvlib.base.errors import QvlibError
from qvlib.environments.hotpotqa import build
from qvlib.environments.hotpotqa.wikipedia import Wikipedia, fetch

_TEXT = "The Bell is a film. It was shot in Arl."
PAGES = {"Bell": ("The Bell", _TEXT), "The Bell": ("The Bell", _TEXT)}


class Transport:
    """Answers as the API does, and counts."""

    def __init__(self):
        self.asked = []

    def __call__(self, parameters):
        self.asked.append(parameters)
        if "srsearch" in parameters:
            return {"query": {"search": [{"title": "The Bell"}, {"title": "Bells"}]}}
        title, text = PAGES.get(parameters["titles"], (parameters["titles"], ""))
        return {
            "query": {
                "pages": [
                    {"title": title, "extract": text} if text else {"title": title, "missing": True}
                ]
            }
        }


def test_it_plays_and_asks_each_thing_once(hotpot, write, tmp_path):
    def episode(transport):
        world = replace(
            build(write(hotpot)), corpus=Wikipedia(tmp_path / "kept" / "wikipedia.jsonl", transport)
        )
        state = world.reset(
            next(t for tasks in world.splits.values() for t in tasks if t.id == "hotpotqa-q1")
        )
        seen = []
        for action in (
            "search[Bell]",
            "lookup[Arl]",
            "search[Nothing]",
            "search[Bell]",
            "search[]",
            "search[a|b]",
            "finish[Arl]",
        ):
            state = world.step(state, action)
            seen.append(state.observation)
        return seen, state.reward

    first, second = Transport(), Transport()
    seen, reward = episode(first)
    assert (
        seen[0] == "The Bell is a film. It was shot in Arl.."
        and seen[1] == "(Result 1 / 1) It was shot in Arl.."
    )
    assert (
        seen[2] == "Could not find Nothing. Similar: ['The Bell', 'Bells']."
        and seen[3] == seen[0]
        and reward == 1.0
    )
    assert seen[4] == "Could not find . Similar: []."
    assert len(first.asked) == 4  # Bell, Nothing, and what is similar to Nothing and to a|b
    assert episode(second) == (seen, reward) and second.asked == []


@pytest.mark.parametrize("answer", ['{"error": {"code": "ratelimited"}}', "[]", "7"])
def test_an_error_is_not_taken_for_no_article(monkeypatch, tmp_path, answer):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.StringIO(answer))
    kept = tmp_path / "wikipedia.jsonl"
    with pytest.raises(QvlibError, match="no usable answer"):
        Wikipedia(kept, fetch).find("Bell")
    assert not kept.exists() or not kept.read_text()


def test_no_network_is_said_so(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(
        QvlibError,
        match="no usable answer .*unreachable.*; check the network, or use a corpus on disk",
    ):
        fetch({"titles": "Bell"})
