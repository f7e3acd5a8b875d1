#!/bin/bash
# A master's address gets another interface, label, prefix length or broadcast address by reload: the change takes effect, and a stop removes every address.
. "$(dirname "$0")/lib.sh"
sw; sw 2; node A 10.71.0.1/24; wire A eth1 2 10.72.0.1/24
now() { inst V eth0 51 100 "$1
    10.71.0.8/24" >"$D/A.conf"; [ -n "${2:-}" ] || { hup A; }; }
on() { n A ip -4 -o addr show dev "$1" | grep -E "$2"; }
now 10.71.0.9/24 first; start A; within 8 "A is master" 'has A 10.71.0.9'
now "10.71.0.9/24 dev eth1"; within 5 "dev eth1: it moved" 'on eth1 "10.71.0.9/24" && ! on eth0 "10.71.0.9/"'
now 10.71.0.9/24; within 5 "back: it moved back" 'on eth0 "10.71.0.9/24" && ! on eth1 "10.71.0.9/"'
now "10.71.0.9/24 label eth0:web"; within 5 "label eth0:web: it has the label" 'on eth0 "10.71.0.9/24.*eth0:web"'
now "10.71.0.9/32"; within 5 "/32: it has that prefix length alone" 'on eth0 "10.71.0.9/32" && ! on eth0 "10.71.0.9/24"'
now "10.71.0.9/24 brd 10.71.0.255"; within 5 "brd: it has the broadcast address" 'on eth0 "10.71.0.9/24 brd 10.71.0.255"'
ok "the other address was never touched" 'on eth0 "10.71.0.8/24"'
stop A; within 5 "after the stop no virtual address is left" '! on eth0 "10.71.0.[89]/" && ! on eth1 "10.71.0.9/"'
