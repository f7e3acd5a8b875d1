"""Data planes: what moves the connections. ``port`` is all that the rest of Relevo knows of them."""
