"""Helpers of the tests, one purpose a file."""
