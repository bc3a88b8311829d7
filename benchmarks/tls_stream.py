"""The cheapest way for Python to take in much over TLS: large reads into a memory BIO, decrypted from there.

CPU seconds of the sink per GiB in parts of 8 MiB, four connections, median of three alternating runs:
this 0.74, ``SSLSocket.recv_into`` (two system calls a TLS record) 1.00, nginx before a tiny back end
that never sees the body 1.23.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator

RAW_BYTES = 256 * 1024
"""Taken from the kernel at once; 64 KiB cost the same."""

See = Callable[[memoryview], object]
"""Is shown each piece of a body before it is dropped."""


class TlsStream:
    """One end of a connection: the server's, or the client's where the server's name is given."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._raw = memoryview(bytearray(RAW_BYTES))
        self._buffer = bytearray(RAW_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._handshake()

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            else:
                self._flush()
                return

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self._tls.write(data)
        self._flush()

    def read_head(self) -> list[str] | None:
        """Return the lines of a message's head, or None when the other end has left."""
        try:
            return self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        except EOFError:
            return None

    def drain(self, length: int, see: See | None) -> None:
        """Take in exactly so many bytes of a body."""
        for piece in self._pieces(length):
            if see:
                see(piece)

    def drain_chunked(self, see: See | None) -> None:
        """Take in a body of chunks (RFC 9112, 7.1) with the last one and the trailers."""
        while length := int(self._until(b"\r\n").partition(b";")[0], 16):
            self.drain(length, see)
            self._until(b"\r\n")
        while self._until(b"\r\n"):
            pass

    def close(self) -> None:
        self._connection.close()

    def _pieces(self, length: int) -> Iterator[memoryview]:
        while length:
            if self._start == self._end:
                self._fill()
            count = min(length, self._end - self._start)
            yield self._view[self._start : self._start + count]
            self._start += count
            length -= count

    def _until(self, mark: bytes) -> bytes:
        """Return what comes before a mark, and skip both."""
        while (found := self._buffer.find(mark, self._start, self._end)) < 0:
            if self._start:
                rest = self._buffer[self._start : self._end]
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            if self._end == len(self._buffer):
                raise ValueError("the head of a request is too long")
            self._fill()
        data = bytes(self._view[self._start : found])
        self._start = found + len(mark)
        return data

    def _fill(self) -> None:
        """Decrypt what is there behind the end of the buffer, which starts anew once it is used up."""
        if self._start == self._end:
            self._start = self._end = 0
        while True:
            try:
                count = self._tls.read(len(self._buffer) - self._end, self._view[self._end :])
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLZeroReturnError:
                raise EOFError from None
            else:
                if not count:
                    raise EOFError
                self._end += count
                return

    def _receive(self) -> None:
        count = self._connection.recv_into(self._raw)
        if not count:
            raise EOFError
        self._incoming.write(self._raw[:count])

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._connection.sendall(data)


class PlainStream(TlsStream):
    """The same without TLS, for where a client's own TLS is not what is measured."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._buffer = bytearray(RAW_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        count = self._connection.recv_into(self._view[self._end :])
        if not count:
            raise EOFError
        self._end += count


class AwsChunks:
    """Shows the payload inside of ``aws-chunked`` framing, which boto3 puts around a body to append its checksum."""

    _LINE = re.compile(rb"([0-9a-f]+)[^\r\n]*\r\n", re.IGNORECASE)

    def __init__(self, see: See) -> None:
        self._see = see
        self._left = 0
        self._framing = bytearray()

    def __call__(self, piece: memoryview) -> None:
        while piece:
            if self._left:
                self._see(piece[: self._left])
                taken = min(self._left, len(piece))
                self._left -= taken
                piece = piece[taken:]
                continue
            # A line of framing is short, but may be split anywhere.
            self._framing.append(piece[0])
            piece = piece[1:]
            line = self._framing.lstrip(b"\r\n")
            if found := self._LINE.fullmatch(line):
                self._left = int(found[1], 16)
                self._framing.clear()
