"""The operating system: protocol sockets, links and addresses, processes and their privileges, files.

The packages above decide when to use them. A failure is a ``HostError`` with the operation and the system's reason.
"""
