"""Runs real etcdctl against a member."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Final

from tests.support.judges import judge_program
from tests.support.processes import RunningMember

TIMEOUT_S: Final = 30.0


def ctl_environment() -> dict[str, str]:
    """Return the environment of etcdctl: nothing of a user's ETCD variables."""
    return {name: value for name, value in os.environ.items() if "ETCD" not in name}


class Etcdctl:
    """etcdctl with the endpoint of one member."""

    def __init__(self, member: RunningMember) -> None:
        self.member = member
        self.environment = ctl_environment()

    def command(self, *arguments: str) -> list[str]:
        """Return the whole command line."""
        start = [str(judge_program("etcdctl")), f"--endpoints={self.member.client_url}"]
        if self.member.tls is not None:
            start.append(f"--cacert={self.member.tls.ca_file}")
        return [*start, *arguments]

    def run(
        self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment,
            check=False,
        )

    def output(self, *arguments: str, stdin: str = "") -> str:
        """Run one command that must succeed; returns its stdout."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def lines(self, *arguments: str, stdin: str = "") -> list[str]:
        return self.output(*arguments, stdin=stdin).splitlines()

    def json(self, *arguments: str) -> Any:
        """Run one command with ``-w json`` and return what it prints, parsed."""
        return json.loads(self.output(*arguments, "-w", "json"))

    def fields(self, *arguments: str) -> dict[str, str]:
        """Run one command with ``-w fields``; of fields that come twice the last one stands."""
        found = {}
        for line in self.lines(*arguments, "-w", "fields"):
            name, colon, value = line.partition(" : ")
            if colon:
                found[name.strip('"')] = value.strip('"')
        return found

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command that goes on; its stdout can be read line by line."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
