"""Puts of our client beside those of python-etcd3, each in a process of its own.

    python -m benchmarks.client_puts --etcd3 /path/to/python [--program etcdtw] [--puts 5000]

``--etcd3`` names an interpreter with the PyPI package ``etcd3`` (which needs ``protobuf<4``, so it
cannot share our environment).  Prints puts a second and the CPU time that the client took of each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Final

from tests.support.processes import PROGRAMS, RunningMember

OURS: Final = """
import sys, time
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from etcdtw.client.client import Client

async def main(reactor):
    count, at_once = int(sys.argv[2]), int(sys.argv[3])
    async with Client(reactor, sys.argv[1]) as client:
        await client.put("warm", "up")
        numbers = iter(range(count))

        async def work():
            for number in numbers:
                await client.put(f"bench/{number}", bytes(100))

        begun_s, cpu_s = time.perf_counter(), time.process_time()
        await gatherResults([Deferred.fromCoroutine(work()) for _ in range(at_once)])
        print(count / (time.perf_counter() - begun_s), (time.process_time() - cpu_s) / count * 1e6)

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""
BLOCKING: Final = """
import sys, time
from etcdtw.client.blocking import BlockingClient

count = int(sys.argv[2])
with BlockingClient(sys.argv[1]) as client:
    client.put("warm", "up")
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    for number in range(count):
        client.put(f"bench/{number}", bytes(100))
    print(count / (time.perf_counter() - begun_s), (time.process_time() - cpu_s) / count * 1e6)
"""
THEIRS: Final = """
import sys, threading, time
import etcd3

host, _, port = sys.argv[1].partition(":")
count, at_once = int(sys.argv[2]), int(sys.argv[3])
client = etcd3.client(host=host, port=int(port))
client.put("warm", "up")
numbers, lock = iter(range(count)), threading.Lock()

def work():
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        client.put("bench/%d" % number, bytes(100))

begun_s, cpu_s = time.perf_counter(), time.process_time()
threads = [threading.Thread(target=work) for _ in range(at_once)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(count / (time.perf_counter() - begun_s), (time.process_time() - cpu_s) / count * 1e6)
"""


def measure(python: str, script: str, endpoint: str, puts: int, at_once: int) -> tuple[float, ...]:
    """Return puts a second, and microseconds of the client's CPU time for each."""
    command = [python, "-c", script, endpoint, str(puts), str(at_once)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(float(number) for number in said.split())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--etcd3", help="an interpreter that has the package etcd3")
    parser.add_argument("--program", choices=PROGRAMS, default="etcd")
    parser.add_argument("--puts", type=int, default=5_000)
    told = parser.parse_args()
    rows = [
        ("etcdtw.client, 100 at once", sys.executable, OURS, 100),
        ("etcdtw.client, one after the other", sys.executable, OURS, 1),
        ("etcdtw.client.blocking", sys.executable, BLOCKING, 1),
    ]
    if told.etcd3:
        rows += [
            ("python-etcd3, one after the other", told.etcd3, THEIRS, 1),
            ("python-etcd3, 20 threads", told.etcd3, THEIRS, 20),
        ]
    with RunningMember(told.program) as member:
        for name, python, script, at_once in rows:
            rate, cpu_us = measure(python, script, member.endpoint, told.puts, at_once)
            print(f"{name:36} {rate:8.0f} puts/s {cpu_us:8.0f} us of CPU time a put")


if __name__ == "__main__":
    main()
