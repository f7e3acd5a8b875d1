"""The plane that needs no privilege: it terminates the client's connection and opens its own to the server.

``loop`` is the event loop, ``listener`` accepts clients, ``relay`` moves the bytes of one TCP connection (bulk through
``pipes``), ``udp`` those of datagrams. ``engine`` joins them to the table of services, ``overflow`` adds processes for idle
connections when descriptors run short, ``worker`` is the process around the engine, and ``client`` the port to it, which sends
it ``messages``.
"""
