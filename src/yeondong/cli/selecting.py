"""Which failures are meant: by id, by filter, or all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from yeondong.cli.command import F
from yeondong.cli.loading import Chosen
from yeondong.cli.observed import flow_names, is_alive
from yeondong.cli.wording import parse_time
from yeondong.core.store import Failure, FailureFilter, Session
from yeondong.errors import UnknownName


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line said."""

    ids: tuple[str, ...]
    flow: str | None
    type: str | None
    key: str | None
    error: str | None
    before: str | None
    every: bool

    def filter(self) -> FailureFilter:
        """Return the filter. Raises ``UsageError`` where nothing or a contradiction was said."""
        filters = (self.flow, self.type, self.key, self.error, self.before)
        some = bool(self.ids) or any(value is not None for value in filters)
        if self.every and self.ids:
            raise click.UsageError("--all means all failures: leave out the ids, or --all")
        if not some and not self.every:
            raise click.UsageError("say which failures: ids, --flow, --type, --key, --error, --before, or --all")
        return FailureFilter(
            ids=self.ids or None,
            flow=self.flow,
            type=self.type,
            key=self.key,
            error=self.error,
            before=None if self.before is None else parse_time(self.before, "--before"),
        )


def filter_options(function: F) -> F:
    """Add the ids and filters; the command gets them as it takes ``Asked``'s fields."""
    for option in reversed((
        click.argument("ids", metavar="[ID]...", nargs=-1),
        click.option("--flow", metavar="NAME", help="Of this flow."),
        click.option("--type", "type_", metavar="NAME", help="Of this message type."),
        click.option("--key", metavar="KEY", help="Of this key."),
        click.option("--error", metavar="TEXT", help="Whose error contains this text."),
        click.option("--before", metavar="TIME", help="That failed before this time (with an offset)."),
        click.option("--all", "every", is_flag=True, help="All failures in the store."),
    )):  # fmt: skip
        function = option(function)
    return function


def sum_behind(failures: Sequence[Failure]) -> int:
    """Count what waits behind these; two failures of one key have the same messages behind them."""
    behind: dict[tuple[str, str, str | None], int] = {}
    for failure in failures:
        key = (failure.flow, failure.message.channel, failure.message.key)
        behind[key] = max(behind.get(key, 0), failure.behind)
    return sum(behind.values())


def refuse_unknown_flow(chosen: Chosen, session: Session, which: FailureFilter) -> None:
    """Raise ``UnknownName`` for a flow that the app does not have, unless failures of it are left."""
    if which.flow is None:
        return
    known = flow_names(chosen.app, [r for r in session.flows.workers() if r.app == chosen.app.name and is_alive(r)])
    if which.flow not in known and not session.failures.count(FailureFilter(flow=which.flow)):
        raise UnknownName("flow", which.flow, known)


def missing(session: Session, which: FailureFilter) -> list[str]:
    """Return the ids that were asked for and are no failures, or no more."""
    if which.ids is None:
        return []
    found = {failure.id for failure in session.failures.find(FailureFilter(ids=which.ids), len(which.ids))}
    return [id for id in dict.fromkeys(which.ids) if id not in found]
