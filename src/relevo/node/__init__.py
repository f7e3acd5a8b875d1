"""The decisions of one node, without I/O: it composes machines, merges reloads, and reconciles networks and tables.

``Director`` is the VRRP side (which instances are master, which addresses are set), ``Balancer`` the service side (checks,
pools, the desired table of the data plane). Both process inputs at a given time, return effects in the order of their
execution, and say by ``deadline()`` when ``expire(now)`` must be called. Drivers (the workers, the tests, the simulator) own
sockets and clocks, and decide nothing.
"""
