"""Compactions of history that no client asks for."""
