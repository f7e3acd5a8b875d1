"""The program: parses a command line, runs it on a table, prints, and returns an exit status."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TextIO

import msgspec

from relevo.compat.ipvsadm import grammar, listing
from relevo.compat.ipvsadm.grammar import Names, Request
from relevo.compat.ipvsadm.options import FAILED, REFUSED, USAGE, Usage
from relevo.compat.ipvsadm.tables import DaemonTable, Table, table_in_charge
from relevo.errors import ControlError, PlaneError
from relevo.wire.ipvs_netlink import Command, Service

VERSION = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)"
HELP = """\
relevo-ipvsadm: the commands, options and layouts of ipvsadm 1.31.

  ipvsadm -A|E SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M MASK] [--pe ENGINE] [-b FLAGS] [-o]
  ipvsadm -D SERVICE
  ipvsadm -a|e SERVICE -r SERVER [-g|-i|-m] [-w WEIGHT] [-x MOST] [-y LEAST] [--tun-type TYPE ...]
  ipvsadm -d SERVICE -r SERVER
  ipvsadm -L [SERVICE] [-n] [-c|--timeout|--daemon] [--stats|--rate|--thresholds|--persistent-conn|--tun-info] [-X] [--nosort]
  ipvsadm -C | -Z [SERVICE] | -S [-n] | -R
  ipvsadm --set TCP TCPFIN UDP
  ipvsadm --start-daemon master|backup [--mcast-interface IF] [--syncid N] [--sync-maxlen N] [--mcast-group G] [--mcast-port P]
          [--mcast-ttl N]
  ipvsadm --stop-daemon master|backup

  SERVICE is -t ADDRESS:PORT, -u ADDRESS:PORT, --sctp-service ADDRESS:PORT or -f MARK [-6]. With -j first, -L prints JSON.
"""
_WITHOUT_TABLE = (["-h"], ["--help"], ["-v"], ["--version"])
_INVALID = "Invalid operation.  Possibly wrong module version, address not unicast, ..."
_ROOT = "Permission denied (you must be root)"
_MISSING = "No such service"
_SERVICE_ERRORS = {
    errno.EEXIST: "Service already exists",
    errno.ESRCH: _MISSING,
    errno.ENOENT: "Scheduler or persistence engine not found",
}
_SERVER_ERRORS = {
    errno.EEXIST: "Destination already exists",
    errno.ESRCH: "Service not defined",
    errno.ENOENT: "No such destination",
}
_DAEMON_ERRORS = {errno.EEXIST: "Daemon has already run", errno.ESRCH: "No daemon is running"}
_ERRORS = {
    "add-server": _SERVER_ERRORS,
    "edit-server": _SERVER_ERRORS,
    "delete-server": _SERVER_ERRORS,
    "start-daemon": _DAEMON_ERRORS,
    "stop-daemon": _DAEMON_ERRORS,
}
_COMMANDS = {
    "add-service": Command.NEW_SERVICE,
    "edit-service": Command.SET_SERVICE,
    "delete-service": Command.DEL_SERVICE,
    "add-server": Command.NEW_DEST,
    "edit-server": Command.SET_DEST,
    "delete-server": Command.DEL_DEST,
}


class Program:
    """One run. ``table`` opens the table, once."""

    def __init__(self, table: Callable[[], Table], inside: TextIO, out: TextIO, err: TextIO, *, as_json: bool = False) -> None:
        self._open = cache(table)
        self._in, self._out, self._err = inside, out, err
        self._json = as_json

    def run(self, words: Sequence[str]) -> int:
        """Run a command line; return the exit status."""
        try:
            if [*words[:1]] not in _WITHOUT_TABLE:
                self._open()  # as the original, before parsing the command line
            return self._parse_and_execute(words)
        except Usage as refused:
            self._report(str(refused))
            return refused.status
        except PlaneError as error:
            self._report(f"Can't initialize ipvs: {error}")
            self._report("Are you sure that IP Virtual Server is built in the kernel or as module?")
            return USAGE

    def _parse_and_execute(self, words: Sequence[str]) -> int:
        request = grammar.parse(words, Names(find_host, find_port))
        try:
            return self._execute(request)
        except OSError as error:
            self._report(message(request.command, error.errno or 0))
            return FAILED if request.command == "list" else REFUSED

    def _execute(self, request: Request) -> int:
        if request.command in ("help", "version"):
            self._out.write(HELP if request.command == "help" else f"{VERSION}\n")
            return 0
        table = self._open()
        match request.command:
            case "list":
                self._list(table, request)
            case "save":
                self._out.write(listing.save(_whole(table), request, _naming(request)))
            case "restore":
                return self._restore()
            case "flush":
                table.flush()
            case "zero":
                table.zero(request.identity)
            case "set":
                assert request.timeouts is not None
                table.set_timeouts(request.timeouts)
            case "start-daemon" | "stop-daemon":
                assert request.daemon is not None
                (table.start_daemon if request.command == "start-daemon" else table.stop_daemon)(request.daemon)
            case _:
                self._change(table, request)
        return 0

    def _change(self, table: Table, request: Request) -> None:
        command = _COMMANDS[request.command]
        assert request.identity is not None
        if request.destination is not None:
            table.change_destination(command, request.identity, request.destination)
        else:
            table.change_service(command, request.service or Service(identity=request.identity))

    def _restore(self) -> int:
        """Run every line of the input. A line that the kernel refuses is reported and skipped; a wrong line stops the run."""
        status = 0
        for line in self._in:
            words = line.split()
            if words and words[0] == "ipvsadm":
                words = words[1:]
            if words:
                status = self._parse_and_execute(words)
        return status

    def _list(self, table: Table, request: Request) -> None:
        naming = _naming(request)
        if request.has("connection"):
            for line in listing.connections(table.connections(), engines=request.has("persistent-conn"), naming=naming):
                self._out.write(line)
        elif request.has("timeout"):
            self._out.write(listing.timeouts(table.timeouts()))
        elif request.has("daemon"):
            self._out.write(listing.daemons(table.daemons()))
        else:
            if request.has("rate"):
                table.measure()
            one = request.identity
            found = _whole(table) if one is None else [(table.service(one), table.destinations(one))]
            if self._json:
                items = [{"service": s, "servers": d} for s, d in listing.in_order(found, request)]
                self._out.write(msgspec.json.encode(items).decode() + "\n")
                return
            self._out.write(("" if one else listing.header(table.info())) + listing.services(found, request, naming))

    def _report(self, text: str) -> None:
        self._out.flush()
        self._err.write(f"{text}\n")


def message(command: str, number: int) -> str:
    """Return the original's message for an error number."""
    if number == errno.EPERM:
        return _ROOT
    if number == errno.EINVAL:
        return _INVALID
    return _ERRORS.get(command, _SERVICE_ERRORS).get(number) or os.strerror(number)


def _whole(table: Table) -> listing.Table:
    return [(service, table.destinations(service.identity)) for service in table.services()]


def _naming(request: Request) -> listing.Naming:
    return listing.Naming() if request.has("numeric") else listing.Naming(_host_name, _port_name)


# -- names ------------------------------------------------------------------------------------------------------------


def find_host(name: str) -> str | None:
    """Return the IPv4 address of a host name, or of an address in any form that ``inet_aton`` takes."""
    try:
        return socket.inet_ntoa(socket.inet_aton(name)) if " " not in name else None
    except OSError:
        pass
    try:
        return socket.gethostbyname(name)
    except (OSError, UnicodeError):
        return None


def find_port(name: str, protocol: str) -> int | None:
    """Return the port of a named service; ``None`` when there is none."""
    try:
        return socket.getservbyname(name, protocol)
    except OSError:
        return None


@cache
def _host_name(address: str) -> str:
    try:
        return socket.gethostbyaddr(address)[0]
    except (OSError, UnicodeError):
        return address


@cache
def _port_name(port: int, protocol: str) -> str:
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return str(port)


def listing_of(run_dir: Path) -> str:
    """Return what ``ipvsadm -L -n`` prints of the table of the daemon with this run folder."""
    out, err = StringIO(), StringIO()
    if Program(lambda: DaemonTable(run_dir), StringIO(), out, err).run(["-L", "-n"]):
        raise ControlError(err.getvalue().strip())
    return out.getvalue()


def main(words: list[str] | None = None) -> int:
    """Run ``relevo-ipvsadm``; return the exit status."""
    words = sys.argv[1:] if words is None else words
    as_json = words[:1] == ["-j"]
    program = Program(table_in_charge, sys.stdin, sys.stdout, sys.stderr, as_json=as_json)
    try:
        return program.run(words[1:] if as_json else words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader closed the pipe
        return 0
