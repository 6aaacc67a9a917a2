"""HotPotQA in pure Python: search, lookup and finish over the official paragraphs or a generated encyclopaedia."""

from qvlib.environments.hotpotqa.environment import HotPotQA, build

INSTRUCTIONS = """\
You answer a question by reading an encyclopaedia.
Actions, one at a time:
search[title] opens the article of that title and shows its first sentences, or names similar titles.
lookup[words] shows the next sentence of the open article that holds these words.
finish[answer] gives the answer, as short as possible, and ends the task."""

__all__ = ["INSTRUCTIONS", "HotPotQA", "build"]
