"""Passwords and their hashes, made and compared beside the reactor, a few at a time.

bcrypt takes tens of milliseconds on purpose.  Go's rules: a password of more than 72 octets is not
hashed; one that is compared counts to its 72nd octet.
"""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, cast

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.grpc.call import Call

COST_MIN: Final = 4
COST_MAX: Final = 31
COST_DEFAULT: Final = 10
PASSWORD_SIZE_MAX: Final = 72
TOO_LONG: Final = "bcrypt: password length exceeds 72 bytes"
PENDING_MAX: Final = 1024
"""Hashes that wait for their turn; more are refused."""
PENDING_EACH_MAX: Final = 128
"""Of one address."""
WORKERS_MAX: Final = 2
"""Hashes that are made at once: most machines have more processors than that."""

_PREFIX: Final = b"2a"
_ALPHABET: Final = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_STANDARD: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class PasswordTooLongError(Exception):
    """Go's bcrypt takes no such password."""

    def __init__(self) -> None:
        super().__init__(TOO_LONG)


def salt_of(octets: bytes, cost: int) -> bytes:
    """Return 16 octets as bcrypt's salt."""
    text = b64encode(octets).rstrip(b"=").translate(bytes.maketrans(_STANDARD, _ALPHABET))
    return b"$2a$%02d$%b" % (cost, text)


def matches(password: bytes, password_hash: bytes) -> bool:
    """Whether ``password_hash`` is this password's; one that is no hash is nobody's."""
    import bcrypt  # with the first password: a start does without

    try:
        return bcrypt.checkpw(password[:PASSWORD_SIZE_MAX], password_hash)
    except ValueError:
        return False


Job = Callable[[], object]


class _Pending(NamedTuple):
    """What waits for a thread; it is left out when it is not wanted any more."""

    job: Job
    done: Callable[[object], None]
    is_wanted: Callable[[], bool]


class Passwords:
    """Hashes and compares, in threads.  Addresses take turns: none of them stands before another.

    in_thread   calls what it is given in a thread (the reactor's pool)
    in_reactor  calls what it is given in the reactor; from any thread
    """

    def __init__(
        self,
        in_thread: Callable[[Callable[[], None]], object],
        in_reactor: Callable[[Callable[[], None]], object],
        cost: int = COST_DEFAULT,
        *,
        pending_max: int = PENDING_MAX,
        pending_each_max: int = PENDING_EACH_MAX,
        workers_max: int = WORKERS_MAX,
    ) -> None:
        self._in_thread = in_thread
        self._in_reactor = in_reactor
        self._cost = cost
        self._pending_max = pending_max
        self._pending_each_max = pending_each_max
        self._workers_max = workers_max
        self._urgent: deque[_Pending] = deque()
        # By address; whose turn is next comes first.
        self._lines: OrderedDict[str, deque[_Pending]] = OrderedDict()
        self._pending_count = 0
        self._working = 0
        # As long to compare as a real one's: that nobody has this name takes its time, too.
        self._nobodys = salt_of(bytes(16), cost) + b"." * 31

    def hash(self, password: bytes, call: Call, done: Callable[[bytes], None]) -> None:
        """Hash a password with a new salt, while ``call`` is open.

        Raises `PasswordTooLongError`, `TooManyRequestsError`.
        """
        if len(password) > PASSWORD_SIZE_MAX:
            raise PasswordTooLongError()
        cost = self._cost

        def job() -> bytes:
            import bcrypt

            return bcrypt.hashpw(password, bcrypt.gensalt(cost, _PREFIX))

        self._add(job, lambda made: done(cast(bytes, made)), call)

    def check(
        self,
        password: bytes,
        password_hash: bytes | None,
        call: Call,
        done: Callable[[bool], None],
    ) -> None:
        """Compare a password with a hash, while ``call`` is open.

        None: that of nobody, whose answer takes as long.  Raises `TooManyRequestsError`.
        """
        if password_hash is None:
            job = partial(matches, password, self._nobodys)
            self._add(job, lambda _: done(False), call)
        else:
            job = partial(matches, password, password_hash)
            self._add(job, lambda found: done(bool(found)), call)

    def sign(self, make: Callable[[], str], call: Call, done: Callable[[str | None], None]) -> None:
        """Make a token, while ``call`` is open; None: that failed.

        In the same threads, as it belongs to a password's comparison.  Raises
        `TooManyRequestsError`.
        """
        self._add(make, lambda made: done(cast("str | None", made)), call)

    def start(self, password: bytes, salt: bytes) -> LateHash:
        """Begin to hash what an entry of 3.4 brings; implements `auth_entries.StartHash`.

        At the same cost on every member, whatever the flag says.  There is always a place, and
        it is the first: nothing is applied meanwhile.
        """
        late = LateHash()
        text = salt_of(salt, COST_DEFAULT)

        def job() -> bytes:
            import bcrypt

            return bcrypt.hashpw(password, text)

        self._urgent.append(_Pending(job, lambda made: late.made(cast(bytes, made)), lambda: True))
        self._work()
        return late

    def _add(self, job: Job, done: Callable[[object], None], call: Call) -> None:
        address = call.caller.address
        line = self._lines.get(address)
        if self._pending_count >= self._pending_max or (
            line is not None and len(line) >= self._pending_each_max
        ):
            raise TooManyRequestsError()
        if line is None:
            line = self._lines[address] = deque()
        line.append(_Pending(job, done, lambda: call.is_open))
        self._pending_count += 1
        self._work()

    def _work(self) -> None:
        while self._working < self._workers_max:
            pending = self._next()
            if pending is None:
                return
            self._working += 1
            self._in_thread(partial(self._run, pending.job, pending.done))

    def _next(self) -> _Pending | None:
        """Take what is next and still wanted."""
        if self._urgent:
            return self._urgent.popleft()
        while self._lines:
            address, line = self._lines.popitem(last=False)
            pending = line.popleft()
            self._pending_count -= 1
            if line:
                self._lines[address] = line
            if pending.is_wanted():
                return pending
        return None

    def _run(self, job: Job, done: Callable[[object], None]) -> None:
        """In a thread."""
        outcome: object = None
        try:
            outcome = job()
        finally:  # a defect: the place must be free again all the same
            self._in_reactor(partial(self._finished, done, outcome))

    def _finished(self, done: Callable[[object], None], outcome: object) -> None:
        self._working -= 1
        self._work()
        done(outcome)


class LateHash:
    """Implements `auth_entries.PendingHash`."""

    def __init__(self) -> None:
        self._hash: bytes | None = None
        self._resume: Callable[[], None] | None = None

    def take(self) -> bytes | None:
        """Return the hash, None while it is being made."""
        return self._hash

    def when_done(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` when it is made; at once, if it is."""
        if self._hash is not None:
            resume()
        else:
            self._resume = resume

    def made(self, password_hash: bytes) -> None:
        """Give what was waited for."""
        self._hash = password_hash
        if self._resume is not None:
            self._resume()
