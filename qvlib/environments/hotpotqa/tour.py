"""A first look at a question: a walk that knows its articles, and the answer compared by hand."""

from __future__ import annotations

import string
from collections import Counter

from qvlib.base.markup import code, literal
from qvlib.core.types import Task
from qvlib.environments.hotpotqa.environment import HotPotQA, parse
from qvlib.environments.hotpotqa.questions import Question
from qvlib.environments.hotpotqa.reader import Reader, reading_order
from qvlib.environments.tours import Tour, demonstrated

WORLD = (
    "This world is HotPotQA (arXiv 1809.09600) with the actions of ReAct (arXiv 2210.03629): "
    "`search[title]` opens an article, "
    "`lookup[words]` finds a sentence in it, `finish[answer]` ends the episode."
)
START = "At first there is the question, and no article is open."
NOTES = {
    "search": "A search of a title opens its article and shows its first sentences; "
    "of a title that is none it shows similar ones.",
    "lookup": "A lookup shows the next sentence of the open article that holds the words.",
    "finish": "An answer ends the episode.",
    "think": "A thought changes nothing.",
    "": "This is no action.",
}
RULE = """\
`finish` ends the episode with reward 1 if the answer is the gold answer, else 0. Both are first
normalised: lower case, no punctuation, no *a, an, the*, single blanks. F1 says how many words the
two share, and is reported beside the reward:

    precision = shared words / words of the answer
    recall = shared words / words of the gold answer
    F1 = 2 × precision × recall / (precision + recall)

The tests compare both with recorded cases of the original program."""


def tour(environment: HotPotQA, task: Task) -> Tour:
    """The tour of a question; the walk is that of a reader who makes no mistake."""
    question: Question = task.goal
    walk = demonstrated(environment, task, Reader(environment, gold=True))
    verbs = [parse(action)[0] for action in walk]
    notes = (
        START,
        *("" if verb in verbs[:i] else NOTES[verb] for i, verb in enumerate(verbs)),
    )  # each said once
    answer = parse(walk[-1])[1] if verbs[-1:] == ["finish"] else ""
    by_hand, words = _by_hand(answer, question.answer)
    near = f"in {question.answer}"
    counted = (
        f"The answer *{literal(answer)}* becomes {code(words)}. "
        if answer
        else "No answer was given. "
    )
    earned, f1 = _by_hand(near, question.answer)[0], _f1(near, question.answer)
    counted += f"One word more, *{literal(near)}*, would earn {earned:.0f}, with F1 {f1:.2f}. "
    return Tour(
        WORLD, _asked(question), walk, RULE, notes, by_hand if answer else 0.0, counted + "Counted"
    )


def _asked(question: Question) -> str:
    titles = (
        ", then ".join(f"*{literal(title)}*" for title in reading_order(question))
        or "none that are recorded"
    )
    kind = f" It is a {literal(question.kind)} question." if question.kind else ""
    answer = literal(question.answer)
    return f"The gold answer is *{answer}*. The articles that support it: {titles}.{kind}"


def _by_hand(answer: str, gold: str) -> tuple[float, str]:
    """(1 or 0, the normalised answer)."""
    ours, theirs = (" ".join(_words(text)) for text in (answer, gold))
    return float(ours == theirs), ours


def _f1(answer: str, gold: str) -> float:
    ours, theirs = Counter(_words(answer)), Counter(_words(gold))
    shared = (ours & theirs).total()
    closed = {"yes", "no"} & {" ".join(_words(answer)), " ".join(_words(gold))}
    if not shared or (closed and ours != theirs):  # a closed answer is right or wrong
        return 0.0
    precision, recall = shared / ours.total(), shared / theirs.total()
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]
