"""The addresses of a member, and the certificates that are shown there."""
