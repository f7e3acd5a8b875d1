"""``ipvsadm`` 1.31 as administrators and their scripts know it: its command line, its layouts, its messages, its exit statuses.

``grammar`` reads a command line, ``listing`` prints, ``tables`` are what is commanded, ``program`` brings them together. What
is different on purpose is in docs/reference/differences.md.
"""
