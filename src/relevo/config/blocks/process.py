"""``global_defs``: the daemon's processes, their files and scripts, and the pipes for events."""

from __future__ import annotations

import re
from typing import Any, Final

from relevo.config.blocks.arguments import MAX_UINT, Argument, boolean, flag, integer, script, seconds, text
from relevo.config.blocks.registry import Keyword
from relevo.config.blocks.standing import later, unneeded
from relevo.config.cursor import Cursor
from relevo.model.process import NotifyFifo

MAX_CPUS: Final = 8192
"""Processors that a kernel can have (NR_CPUS)."""
LONGEST_SCRIPT_S: Final = 1000
"""Longest time limit of the scripts at the start and the stop."""
MARKER: Final = "/run/keepalived.reload"
"""The file of ``reload_file`` without a name, as in keepalived."""
MAX_TITLE: Final = 15
"""Characters of a process's name (prctl(2), PR_SET_NAME)."""
_PERMISSIONS: Final = {
    f"I{what}{who}": bit << shift
    for who, shift in (("USR", 6), ("GRP", 3), ("OTH", 0))
    for what, bit in (("R", 4), ("W", 2), ("X", 1))
} | {f"IRWX{who[0]}": 7 << shift for who, shift in (("USR", 6), ("GRP", 3), ("OTH", 0))}


def _cpus(cursor: Cursor) -> tuple[int, ...]:
    found = [cursor.integer(0, MAX_CPUS - 1, "a processor", lenient=False)]
    while cursor.more():
        found.append(cursor.integer(0, MAX_CPUS - 1, "a processor", lenient=False))
    return tuple(dict.fromkeys(found))


def _umask(cursor: Cursor) -> int:
    """A number as in C (0 begins an octal one), or names such as ``IRGRP | IWOTH``."""
    if not cursor.more():
        cursor.word("a mask")
    words = [word for word in re.split(r"[|\s]+", " ".join(map(str, cursor.rest()))) if word]
    mask = 0
    for word in words:
        if word in _PERMISSIONS:
            mask |= _PERMISSIONS[word]
            continue
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,4}|0[0-7]{0,6}|[1-9][0-9]{0,4}", word):
            raise cursor.reject(f"'{word}' is no part of a mask", "write 022, or IWGRP | IWOTH")
        mask |= int(word, 16) if word[:2].lower() == "0x" else int(word, 8) if word[0] == "0" else int(word)
    if mask > 0o777:
        raise cursor.reject(f"{mask:#o} is out of range", "a mask is at most 0777")
    return mask


def _title(cursor: Cursor) -> str:
    word = cursor.word("a name")
    if len(word.encode()) > MAX_TITLE:
        cursor.warn(f"'{word}' is cut to {MAX_TITLE} characters", "write a shorter name")
    return word.encode()[:MAX_TITLE].decode("utf-8", "ignore")


def _auto_priority(cursor: Cursor) -> int:
    return cursor.integer(-1, 99, "a real-time priority") if cursor.more() else 99


def _instance(cursor: Cursor) -> str:
    word = cursor.word("a name")
    if not re.fullmatch(r"[\w.:@+-]{1,64}", word) or word.startswith("."):
        raise cursor.reject(f"'{word}' cannot be part of a file's name", "write letters, digits, - and _")
    return word


def _file(cursor: Cursor) -> str:
    path = cursor.word("a file")
    if not path.startswith("/"):
        cursor.warn(f"'{path}' is not a full path: /{path} is used, as in keepalived", "write the full path of the file")
    return path if path.startswith("/") else f"/{path}"


def _fifo(cursor: Cursor) -> NotifyFifo:
    path = cursor.word("a pipe")
    if not path.startswith("/"):
        raise cursor.reject(f"'{path}' is not a full path", "write the full path of the pipe")
    user = cursor.word() if cursor.more() else ""
    return NotifyFifo(path=path, user=user, group=cursor.word().removeprefix(":") if cursor.more() else "")


def _processes(prefix: str, what: str) -> tuple[Keyword[Any], ...]:
    """Return the rows of one worker."""
    return (
        Keyword(f"{prefix}_priority", integer(-20, 19, "a nice value"), f"nice value of the {what} worker"),
        Keyword(f"{prefix}_rlimit_rttime", integer(1, MAX_UINT, "a time", "µs"), f"CPU time of the {what} worker between two waits, with real-time priority"),
        Keyword(
            f"{prefix}_rlimit_rtime", integer(1, MAX_UINT, "a time", "µs"), f"old spelling of {prefix}_rlimit_rttime", alias_of=f"{prefix}_rlimit_rttime",
            note=f"'{prefix}_rlimit_rtime' is the old spelling",
        ),
        Keyword(f"{prefix}_no_swap", flag(), f"lock the memory of the {what} worker"),
        Keyword(f"{prefix}_cpu_affinity", Argument(_cpus, "N …", "", f"0..{MAX_CPUS - 1}"), f"processors that the {what} worker runs on"),
        Keyword(f"{prefix}_process_name", Argument(_title, "NAME"), f"name of the {what} worker in ps and top", default_text=f"relevo-{what}"),
    )  # fmt: skip


_ADDS: Final = "the director has real-time priority from its start (vrrp_rt_priority)"
_NAMES: Final = "the processes have names of their own"

STARTUP: Final = Keyword("startup_script", script(), "script run before everything else")
SHUTDOWN: Final = Keyword("shutdown_script", script(), "script run after everything else")
UMASK: Final = Keyword(
    "umask", Argument(_umask, "N | NAME …", "", "0..0777"), "permissions that new files lack", default_text="0177"
)
FIFO: Final = Keyword("notify_fifo", Argument(_fifo, "PATH [USER [GROUP]]"), "pipe that gets a line for every event")
VRRP_FIFO: Final = Keyword("vrrp_notify_fifo", Argument(_fifo, "PATH [USER [GROUP]]"), "the same for VRRP alone")
LVS_FIFO: Final = Keyword(
    "lvs_notify_fifo", Argument(_fifo, "PATH [USER [GROUP]]"), "the same for virtual and real servers alone"
)
FIFO_SCRIPT: Final = Keyword("notify_fifo_script", script(), "script that reads the pipe; gets its path")
VRRP_FIFO_SCRIPT: Final = Keyword("vrrp_notify_fifo_script", script(), "script that reads vrrp_notify_fifo; gets its path")
LVS_FIFO_SCRIPT: Final = Keyword("lvs_notify_fifo_script", script(), "script that reads lvs_notify_fifo; gets its path")

RELOAD_TIME: Final = Keyword(
    "reload_time_file", Argument(_file, "PATH"), "file with the time of a reload: [[YY]YY-MM-DD ]HH:MM:SS[Z]", default_text="none"
)
RELOAD_REPEAT: Final = Keyword(
    "reload_repeat", flag(), "a time without a date counts every day; else the file is removed", default_text="off"
)
RELOAD_MARKER: Final = Keyword(
    "reload_file", Argument(lambda cursor: _file(cursor) if cursor.more() else MARKER, "[PATH]"),
    f"file that exists while the configuration is read; {MARKER} if it has no name", default_text="none",
)  # fmt: skip

KEYWORDS: Final[tuple[Keyword[Any], ...]] = (
    Keyword("process_name", Argument(_title, "NAME"), "name of the supervisor in ps and top", default_text="relevo"),
    unneeded("process_names", flag(), "give processes names", _NAMES),
    *_processes("vrrp", "director"),
    *_processes("checker", "balancer"),
    Keyword("checker_rt_priority", integer(-(2**31), 2**31 - 1, "a real-time priority", least=1, most=99), "real-time priority of the balancer worker"),
    Keyword(
        "lvs_process_name", Argument(_title, "NAME"), "old spelling of checker_process_name", alias_of="checker_process_name",
        note="'lvs_process_name' is the old spelling of 'checker_process_name'",
    ),
    unneeded("max_auto_priority", Argument(_auto_priority, "[N]", "", "-1..99"), "real-time priority when timers are late", _ADDS),
    unneeded("min_auto_priority_delay", integer(0, 10_000_000, "a delay", "µs"), "lateness that counts", _ADDS),
    UMASK,
    STARTUP,
    Keyword("startup_script_timeout", integer(1, LONGEST_SCRIPT_S, "a time limit", "s"), "time limit of startup_script", default=10),
    SHUTDOWN,
    Keyword("shutdown_script_timeout", integer(1, LONGEST_SCRIPT_S, "a time limit", "s"), "time limit of shutdown_script", default=10),
    Keyword("set_supplementary_groups", flag(), "scripts get the other groups of their user", default_text="off"),
    Keyword("random_seed", integer(0, MAX_UINT, "a number"), "makes ${_RANDOM} repeatable"),
    FIFO,
    FIFO_SCRIPT,
    VRRP_FIFO,
    VRRP_FIFO_SCRIPT,
    LVS_FIFO,
    LVS_FIFO_SCRIPT,
    Keyword("fifo_write_vrrp_states_on_reload", flag(), "repeat the states in the pipe after a reload", default_text="off"),
    Keyword("vrrp_notify_priority_changes", boolean(), "changes of the effective priority go to the pipe", default_text="off"),
    Keyword("rs_init_notifies", boolean(), "run notify_up of the servers that are up at the start, and tell the pipes", default_text="off"),
    Keyword("checker_log_all_failures", boolean(), "log each failed check, not only the first of a row and the last", default_text="off"),
    later("disable_local_igmp", flag(), "no membership reports for 224.0.0.0/24"),
    RELOAD_TIME,
    RELOAD_REPEAT,
    RELOAD_MARKER,
    *(
        later(f"{name}_dump_file", text("a file"), "where the dump of a signal goes", "dumps go to the run directory")
        for name in ("state", "stats", "json")
    ),
)  # fmt: skip

# -- outside any block -----------------------------------------------------------------------------------------------

NAMESPACE: Final = Keyword("net_namespace", text("a network namespace"), "network namespace to run in")
CHILD_WAIT: Final = Keyword("child_wait_time", seconds(0, 4294, "a time"), "how long a stop waits for workers", default=5.0)
INSTANCE: Final = Keyword(
    "instance", Argument(_instance, "NAME"), "name of this daemon, if there are several: in ${_INSTANCE} and the PID files"
)
PID_DIR: Final = Keyword("use_pid_dir", flag(), "the PID files of relevo-keepalived are in /run/keepalived", default_text="off")
ROOT_ROWS: Final[tuple[Keyword[Any], ...]] = (
    NAMESPACE,
    CHILD_WAIT,
    INSTANCE,
    PID_DIR,
)
