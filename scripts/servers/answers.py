"""Whether a server answers, in its own protocol, without a client library: this runs before anything is installed."""

import socket
import struct

LOOPBACK = "127.0.0.1"
_WAIT_SECONDS = 2.0
_PROTOCOL_3 = 196608
_API_VERSIONS = 18


def postgresql_answers(port: int, host: str = LOOPBACK) -> bool:
    """True when a session of the superuser gets as far as "ready for query": not while the server still recovers."""
    try:
        with socket.create_connection((host, port), _WAIT_SECONDS) as connection:
            words = b"user\0postgres\0database\0postgres\0\0"
            connection.sendall(struct.pack(">II", 8 + len(words), _PROTOCOL_3) + words)
            stream = connection.makefile("rb")
            while kind := stream.read(1):
                if kind in b"ZE":
                    ready = kind == b"Z"
                    connection.sendall(b"X\0\0\0\4")
                    return ready
                (length,) = struct.unpack(">I", stream.read(4))
                stream.read(length - 4)
    except (OSError, struct.error):
        pass
    return False


def kafka_answers(port: int, host: str = LOOPBACK) -> bool:
    """True when a broker tells which requests it takes: it does so once it has read the cluster's metadata."""
    request = struct.pack(">hhih", _API_VERSIONS, 0, 1, -1)
    try:
        with socket.create_connection((host, port), _WAIT_SECONDS) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            stream = connection.makefile("rb")
            _length, correlation, error = struct.unpack(">iih", stream.read(10))
            return bool((correlation, error) == (1, 0))
    except (OSError, struct.error):
        return False


def port_is_taken(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), _WAIT_SECONDS).close()
    except OSError:
        return False
    return True
