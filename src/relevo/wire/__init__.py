"""Encoders and decoders between bytes and values.

A decoder of packets returns the value or the reason why the packet is refused; no input makes it raise. Decoders of the
kernel's answers raise ``Malformed``.
"""
