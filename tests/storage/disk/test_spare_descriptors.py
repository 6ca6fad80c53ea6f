"""Spare descriptors: let go and taken back; a state is read anew where none is left."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.disk.spare_descriptors import SPARE_COUNT, SpareDescriptors
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.reader import StateReader


def use_up() -> list[int]:
    fds = []
    try:
        while True:
            fds.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return fds


@pytest.fixture
def few_descriptors() -> object:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield None
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_as_many_as_are_kept_can_be_opened_meanwhile(few_descriptors: object) -> None:
    spares = SpareDescriptors()
    used = use_up()
    with spares.lent():
        lent = use_up()
        assert len(lent) == SPARE_COUNT
    for fd in lent:
        os.close(fd)
    with spares.lent():  # nothing could be taken back then
        assert len(use_up()) == SPARE_COUNT
    for fd in used:
        os.close(fd)


def test_a_state_is_read_anew_where_no_descriptor_is_left(
    tmp_path: Path, few_descriptors: object
) -> None:
    Tables(open_environment(tmp_path, 1 << 20, DATABASES_MAX), is_new=True).env.close()
    tables = Tables(open_environment(tmp_path, 1 << 20, DATABASES_MAX, readonly=True))
    reader = StateReader(tables)
    used = use_up()
    for _ in range(3):
        assert reader.reopen().revision == 1
    for fd in used:
        os.close(fd)
    reader.close()
