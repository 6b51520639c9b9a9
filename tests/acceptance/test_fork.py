"""A forked process opens everything anew and leaves what it inherited to its parent."""

from __future__ import annotations

import pytest

from tests.acceptance import forking, orders
from tests.acceptance.checker import findings
from tests.acceptance.world import World, until_none


@pytest.mark.parametrize("parent", ["idle", "busy"])
@pytest.mark.parametrize("broker", ["same file", "own file"])
def test_parent_and_children_go_on(world: World, parent: str, broker: str) -> None:
    if broker == "own file":
        world.set(broker=f"sqlite:///{world.folder / 'broker.db'}")
    orders.prepare(orders.make())

    server = world.run("server", "-P", forking.__file__, parent)
    assert server.ended() == 0, server.log()
    assert "Error" not in server.log()
    world.start("all")

    until_none(lambda: findings(world.database, letters=orders.LETTERS))
    used = forking.EACH * (forking.CHILDREN + 3)
    meanwhile = world.one("SELECT count(*) FROM placed WHERE customer = 'published meanwhile'")
    assert world.one("SELECT count(*) FROM placed") == 2 * used + meanwhile
    assert world.one("SELECT count(*) FROM yeondong_flows WHERE paused = 'written'") == used
    assert world.one("PRAGMA integrity_check") == "ok"
    world.stop()
