"""The state as a member reads it: an overlay of generations over durable rows."""
