"""Progress bars: on a terminal alone, lines above them whole, and never in what is read by a program."""

import os
import pty
import subprocess
import sys
import termios

import pytest

from synthaug.progress import numbered_steps, shown

LOOP = """
from synthaug.cli.options import tell
from synthaug.progress import shown
for name in shown(["first", "second"], "insert", "case"):
    tell(f"{name}: done")
"""


def on_a_terminal(code: str) -> tuple[str, str]:
    """What Python code writes to a pipe and to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # on one without rows no bar is drawn
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, check=True, text=True)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 4096):
            written += part
    except OSError:  # what Linux says of a terminal that was closed
        pass
    finally:
        os.close(ours)
    return found.stdout, written.decode()


def test_a_terminal_has_a_bar_that_goes_and_a_pipe_the_lines():
    lines, terminal = on_a_terminal(LOOP)
    assert lines == "first: done\nsecond: done\n"
    assert "insert:   0%" in terminal and "/2 [" in terminal and "done" not in terminal
    assert terminal.rstrip("\r").split("\r")[-1].strip() == ""


@pytest.mark.parametrize("total", [None, 2])
def test_all_items_come_and_nothing_is_written_to_a_pipe(capfd, total):
    assert list(shown(iter("ab"), "bank", "case", total)) == ["a", "b"]
    assert capfd.readouterr() == ("", "")


def test_the_steps_that_are_left_are_numbered_and_told_of_the_whole():
    lines, terminal = on_a_terminal(
        "from synthaug.progress import numbered_steps\n"
        "print(*numbered_steps('ab', 3, 5, told=True), *numbered_steps('ab', 3, 5, told=False))"
    )
    assert lines == "(4, 'a') (5, 'b') (4, 'a') (5, 'b')\n"
    assert terminal.count("training:  60%") == 1 and "3/5 [" in terminal
    assert list(numbered_steps((), 5, 5, told=False)) == []
