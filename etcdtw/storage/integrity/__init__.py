"""Whether the rows of a state agree: looked at before it serves, swept while it does."""
