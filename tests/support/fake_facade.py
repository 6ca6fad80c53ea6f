"""What the fakes of a node have in common: the shape of `node.facade.Facade`, and nothing in it."""

from __future__ import annotations

from typing import Any


class FakeFacade:
    """A fake has what its tests need; asking for anything else fails with an AttributeError."""

    propose: Any
    read: Any
    linearize: Any
    header: Any
    clock: Any
    now_ms: Any
    cluster_id: Any
    member_id: Any
    term: Any
    leader_id: Any
    is_leader: Any
    is_voter: Any
    is_learner: Any
    is_quarantined: Any
    is_stopping: Any
    commit_index: Any
    applied_index: Any
    connected_since: Any
    match_index: Any
    store: Any
    storage: Any
    hub: Any
    lessor: Any
    current_lessor: Any
    members: Any
    alarms: Any
    hashes: Any
    snapshots: Any
    conf_changes: Any
    transfers: Any
