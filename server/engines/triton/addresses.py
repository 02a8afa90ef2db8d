"""The addresses of all Tritons: the listed addresses, and those that a listed name has now.

In: HOST:PORT,…, each host an address or a name. Out: IP:PORT of each Triton. If the resolver fails,
known addresses stay: a resolver fails more often than all Tritons do.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import Iterable

logger = logging.getLogger(__name__)


class Addresses:
    """The addresses of `url`, HOST:PORT,…; there are none before the first `resolve`."""

    def __init__(self, url: str) -> None:
        self.failure: str | None = None  # why the last name that failed could not be resolved
        self._found: dict[str, list[str]] = {each: [] for each in url.split(",")}

    async def resolve(self) -> list[str]:
        """Every address once, as IP:PORT, in the order of the names."""
        self.failure = None
        await asyncio.gather(*(self._resolve(name) for name in self._found))
        return list(dict.fromkeys(itertools.chain(*self._found.values())))

    async def _resolve(self, name: str) -> None:
        host, _, port = name.rpartition(":")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            level = logging.DEBUG if self._found[name] else logging.WARNING
            logger.log(level, "%s cannot be resolved: %s", host, error)
            self.failure = f"Triton's name {host!r} cannot be resolved: {error}"
            return
        self._found[name] = of_one_family(
            ((family, str(address[0])) for family, *_, address in found), port
        )


def of_one_family(found: Iterable[tuple[int, str]], port: str) -> list[str]:
    """IP:PORT of each (family, IP): of IPv4 if there is any, else [IP]:PORT of IPv6.

    A name with addresses of both kinds would count each Triton twice.
    """
    hosts: dict[int, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
    for family, ip in found:
        hosts[family].append(ip)
    return [f"{ip}:{port}" for ip in hosts[socket.AF_INET]] or [
        f"[{ip}]:{port}" for ip in hosts[socket.AF_INET6]
    ]
