"""Bytes ⇄ values. A decoder returns the value or the reason for refusing the bytes; it never raises on hostile input."""
