"""The loop of one member: ticks and turns, and what is done in one."""
