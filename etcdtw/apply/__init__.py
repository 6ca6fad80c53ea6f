"""The replicated state machine: a log entry in, a response and events out."""
