"""psycopg's connection and cursor, for transactions that are not their user's to end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, NoReturn

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from yeondong.connections.postgresql_text import OPAQUE
from yeondong.errors import StoreError

# The first word of a statement, behind comments; savepoints (ROLLBACK TO) are the handler's.
_ENDS: Final = re.compile(
    r"""(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*
    (?: commit | end | abort | begin | start\s+transaction | prepare\s+transaction
      | rollback(?!(?:\s+(?:work|transaction))?\s+to\b) )\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


class Connection(psycopg.Connection[TupleRow]):
    """A connection whose transaction a handler is given and cannot end, while ``guarded``.

    A handler that committed would keep what was claimed for the messages behind it, and a crash would lose them.
    """

    guarded = False
    alchemy: Any = None
    """SQLAlchemy's view of it, made once."""

    def commit(self) -> None:
        self._refuse("commit")
        super().commit()

    def rollback(self) -> None:
        self._refuse("rollback")
        super().rollback()

    def close(self) -> None:
        self._refuse("close")
        super().close()

    def set_autocommit(self, value: bool) -> None:  # noqa: FBT001 -- psycopg's signature
        self._refuse("a change of autocommit")
        super().set_autocommit(value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.guarded and error is not None:
            return  # it is to be seen, not our refusal to roll back for it
        self._refuse("`with connection:`, which commits and closes")
        super().__exit__(kind, error, trace)

    def _refuse(self, what: str) -> None:
        if self.guarded:
            refuse(what)


class Cursor(psycopg.Cursor[TupleRow]):
    """A cursor that ends no guarded transaction, and that tells in pipeline mode what it tells elsewhere.

    There psycopg has not yet the result when ``execute`` returns, and says -1 and None until somebody fetches rows: an
    ``if cursor.rowcount == 0`` would go the wrong way.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Cursor:
        if self._conn.guarded:  # type: ignore[attr-defined]
            refuse_end(query)
        return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        if self._conn.guarded:  # type: ignore[attr-defined]
            refuse_end(query)
        super().executemany(query, params_seq, returning=returning)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[TupleRow]:
        if self._conn.guarded:  # type: ignore[attr-defined]
            refuse_end(query)
        return super().stream(query, params, **options)

    @property
    def rowcount(self) -> int:
        self._fetch_pipeline()
        return super().rowcount

    @property
    def description(self) -> list[psycopg.Column] | None:
        self._fetch_pipeline()
        return super().description

    @property
    def statusmessage(self) -> str | None:
        self._fetch_pipeline()
        return super().statusmessage


def refuse_end(query: Any) -> None:
    """Raise ``StoreError`` for a statement that begins or ends a transaction."""
    text = query if isinstance(query, str) else _text(query)
    for part in OPAQUE.sub(" ", text).split(";") if ";" in text else (text,):
        if _ENDS.match(part):
            refuse(" ".join(part.split())[:40])


def _text(query: Any) -> str:
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    return query.as_string(None) if isinstance(query, sql.Composable) else str(query)


def refuse(what: str) -> NoReturn:
    raise StoreError(
        f"refused {what}: leave commit and rollback to yeondong, which stores what was handled with what was done "
        "(savepoints are yours)"
    )
