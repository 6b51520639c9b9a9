"""What is in the text of a statement: literals and comments, and parameters between them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

# As PostgreSQL's scanner has them with standard_conforming_strings on: in E'' a backslash escapes the next character.
_OPAQUE: Final = r"""
      \b[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    | --[^\n]*
    | /\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*(?:[^*]|\*(?!/))*\*/)*\*/
"""
OPAQUE: Final = re.compile(_OPAQUE, re.VERBOSE | re.DOTALL)

# A cast (::text), an assignment (:=) and a slice (a[1:2]) have a colon too.
_PARTS: Final = re.compile(rf"(?P<opaque>{_OPAQUE}) | :: | :(?P<name>[^\W\d]\w*) | %", re.VERBOSE | re.DOTALL)


@lru_cache(maxsize=1_000)
def positional(statement: str) -> tuple[str, tuple[str, ...]]:
    """Turn a statement's ``:name`` parameters into psycopg's ``%s``; return it with the names in order.

    Without any it is returned as it is: psycopg gives percent signs a meaning only where there are parameters.

    >>> positional("SELECT :id::text, ':id', a[1:2] FROM t WHERE id % 2 = :id")
    ("SELECT %s::text, ':id', a[1:2] FROM t WHERE id %% 2 = %s", ('id', 'id'))
    """
    names: list[str] = []

    def placed(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0].replace("%", "%%")
        names.append(name)
        return "%s"

    text = _PARTS.sub(placed, statement)
    return (text, tuple(names)) if names else (statement, ())
