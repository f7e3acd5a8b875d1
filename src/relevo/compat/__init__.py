"""Spellings of other programs."""
