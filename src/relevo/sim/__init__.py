"""Clusters on a virtual clock: a simulated kernel, a simulated LAN, and hosts that drive the real node.

A ``Host`` executes the effects of ``relevo.node`` as a worker does, with simulated sockets. Adverts are encoded, sent as bytes,
decoded and checked as on a real network.
"""
