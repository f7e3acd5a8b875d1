"""Prints each gratuitous ARP that an interface carries for some seconds: garp.py INTERFACE SECONDS -> ADDRESS MAC a line."""

import socket
import sys
import time

port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
port.bind((sys.argv[1], 0))
port.settimeout(0.2)
end = time.time() + float(sys.argv[2])
while time.time() < end:
    try:
        frame = port.recv(2048)
    except TimeoutError:
        continue
    if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]:
        print(socket.inet_ntoa(frame[28:32]), frame[22:28].hex(":"), flush=True)
