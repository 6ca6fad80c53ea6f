"""The long differential run: ``python -m tests.differential --operations 200000 --seed N``.

The boundary first (`tests.differential.boundary`).  Then several sequences, each with two fresh
members and a seed of its own, run in processes beside each other.  Exit status 0 only when all
agreed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.differential.boundary import all_differences
from tests.differential.lockstep import Lockstep, Outcome
from tests.support.processes import PROGRAMS, RunningMember

ETCD_RACE = "range failed to find revision pair"
"""Of what real etcd dies now and then: it reads at a compacted revision while that is compacted."""
SEEDS_APART = 1_000_000
REAL_ETCD_FLAGS = ("--log-level", "warn", "--unsafe-no-fsync")


def run_sequence(left: str, right: str, seed: int, count: int) -> Outcome:
    """Start two members, run one sequence against them, stop them.

    Real etcd that dies of its own race (`ETCD_RACE`) is started anew, with another seed.
    """
    whole = Outcome()
    while whole.operations < count and not whole.differences:
        outcome = _run_once(
            left, right, seed + SEEDS_APART * whole.deaths, count - whole.operations
        )
        whole.add(outcome)
    return whole


def _run_once(left: str, right: str, seed: int, count: int) -> Outcome:
    with _member(left) as one, _member(right) as other:
        lockstep = Lockstep(one.endpoint, other.endpoint, seed)
        try:
            outcome = lockstep.run(count)
        finally:
            lockstep.close()
        for member in (one, other):
            if member.program == "etcd" and not member.is_running and ETCD_RACE in member.stderr():
                outcome.deaths += 1
                outcome.differences.clear()
                break
            if not member.is_running:
                outcome.differences.append(f"{member.program} ended:\n{_last_words(member)}")
            elif "Traceback" in member.stderr():
                outcome.differences.append(f"{member.program} logged:\n{member.stderr()[-4000:]}")
    return outcome


def _last_words(member: RunningMember) -> str:
    lines = member.stderr().splitlines()
    fatal = [line[:1000] for line in lines if '"level":"fatal"' in line or "panic" in line]
    return "\n".join(fatal[:3] or lines[-20:])


def run_boundary(left: str, right: str) -> list[str]:
    """Start two members and compare them at the edges of the protocols."""
    with _member(left) as one, _member(right) as other:
        return all_differences(one.endpoint, other.endpoint)


def _member(program: str) -> RunningMember:
    # "warn" hides real etcd's readiness line: `RunningMember` needs it, so only fsync is spared.
    return RunningMember(program, flags=REAL_ETCD_FLAGS[2:] if program == "etcd" else ())


def report(outcomes: list[Outcome], seconds: float, seeds: list[int]) -> int:
    """Print what the sequences came to and return the exit status."""
    operations = sum(outcome.operations for outcome in outcomes)
    differences = [text for outcome in outcomes for text in outcome.differences]
    codes: Counter[str] = Counter()
    for outcome in outcomes:
        codes.update(outcome.codes)
    for text in differences:
        print(text)
    print(f"operations   {operations} in {seconds:.1f} s ({operations / seconds:.0f}/s)")
    print(f"seeds        {' '.join(str(seed) for seed in seeds)}")
    print(f"hashes equal {sum(len(outcome.hashes) for outcome in outcomes)}")
    print(f"errors equal {sum(codes.values())}")
    for text, count in codes.most_common():
        print(f"  {count:7d} {text}")
    print(f"etcd died    {sum(outcome.deaths for outcome in outcomes)} times of its own race")
    print(f"differences  {len(differences)}")
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--seed", type=int, help="of the first sequence; the next ones count on")
    parser.add_argument("--sequences", type=int, default=2, help="run beside each other")
    parser.add_argument("--left", choices=PROGRAMS, default="etcd")
    parser.add_argument("--right", choices=PROGRAMS, default="etcdtw")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    seeds = [first + i for i in range(options.sequences)]
    count = -(-options.operations // options.sequences)
    started = time.monotonic()
    boundary = run_boundary(options.left, options.right)
    with ProcessPoolExecutor(options.sequences) as pool:
        runs = [
            pool.submit(run_sequence, options.left, options.right, seed, count) for seed in seeds
        ]
        outcomes = [run.result() for run in runs]
    outcomes.append(Outcome(differences=boundary))
    return report(outcomes, time.monotonic() - started, seeds)


if __name__ == "__main__":
    sys.exit(main())
