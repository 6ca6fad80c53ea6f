"""gRPC over an http2 core: calls, statuses, metadata, deadlines. Pure."""
