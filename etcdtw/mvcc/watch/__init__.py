"""Watches: who hears of which events, from where on, in which order and octets. Pure."""
