"""``relevo-keepalived``: Relevo under keepalived's name, options, exit statuses and PID files.

Unit files, scripts, and roles of Ansible and Puppet that call ``keepalived`` work when this program is linked in its place.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from relevo import __version__
from relevo.compat.keepalived.options import SIGNALS, UNNEEDED, BadOption, Given, read
from relevo.daemon.launch import Start, hand_over, split
from relevo.daemon.options import Options, Part
from relevo.daemon.reading import read_apart
from relevo.errors import ConfigurationError, RelevoError
from relevo.host.configuration_file import DEFAULT_CONFIGURATION
from relevo.host.files import runtime_directory, state_directory
from relevo.model.process import PlaneAtStop, Processes
from relevo.observe.configuration import without_secrets

KEEPALIVED_VERSION: Final = "2.4.3"
"""Release of keepalived whose language this is; scripts look for it in the first line of ``--version``."""
EXIT_FATAL: Final = 1
EXIT_CONFIG: Final = 2
EXIT_NO_CONFIG: Final = 6
"""keepalived's exit statuses (lib/scheduler.h)."""
ENDING: Final = frozenset(("v", "h", "signum", "T", "t"))
"""Options that answer something and start no daemon."""
PID_FOLDER: Final = "/run"
PID_FILES: Final = {
    "p": ("main", "keepalived"),
    "r": ("director", "vrrp"),
    "c": ("balancer", "checkers"),
}
"""Option → process, and the name of its PID file; keepalived(8) names other ones than its program writes."""
HELP: Final = f"""Usage: keepalived [OPTION...]     (Relevo {__version__} in place of keepalived)
  -f, --use-file=FILE          Use the specified configuration file (default {DEFAULT_CONFIGURATION})
  -P, --vrrp                   Only run VRRP
  -C, --check                  Only run health checks and the data plane
  -l, --log-console            Log messages to local console
  -D, --log-detail             Detailed log messages (always on)
  -S, --log-facility=FACILITY  Set syslog facility to local0..7, user or daemon (default)
  -G, --no-syslog              Don't log via syslog
  -u, --umask=MASK             umask for file creation
  -I, --dont-release-ipvs      Leave the data plane running on daemon stop
  -R, --dont-respawn           Stop when a child process dies
  -n, --dont-fork              Don't fork the daemon process
  -d, --dump-conf              Dump the configuration as JSON
  -p, --pid=FILE               PID file of the parent process
  -r, --vrrp_pid=FILE          PID file of the VRRP process
  -c, --checkers_pid=FILE      PID file of the checkers process
  -s, --namespace=NAME         Run in network namespace NAME (overrides config)
  -m, --core-dump              Produce core dump if terminate abnormally
  -e, --all-config             Error if any configuration file is missing
  -i, --config-id=ID           Skip lines beginning '@' that don't match ID
      --signum=SIGFUNC         Return signal number for {", ".join(SIGNALS)}
  -t, --config-test[=LOG_FILE] Check the configuration
  -v, --version                Display the version number
  -h, --help                   Display this help message
Accepted without effect: {" ".join("-" + name if len(name) == 1 else "--" + name for name in sorted(UNNEEDED))}
"""


def main() -> None:
    """Run keepalived's command line. Where that starts the daemon, it parts here (see ``relevo.daemon.launch``)."""
    try:
        given = read(sys.argv[1:])
    except BadOption as error:
        _fail(str(error))
    if not ENDING & (given.flags | given.values.keys()):
        split("keepalived")
    try:
        sys.exit(run(given))
    except RelevoError as error:
        hint = f" ({error.hint})" if error.hint else ""
        _fail(f"keepalived: {error}{hint}")


def _fail(text: str, status: int = EXIT_FATAL) -> NoReturn:
    print(text, file=sys.stderr)  # noqa: T201 - the messages of a command
    sys.exit(status)


def run(given: Given) -> int:
    """Do what the options say; return the exit status."""
    if "v" in given.flags:
        sys.stderr.write(f"Keepalived v{KEEPALIVED_VERSION} (Relevo {__version__} in its place)\n")
        return 0
    if "h" in given.flags:
        sys.stderr.write(HELP)
        return 0
    if "signum" in given.values:
        number = SIGNALS.get(given.values["signum"])
        if number is None:
            _fail(f"Unknown sigfunc {given.values['signum']}")
        sys.stdout.write(f"{int(number)}\n")
        return 0
    if "T" in given.flags:
        _fail("genhash is not part of Relevo: curl -s URL | md5sum prints the same digest")
    if given.rest:
        sys.stdout.write(f"Unexpected argument(s): {' '.join(given.rest)} \n")
    for name in sorted(UNNEEDED.keys() & (given.flags | given.values.keys())):
        sys.stderr.write(f"keepalived: option '{name}' has no effect here: {UNNEEDED[name]}\n")
    file, config_id = given.values.get("f", DEFAULT_CONFIGURATION), given.values.get("i")
    if "t" in given.values:
        return _test(file, config_id, given.values["t"])
    return _start(given, file, config_id)


def _test(file: str, config_id: str | None, log: str) -> int:
    """Check a file as ``keepalived -t`` does: messages to standard error or a file, and the status of the gravest."""
    out = sys.stderr
    with contextlib.ExitStack() as stack:
        if log:
            try:
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            except OSError as error:
                _fail(f"Unable to open config-test log file {log} {error.errno} - {error.strerror}")
            out = stack.enter_context(os.fdopen(descriptor, "a"))
        from relevo.config import STATUS_UNREADABLE, Places, exit_status, render
        from relevo.daemon.configuration import compile_file
        from relevo.daemon.preflight import Preflight

        try:
            places = Places()
            compiled = compile_file(file, config_id, places)
        except ConfigurationError as error:
            out.write(f"{error}\n")
            return STATUS_UNREADABLE
        Preflight(compiled, places, file).look()
        for finding in compiled.findings.in_order():
            out.write(render(finding, compiled.sources) + "\n")
        return exit_status(compiled.findings)


def _start(given: Given, file: str, config_id: str | None) -> int:
    """Have the daemon started, or return the exit status of a start that fails."""
    reading = read_apart(file, config_id, strict=False)
    if reading.error:
        _fail(f"keepalived: {reading.error}", EXIT_NO_CONFIG)
    for finding in reading.rendered:
        sys.stderr.write(finding + "\n")
    if reading.blocking:
        _fail(f"keepalived: {reading.blocking}", EXIT_CONFIG)
    processes = reading.configuration.global_defs.processes
    pid_files = pid_files_of(given, processes)
    with contextlib.suppress(OSError):  # the log says that a file cannot be written
        pid_files["main"].parent.mkdir(mode=0o755, exist_ok=True)
    running = _running(pid_files["main"])
    if running:
        _fail(f"daemon is already running with PID {running}", EXIT_FATAL)
    if "d" in given.flags:
        sys.stderr.write(msgspec.json.format(msgspec.json.encode(without_secrets(reading.configuration))).decode() + "\n")
    umask = _mask(given.values["u"]) if "u" in given.values else None
    if umask is not None:
        os.umask(umask)  # the folders are made here
    runtime = runtime_directory(run_folder(processes))
    options = Options(
        os.path.abspath(file),
        runtime,
        state_directory(os.environ.get("RELEVO_STATE_DIR"), runtime),
        console="l" in given.flags or "G" in given.flags,
        config_id=config_id,
        part=Part.VRRP if "P" in given.flags else Part.SERVICES if "C" in given.flags else Part.ALL,
        pid_files=pid_files,
        at_stop=PlaneAtStop.KEEP if "I" in given.flags else PlaneAtStop.KEEP_CONNECTIONS,
        respawn="R" not in given.flags,
        net_namespace=given.values.get("s", ""),
        facility=given.values.get("S", ""),
    )
    hand_over(
        Start(
            options,
            reading.configuration,
            background="n" not in given.flags,
            umask=umask,
            core_dumps="m" in given.flags or "M" in given.values,
        )
    )


def pid_files_of(given: Given, processes: Processes) -> dict[str, Path]:
    """Return the PID files of the processes: as the options name them, else where keepalived has them."""
    folder, suffix = Path(PID_FOLDER), f"_{processes.instance}" if processes.instance else ""
    if processes.use_pid_dir or processes.instance or processes.net_namespace or "s" in given.values:
        folder /= "keepalived"
    return {
        process: Path(given.values.get(letter) or folder / f"{name}{suffix}.pid") for letter, (process, name) in PID_FILES.items()
    }


def run_folder(processes: Processes) -> str | None:
    """Return the folder of sockets that the environment names, or that an ``instance`` has to itself; ``None``: the usual one."""
    given = os.environ.get("RELEVO_RUN_DIR")
    if given is None and processes.instance and os.geteuid() == 0:
        return f"/run/relevo-{processes.instance}"
    return given


def _running(file: Path) -> int:
    """Return the process that a PID file names, 0 if it does not run."""
    try:
        number = int(file.read_text())
        os.kill(number, 0)
    except (OSError, ValueError):
        return 0
    return number


def _mask(text: str) -> int:
    try:
        return int(text, 0 if text[:2].lower() == "0x" else 8 if text[:1] == "0" else 10) & 0o777
    except ValueError:
        _fail(f"Invalid umask '{text}'")
