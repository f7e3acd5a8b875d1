"""``relevo doctor``: what works on this machine, tried rather than looked up, and why the rest does not."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import click
import msgspec

from relevo.errors import PlaneError
from relevo.lab.namespaces import unavailable_reason as namespaces_unavailable
from relevo.planes import ebpf, ipvs

WITHOUT_FORWARDING = "ipvs needs it for NAT, not for DR and TUN; ebpf does without"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report: what was examined, whether it works, and what was found."""

    name: str
    ok: bool
    found: str


@click.command()
@click.option("-j", "--json", "as_json", is_flag=True, help="JSON on one line.")
@click.option("--load", is_flag=True, help="Also load the eBPF programs, to try the verifier; takes a second.")
def doctor(as_json: bool, load: bool) -> None:
    """Show what works on this machine: data planes, hooks of each interface, forwarding, namespaces. Exit 1 when neither the ipvs
    nor the ebpf plane works.
    """
    findings = [
        Finding("system", True, f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} CPUs"),
        _ipvs(),
        _ebpf(load),
        Finding("plane proxy", True, "needs nothing"),
        _namespaces(),
        *_forwarding(),
        *_interfaces(),
    ]
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            click.echo(f"{'ok' if finding.ok else '--'}  {finding.name:{width}}  {finding.found}")
    sys.exit(0 if any(finding.ok for finding in findings if finding.name in ("plane ipvs", "plane ebpf")) else 1)


def _ipvs() -> Finding:
    why = ipvs.unavailable_reason()
    return Finding("plane ipvs", not why, why or "the kernel answers")


def _ebpf(load: bool) -> Finding:
    why = ebpf.unavailable_reason()
    if why:
        return Finding("plane ebpf", False, why)
    if not load:
        return Finding("plane ebpf", True, "BPF is allowed, library and programs are present (--load tries the verifier)")
    try:
        seconds = ebpf.try_load()
    except PlaneError as error:
        return Finding("plane ebpf", False, str(error))
    return Finding("plane ebpf", True, f"programs accepted by the verifier in {seconds:.1f} s")


def _namespaces() -> Finding:
    why = namespaces_unavailable()
    return Finding("network namespaces", not why, why or "relevo lab can use them")


def _forwarding() -> list[Finding]:
    found = []
    for family, file in (("IPv4", "/proc/sys/net/ipv4/ip_forward"), ("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding")):
        try:
            on = Path(file).read_text(encoding="ascii").strip() == "1"
        except OSError:
            continue
        found.append(Finding(f"{family} forwarding", on, "on" if on else f"off: {WITHOUT_FORWARDING} ({file})"))
    return found


def _interfaces() -> list[Finding]:
    try:
        return [Finding(f"interface {name}", ok, text) for name, ok, text in ebpf.survey()]
    except Exception as error:  # the netlink library raises its own types
        return [Finding("interfaces", False, str(error))]
