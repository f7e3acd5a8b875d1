"""The operating system: sockets of protocols, links and addresses, processes and their privileges, files.

The rooms above decide when; what they ask for is carried out here and refused with a ``HostError`` that says what was
asked and what the system answered.
"""
