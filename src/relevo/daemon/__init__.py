"""The daemon: a supervisor that owns files, alerts and the control socket, and the workers that it forks.

``director`` runs VRRP, ``balancer`` checks servers and controls the data plane; the proxy plane runs in a process of its own.
``messages`` are the messages between them, ``channel`` transports them.
"""
