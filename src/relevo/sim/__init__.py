"""Whole clusters on a virtual clock: a simulated kernel, a simulated LAN, and hosts that drive the real node.

Nothing here decides: a ``Host`` carries out the effects of ``relevo.node`` as a worker does, with simulated sockets. Adverts are
encoded, carried as bytes, decoded and admitted as on a real network.
"""
