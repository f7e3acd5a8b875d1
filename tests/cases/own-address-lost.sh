#!/bin/bash
# The interface of a master loses its own address (a network manager, ip addr flush); the link stays up.
. "$(dirname "$0")/lib.sh"
sw; for x in A:1:150 B:2:100; do IFS=: read -r nd i pr <<<"$x"; node $nd 10.71.0.$i/24; inst V eth0 51 $pr 10.71.0.9/24 >"$D/$nd.conf"; done
start A; start B; within 15 "A is master" 'has A 10.71.0.9'; sleep 2
n A ip addr flush dev eth0
within 8 "A cannot advertise: B is master, and A does not hold the address" 'has B 10.71.0.9 && ! has A 10.71.0.9'
n A ip addr add 10.71.0.1/24 dev eth0
within 10 "its own address is back: A alone is master again" 'has A 10.71.0.9 && ! has B 10.71.0.9'
stop A; within 5 "after a stop A still has its own address" 'has A 10.71.0.1'; ok "and not the virtual one" '! has A 10.71.0.9'
