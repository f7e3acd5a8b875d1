"""The plane that needs no privilege: it ends the client's connection and opens its own to the server.

``listener`` takes clients in, ``relay`` moves the bytes of one TCP connection, ``udp`` those of datagrams, ``engine`` is the
event loop that holds services and connections, ``annex`` further processes for idle connections when descriptors run short,
``worker`` the process around it, ``client`` the port through which the balancer speaks to it, in ``messages``.
"""
