"""The network of `bench outages`: what it carries, swallows, and refuses."""

import asyncio

import pytest

from loadtest.bench.outages import Network
from loadtest.load import loop
from loadtest.servers.launch import free_port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back."""
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def said(address: str, text: bytes) -> bytes:
    """What comes back on a new connection within a moment; b"" if it is closed at once."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(text)
        async with asyncio.timeout(0.5):
            return await reader.read(100)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_it_carries_or_swallows() -> None:
    async def test() -> None:
        network = Network()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = "{}:{}".format(*server.sockets[0].getsockname()[:2])
        async with server, network.before(target) as address:
            assert await said(address, b"hello") == b"hello"
            with network.cut_off(), pytest.raises(TimeoutError):
                await said(address, b"hello")
            assert await said(address, b"again") == b"again"

    loop.run(test())


def test_where_nobody_listens_nobody_seems_to() -> None:
    async def test() -> None:
        async with Network().before(f"127.0.0.1:{free_port()}") as address:
            assert await said(address, b"hello") == b""

    loop.run(test())
