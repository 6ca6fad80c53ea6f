"""Twisted shells: listeners, TLS, gRPC and HTTP/1.1 connections."""
