"""The seam to the peers, and what goes out to them: streams, posts, probes, snapshots."""
