"""Users, roles and permissions as values, and what they allow: no Twisted, no disk, no clock."""
