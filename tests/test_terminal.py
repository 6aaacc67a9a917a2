"""What reaches the terminal, and what a log that is none."""

import io
import time

import pytest
from tqdm import tqdm

from qvlib.base.markup import visible
from qvlib.base.terminal import UP, Forward


class Screen(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def forwarded(*pieces, terminal=False, bars=False):
    screen = Screen(terminal)
    forward = Forward(screen, bars)
    for piece in pieces:
        forward.write(piece)
    forward.close()
    return screen.getvalue()


HOSTILE = "\x1b]0;owned\x07 \x1b[2J\x1b[H \x9b31m \x08 \u202e a\tb\n"


def test_text_cannot_steer_a_terminal():
    shown = "\\x1b]0;owned\\x07 \\x1b[2J\\x1b[H \\x9b31m \\x08 \\u202e a\tb\n"
    assert visible(HOSTILE) == shown and visible(shown) == shown
    assert visible("naïve – 价格 👩‍🔬 \ud800") == "naïve – 价格 👩‍🔬 \\ud800"
    for terminal in (True, False):
        assert forwarded(HOSTILE, terminal=terminal, bars=True) == shown
        assert forwarded(*HOSTILE, terminal=terminal, bars=True) == shown  # whatever the pieces are


def test_only_the_stream_of_bars_may_move_up():
    assert forwarded(f"a\n{UP}\rb", terminal=True) == "a\n\\x1b[A\rb\n"
    assert forwarded(f"a\n{UP}\rb", terminal=True, bars=True) == f"a\n{UP}\rb\n"
    assert forwarded("a\n\x1b", "[", "A\rb", terminal=True, bars=True) == f"a\n{UP}\rb\n"
    assert forwarded("a\x1b[", terminal=True, bars=True) == "a\n"


@pytest.mark.parametrize("together", [1, 3])
def test_a_log_gets_few_lines_of_bars(together):
    """However often they are drawn, and however many below each other."""
    screen = Screen(False)
    forward = Forward(screen, bars=True)
    bars = [
        tqdm(total=50, desc=f"bar {i}", position=i, file=forward, mininterval=0, ncols=60)
        for i in range(together)
    ]
    for _ in range(50):
        for bar in bars:
            bar.update()
    forward.write("")
    for bar in bars:
        bar.close()
    forward.close()
    lines = screen.getvalue().splitlines()
    assert len(lines) <= 2 * together and sum("50/50" in line for line in lines) >= together
    assert UP not in screen.getvalue() and all(lines)


def test_bars_that_are_left_are_ended_below_the_last():
    pieces = ("\ra", "\n\rb", UP, "\rc", "\n\rd", UP)
    assert forwarded(*pieces, terminal=True, bars=True) == f"\ra\n\rb{UP}\rc\n\rd{UP}\n\n"
    assert forwarded(*pieces, bars=True) == "a\nc\nd\n"  # a: it was not yet known to be of many


def test_lines_of_text_come_at_once():
    screen = Screen(False)
    forward = Forward(screen)
    forward.write("first\nsecond ")
    assert screen.getvalue() == "first\n"
    forward.write("half\n")
    assert screen.getvalue() == "first\nsecond half\n"


def test_much_text_is_quick():
    started = time.monotonic()
    assert len(forwarded(*["x" * 79 + "\n"] * 20_000)) == 1_600_000
    assert time.monotonic() - started < 5
