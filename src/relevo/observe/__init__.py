"""The one read model: everything that status, JSON, metrics and dumps show comes from ``Snapshot``."""
