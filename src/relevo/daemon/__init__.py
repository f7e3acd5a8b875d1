"""The daemon: a supervisor that owns files, alerts and the control socket, and the workers that it forks.

``director`` keeps VRRP's time, ``balancer`` checks servers and commands the data plane; the proxy plane runs in a process
of its own. ``messages`` is what they say to each other, ``channel`` how it travels.
"""
