"""The network interface of this machine that leads to the other machines of a run, and its addresses there."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from contextlib import suppress

#: Asks Linux for the address of a network interface.
_SIOCGIFADDR = 0x8915
#: Where gloo takes an interface's name from.
_GLOO_VARIABLE = "GLOO_SOCKET_IFNAME"


def listen_towards(place: tuple[str, int]) -> None:
    """Have gloo use the interface that leads to host and port `place`, unless the user has named one.

    By itself it uses the one that has the address of this machine's name: on many systems that is the loopback, where
    no other machine can come.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):
        own = address_towards(place)
        for _, name in socket.if_nameindex():
            if _address_of(name) == own:
                os.environ.setdefault(_GLOO_VARIABLE, name)


def address_towards(place: tuple[str, int]) -> str:
    """Return the address that this machine has for those at `place`. Raises OSError where no route leads there."""
    family, kind, protocol, _, address = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # sends nothing: it looks up the route
        found: str = probe.getsockname()[0]
    return found


def own_addresses(place: tuple[str, int]) -> tuple[str, ...]:
    """Return the addresses that other processes of the run connect to. Raises OSError as `address_towards` does."""
    of_gloo = _address_of(os.environ.get(_GLOO_VARIABLE, ""))
    return tuple(sorted({address_towards(place), of_gloo} - {""}))


def _address_of(interface: str) -> str:
    """Return the IPv4 address of a network interface, "" if it has none."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("256s", os.fsencode(interface)[:15])
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, asked)[20:24])
    return ""
