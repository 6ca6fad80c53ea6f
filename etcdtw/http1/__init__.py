"""HTTP/1.x as octets, a server's side: requests in, answers out, as Go's server has them."""
