"""The port that peers connect to: who holds a place, what is answered, a snapshot taken in."""
