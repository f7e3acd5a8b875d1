"""``ipvsadm`` 1.31 for administrators and their scripts: its command line, layouts, messages and exit statuses.

``options`` lists commands and options, ``grammar`` parses a command line, ``listing`` prints, ``tables`` are the tables it works
on, and ``program`` joins them. Intended differences are in docs/reference/differences.md.
"""
