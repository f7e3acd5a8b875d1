"""``global_defs``: identity, alerts, and settings of the whole daemon."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relevo.config.blocks.global_defs import SCRIPT_USER, SYNC_KEY, User
from relevo.config.blocks.process import (
    CHILD_WAIT,
    FIFO,
    FIFO_SCRIPT,
    INSTANCE,
    LVS_FIFO,
    LVS_FIFO_SCRIPT,
    NAMESPACE,
    PID_DIR,
    RELOAD_MARKER,
    RELOAD_REPEAT,
    RELOAD_TIME,
    SHUTDOWN,
    STARTUP,
    UMASK,
    VRRP_FIFO,
    VRRP_FIFO_SCRIPT,
)
from relevo.config.blocks.registry import Fields
from relevo.config.blocks.vrrp import PREEMPT_WHEN_SYNCED
from relevo.config.diagnostics import Severity
from relevo.model import GlobalDefs, Mail, SyncDaemon
from relevo.model.configuration import Firewall
from relevo.model.process import NotifyFifo, NotifyFifos, Processes, ProcessSettings, ReloadSettings


def global_defs(root: Fields, defaults: Fields, daemon: SyncDaemon | None, instances: Sequence[Fields]) -> GlobalDefs:
    """Make the model's ``global_defs``; ``daemon`` is the declared synchronisation, wherever it was declared."""
    user = defaults.given(SCRIPT_USER, User(""))
    key_file = defaults.given(SYNC_KEY, "")
    if daemon is None or not key_file:
        _look_at_waiting(instances)
    else:
        daemon = msgspec.structs.replace(daemon, key_file=key_file)
    return defaults.into(
        GlobalDefs,
        mail=defaults.into(Mail),
        script_user=user.user,
        script_group=user.group,
        lvs_sync_daemon=daemon,
        processes=_processes(root, defaults),
        fifos=_fifos(defaults),
        reload=ReloadSettings(
            time_file=defaults.given(RELOAD_TIME, ""),
            repeat=defaults.given(RELOAD_REPEAT, False),
            marker=defaults.given(RELOAD_MARKER, ""),
        ),
        firewall=Firewall(
            *(defaults.get(f"nftables{name}", value) for name, value in (("", "relevo"), ("_priority", -1), ("_counters", False)))
        ),
    )


def _processes(root: Fields, defaults: Fields) -> Processes:
    return Processes(
        name=defaults.get("process_name", ""),
        instance=root.given(INSTANCE, ""),
        use_pid_dir=root.given(PID_DIR, False),
        director=_worker(defaults, "vrrp"),
        balancer=_worker(defaults, "checker"),
        umask=defaults.given(UMASK),
        net_namespace=root.given(NAMESPACE, ""),
        child_wait_time_s=root.given(CHILD_WAIT, 5.0),
        startup_script=defaults.given(STARTUP),
        startup_script_timeout_s=float(defaults.get("startup_script_timeout", 10)),
        shutdown_script=defaults.given(SHUTDOWN),
        shutdown_script_timeout_s=float(defaults.get("shutdown_script_timeout", 10)),
        supplementary_groups=defaults.get("set_supplementary_groups", False),
    )


def _worker(defaults: Fields, prefix: str) -> ProcessSettings:
    return ProcessSettings(
        name=defaults.get(f"{prefix}_process_name", ""),
        nice=defaults.get(f"{prefix}_priority"),
        realtime_priority=defaults.get(f"{prefix}_rt_priority"),
        realtime_limit_us=defaults.get(f"{prefix}_rlimit_rttime"),
        no_swap=defaults.get(f"{prefix}_no_swap", False),
        cpus=defaults.get(f"{prefix}_cpu_affinity", ()),
    )


def _fifos(defaults: Fields) -> NotifyFifos:
    """Return the pipes; a script without its pipe is reported, and two pipes of one name are one too many."""
    found: dict[str, NotifyFifo] = {}
    paths: set[str] = set()
    for field, fifo, reader in (
        ("everything", FIFO, FIFO_SCRIPT),
        ("vrrp", VRRP_FIFO, VRRP_FIFO_SCRIPT),
        ("services", LVS_FIFO, LVS_FIFO_SCRIPT),
    ):
        pipe, script = defaults.given(fifo), defaults.given(reader)
        if pipe is None:
            if script is not None:
                defaults.report(
                    Severity.ERROR, reader.key, f"{reader.name} without {fifo.name}: ignored", f"write {fifo.name} PATH"
                )
            continue
        if pipe.path in paths:
            defaults.report(
                Severity.ERROR, fifo.key, f"pipe {pipe.path} is named twice: {fifo.name} is ignored", "name another one"
            )
            continue
        paths.add(pipe.path)
        found[field] = msgspec.structs.replace(pipe, script=script)
    return NotifyFifos(
        **found,
        states_on_reload=defaults.get("fifo_write_vrrp_states_on_reload", False),
    )


def _look_at_waiting(instances: Sequence[Fields]) -> None:
    """Warn that without a key a node cannot know whether it has all connections."""
    for fields in instances:
        if fields.given(PREEMPT_WHEN_SYNCED) is not None:
            message = "preempt_when_synced has no effect without lvs_sync_daemon and lvs_sync_key: it always waits the whole time"
            fields.report(Severity.WARNING, PREEMPT_WHEN_SYNCED.key, message, "write both into global_defs")
