"""The ``relevo`` command. Results go to standard output, everything else to standard error; ``-j`` gives JSON."""
