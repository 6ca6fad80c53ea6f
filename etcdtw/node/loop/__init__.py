"""The loop of one member: requests gather in the inbox, and a turn carries them out."""
