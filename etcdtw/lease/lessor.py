"""Leases and their deadlines: grants, renewals, expiry and checkpoints.

Knows no keys, disk, clock or consensus.  The set of leases and their checkpoints are
replicated state and change by `grant`, `revoke`, `checkpoint` and `restore` alone; deadlines
are the leader's own and exist between `promote` and `demote`.  Time is what `advance` says.

Source: etcd v3 api, Lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final

from etcdtw.lease.deadlines import Deadlines
from etcdtw.lease.errors import LeaseExistsError, LeaseNotFoundError, LeaseTtlTooLargeError
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.histogram import Histogram, exponential_bounds

LEASE_TTL_MAX_S: Final = 9_000_000_000
NO_LEASE: Final = 0
TTL_BOUNDS_S: Final = exponential_bounds(1, 24)
"""By which granted TTLs are counted (etcd's)."""
NEVER_MS: Final = 1 << 62
"""The deadline of every lease on a member that does not lead."""

CHECKPOINT_INTERVAL_MS: Final = 300_000
EXPIRIES_PER_S_MAX: Final = 1000
"""What expiry can do; when this many leases would expire within a second of each other
after a promotion they are spread to three quarters of it."""
REVOKE_RETRY_MS: Final = 3000
"""An expired lease is named again if its revoke was not applied within this time."""

RENEW_EXPIRED: Final = 0
"""`Lessor.renew`: the lease has expired; its revoke is on the way."""
RENEW_CHECKPOINTED: Final = -1
"""`Lessor.renew`: a checkpoint must first be cleared, by a replicated checkpoint of 0."""


class Lease:
    """One granted lease.  ``remaining_ttl_s`` is its last checkpoint; 0: it has none."""

    __slots__ = ("deadline_ms", "lease_id", "remaining_ttl_s", "status", "ttl_s")

    def __init__(self, lease_id: int, ttl_s: int, remaining_ttl_s: int) -> None:
        self.lease_id = lease_id
        self.ttl_s = ttl_s
        self.remaining_ttl_s = remaining_ttl_s
        self.deadline_ms = NEVER_MS
        number = encode_varint(lease_id)
        self.status = b"\x12%c\x08%b" % (len(number) + 1, number)
        """The octets of its LeaseStatus in a LeaseLeasesResponse: those of all are asked for."""

    @property
    def recorded_ttl_s(self) -> int:
        """What another leader would arm it with."""
        return self.remaining_ttl_s or self.ttl_s


class Lessor:
    """All leases of a member.

    Invariant: while promoted every lease is armed in `_expiry` at or before its deadline
    (a renewal moves the deadline only) or awaits the retry of its revoke.
    """

    def __init__(
        self,
        min_ttl_s: int,
        *,
        checkpoint_interval_ms: int = CHECKPOINT_INTERVAL_MS,
        expiries_per_s_max: int = EXPIRIES_PER_S_MAX,
    ) -> None:
        self._min_ttl_s = min_ttl_s
        self._checkpoint_interval_ms = checkpoint_interval_ms
        self._expiries_per_s_max = expiries_per_s_max
        self._leases: dict[int, Lease] = {}
        self._expiry = Deadlines()
        self._checkpoints = Deadlines()
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        self.is_primary = False
        self.now_ms = 0
        self.granted_total = 0
        self.revoked_total = 0
        self.renewed_total = 0
        self.granted_ttls_s = Histogram(TTL_BOUNDS_S)

    def __len__(self) -> int:
        return len(self._leases)

    def advance(self, now_ms: int) -> None:
        """Tell the time.  It never goes back."""
        if now_ms > self.now_ms:
            self.now_ms = now_ms

    # Replicated state.

    def restore(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Replace all leases by rows of (lease_id, ttl_s, remaining_ttl_s)."""
        self._leases = {row[0]: Lease(*row) for row in rows}
        self._expiry.clear()
        self._checkpoints.clear()
        if self.is_primary:
            self.promote(0)
        for lease_id in [i for i in self._waiting if i not in self._leases]:
            self._release(lease_id)

    def grant(self, lease_id: int, ttl_s: int) -> Lease:
        """Make a lease of at least the smallest TTL; the effective one is in the result.

        Raises `LeaseTtlTooLargeError`, `LeaseExistsError`, or `LeaseNotFoundError` for id 0.
        """
        if lease_id == NO_LEASE:
            raise LeaseNotFoundError(lease_id)
        if ttl_s > LEASE_TTL_MAX_S:
            raise LeaseTtlTooLargeError(ttl_s)
        if lease_id in self._leases:
            raise LeaseExistsError(lease_id)
        lease = Lease(lease_id, max(ttl_s, self._min_ttl_s), 0)
        self._leases[lease_id] = lease
        self.granted_total += 1
        self.granted_ttls_s.observe(lease.ttl_s)
        if self.is_primary:
            self._arm(lease, self.now_ms + lease.ttl_s * 1000)
        return lease

    def revoke(self, lease_id: int) -> None:
        """Forget a lease.  Raises `LeaseNotFoundError`."""
        if self._leases.pop(lease_id, None) is None:
            raise LeaseNotFoundError(lease_id)
        self.revoked_total += 1
        self._expiry.disarm(lease_id)
        self._checkpoints.disarm(lease_id)
        self._release(lease_id)

    def checkpoint(self, lease_id: int, remaining_ttl_s: int) -> Lease:
        """Record how much is left of a lease; 0 clears the record.

        Raises `LeaseNotFoundError`: the lease was revoked since.
        """
        lease = self._held(lease_id)
        lease.remaining_ttl_s = remaining_ttl_s
        if self.is_primary:
            self._arm_checkpoint(lease)
        return lease

    def lookup(self, lease_id: int) -> Lease | None:
        return self._leases.get(lease_id)

    def _held(self, lease_id: int) -> Lease:
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFoundError(lease_id)
        return lease

    def exists(self, lease_id: int) -> bool:
        return lease_id in self._leases

    # Deadlines: the leader's.

    def promote(self, extend_ms: int) -> None:
        """Start to time leases, each with all of its recorded TTL and ``extend_ms`` more.

        Never shortens what a client was told.  ``extend_ms``: an election timeout, in
        which no renewal could have reached a leader.
        """
        self.is_primary = True
        start_ms = self.now_ms + extend_ms
        leases = sorted(self._leases.values(), key=_recorded_ttl_s)
        is_many = len(leases) >= self._expiries_per_s_max
        spread_per_s = max(self._expiries_per_s_max * 3 // 4, 1)
        base_ms = -1000
        position = 0
        expiry: dict[int, int] = {}
        checkpoints: dict[int, int] = {}
        checkpoint_ms = self.now_ms + self._checkpoint_interval_ms
        for lease in leases:
            deadline_ms = start_ms + _recorded_ttl_s(lease) * 1000
            # The window of those that would be due together starts at its first; one that
            # the spreading has overtaken joins it.
            if deadline_ms - base_ms >= 1000 * (1 + position // spread_per_s):
                base_ms = deadline_ms
                position = 0
            if is_many:
                deadline_ms = max(deadline_ms, base_ms + position * 1000 // spread_per_s)
            position += 1
            lease.deadline_ms = deadline_ms
            expiry[lease.lease_id] = deadline_ms
            if deadline_ms > checkpoint_ms:  # as `_arm_checkpoint`: nothing of it has passed
                checkpoints[lease.lease_id] = checkpoint_ms
        # At once: one after the other takes three times as long, and there may be very many.
        self._expiry.arm_all(expiry)
        self._checkpoints.arm_all(checkpoints)

    def demote(self) -> None:
        """Stop timing leases: another member may lead."""
        self.is_primary = False
        self._expiry.clear()
        self._checkpoints.clear()
        for lease in self._leases.values():
            lease.deadline_ms = NEVER_MS
        for lease_id in list(self._waiting):
            self._release(lease_id)

    def renew(self, lease_id: int) -> int | None:
        """Start a lease's TTL anew; only while primary.

        Returns the granted TTL in seconds; None: there is no such lease; `RENEW_EXPIRED`,
        `RENEW_CHECKPOINTED`: nothing was changed.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return None
        if lease.deadline_ms <= self.now_ms:
            return RENEW_EXPIRED
        if lease.remaining_ttl_s:
            return RENEW_CHECKPOINTED
        lease.deadline_ms = self.now_ms + lease.ttl_s * 1000
        self.renewed_total += 1
        return lease.ttl_s

    def when_revoked(self, lease_id: int, released: Callable[[], None]) -> None:
        """Call ``released`` once, when the lease is revoked or this member is demoted."""
        assert lease_id in self._leases
        self._waiting.setdefault(lease_id, []).append(released)

    def forget_waiter(self, lease_id: int, released: Callable[[], None]) -> None:
        """Undo `when_revoked`; does nothing when that has called or was not asked."""
        waiting = self._waiting.get(lease_id, [])
        if released in waiting:
            waiting.remove(released)
            if not waiting:
                del self._waiting[lease_id]

    def remaining_ttl_s(self, lease_id: int) -> int:
        """Return the whole seconds left; 0 or less shortly before the revoke.

        On a member that does not lead: the recorded TTL.  Raises `LeaseNotFoundError`.
        """
        lease = self._held(lease_id)
        if lease.deadline_ms == NEVER_MS:
            return lease.remaining_ttl_s or lease.ttl_s
        # Towards zero, as etcd's conversion of a duration does.
        return int((lease.deadline_ms - self.now_ms) / 1000)

    def expired(self, limit: int) -> list[int]:
        """Return up to ``limit`` expired leases, the earliest first, for revoking.

        One is named again only after `REVOKE_RETRY_MS` without its revoke.
        """
        found: list[int] = []
        while len(found) < limit:
            lease_id = self._expiry.next_due(self.now_ms)
            if lease_id is None:
                break
            lease = self._leases[lease_id]
            if lease.deadline_ms > self.now_ms:
                self._expiry.arm(lease_id, lease.deadline_ms)
                continue
            found.append(lease_id)
            self._expiry.arm(lease_id, self.now_ms + REVOKE_RETRY_MS)
        return found

    def due_checkpoints(self, limit: int) -> list[tuple[int, int]]:
        """Return up to ``limit`` pairs (lease_id, remaining_ttl_s) to be replicated.

        A lease is due when an interval has passed since what is recorded of it; one that
        is renewed more often than that never is.
        """
        found: list[tuple[int, int]] = []
        while len(found) < limit:
            lease_id = self._checkpoints.next_due(self.now_ms)
            if lease_id is None:
                break
            lease = self._leases[lease_id]
            remaining_ms = lease.deadline_ms - self.now_ms
            if remaining_ms <= 0:
                continue
            passed_ms = lease.recorded_ttl_s * 1000 - remaining_ms
            if passed_ms >= self._checkpoint_interval_ms:
                found.append((lease_id, -(-remaining_ms // 1000)))
            self._arm_checkpoint(lease)
        return found

    def leases(self) -> list[Lease]:
        """Return all leases, the next to expire first."""
        return sorted(self._leases.values(), key=_deadline_ms)

    def _arm(self, lease: Lease, deadline_ms: int) -> None:
        lease.deadline_ms = deadline_ms
        self._expiry.arm(lease.lease_id, deadline_ms)
        self._arm_checkpoint(lease)

    def _arm_checkpoint(self, lease: Lease) -> None:
        """Look at the lease when an interval will have passed, if more is left of it."""
        remaining_ms = lease.deadline_ms - self.now_ms
        if remaining_ms <= self._checkpoint_interval_ms:
            self._checkpoints.disarm(lease.lease_id)
            return
        passed_ms = lease.recorded_ttl_s * 1000 - remaining_ms
        wait_ms = self._checkpoint_interval_ms
        if 0 < passed_ms < wait_ms:
            wait_ms -= passed_ms
        self._checkpoints.arm(lease.lease_id, self.now_ms + wait_ms)

    def _release(self, lease_id: int) -> None:
        for released in self._waiting.pop(lease_id, []):
            released()


_deadline_ms: Final = attrgetter("deadline_ms")


def _recorded_ttl_s(lease: Lease) -> int:
    return lease.recorded_ttl_s
