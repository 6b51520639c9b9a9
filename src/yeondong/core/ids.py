"""Ids of messages."""

from __future__ import annotations

import os
import time
from typing import Final


def new_id() -> str:
    """Return a UUID that begins with the time (version 7, RFC 9562).

    Tables find repeats through an index on the id. Ids of one moment are neighbours there, where random ones touch a
    page each: measured on SQLite, ten messages in a transaction are added half as fast again.

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    at = f"{time.time_ns() // 1_000_000:012x}"
    drawn = os.urandom(10).hex()
    return f"{at[:8]}-{at[8:]}-7{drawn[1:4]}-{_VARIANT[drawn[4]]}{drawn[5:8]}-{drawn[8:]}"


# Two bits of this digit are fixed, as those of the version, 7, before it.
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
