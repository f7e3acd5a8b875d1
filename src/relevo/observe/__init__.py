"""The read model: status, JSON, metrics and dumps all format a ``Snapshot``."""
