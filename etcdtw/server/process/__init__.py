"""The process around a member: its log lines, descriptors, supervisor and ordered services."""
