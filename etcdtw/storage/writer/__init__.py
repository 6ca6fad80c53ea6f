"""The process that writes the state, from both sides of its socket."""
