#!/bin/bash
# The kernel accepts labels of up to 15 characters. relevo check reports a longer one; at run time the address has no label.
. "$(dirname "$0")/lib.sh"
sw; node A 10.71.0.1/24; inst V eth0 51 100 "10.71.0.9/24 label eth0:nat_int_gw_1
    10.71.0.10/24" >"$D/A.conf"
ok "check names the line of the label" 'n A "$RELEVO" check "$D/A.conf" 2>&1 | grep -q "A.conf:7:.*label"'
start A; within 8 "A is master" 'has A 10.71.0.10'; until_ 5 'grep -q "Entering MASTER" "$D/A.log"'
n A ip link add x0 type veth peer name x1; n A ip link del x0; sleep 1
ok "no message is repeated at each change of a link" '[ "$(grep -c "putting it back" "$D/A.log")" = 0 ]'
