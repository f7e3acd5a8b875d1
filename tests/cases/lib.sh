# Shared by the cases: nodes in network namespaces on switches, the daemon under test in each, and verdicts.
#   RELEVO=.venv/bin/relevo bash tests/cases/NAME.sh        K=ka runs keepalived instead, where a case allows it
# A case prints "ok" or "FAIL" for each promise, and exits 1 when one failed. It needs root and leaves nothing behind.
PY=${PY:-python3}; K=${K:-rl}; [ "$K" = ka ] || RELEVO=$(realpath "${RELEVO:?set RELEVO to the relevo command under test}")
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
P=${P:-c$$}; D=$(mktemp -d); chmod 755 "$D"; PIDS=""; NSS=""; BAD=0
n() { local ns=$1; shift; ip netns exec "$P$ns" "$@"; }
mkns() { ip netns add "$P$1"; NSS="$NSS $P$1"; n "$1" ip link set lo up; }
sw() { mkns "sw$1"; n "sw$1" ip link add br0 type bridge forward_delay 0; n "sw$1" ip link set br0 up; }
wire() { # node interface switch address/len
  ip link add "$P$1$2" type veth peer name "$P$1$2s"; ip link set "$P$1$2" netns "$P$1"; n "$1" ip link set "$P$1$2" name "$2"
  ip link set "$P$1$2s" netns "${P}sw$3"; n "sw$3" ip link set "$P$1$2s" master br0; n "sw$3" ip link set "$P$1$2s" up
  n "$1" ip addr add "$4" dev "$2"; n "$1" ip link set "$2" up; }
node() { mkns "$1"; wire "$1" eth0 "" "$2"; n "$1" sysctl -qw net.ipv4.ip_forward=1; }
start() { # the daemon under test in node $1, with $D/$1.conf; a mount namespace keeps pinned programs over restarts
  if [ "$K" = ka ]; then ip netns exec "$P$1" keepalived -n -l -D -f "$D/$1.conf" -p "$D/$1.kp" -r "$D/$1.kv" -c "$D/$1.kc" >>"$D/$1.log" 2>&1 &
  else
    if [ ! -f "$D/$1.holder" ]; then ip netns exec "$P$1" unshare -m sh -c "mount -t bpf bpf /sys/fs/bpf; exec sleep 3600" & echo $! >"$D/$1.holder"; PIDS="$PIDS $!"; sleep 0.5; fi
    nsenter -t "$(cat "$D/$1.holder")" -m -n "$RELEVO" run -f "$D/$1.conf" --run-dir "$D/$1.run" --state-dir "$D/$1.state" -l >>"$D/$1.log" 2>&1 &
  fi
  echo $! >"$D/$1.pid"; PIDS="$PIDS $!"; disown $!; }
hup() { kill -HUP "$(cat "$D/$1.pid")"; }
stop() { local p; p=$(cat "$D/$1.pid"); kill "$p" 2>/dev/null; for _ in $(seq 60); do kill -0 "$p" 2>/dev/null || return 0; sleep 0.1; done; }
vips() { n "$1" ip -4 -br addr show | grep -v '^lo'; }
has() { vips "$1" | grep -qF "$2/"; }
until_() { local t=$1; shift; for _ in $(seq $((t*10))); do eval "$*" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }
ok() { local what=$1; shift; if eval "$*" >/dev/null 2>&1; then echo "ok    $what"; else echo "FAIL  $what"; BAD=1; fi; }
within() { local s=$1 what=$2; shift 2; if until_ "$s" "$*"; then echo "ok    $what"; else echo "FAIL  $what (not within $s s)"; BAD=1; fi; }
alive() { local p; for p in $PIDS; do kill -0 "$p" 2>/dev/null && return 0; done; return 1; }
finish() { # ends what was started, by process id
  local p; for p in $PIDS; do kill "$p" 2>/dev/null; done
  until_ 6 '! alive' ; for p in $PIDS; do kill -9 "$p" 2>/dev/null; done
  for p in $NSS; do ip netns del "$p" 2>/dev/null; done; [ -n "${KEEP:-}" ] && echo "logs: $D" || rm -rf "$D"; }
trap 'rc=$?; finish; [ $rc = 0 ] && exit $BAD; exit $rc' EXIT
inst() { # name interface vrid priority "addresses" ["more lines"]
  printf 'vrrp_instance %s {\n  interface %s\n  virtual_router_id %s\n  priority %s\n  %s\n  virtual_ipaddress {\n    %s\n  }\n}\n' "$1" "$2" "$3" "$4" "${6:-}" "$5"; }
# a director A between clients (eth1, 10.72/24) and servers (eth0, 10.71/24); lb "1 2 3" makes S1 S2 S3 and a client C
lb() { sw; sw 2; node A 10.71.0.1/24; wire A eth1 2 10.72.0.1/24; mkns C; wire C eth0 2 10.72.0.50/24
  local i; for i in $1; do mkns "S$i"; wire "S$i" eth0 "" "10.71.0.1$i/24"; n "S$i" ip route add default via 10.71.0.1; done; }
serve() { ip netns exec "${P}S$1" "$PY" "$HERE/srv.py" "S$1" 80 >/dev/null 2>&1 & echo $! >"$D/S$1.pid"; PIDS="$PIDS $!"; disown $!; sleep 0.3; }
unserve() { kill "$(cat "$D/S$1.pid")"; }
vi() { inst V eth1 51 255 10.72.0.9/24; }
ask() { n C "$PY" - "$1" <<'X'
import collections, socket, sys
c = collections.Counter()
for _ in range(int(sys.argv[1])):
    try:
        s = socket.socket(); s.settimeout(1); s.connect(("10.72.0.9", 80)); s.sendall(b"x"); c[s.recv(9)[:2].decode() or "closed"] += 1; s.close()
    except OSError as e: c[type(e).__name__] += 1
print(" ".join(f"{k}={v}" for k, v in sorted(c.items())))
X
}
