"""HTTP/1.0 and 1.1 as octets, a server's side: requests in, answers out, as Go's server has them."""
