"""The composition root: from a configuration to a member that serves, and how it ends."""
