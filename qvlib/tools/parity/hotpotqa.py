"""HotPotQA beside recorded cases of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qvlib.core.types import State
from qvlib.environments.hotpotqa import HotPotQA, metric, splits
from qvlib.environments.hotpotqa.environment import build
from qvlib.environments.hotpotqa.questions import Question
from qvlib.tools.parity.rows import Row, compare, recorded, row


def check_hotpotqa(data_dir: str | Path) -> list[Row]:
    """Replay every recorded file that lies beside the data.

    Raises:
        QvlibError: unusable data, or no recorded file beside them.
    """
    folder = Path(data_dir)
    files = recorded(folder, _CHECKS)
    environment = build(folder)
    return [row(path, _CHECKS[name](environment)) for name, path in files.items()]


def _transcripts(environment: HotPotQA):
    def differs(record: dict[str, Any]) -> str | None:
        question = Question(record["question_id"], record["question"], record["gold_answer"])
        state = environment.reset(splits.make_task(question))
        difference = compare(observation=(state.observation, record["reset_obs"]))
        for number, step in enumerate(record["steps"], 1):
            if difference:
                return f"{record['kind']}, step {number - 1}: {difference}"
            before, state = state, environment.step(state, step["action"])
            difference = _seen(before, state, step)
        return difference and f"{record['kind']}, step {len(record['steps'])}: {difference}"

    return differs


def _seen(before: State, state: State, step: dict[str, Any]) -> str | None:
    if step["miss"]:  # which titles are similar is each implementation's own
        start, end = step["obs_prefix"], step["obs_suffix"]
        seen = state.observation
        observation = (seen[: len(start)], seen[-len(end) :]), (start, end)
        page = state.world.title, before.world.title
    else:
        observation = state.observation, step["obs"]
        page = state.world.title, step.get("page_title", before.world.title)
    world = state.world
    difference = compare(
        observation=observation,
        page=page,
        reward=(state.reward, step["reward"]),
        done=(state.done, step["done"]),
        steps=(state.depth, step["steps"]),
        answer=(world.answer, step["answer"]),
        valid=(state.valid, not str(step["obs"]).startswith("Invalid action: ")),
    )
    if not difference and "em" in step:
        difference = compare(
            em=(int(world.score.exact), step["em"]), f1=(world.score.f1, step["f1"])
        )
    return difference


def _metric(environment: HotPotQA):
    def differs(record: dict[str, Any]) -> str | None:
        ours = metric.score(record["prediction"], record["gold"])
        return compare(
            norm_prediction=(metric.normalise(record["prediction"]), record["norm_prediction"]),
            norm_gold=(metric.normalise(record["gold"]), record["norm_gold"]),
            em=(int(ours.exact), record["em"]),
            f1=(ours.f1, record["f1"]),
            precision=(ours.precision, record["precision"]),
            recall=(ours.recall, record["recall"]),
        )

    return differs


_CHECKS = {"env_golden": _transcripts, "metric_golden": _metric}
