"""Benchmarks: how the package compares with what one would write without it."""
