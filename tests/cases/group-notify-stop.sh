#!/bin/bash
# A sync group's notify and notify_stop scripts run at the start as backup and at the stop.
. "$(dirname "$0")/lib.sh"
sw; node A 10.71.0.1/24; printf '#!/bin/sh\necho "$*" >>%s/events\n' "$D" >"$D/n.sh"; chmod 755 "$D/n.sh"
{ echo "global_defs { script_user root
}
vrrp_sync_group G { group { V W }
  notify $D/n.sh
  notify_stop \"$D/n.sh group_stop\"
  notify_master \"$D/n.sh group_master\" }"; inst V eth0 51 100 10.71.0.51/24; inst W eth0 52 100 10.71.0.52/24; } >"$D/A.conf"
start A; within 15 "the group is master" 'has A 10.71.0.52 && grep -q group_master "$D/events"'; stop A
within 5 "notify_stop ran" 'grep -q group_stop "$D/events"'; within 5 "notify heard of the stop" 'grep -q "GROUP G STOP" "$D/events"'
ok "notify heard of the start as backup" 'grep -q "GROUP G BACKUP" "$D/events"'
