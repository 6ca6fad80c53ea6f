"""Addresses whose connections broke the rules lately.

Who breaks them and comes again gets less before it is cut off again, and is let in at a pace.
Nobody is refused: a client that keeps to the rules behind the same address has no need of what
is missing, and waits only while others crowd at the door.  Pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

MEMORY_S: Final = 60.0
"""An offence is remembered this long."""
OFFENCES_MIN: Final = 3
"""Offences within the memory that make an address an offender: one slip is none."""
ADDRESSES_MAX: Final = 1_024
"""Addresses remembered; the one whose last offence is oldest goes first."""
SPACING_S: Final = 0.02
"""Between two connections of an offender that are let in."""
DELAY_MAX_S: Final = 1.0
"""The longest that one waits, however many come."""
IPV6_NETWORK_BITS: Final = 64
"""One customer has as many IPv6 addresses as he likes; they count as one."""


class _Record:
    __slots__ = ("last_s", "offences", "open_s")

    def __init__(self) -> None:
        self.offences = 0
        self.last_s = 0.0
        self.open_s = 0.0  # the next connection is let in not before


class Offenders:
    """What is remembered of addresses.  Times in seconds, of any clock that does not go back."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    @property
    def count(self) -> int:
        """Addresses remembered."""
        return len(self._records)

    def note(self, address: str, now_s: float) -> None:
        """A connection from ``address`` was cut off.  Nothing is noted of Unix sockets ("")."""
        if not address:
            return
        network = network_of(address)
        record = self._current(network, now_s) or _Record()
        self._records.pop(network, None)
        self._records[network] = record
        record.offences += 1
        record.last_s = now_s
        if len(self._records) > ADDRESSES_MAX:
            del self._records[next(iter(self._records))]

    def is_offender(self, address: str, now_s: float) -> bool:
        if not self._records or not address:
            return False
        record = self._current(network_of(address), now_s)
        return record is not None and record.offences >= OFFENCES_MIN

    def admit(self, address: str, now_s: float) -> float:
        """A connection from an offender has come: return for how long it must wait."""
        record = self._records[network_of(address)]
        delay_s = min(max(record.open_s - now_s, 0.0), DELAY_MAX_S)
        record.open_s = now_s + delay_s + SPACING_S
        return delay_s

    def _current(self, network: str, now_s: float) -> _Record | None:
        record = self._records.get(network)
        if record is not None and now_s - record.last_s >= MEMORY_S:
            del self._records[network]
            return None
        return record


def network_of(address: str) -> str:
    """Return what stands for ``address``: itself, or the network of an IPv6 one."""
    if ":" not in address:
        return address
    number = int(ip_address(address.partition("%")[0]))
    return f"{number >> (128 - IPV6_NETWORK_BITS):x}::"
