"""Certificates that a test makes for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate with its key, and the authority's, by which a client knows it."""

    chain: Path
    key: Path
    authority: Path


def certificate(folder: Path, *hosts: str) -> Certificate:
    """Write a certificate for these names or addresses. Each has an authority of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert(*hosts)
    chain, key, root = folder / "chain.pem", folder / "key.pem", folder / "authority.pem"
    _write(chain, [blob.bytes() for blob in issued.cert_chain_pems])
    # PKCS 8, the only form that Kafka reads.
    private = load_pem_private_key(issued.private_key_pem.bytes(), None)
    _write(key, [private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())])
    authority.cert_pem.write_to_path(root)
    return Certificate(chain, key, root)


def _write(file: Path, blobs: Sequence[bytes]) -> None:
    file.write_bytes(b"".join(blobs))
