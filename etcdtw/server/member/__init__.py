"""One member: its parts put together, and what it asks of other members."""
