"""The lab: the cluster of given configuration files on one machine, and a drill that takes it through an administrator's checks.

``topology`` reads from the files which machines there are, ``rewrite`` adapts a file where the stage needs it, ``stages``
provides the machines (``namespaces``, or plain loopback addresses), ``servers`` what runs on them, ``cluster`` brings it all
up and down, ``client`` asks and measures, ``drill`` does the checks.
"""
