"""``python -m relevo`` is the ``relevo`` command."""

from relevo.cli.main import main

main()
