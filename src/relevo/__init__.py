"""Relevo: a high-availability load balancer that reads ``keepalived.conf`` as it stands."""

__version__ = "0.1.0"
