"""Leases and their deadlines: grants, renewals, expiry and checkpoints.

Knows no keys, disk, clock or consensus.  The set of leases and their checkpoints are
replicated state and change by `grant`, `revoke`, `checkpoint` and `restore` alone; deadlines
are the leader's own and exist between `promote` and `demote`.  Time is what `advance` says.

Source: etcd v3 api, Lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from etcdtw.lease.arming import Arming, Listing
from etcdtw.lease.by_id import ById
from etcdtw.lease.deadlines import Deadlines
from etcdtw.lease.errors import LeaseExistsError, LeaseNotFoundError, LeaseTtlTooLargeError
from etcdtw.lease.lease import NEVER_MS, Lease
from etcdtw.wire.histogram import Histogram, exponential_bounds

LEASE_TTL_MAX_S: Final = 9_000_000_000
NO_LEASE: Final = 0
TTL_BOUNDS_S: Final = exponential_bounds(1, 24)
"""By which granted TTLs are counted (etcd's)."""
CHECKPOINT_INTERVAL_MS: Final = 300_000
EXPIRIES_PER_S_MAX: Final = 1000
"""What expiry can do; when this many leases would expire within a second of each other
after a promotion they are spread to three quarters of it."""
REVOKE_RETRY_MS: Final = 3000
"""An expired lease is named again if its revoke was not applied within this time."""

ARMED_MAX: Final = 2_000
"""Leases that are armed in one piece of a promotion."""
BURIED_MAX: Final = 8_000
"""Leases or deadlines that are freed in one piece, about 2 ms, when no promotion is under way."""
LOOKS_MAX: Final = 4_000
"""Leases that are looked at in one piece, those that were renewed in time included."""

RENEW_EXPIRED: Final = 0
"""`Lessor.renew`: the lease has expired; its revoke is on the way."""
RENEW_CHECKPOINTED: Final = -1
"""`Lessor.renew`: a checkpoint must first be cleared, by a replicated checkpoint of 0."""


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
        self._leases: ById[Lease] = ById()
        self._expiry = Deadlines()
        self._checkpoints = Deadlines()
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        self._term = 1
        self._start_ms = 0
        self._arming: Arming | None = None
        self._retired: list[ById[Lease] | Deadlines] = []  # to be freed by `work`
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
        if self._leases:
            self._retired.append(self._leases)
        self._leases = ById()
        for row in rows:
            self._leases[row[0]] = Lease(*row)
        self._forget_deadlines()
        self._arming = None
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
        if self._leases.pop(lease_id) is None:
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
        which no renewal could have reached a leader.  Very many leases are armed by `work`; none
        of them ends before it is.
        """
        self.is_primary = True
        self._term += 1
        self._forget_deadlines()
        self._start_ms = self.now_ms + extend_ms
        self._arming = Arming(self._leases.moment(), self._start_ms, self._expiries_per_s_max)
        self.work(ARMED_MAX)

    @property
    def has_work(self) -> bool:
        """Whether leases of a promotion are not armed yet, or something is to be freed."""
        return self._arming is not None or bool(self._retired)

    def work(self, count: int) -> None:
        """Arm up to about ``count`` leases of a promotion, or free what is not used any more."""
        arming = self._arming
        if arming is None:
            if self._retired and self._retired[-1].bury(BURIED_MAX):
                self._retired.pop()
            return
        for lease, deadline_ms in arming.step(count):
            if self._leases.get(lease.lease_id) is lease:
                # A renewal in between gave it more.
                self._arm(lease, max(deadline_ms, self._deadline_ms(lease)))
        if arming.is_done:
            self._arming = None

    def demote(self) -> None:
        """Stop timing leases: another member may lead."""
        self.is_primary = False
        self._term += 1
        self._arming = None
        self._forget_deadlines()
        for lease_id in list(self._waiting):
            self._release(lease_id)

    def _forget_deadlines(self) -> None:
        for deadlines in (self._expiry, self._checkpoints):
            if deadlines.entries:
                self._retired.append(deadlines)
        self._expiry = Deadlines()
        self._checkpoints = Deadlines()

    def _deadline_ms(self, lease: Lease) -> int:
        """When a lease ends, as far as this member may tell."""
        if not self.is_primary:
            return NEVER_MS
        if lease.term != self._term:
            # Of before the promotion, and neither armed nor renewed since.
            lease.term = self._term
            lease.deadline_ms = self._start_ms + lease.recorded_ttl_s * 1000
        return lease.deadline_ms

    def renew(self, lease_id: int) -> int | None:
        """Start a lease's TTL anew; only while primary.

        Returns the granted TTL in seconds; None: there is no such lease; `RENEW_EXPIRED`,
        `RENEW_CHECKPOINTED`: nothing was changed.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return None
        if self._deadline_ms(lease) <= self.now_ms:
            return RENEW_EXPIRED
        if lease.remaining_ttl_s:
            return RENEW_CHECKPOINTED
        lease.deadline_ms = self.now_ms + lease.ttl_s * 1000  # and of this term, now
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
        deadline_ms = self._deadline_ms(lease)
        if deadline_ms == NEVER_MS:
            return lease.remaining_ttl_s or lease.ttl_s
        # Towards zero, as etcd's conversion of a duration does.
        return int((deadline_ms - self.now_ms) / 1000)

    def expired(self, limit: int) -> list[int]:
        """Return up to ``limit`` expired leases, the earliest first, for revoking.

        One is named again only after `REVOKE_RETRY_MS` without its revoke.
        """
        found: list[int] = []
        for _ in range(LOOKS_MAX):
            if len(found) >= limit:
                break
            lease_id = self._expiry.next_due(self.now_ms)
            if lease_id is None:
                break
            deadline_ms = self._deadline_ms(self._leases[lease_id])
            if deadline_ms > self.now_ms:
                self._expiry.arm(lease_id, deadline_ms)
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
        for _ in range(LOOKS_MAX):
            if len(found) >= limit:
                break
            lease_id = self._checkpoints.next_due(self.now_ms)
            if lease_id is None:
                break
            lease = self._leases[lease_id]
            remaining_ms = self._deadline_ms(lease) - self.now_ms
            if remaining_ms <= 0:
                continue
            passed_ms = lease.recorded_ttl_s * 1000 - remaining_ms
            if passed_ms >= self._checkpoint_interval_ms:
                found.append((lease_id, -(-remaining_ms // 1000)))
            self._arm_checkpoint(lease)
        return found

    @property
    def has_due(self) -> bool:
        """Whether `expired` or `due_checkpoints` left something for another time."""
        return self._expiry.has_due(self.now_ms) or self._checkpoints.has_due(self.now_ms)

    def listing(self) -> Listing:
        """Return a list of all leases of this moment, to be sorted step by step."""
        return Listing(self._leases.moment(), self._deadline_ms)

    def _arm(self, lease: Lease, deadline_ms: int) -> None:
        lease.term = self._term
        lease.deadline_ms = deadline_ms
        self._expiry.arm(lease.lease_id, deadline_ms)
        self._arm_checkpoint(lease)

    def _arm_checkpoint(self, lease: Lease) -> None:
        """Look at the lease when an interval will have passed, if more is left of it."""
        remaining_ms = self._deadline_ms(lease) - self.now_ms
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
