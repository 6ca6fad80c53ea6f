"""The port that clients connect to: gRPC and HTTP/1.x on one socket."""
