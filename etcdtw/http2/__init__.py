"""RFC 9113 and RFC 7541: octets in, events out. Pure."""
