"""Profiles of the running member, under the paths of Go's ``net/http/pprof``."""
