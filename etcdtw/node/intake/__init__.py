"""What comes in between two turns: requests, reads, peers' messages; and who asks for a turn."""
