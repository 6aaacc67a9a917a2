"""Every notebook of a run whose texts are all hostile: nothing in its pages is alive."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch
from hostile import CHOICES, IMAGE, INSTRUCTION
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbconvert import HTMLExporter

from qvlib.base import markup

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
GIVEN = {
    "environment": "hostile:make",
    "name": "hostile",
    "wandb_mode": "disabled",
    "processes": 1,
    "max_steps": 3,
    "agent_width": 32,
    "agent_layers": 1,
    "agent_heads": 1,
    "vocabulary": 420,
    "demonstrations": 30,
    "clone_epochs": 6,
    "clone_lr": 0.02,
    "clone_batch": 4,
    "other_demonstrations": 0,
    "train_tasks": 4,
    "iterations": 6,
    "heldout_share": 0.4,
    "min_margin": 0.0,
    "control_shuffles": 1,
    "test_tasks": 2,
    "search_iterations": 2,
    "bootstrap": 100,
}
LIVE = {"script", "img", "iframe", "object", "embed", "link", "base", "form", "input", "a"}


class Elements(HTMLParser):
    """The live elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.live: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.text += "\n" * (tag == "br")
        told = dict(attrs)
        handlers = [name for name in told if name.startswith("on")]
        drawn = tag == "img" and (told.get("src") or "").startswith("data:image/png")
        if handlers or (tag in LIVE and not drawn):
            self.live.append(f"<{tag} {told}>")

    def handle_data(self, data: str) -> None:
        self.text += data


def executed(path: Path, given: dict) -> nbformat.NotebookNode:
    """The notebook with the outputs of its cells, run in this process."""
    notebook = nbformat.read(path, as_version=4)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()  # that ``display`` shows in
    shell.display_formatter.active_types = shell.display_formatter.format_types  # as in a kernel
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if "parameters" in cell.metadata.get("tags", ()):
            kept = [line for line in cell.source.splitlines() if line.split(" = ")[0] not in given]
            cell.source = "\n".join([*kept, *(f"{k} = {value!r}" for k, value in given.items())])
        with capture_output() as told:
            result = shell.run_cell(cell.source, store_history=True)
        result.raise_error()
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=told.stdout)]
        cell.outputs += [
            nbformat.v4.new_output("display_data", data=dict(output.data))
            for output in told.outputs
        ]
    return notebook


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Notebook -> (its executed copy, its page), and the folder of the run; run in this process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("hostile")
    given = {**GIVEN, "runs_dir": str(folder / "runs"), "results_dir": str(folder / "results")}
    exporter = HTMLExporter(template_name="basic")
    made = {}
    for path in NOTEBOOKS:
        notebook = executed(path, given)
        for cell in notebook.cells:  # only what was displayed is looked at
            cell.source = ""
        made[path.stem] = notebook, exporter.from_notebook_node(notebook)[0]
    return made, folder


@pytest.mark.slow
def test_nothing_on_the_pages_is_alive(pages):
    made, folder = pages
    assert list(made) == [path.stem for path in NOTEBOOKS]
    for name, (_, page) in made.items():
        assert Elements(page).live == [], name
    written = [path for path in folder.glob("results/**/*") if path.suffix in (".html", ".svg")]
    assert {path.name for path in written} >= {"tour_tree.svg", "tree.html", "episode.html"}
    for path in written:
        assert Elements(path.read_text()).live == [], path


@pytest.mark.slow
def test_the_hostile_texts_are_there_to_be_read(pages):
    made, _ = pages
    for name in ("00_tour", "01_agent", "02_collect", "04_train_q", "05_evaluate"):
        text = " ".join(Elements(made[name][1]).text.split())
        assert " ".join(markup.visible(INSTRUCTION).split()) in text, name
    text = " ".join(Elements(" ".join(page for _, page in made.values())).text.split())
    for action in CHOICES:
        assert markup.visible(action) in text
    assert IMAGE in text and not re.search("[\x00-\x08\x0e-\x1f]", text)


@pytest.mark.slow
def test_no_control_character_is_printed_or_displayed(pages):
    made, _ = pages
    for name, (notebook, _) in made.items():
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                texts = output.get("data", {"text/plain": output.get("text", "")})
                for kind, text in texts.items():
                    if kind.startswith("text/"):
                        assert markup.visible(text) == text, (name, kind)
