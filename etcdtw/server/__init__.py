"""The composition root: configuration, bootstrap, ordered services."""
