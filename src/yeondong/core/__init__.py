"""Values and contracts: what everything else is written against. No I/O."""
