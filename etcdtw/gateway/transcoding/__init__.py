"""Messages between JSON and octets of protobuf, in the dialect of Go's protojson."""
