"""What one node decides as a whole, without I/O: machines composed, reloads merged, networks and tables reconciled.

``Director`` is the VRRP side (who is master, which addresses are set), ``Balancer`` the service side (checks, pools, the
table that the data plane should hold). Each takes inputs and the present time, returns effects in the order in which they must
be carried out, and says by ``deadline()`` when ``expire(now)`` must be called. The workers, the tests and the simulator are
drivers of the same objects: they own sockets and clocks, and decide nothing.
"""
