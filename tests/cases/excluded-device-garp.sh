#!/bin/bash
# An address of virtual_ipaddress_excluded is on another interface: it is announced there.
. "$(dirname "$0")/lib.sh"
sw; sw 2; node A 10.71.0.1/24; wire A eth1 2 10.72.0.1/24
inst V eth0 51 100 10.71.0.9/24 "virtual_ipaddress_excluded { 10.72.0.9/24 dev eth1 }" >"$D/A.conf"
ip netns exec "${P}A" "$PY" "$HERE/garp.py" eth0 12 >"$D/e0" & PIDS="$PIDS $!"; ip netns exec "${P}A" "$PY" "$HERE/garp.py" eth1 12 >"$D/e1" & PIDS="$PIDS $!"
start A; within 8 "A is master" 'has A 10.72.0.9'
within 5 "the excluded address is announced on its interface" 'grep -q "10.72.0.9 $(n A cat /sys/class/net/eth1/address)" "$D/e1"'
ok "and on no other" '! grep -q "^10.72.0.9 " "$D/e0"'
