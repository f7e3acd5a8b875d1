"""Alerts: mail, notify scripts and log lines. ``dispatch`` decides which events cause which alerts."""
