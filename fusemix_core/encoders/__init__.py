"""Encoders that core brings."""
