"""keepalived's command line: ``relevo-keepalived``, which can be linked as ``keepalived``."""
