"""Data planes, which move the connections. ``port`` is their interface to the rest of Relevo."""
