"""What readers see of the results: the first table, a page a run, the figure that tells reading."""

import copy
import json
import re

import pytest

from qvlib.base.errors import QvlibError
from qvlib.report import figures
from qvlib.report.front_page import _headline
from qvlib.report.results_files import read_metrics
from qvlib.report.results_index import write_results_index

MEANS = {
    "sample": 0.35,
    "greedy": 0.33,
    "random_n5": 0.34,
    "likely_n5": 0.36,
    "likely_n10": 0.36,
    "demonstrator": 0.484,
    "script": 0.48,
    "q_n5": 0.52,
    "q_n10": 0.55,
    "foreign_q_n5": 0.44,
    "foreign_q_n10": 0.45,
    "kind_only_n5": 0.42,
    "within_kind_n5": 0.46,
    "oracle_n5": 0.66,
    "search": 0.7,
    "control_q_n5": 0.351,
    "control_q_n10": 0.34,
}
RIVALS = {
    "foreign": "foreign_q_n5",
    "kind_only": "kind_only_n5",
    "within_kind": "within_kind_n5",
    "likely": "likely_n5",
    "greedy": "greedy",
    "script": "script",
    "demonstrator": "demonstrator",
    "oracle": "oracle_n5",
}


def difference(mean):
    bounds = [mean - 0.03, mean + 0.03]
    relative = {"relative": mean / 0.35, "relative_ci95": [b / 0.35 for b in bounds]}
    return {"mean": mean, "ci95": bounds, **relative}


METRICS = {
    "run": "full",
    "environment": "webshop",
    "groups": "products",
    "seeds": [0, 1, 2],
    "chains": 3,
    "intervals": "t",
    "primary": "q_n5 against sample",
    "search_iterations": 30,
    "arms": {
        arm: {
            "reward_mean": mean,
            "ci95": [mean - 0.02, mean + 0.02],
            "success_rate": 0.1,
            "success_ci95": [0.05, 0.15],
            "tasks": 500,
            "seeds": [0, 1, 2],
        }
        for arm, mean in MEANS.items()
    },
    "gains": {arm: difference(mean - 0.35) for arm, mean in MEANS.items() if arm != "sample"},
    "gains_over_greedy": {
        arm: difference(mean - 0.33) for arm, mean in MEANS.items() if arm != "greedy"
    },
    "against": {
        "q_n5": {rival: difference(0.52 - MEANS[arm]) for rival, arm in RIVALS.items()},
        "q_n10": {"foreign": difference(0.1)},
    },
    "reads": True,
    "null": {
        "shuffles": [-0.05, 0.01, 0.043],
        "rank_p": 0.016,
        "mean": difference(0.169),
        "n10": {"shuffles": [-0.01], "rank_p": 0.5, "mean": difference(0.2)},
    },
    "accuracy_by_kind": {
        "product": {"own": 0.66, "ci95": [0.63, 0.69], "foreign": 0.5, "log_pi": 0.55, "pairs": 900}
    },
    "parts": {"sample": {"options": 0.2, "price": 0.9}, "q_n5": {"options": 0.6}},
    "splits": [{"split": "test played", "tasks": 500, "groups": 360}],
}
NEW = ("against", "reads", "null", "accuracy_by_kind", "parts", "chains", "primary")


@pytest.fixture
def write(tmp_path):
    """Writes a run's files; ``changes`` to the metrics, ``None`` takes a key out."""

    def written(name="full", pictures=(), **changes):
        metrics = copy.deepcopy(METRICS) | {"run": name} | changes
        metrics = {key: value for key, value in metrics.items() if value is not None}
        folder = tmp_path / name
        (folder / "figures").mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        for picture in pictures:
            (folder / "figures" / f"{picture}.png").touch()
        return folder

    return written


def index(folder):
    return write_results_index(folder.parent).read_text()


def old(**changes):
    """The metrics of an older run: none of the new keys and arms, the search under its old name."""
    known = ("sample", "greedy", "likely_n5", "q_n5", "q_n10", "control_q_n5", "search")
    parts = {
        part: {
            ("mcts" if arm == "search" else arm): row
            for arm, row in METRICS[part].items()
            if arm in known
        }
        for part in ("arms", "gains", "gains_over_greedy")
    }
    return dict.fromkeys((*NEW, "search_iterations")) | parts | changes


def test_the_index_opens_with_one_table(write):
    text = index(write())
    lines = text.splitlines()
    assert lines[4] == (
        "| run | sample | greedy | likeliest of 5 | Q of 5 | foreign | null | script "
        "| demonstrator | search | oracle of 5 | reads | chains | tasks |"
    )
    assert lines[6] == (
        "| [`full`](full/README.md) | 0.350<br>[0.33, 0.37] | 0.330<br>[0.31, 0.35] "
        "| 0.360<br>[0.34, 0.38] | 0.520<br>[0.50, 0.54] | 0.440<br>[0.42, 0.46] "
        "| 0.351<br>[0.33, 0.37] | 0.480<br>[0.46, 0.50] | 0.484<br>[0.46, 0.50] "
        "| 0.700<br>[0.68, 0.72]<br>30 iterations | 0.660<br>[0.64, 0.68] | yes | 3 | 500 |"
    )
    terms = text.split("\n## ")[0].lower()
    for term in [*lines[4].lower().split(" | ")[1:11], "reads", "chains"]:
        assert f"**{term}**" in terms


@pytest.mark.parametrize("changes", [{"reads": False, "against": {}}, old(chains=1, seeds=[0])])
def test_the_index_is_short_though_it_has_ten_runs(write, changes):
    for i in range(9):
        write(f"run-{i}", **changes)
    assert len(index(write()).split()) < 1_200


def test_what_no_run_shows_is_said_once(write):
    write("quick", reads=None)
    assert "**Whether Q reads** is not tested: every run." in index(write(reads=None))


def test_a_run_without_the_new_keys_has_empty_cells_and_a_page(write):
    text = index(write(**old()))
    assert (
        "| 0.520<br>[0.50, 0.54] |  | 0.351 |  |  | 0.700<br>[0.68, 0.72] |  |  | 3 | 500 |" in text
    )
    page = (write("quick", **old(seeds=None)).parent / "full" / "README.md").read_text()
    assert "| search | 0.700 " in page and "mcts" not in page
    assert "Q against" not in page and "## " not in page
    assert "|  | 1 | 500 |" in index(write("quick-rft", **old(seeds=None)))


@pytest.mark.parametrize("key", [*NEW, "gains", "gains_over_greedy", "splits", "seeds"])
def test_any_key_may_be_missing_or_empty(write, key):
    folder = write(**{key: None})
    assert "`full`" in index(folder) and (folder / "README.md").exists()
    empty = write("quick", **{key: type(METRICS[key])()})
    assert "`quick`" in index(empty)
    assert figures.png(figures.reads(read_metrics(folder))).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": {"q_n5": {}}},
        {"arms": []},
        {"against": {"q_n5": {"foreign": {"mean": 0.1}}}},
        {"null": {"shuffles": [0.1], "mean": 7}},
        {"splits": [{"split": "test played"}]},
        {"gains": {"q_n5": {"mean": 0.1, "relative": None}}},
    ],
)
def test_what_is_misstated_is_named(write, changes):
    with pytest.raises(QvlibError, match=r"full/metrics\.json misses or misstates"):
        index(write(**changes))


def test_all_is_shown_leaves_nothing_to_say(write):
    assert "What is not shown" not in index(write())


def below(rival, mean=-0.1):
    against = copy.deepcopy(METRICS["against"])
    against["q_n5"][rival] = difference(mean)
    return against


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"chains": 1}, "**One chain**, so that no interval covers the luck of training: `full`."),
        ({"chains": None, "seeds": [7]}, "**One chain**"),
        ({"reads": False}, "**That Q reads** is not shown: `full`."),
        ({"reads": None}, "**Whether Q reads** is not tested: `full`."),
        (
            {"gains": {"q_n5": difference(0.03)}},  # an interval that touches zero
            "**No gain over one sample** is shown with Q of 5: `full`.",
        ),
        (
            {"against": below("script", 0.01)},
            "**Q of 5 is not shown to earn more than the script**: `full`.",
        ),
        (
            {"against": below("demonstrator")},
            "**Q of 5 is not shown to earn more than the demonstrator**: `full` (it earns less).",
        ),
        ({"against": below("greedy")}, "than greedy decoding**: `full` (it earns less)."),
        ({"against": {}}, "**Q of 5 is not compared with the demonstrator**: `full`."),
        ({"null": None}, "**Single shuffles** of the labels are not told: `full`."),
        (
            {"seeds": [0], "null": {"shuffles": [0.3, 0.0], "rank_p": 2 / 3}},
            "**Shuffled labels** gain as much too often (rank p above 0.05): `full`.",
        ),
        (
            {"seeds": [0], "null": {"shuffles": [0.0] * 8, "rank_p": 1 / 9}},
            "**Too few shuffles** of the labels for a rank p of 0.05; none gains as much: `full`.",
        ),
        (
            {"splits": [{"split": "test played", "tasks": 500, "groups": 14}]},
            "**Fewer than 15 groups of tasks**, too few for an interval: `full`.",
        ),
    ],
)
def test_what_is_not_shown_is_said(write, changes, said):
    text = index(write(**changes))
    part = text.split("## What is not shown")[1].split("\n## ")[0]
    assert f"- {said}" in part or said in part


def test_a_rivals_interval_below_zero_by_a_rounding_is_not_less(write):
    against = below("script", 0.03)
    against["q_n5"]["script"]["ci95"] = [-1e-16, -1e-16]
    assert "than the script**: `full`." in index(write(against=against))


def test_the_two_pictures_are_of_the_run_that_says_most(write):
    write("aaa", ["reads", "gains"])
    write("ablations", ["grid_curves", "gains"])  # of older code: no picture `reads` beside it
    text = index(write("full", ["reads", "gains"]))
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == [
        "full/figures/reads.png",
        "full/figures/gains.png",
    ]
    (write("smoke", ["reads"]).parent / "ablations" / "figures" / "reads.png").touch()
    assert "![What the gain depends on](ablations/figures/grid_curves.png)" in index(
        write("quick", [])
    )


def test_no_pictures_are_no_error(write):
    assert "![" not in index(write())


def test_plumbing_is_one_line_and_a_page_without_numbers(write):
    folder = write("smoke", ["gains"])
    text = index(folder)
    assert "[`smoke`](smoke/README.md)" in text and "| run |" not in text
    page = (folder / "README.md").read_text()
    assert "says nothing about the method" in page and "0.52" not in page and "![" not in page


def test_a_runs_page_holds_its_tables(write):
    folder = write(pictures=["gains", "reads"])
    index(folder)
    page = (folder / "README.md").read_text()
    assert "Compared first, as the parameter file names it: q_n5 against sample" in page
    assert "`search`: 30 iterations a task." in page
    assert (
        "| Q told another task's instruction | +0.080 [+0.050, +0.110] "
        "| +0.100 [+0.070, +0.130] |" in page
    )
    assert "| the demonstrator | +0.036 [+0.006, +0.066] |  |" in page and ": Q reads." in page
    assert (
        "- n = 5: -0.050, +0.010, +0.043; rank p 0.016; Q minus them +0.169 [+0.139, +0.199]."
        in page
    )
    assert "- n = 10: -0.010; rank p 0.500;" in page
    assert "| product | 0.660 | [0.63, 0.69] | 0.500 | 0.550 | 900 |" in page
    assert "| q_n5 | 0.600 |  |" in page and "| sample | 0.200 | 0.900 |" in page
    assert "## Searching by values" not in page
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables" / "value_search.md").write_text("| arm |\n\nSteps are saved.\n")
    index(folder)
    again = (folder / "README.md").read_text()
    assert "## Searching by values\n\n| arm |\n\nSteps are saved.\n\n" in again
    assert page.index("![reads](figures/reads.png)") < page.index("![gains](figures/gains.png)")


def test_a_page_tells_what_the_grid_of_choices_found(write):
    folder = write()
    (folder / "tables").mkdir()
    (folder / "tables" / "grid.md").write_text("| axis | choice |\n")
    (folder / "tables" / "grid.csv").write_text(
        "axis,choice,change,change_low,change_high,tasks,groups,failed\n"
        "the run,as it is,0,0,0,300,40,\nbeta,beta 1,-0.05,-0.08,-0.02,300,40,\n"
        "filter,filter_actions False,-0.2,-0.3,-0.1,300,40,\nn,trial_n 0,,,,300,40,no luck\n"
    )
    index(folder)
    page = (folder / "README.md").read_text()
    assert "Each row is the run with one choice changed, on 300 dev tasks and 1 chain." in page
    assert "**Worse than the run**: filter: filter_actions False (-0.200); beta: beta 1" in page
    assert "Of 2 comparisons" in page and "**Failed**: n: trial_n 0 (no luck)." in page
    (folder / "tables" / "grid.csv").write_text("axis,choice\n")
    with pytest.raises(QvlibError, match=r"grid\.csv misses or misstates"):
        index(folder)


def test_a_page_tells_what_makes_the_difference(write):
    folder = write()
    (folder / "tables").mkdir()
    (folder / "tables" / "regression_effects.md").write_text("| condition | effect |\n")
    header = "condition,effect,mean,mean_low,mean_high,change,change_low,change_high\n"
    effects = {
        "step DPO minus AgentRM": "0.2,0.1,0.3",
        "parametrisation": "0.18,0.1,0.26",
        "loss": "0.0,-0.1,0.1",
        "target": "0.02,-0.1,0.1",
    }
    rows = [f"{c},{e},{n},0,0,0" for c in ("methods", "learning rate") for e, n in effects.items()]
    (folder / "tables" / "regression_effects.csv").write_text(header + "\n".join(rows) + "\n")
    (folder / "tables" / "grid.csv").write_text(
        "axis,choice,change,change_low,change_high,tasks,groups,chains,failed\n"
        "the run,as it is,0,0,0,300,40,3,\nmethods,estimator rebel,0,0,0,300,40,3,\n"
    )
    index(folder)
    page = (folder / "README.md").read_text()
    assert "Each method is tried on 300 dev tasks and 3 chains.\n\n**Step DPO is ahead" in page
    assert "Shown as a cause: a log-ratio instead of a head (+0.180" in page
    assert "| condition | effect |" in page
    (folder / "tables" / "regression_effects.csv").write_text("condition\n")
    with pytest.raises(QvlibError, match=r"regression_effects\.csv misses or misstates"):
        index(folder)


@pytest.mark.parametrize(
    "reads, said", [(False, "It is not shown that Q reads."), (None, "was not tested.")]
)
def test_a_page_says_no_more_than_was_tested(write, reads, said):
    folder = write(reads=reads)
    index(folder)
    page = (folder / "README.md").read_text()
    assert said in page and ": Q reads." not in page


def test_what_a_kind_lacks_is_left_empty(write):
    folder = write(accuracy_by_kind={"other": {"own": 0.5, "log_pi": None}})
    index(folder)
    assert "| other | 0.500 |  |  |  |  |" in (folder / "README.md").read_text()


def test_older_runs_search_is_found_under_its_name(write):
    folder = write(**old())
    (folder / "manifest.json").write_text('{"parameters": {"mcts_iterations": 10}}')
    metrics = read_metrics(folder)
    assert metrics["search_iterations"] == 10 and metrics["chains"] == 3
    assert metrics["arms"]["search"]["reward_mean"] == 0.7
    assert list(metrics["arms"]).count("search") == 1 and "mcts" not in metrics["arms"]
    assert "0.700<br>[0.68, 0.72]<br>10 iterations" in index(folder)


def test_the_front_table_has_the_arms_a_sceptic_asks_for(write):
    folder = write(pictures=["reads"])
    text = _headline(read_metrics(folder), {}, folder, folder.parent)
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert list(rows) == [
        *("sample", "greedy", "random_n5", "likely_n5", "likely_n10", "script", "demonstrator"),
        *("q_n5", "q_n10", "foreign_q_n5", "foreign_q_n10", "kind_only_n5", "within_kind_n5"),
        *("oracle_n5", "control_q_n5", "control_q_n10", "search"),
    ]
    assert rows["script"].endswith("| +0.040 [+0.010, +0.070] |")
    assert rows["foreign_q_n10"].endswith("| +0.100 [+0.070, +0.130] |")
    assert rows["q_n5"].endswith("|  |") and "| Q minus it |" in text
    assert "`search` searches with the environment at test time, 30 iterations a task" in text
    assert "`likely_n5` and `likely_n10`, of five or ten the likeliest;" in text
    assert "`oracle_n5`, of five the one after which" in text and "mcts" not in text
    assert "opposite" not in text  # shuffles that are told one by one are independent
    assert "![Does Q read?" in text and "(full/figures/reads.png)" in text


def test_the_front_table_of_an_older_run_has_no_empty_column(write):
    folder = write(**old())
    text = _headline(read_metrics(folder), {}, folder, folder.parent)
    assert "Q minus it" not in text and "| `search` |" in text and "`script`" not in text
    assert "every second the opposite" in text and "iterations a task" not in text


def texts(figure):
    (axes,) = figure.axes
    return axes, [text.get_text() for text in axes.texts]


def test_the_figure_tells_reading_on_one_axis():
    axes, beside = texts(figures.reads(METRICS))
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [
        *("Q of 5", "Q, foreign instruction", "mean Q of the kind", "Q within the first kind"),
        *("Q, shuffled labels", "likeliest of 5", "greedy", "script", "demonstrator"),
        "oracle of 5",
    ]
    dots = next(line for line in axes.lines if line.get_label().startswith("Q of shuffled"))
    assert list(dots.get_xdata()) == [-0.05, 0.01, 0.043]
    assert all(abs(y - 6) < 0.3 for y in dots.get_ydata())  # all in its row
    assert "+0.169 [+0.139, +0.199]" in beside and "+0.080 [+0.050, +0.110]" in beside
    assert axes.get_title(loc="left").startswith("Does Q read? full: yes\n")
    assert "terminal reward in [0, 1], 95 % interval, 500 tasks, 3 chains" in axes.get_xlabel()
    assert any(set(line.get_xdata()) == {0} for line in axes.lines)
    looks = {(c.lines[0].get_marker(), c.lines[0].get_markerfacecolor()) for c in axes.containers}
    assert len(looks) == 5  # what a row is shows without colour: marker, filled or not


@pytest.mark.parametrize("reads, said", [(False, "full: not shown"), (None, "full: not tested")])
def test_the_figure_claims_no_more_than_was_tested(reads, said):
    axes, _ = texts(figures.reads(METRICS | {"reads": reads}))
    assert said in axes.get_title(loc="left")


def test_the_figure_leaves_out_what_was_not_played():
    metrics = {key: value for key, value in METRICS.items() if key not in NEW}
    axes, beside = texts(figures.reads(metrics | {"gains": {"q_n5": difference(0.1)}}))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Q of 5"]
    assert beside == ["+0.100", "", "gain", ""]
    assert figures.png(figures.reads({})).startswith(b"\x89PNG")


def test_a_page_of_a_comparison_holds_its_table_and_what_may_be_said_of_it(write):
    def entry(gain, **more):
        return {
            "reward_mean": 0.35 + gain,
            "gain": difference(gain) | {"ci95_tasks": [gain, gain]},
            "against": {"foreign": difference(gain), "likely": difference(gain)},
            "null": {},
            "tuned_on": {"tries": 2, "tasks": 300, "seeds": [0], "chosen": "beta 0.1"},
            "own_trees": False,
        } | more

    estimators = {"published": entry(0.1), "rover": entry(0.2, minus_published=difference(0.1))}
    more = {"comparisons": 9, "best": "rover", "best_minus_published": None, "not_compared": {}}
    folder = write(estimators=estimators, **more)
    index(folder)
    page = (folder / "README.md").read_text()
    assert "## Estimators on the same trees" in page
    row = "| rover | 0.550 | +0.200 [+0.170, +0.230] |  | +0.200 [+0.170, +0.230] |"
    assert row in page and page.index(row) < page.index("| published | 0.450 |")
    assert "**Gain over one sample**: `rover` +0.200" in page and "0 would miss" in page
    assert "was not compared with its controls" in page
