"""Pictures are written, and a tree of hostile texts is still well-formed."""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pandas as pd
import pytest

from qvlib.agents.arm import CONTROL, NO_Q, OTHER, RERANKED
from qvlib.pipeline.params import make
from qvlib.report import figures, siblings, tree_view

HOSTILE = "search[</text><script>alert('&\"')</script>\x00\x1b]]>"
VOID = {"meta", "br"}


@pytest.fixture
def params(tmp_path):
    return make({"name": "pictures", "results_dir": str(tmp_path)})


def arms():
    names = ["sample", "q_n5", "control_q_n5", "search", "mine"]
    kinds = [NO_Q, RERANKED, CONTROL, OTHER, RERANKED]
    return pd.DataFrame(
        {
            "arm": names,
            "kind": kinds,
            "reward": [0, 0.5, 0.2, 0.7, 0.6],
            "reward_low": [0, 0.4, 0.1, 0.6, 0.5],
            "reward_high": [0, 0.6, 0.3, 0.8, 0.7],
            "tasks": 9,
        }
    )


def curve():
    row = {
        "loss": 0.69,
        "margin": 0.0,
        "accuracy": 0.5,
        "log_prob_chosen": -3.0,
        "log_prob_rejected": -4.0,
    }
    return pd.DataFrame(
        [{"step": i, "split": "train", **row} for i in range(3)]
        + [{"step": 3, "split": "held-out", **row}]
    )


def another():
    """The curve of an estimator that tells an error, on training and on held-out pairs."""
    rows = [{"step": i, "split": "train", "error": 1.0 / (i + 1)} for i in range(5)]
    return pd.DataFrame([*rows, {"step": 5, "split": "held-out", "error": 0.7}])


def nodes():
    return pd.DataFrame(
        {"depth": [0, 1, 1, 2], "visits": [9, 5, 3, 0], "value": [0.2, 0.5, -0.5, 0.0]}
    )


def pairs():
    return pd.DataFrame(
        {
            "path": [(), ("a",), ("a",)],
            "chosen_value": [0.5, 0.6, 1.0],
            "rejected_value": [0.0, 0.5, -1.0],
        }
    )


def scored():
    return pd.DataFrame(
        {
            "value_centred": [i / 20 - 0.5 for i in range(20)],
            "q_centred": [i / 10 - 1 for i in range(20)],
        }
    )


FIGURES = {
    "reward": lambda: figures.reward_by_arm(arms()),
    "gains": lambda: figures.gains(
        arms()
        .rename(columns={"reward": "gain", "reward_low": "low", "reward_high": "high"})
        .assign(against="sample")
    ),
    "pairs": lambda: figures.pairs_by_depth(pairs()),
    "nodes": lambda: figures.nodes_by_depth(nodes()),
    "cloning": lambda: figures.cloning(
        {"agent": pd.DataFrame({"step": [0, 1], "action_loss": [3.0, 2.0]})}
    ),
    "training": lambda: figures.training(curve(), curve()),
    "training without held-out pairs": lambda: figures.training(curve()[:3], curve()[:3]),
    "training of another estimator": lambda: figures.training(another(), another()[["step"]]),
    "training without steps": lambda: figures.training(another()[["error"]], another()[["error"]]),
    "calibration": lambda: figures.calibration(scored()),
    "calibration of few": lambda: figures.calibration(scored()[:2]),
    "reads": lambda: figures.reads(
        {"run": "one", "gains": {"q_n5": {"mean": 0.1, "ci95": [0.0, 0.2]}}}
    ),
    "lines": lambda: figures.lines(
        arms(), "tasks", "reward", "t", "x", "y", "reward_low", "reward_high"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_written_titled_and_labelled(params, name):
    figure = FIGURES[name]()
    for axes in figure.axes:
        assert axes.get_title(loc="left") and axes.get_xlabel()
    path = figures.save(figure, params, "one")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000
    assert path.relative_to(params.run.results_dir).as_posix() == "pictures/figures/one.png"


def test_an_arm_of_ones_own_is_drawn_as_what_its_record_says():
    """By the column ``kind``: its colour and marker are those of its kind."""
    figure = figures.reward_by_arm(arms())
    looks = {}
    for (place,), line in zip(
        ([round(float(y)) for y in c.lines[0].get_ydata()] for c in figure.axes[0].containers),
        (c.lines[0] for c in figure.axes[0].containers),
        strict=True,
    ):
        looks[place] = line.get_color(), line.get_marker()
    mine, reranked, other = looks[1], looks[4], looks[2]  # the first row is on top
    assert mine == reranked != other


def test_an_interval_that_would_crush_the_others_runs_off():
    """Two shuffles have one degree of freedom: drawn whole, they would hide all else."""
    usual = figures.reward_by_arm(arms()).axes[0]
    wide = arms()
    wide.loc[wide["arm"] == "control_q_n5", ["reward_low", "reward_high"]] = -5.0, 5.0
    axes = figures.reward_by_arm(wide).axes[0]
    assert axes.get_xlim()[1] == pytest.approx(usual.get_xlim()[1], abs=0.05)
    assert "wider" in axes.get_xlabel() and "wider" not in usual.get_xlabel()
    assert [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">")] == [
        "<",
        ">",
    ]


def test_curves_of_training_and_held_out_pairs_are_told_apart():
    """The held-out row of another estimator is a point, not a step of the line."""
    (axes,) = figures.training(another(), another()).axes
    assert {line.get_label() for line in axes.lines} >= {"Q model, training", "Q model, held out"}
    held = next(line for line in axes.lines if line.get_label() == "Q model, held out")
    assert held.get_linestyle() == "None" and list(held.get_xdata()) == [5]


def test_curves_of_a_grid_share_an_axis_that_fits_them():
    rows = [
        {"axis": axis, "n": n, "m": n, "gain": 0.1, "gain_low": 0.05, "gain_high": 0.16}
        for axis, n in (("the run", 10), ("candidates", 2), ("candidates", 5), ("tasks", 60))
    ]
    table = pd.DataFrame(rows).assign(failed="")
    axes_of = {"candidates": ("n", "candidates"), "tasks": ("m", "tasks")}
    limits = {panel.get_ylim() for panel in figures.grid_curves(table, axes_of).axes}
    assert len(limits) == 1 and limits.pop()[1] < 0.2
    failed = table.assign(failed=["", "", "", "OOM"], m=[None, None, None, 60])
    failed = failed[failed["axis"] != "the run"]  # a panel without a row does not widen the axis
    limits = {panel.get_ylim() for panel in figures.grid_curves(failed, axes_of).axes}
    assert len(limits) == 1 and limits.pop()[1] < 0.2


def tree():
    """A root with four children, one of them with a terminal child.

    No more keys than a tree must have, but for two.
    """
    rows = [{"node": "", "parent": None, "action": "", "visits": 9, "value": 0.3}]
    rows += [
        {"node": str(i), "parent": "", "action": HOSTILE, "visits": 4 - i, "value": 0.2 * i}
        for i in range(4)
    ]
    rows += [
        {
            "node": "0.0",
            "parent": "0",
            "action": "click[buy now]",
            "visits": 2,
            "value": 1.0,
            "terminal": True,
            "reward": 1.0,
        }
    ]
    rows += [{"node": "0.1", "parent": "0", "action": "click[x]", "visits": 0, "value": 0.0}]
    return {"task": "t", "instruction": HOSTILE, "nodes": rows}


def test_the_svg_is_well_formed_whatever_the_texts():
    root = ElementTree.fromstring(tree_view.svg(tree()))
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) == 2 * 5  # root, three of four children, the visited grandchild
    assert (
        "N 9 · V 0.30 · +1 more" in texts
        and "N 2 · V 1.00 · r 1.00" in texts
        and "N 4 · V 0.00 · +1 more" in texts
    )
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_the_svg_is_pruned_to_the_most_visited():
    root = ElementTree.fromstring(tree_view.svg(tree(), most_nodes=3, most_children=1))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 3
    lone = {"task": "t", "nodes": tree()["nodes"][:1]}
    assert ElementTree.fromstring(tree_view.svg(lone)).get("height")


class Balanced(HTMLParser):
    """Counts tags and checks that they nest."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_html_holds_the_whole_tree():
    parser = Balanced()
    parser.feed(tree_view.html(tree()))
    assert not parser.open and "script" not in parser.seen
    assert parser.seen.count("details") == 2 and parser.seen.count("code") == 7


def test_side_by_side_marks_what_was_executed(params):
    candidates = [
        {"action": a, "q": q, "log_prob": -1.0}
        for a, q in ((HOSTILE, 0.1), ("click[b]", 2.0), ("click[b]", 2.0))
    ]
    with_q = {
        "task": "t",
        "reward": 1.0,
        "actions": ["click[b]"],
        "trace": [{"action": "click[b]", "candidates": candidates}],
    }
    without = {"task": "t", "reward": 0.25, "actions": [HOSTILE, "click[c]"]}
    text = tree_view.side_by_side(with_q, without, HOSTILE)
    parser = Balanced()
    parser.feed(text)
    assert not parser.open and "script" not in parser.seen
    assert (
        text.count("&#9654;") == 1
        and "<code>click[b]</code> &times;2" in text
        and "Q +2.00" in text
    )
    assert "reward 1.00" in text and "reward 0.25" in text and "click[c]" in text
    worse = {**with_q, "task": "u", "reward": 0.0}
    assert tree_view.clearest([worse, with_q], [without, {**without, "task": "u"}]) == (
        with_q,
        without,
    )
    assert tree_view.save(params, "e.html", text).read_text().startswith("<!doctype html>")


def test_agreement_counts_ordered_pairs_of_a_state():
    table = pd.DataFrame(
        {
            "task": ["t"] * 5,
            "node": ["", "", "", "0", "0"],
            "value": [0.0, 0.5, 1.0, 0.3, 0.3],
            "q": [-1.0, 2.0, 1.0, 0.0, 1.0],
        }
    )
    found = siblings.agreement(table)
    assert (found["pairs"], found["tasks"]) == (3, 1)
    assert found["agreement"] == pytest.approx(2 / 3)
    # three pairs of one task are one trial: (2/3 + z²/2 ± z sqrt(2/9 + z²/4)) / (1 + z²), z = 1.96
    assert (found["low"], found["high"]) == pytest.approx((0.0942, 0.9747), abs=1e-3)
    none = siblings.agreement(table[:0])
    assert none["pairs"] == 0 and none["agreement"] != none["agreement"]
