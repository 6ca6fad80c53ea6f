"""etcd's peer protocol as octets: HTTP/1.1 both ways, headers, streams, messages. Pure."""
