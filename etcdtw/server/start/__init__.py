"""What a start finds, decides and opens: the directory, the identity, the data."""
