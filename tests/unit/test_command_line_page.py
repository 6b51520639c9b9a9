"""The command line's reference is what its help says."""

import subprocess
import sys

from tests.command_line_page import PATH
from tests.pages import ROOT


def test_the_page_is_what_the_help_says() -> None:
    # In a process of its own, since click keeps in a command what its first help found out about options above it.
    current = subprocess.run(
        [sys.executable, "-m", "tests.command_line_page", "--print"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert PATH.read_text(encoding="utf-8") == current, "write it anew: python -m tests.command_line_page"
