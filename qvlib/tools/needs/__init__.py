"""What a run of a parameter file needs: GPU memory, tokens, hours and USD.

Reckoned from what a finished run has counted. That run gives steps, prompts and replies a task, in
the search and in each arm; the file's own environment gives the length of a prompt; the file gives
tasks, iterations and candidates. Nothing is run, and no model is loaded.
"""

from qvlib.tools.needs.counts import Measured, Work, measured, nearest
from qvlib.tools.needs.parts import Tokens, tokens, usd
from qvlib.tools.needs.prompts import Lengths, lengths
from qvlib.tools.needs.text import report

__all__ = [
    "Lengths",
    "Measured",
    "Tokens",
    "Work",
    "lengths",
    "measured",
    "nearest",
    "report",
    "tokens",
    "usd",
]
