"""The lab: the cluster of given configuration files on one machine, and a drill that takes it through an administrator's checks.

``topology`` derives the machines from the files, ``rewrite`` adapts a file to the stage, ``stages`` provides the machines
(``namespaces``, or plain loopback addresses), ``servers`` is what runs on them, ``cluster`` starts and stops everything,
``client`` sends requests and measures, ``drill`` runs the checks (``failover`` those of directors, ``context`` what they share).
"""
