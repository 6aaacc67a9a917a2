"""The needs of a run as a report: two tables, and where each of their numbers is from."""

from __future__ import annotations

from collections.abc import Mapping

from qvlib.pipeline.params import Params
from qvlib.pipeline.scored import MOST
from qvlib.report.formats import millions
from qvlib.tools.needs import baselines, comparison, gpu_memory, grid, hours
from qvlib.tools.needs.counts import Measured
from qvlib.tools.needs.parts import Tokens, tokens, usd
from qvlib.tools.needs.prompts import Lengths


def report(
    params: Params,
    run: Measured,
    length: Lengths,
    speed: float | None = None,
    q_speed: float | None = None,
) -> str:
    """Two tables, and where each of their numbers is from.

    Args:
        speed, q_speed: tokens a second that the agent's model and the Q model read and write;
            without one, hours are left out.
    """
    import pandas as pd

    from qvlib.report.tables import markdown

    same = run.agent == params.agent.agent
    pace = {"agent": speed or (run.speed if same else None), "q": q_speed}
    parts = tokens(params, run, length)
    if params.ablations.compare:
        parts += comparison.tokens(params, run, length)
    taken = [_hours(part, pace) for part in parts]
    bills = [usd(params, part) for part in parts]
    known = [bill for bill in bills if bill is not None]
    total = Tokens(
        "in all",
        "",
        0,
        prompts=sum(part.prompts for part in parts),
        prompt=sum(part.prompt for part in parts),
        completion=sum(part.completion for part in parts),
        q=sum(part.q for part in parts),
    )
    rows = [_row(*row) for row in zip(parts, taken, bills, strict=True)]
    rows.append(_row(total, None if None in taken else sum(taken), sum(known) if known else None))
    table = pd.DataFrame(rows)
    empty = [title for title in ("hours", "USD") if not any(table[title])]
    memory = gpu_memory.memory(params)
    if params.ablations.compare:
        name, most = comparison.largest(params)
        memory[f"training {name}"] = most
    gpu = pd.DataFrame(
        [
            {
                "GPU, GB": part,
                **{k: f"{v / 1e9:.1f}" for k, v in row.items()},
                "in all": f"{sum(row.values()) / 1e9:.1f}",
            }
            for part, row in memory.items()
        ]
    )
    notes = "\n".join(f"- {note}." for note in _notes(params, run, length, pace, same, bool(known)))
    return (
        f"{markdown(gpu)}\n\n{markdown(table.drop(columns=empty))}\n\n"
        f"{_measured(params, run, length)}"
        f"Where these numbers are from:\n{notes}"
    )


def _measured(params: Params, run: Measured, length: Lengths) -> str:
    """The table of a run with a grid or a comparison, in hours of a machine as that of ``run``."""
    import pandas as pd

    from qvlib.report.tables import markdown

    if not _added(params) or run.pace is None:
        return ""
    parts = hours.of_the_run(params, run, length, run.pace)
    if params.ablations.grid:
        parts += grid.parts(params, run, run.pace)
    if params.ablations.compare:
        parts += comparison.parts(params, run, length, run.pace)
    if params.ablations.baselines:
        parts += baselines.parts(params, run, length, run.pace)
    parts.append(hours.Part("in all", 0, sum(part.seconds for part in parts)))
    rows = [
        {
            _added(params): part.part,
            "count": f"{part.count:,}" if part.count else "",
            "hours": f"{part.seconds / 3600:,.1f}",
        }
        for part in parts
    ]
    return f"{markdown(pd.DataFrame(rows))}\n\n"


def _added(params: Params) -> str:
    """What is played beside the run, in words."""
    added = {
        "grid of ablations": params.ablations.grid,
        "comparison of estimators": params.ablations.compare,
        "arms at one budget": params.ablations.baselines,
    }
    return " and ".join(words for words, file in added.items() if file)


def _row(part: Tokens, hours: float | None, bill: float | None) -> dict[str, str]:
    return {
        "part": part.part,
        "tasks": f"{part.tasks:,}" if part.tasks else "",
        "prompts": f"{part.prompts:,.0f}" if part.prompts else "",
        "prompt tokens": millions(part.prompt),
        "completion tokens": millions(part.completion),
        "Q's tokens": millions(part.q),
        "hours": "" if hours is None else f"{hours:,.1f}",
        "USD": "" if bill is None else f"{bill:,.2f}",
    }


def _hours(part: Tokens, pace: Mapping[str, float | None]) -> float | None:
    seconds = 0.0
    for amount, by in ((part.prompt + part.completion, part.who), (part.q, "q")):
        if amount and not pace.get(by):
            return None
        seconds += amount / pace[by] if amount else 0.0
    return seconds / 3600


def _notes(
    params: Params,
    run: Measured,
    length: Lengths,
    pace: Mapping[str, float | None],
    same: bool,
    billed: bool,
) -> list[str]:
    other = (
        ""
        if run.environment == params.world.environment
        else f"; this file is of {params.world.environment}: give results of one with --from"
    )
    notes = [
        "GPU: the formulas of qvlib/tools/needs/gpu_memory.py; GB are 10^9 bytes; what the "
        "framework itself takes is not counted",
        f"steps, prompts and replies a task: results {run.name} ({run.environment}, agent "
        f"{run.agent}{other}), its searches of {run.iterations} and {run.arm_iterations} "
        f"iterations stretched to {params.search.iterations} and "
        f"{params.search.search_iterations}, as often ended by a success; "
        "a prompt and a reply there are as long as in its arm greedy",
        *length.origin,
        f"{run.pairs:.2f} pairs a tree, in that run by the rule {run.rule}"
        + ("" if run.rule == params.pairs.pairs else f" (this file: {params.pairs.pairs})"),
        "Q's tokens: what the Q model and its reference read; in training, a pass forward, twice "
        "that backward, and the reference once; in scoring pairs of test tasks, at most "
        f"{MOST:,} a chain, both under each of two instructions, and the agent's own model once",
    ]
    if run.filtered and not params.sampling.filter_actions:
        notes.insert(
            2,
            f"that run drew again what was refused ({run.refused:.0%} of its draws); this file "
            "does not, which is taken off",
        )
    if params.sampling.filter_actions and not run.filtered:
        notes.insert(
            2,
            "that run drew nothing again that was refused; this file does, which is not counted",
        )
    if params.sampling.listed_actions:
        notes.insert(
            2,
            "listed_actions: to score every action that is listed, which the agent does at each "
            "step, is not counted",
        )
    speeds = [
        (pace["agent"], "the agent", "--tokens-per-second", same and pace["agent"] == run.speed),
        (pace["q"], "the Q model", "--q-tokens-per-second", False),
    ]
    for speed, who, option, known in speeds:
        if speed:
            origin = "as in the collecting of that run" if known else "as given"
            note = (
                f"hours: {speed:,.0f} tokens a second of {who}, {origin}, whatever is kept from "
                "prompt to prompt"
            )
        else:
            note = f"no hours of {who} without its speed on your machine: {option}"
            if who == "the agent":
                note += "; results of a short run with this agent, given with --from, tell it too"
        notes.append(note)
    if (
        params.search.rounds > 1
        or params.ablations.rule_tasks
        or params.agent.warm_start
        or params.judge
        or params.pool
        or params.rft.rft_rounds > 1
        or params.eto.eto
    ):
        notes.append(
            "not counted: warm starts, scoring rules, verdicts, curricula, rounds of RFT, ETO, "
            "and the Q model's and its critics' work in rounds after the first"
        )
    if _added(params):
        notes.append(hours.note(run, f"the {_added(params)}"))
    if billed:
        notes.append(
            f"USD: {params.server.api_price_prompt:g} a million prompt tokens, "
            f"{params.server.api_price_completion:g} a million completion tokens, from the "
            "parameter file: look up today's"
        )
    return notes
