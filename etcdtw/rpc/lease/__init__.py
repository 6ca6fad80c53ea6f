"""etcd's Lease service: grants, revokes, renewals, and what only the leader's lessor knows."""
