"""Traces of calls, sent to a collector over OpenTelemetry."""
