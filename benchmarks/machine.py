"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe_machine() -> Mapping[str, str]:
    """Name processor, memory, system and versions, and how busy the machine was before the run."""
    return {
        "processor": f"{os.cpu_count()} cores of {_field('/proc/cpuinfo', 'model name') or platform.processor()}",
        "memory": _field("/proc/meminfo", "MemTotal") or "unknown",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "psycopg": version("psycopg"),
        "confluent-kafka": version("confluent-kafka"),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
