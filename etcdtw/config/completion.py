"""Completions of the command line, as scripts for three shells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from etcdtw.config.flags import BOOL, LEGACY, FlagSpec

_BASH: Final = """\
# twistd etcdtw: completions for bash.  Use: source <(twistd etcdtw --completion=bash)
_etcdtw() {
    local word current=${COMP_WORDS[COMP_CWORD]}
    for word in "${COMP_WORDS[@]:0:COMP_CWORD}"; do
        if [[ $word == etcdtw ]]; then
            COMPREPLY=($(compgen -W "FLAGS" -- "$current"))
            [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
            return 0
        fi
    done
    COMPREPLY=($(compgen -W "etcdtw" -- "$current"))
}
complete -o default -F _etcdtw twistd
"""
_ZSH: Final = """\
#compdef twistd
# twistd etcdtw: completions for zsh.  Use: source <(twistd etcdtw --completion=zsh)
_etcdtw() {
    if (( ! ${words[(I)etcdtw]} )); then
        compadd etcdtw
        return
    fi
    _arguments '*::word:' \\
FLAGS
}
compdef _etcdtw twistd
"""
_FISH: Final = """\
# twistd etcdtw: completions for fish.  Use: twistd etcdtw --completion=fish | source
complete -c twistd -n 'not __fish_seen_subcommand_from etcdtw' -a etcdtw
FLAGS
"""


def _shown(specs: Sequence[FlagSpec]) -> list[FlagSpec]:
    return [spec for spec in specs if spec.status != LEGACY]


def _bash(specs: Sequence[FlagSpec]) -> str:
    words = [f"--{spec.name}{'' if spec.kind == BOOL else '='}" for spec in _shown(specs)]
    return _BASH.replace("FLAGS", " ".join(words))


def _zsh(specs: Sequence[FlagSpec]) -> str:
    lines = []
    for spec in _shown(specs):
        choices = " ".join(choice for choice in spec.choices if choice)
        value = "" if spec.kind == BOOL else f":{spec.kind}:{f'({choices})' if choices else ''}"
        meaning = _quoted(spec.meaning).replace("[", r"\\[").replace("]", r"\\]")
        equals = "" if spec.kind == BOOL else "="
        lines.append(f"        '--{spec.name}{equals}[{meaning}]{value}'")
    return _ZSH.replace("FLAGS", " \\\n".join(lines))


def _fish(specs: Sequence[FlagSpec]) -> str:
    lines = []
    for spec in _shown(specs):
        choices = " ".join(choice for choice in spec.choices if choice)
        value = "" if spec.kind == BOOL else f" -r{f' -f -a {choices!r}' if choices else ''}"
        lines.append(
            "complete -c twistd -n '__fish_seen_subcommand_from etcdtw' "
            f"-l {spec.name}{value} -d '{_quoted(spec.meaning)}'"
        )
    return _FISH.replace("FLAGS", "\n".join(lines))


def _quoted(text: str) -> str:
    """Return a text as it stands within single quotes of any of these shells."""
    return text.replace("'", "’")


SHELLS: Final[dict[str, Callable[[Sequence[FlagSpec]], str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}


def completion_text(shell: str, specs: Sequence[FlagSpec]) -> str:
    """Return the script for one of `SHELLS`."""
    return SHELLS[shell](specs)
