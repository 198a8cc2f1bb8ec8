"""Benchmarks. Each says what it compares with, pins threads, and interleaves the two in one run."""
