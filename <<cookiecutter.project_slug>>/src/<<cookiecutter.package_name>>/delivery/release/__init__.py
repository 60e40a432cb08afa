"""A release: built once, rolled out, checked, and brought in by a canary."""
