"""One member as services, in the order they start."""
