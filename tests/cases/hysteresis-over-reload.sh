#!/bin/bash
# quorum 2, hysteresis 1: with one of three servers alive the service stays up. A reload that changes a dead server's weight keeps it up.
. "$(dirname "$0")/lib.sh"
lb "1 2 3 4"; for i in 1 2 3 4; do serve $i; done
rs() { echo "  real_server 10.71.0.1$1 80 {
    weight ${2:-1}
    TCP_CHECK { connect_timeout 1
      retry 1
      delay_before_retry 1
      warmup 0 } }"; }
vs() { vi; echo "virtual_server 10.72.0.9 80 {
  delay_loop 3
  lb_algo rr
  lb_kind NAT
  protocol TCP
  quorum 2
  hysteresis 1
  sorry_server 10.71.0.14 80"; cat; echo "}"; }
{ rs 1; rs 2; rs 3; } | vs >"$D/A.conf"; start A
within 20 "three servers answer" '[[ "$(ask 9)" = "S1=3 S2=3 S3=3" ]]'
unserve 2; unserve 3; within 20 "two die: the third serves alone" '[[ "$(ask 6)" = "S1=6" ]]'
{ rs 1; rs 2; rs 3 2; } | vs >"$D/A.conf"; hup A; until_ 10 'grep -q "Reloaded the configuration" "$D/A.log"'
ok "after the reload it still serves, not the sorry server" '[[ "$(ask 6)" = "S1=6" ]]'
