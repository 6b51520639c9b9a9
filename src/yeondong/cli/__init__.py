"""The command line: what a person, a probe or a service file says to yeondong."""

from yeondong.cli.program import main

__all__ = ["main"]
