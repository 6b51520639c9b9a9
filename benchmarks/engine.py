"""Works of the engine."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Part, Side, Target, Work

SIDES = "benchmarks.sides.engine_handler"
LANES = 4
IN_FLIGHT = 1_000


def works(quick: bool) -> Sequence[Work]:  # noqa: FBT001 -- the command's flag
    """Return the works, small ones for ``quick``."""
    messages = 5_000 if quick else 400_000
    # The executor needs ten times as long for each, and settles into its rate at once.
    for_pool = messages if quick else 100_000
    settings = {"bytes": 256, "lanes": LANES, "in flight": IN_FLIGHT, "messages": messages}
    return [
        Work(
            name="engine.handler",
            parts=[Part("engine.handler", "messages/s", "rate", [Target("peer", 4), Target("limit", 0.4)])],
            ours=Side("ours", SIDES, "ours", {"messages": messages, "lanes": LANES}),
            peers=[
                Side(
                    "ThreadPoolExecutor",
                    SIDES,
                    "thread_pool",
                    {"messages": for_pool, "lanes": LANES},
                    differs="keeps no order of a key, bounds nothing and settles nothing",
                )
            ],
            limit=Side("limit", SIDES, "bare_lanes", {"messages": messages, "lanes": LANES, "in_flight": IN_FLIGHT}),
            limit_is="bare lanes: lists from one thread to 4 others and back, split by key, decoded, given to the "
            "handler, settled as prefixes; no retries, no holding, no leases",
            settings=settings,
        ),
        Work(
            name="engine.handler.failpoints",
            parts=[Part("engine.handler.failpoints", "% of the time", "percent", [Target("at most", 1)])],
            ours=Side("ours", SIDES, "counted", {"messages": messages, "lanes": LANES}),
            limit_is="none: calls of switched-off failpoints for a message, by the time of a call, by the rate",
            settings=settings,
            rounds=3,
        ),
    ]
