"""The lab: the cluster of given configuration files on one machine, and a drill that takes it through an administrator's checks.

``topology`` reads from the files which machines there are, ``rewrite`` adapts a file where the stage needs it, ``stages``
provides the machines (network namespaces, or plain loopback addresses), ``servers`` what runs on them, ``cluster`` brings it
all up and down, ``drill`` does the checks and ``report`` tells of them.
"""
