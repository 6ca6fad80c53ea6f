"""Completions of the command line."""

from __future__ import annotations

import subprocess

import pytest

from etcdtw.config.completion import SHELLS
from etcdtw.config.config import TextRequestedError
from etcdtw.config.flag_table import FLAGS
from etcdtw.config.flags import LEGACY
from tests.config.configuring import configured, refusal


def script(shell: str) -> str:
    with pytest.raises(TextRequestedError) as caught:
        configured(f"--completion={shell}")
    return caught.value.text


@pytest.mark.parametrize("shell", SHELLS)
def test_every_flag_is_completed(shell: str) -> None:
    text = script(shell)
    mark = "-l " if shell == "fish" else "--"
    for name, spec in FLAGS.items():
        if spec.status != LEGACY:
            assert f"{mark}{name}" in text
    if shell != "bash":
        assert "debug info warn error panic fatal" in text


def test_other_shells_are_refused() -> None:
    assert refusal("--completion=csh")[0] == 2


@pytest.mark.processes
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["twistd", "etcdtw", "--discovery-srv"], ["--discovery-srv-name=", "--discovery-srv="]),
        (["twistd", "etcdtw", "--pre"], ["--pre-vote"]),
        (["twistd", "etc"], ["etcdtw"]),
    ],
)
def test_bash_completes_what_has_begun(words: list[str], found: list[str]) -> None:
    asked = (
        f"{script('bash')}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _etcdtw\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True, timeout=30
    )
    assert sorted(done.stdout.split()) == found
