"""Attaches the programs to interfaces, and reports which hooks each interface has and why not more.

The TC program handles everything and is attached to every Ethernet interface: as a TCX link where the kernel has it (6.6),
else as a filter of a ``clsact`` qdisc. Other tools can delete such a filter, so an audit attaches it again. The XDP program is
attached as well where the driver runs XDP natively and can send redirected frames. It is not attached to veth, which drops
redirected frames unless its peer has an XDP program, and drops partial checksums always.

A TCX link runs before every ``tc`` filter. Where a service has a firewall mark, the filter is therefore used even if the
kernel has TCX: the filter that sets the mark (``tc … action skbedit mark``, at a lower ``pref``) must run first. nftables and
iptables set marks after TC.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relevo.host.netlink import ROUTE, NetlinkError, NetlinkSocket
from relevo.planes.ebpf import syscall
from relevo.planes.ebpf.instance import Instance
from relevo.wire import rtnetlink, traffic_control

TCX_INGRESS: Final = 46
XDP: Final = 37
XDP_FLAGS_DRV_MODE: Final = 4
DEVICE_PEER: Final = 1
PRIORITY: Final = 0x7265
"""Priority of the clsact filter, by which Relevo recognises its own."""
ARPHRD_ETHER: Final = 1
IFF_UP: Final = 1
NO_XDP: Final = frozenset(
    ("veth", "bridge", "vlan", "macvlan", "bond", "tun", "vxlan", "dummy", "team", "ipvlan", "netkit", "ifb")
)
"""Kinds of software interfaces, where XDP gains nothing or loses frames."""


@dataclass(frozen=True, slots=True)
class Device:
    """An interface that may carry balanced traffic."""

    name: str
    index: int
    kind: str
    xdp_program: int
    peer: bool
    """Whether it is a veth whose peer is in another namespace."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """The hooks attached to an interface; ``reason`` says why there are not more."""

    interface: str
    index: int
    hooks: tuple[str, ...]
    reason: str = ""

    def __str__(self) -> str:
        hooks = " and ".join(self.hooks) or "nothing attached"
        return f"{self.interface}: {hooks}" + (f" ({self.reason})" if self.reason else "")


def devices() -> list[Device]:
    """Return the Ethernet interfaces that are up, without the ports of a bridge or bond: their frames appear on the master."""
    found = []
    for link in _links():
        if link.hardware_type != ARPHRD_ETHER or not link.flags & IFF_UP:
            continue
        if link.port_of not in ("", "vrf"):
            continue
        peer = link.kind == "veth" and link.peer_elsewhere
        found.append(Device(link.name, link.index, link.kind, link.xdp_program, peer))
    return found


def _links() -> list[rtnetlink.Link]:
    socket = NetlinkSocket(ROUTE)
    try:
        number = socket.next_sequence()
        return list(rtnetlink.decode_links(socket.converse(rtnetlink.list_links(number), number)))
    finally:
        socket.close()


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def no_xdp(device: Device) -> str:
    """Return why XDP is not tried on a device, or an empty string."""
    if device.kind in NO_XDP:
        return f"no XDP on {device.kind}"
    if device.xdp_program:
        return f"another XDP program is attached (id {device.xdp_program})"
    return ""


class Attacher:
    """Keeps the programs of one instance attached to the interfaces."""

    def __init__(self, instance: Instance, hooks: str = "auto") -> None:
        self._links = instance.path / "links"
        self._programs = instance.programs
        self._exits = instance.maps["exits"]
        self._devices = instance.maps["devices"]
        self._hooks = hooks
        self.attachments: dict[int, Attachment] = {}

    def audit(self, *, behind_filters: bool = False) -> list[str]:
        """Attach to new interfaces, forget removed ones; return log lines about the changes.

        ``behind_filters``: the TC program must run after other tools' filters, which set firewall marks.
        """
        self._links.mkdir(exist_ok=True)
        present = devices()
        said = []
        for device in present:
            known = self.attachments.get(device.index)
            matches = known is not None and not (behind_filters and "tcx" in known.hooks)
            if known is not None and matches and known.interface == device.name and self._still_there(known):
                continue
            made = self._attach(device, behind_filters)
            self.attachments[device.index] = made
            if known is None or str(known) != str(made):
                said.append(f"ebpf: {made}")
        gone = set(self.attachments) - {device.index for device in present}
        for index in gone:
            attachment = self.attachments.pop(index)
            for file in self._links.glob(f"*-{index}"):
                file.unlink(missing_ok=True)
            self._exits.delete(_number(index))
            self._devices.delete(_number(index))
            said.append(f"ebpf: {attachment.interface} was removed")
        return said

    def _still_there(self, known: Attachment) -> bool:
        if "tc" in known.hooks and not (self._links / f"tc-{known.index}").exists():
            return _has_filter(known.index)
        return bool(known.hooks)

    def _attach(self, device: Device, behind_filters: bool) -> Attachment:
        hooks = []
        self._devices.update(_number(device.index), _number(DEVICE_PEER if device.peer else 0))
        try:
            hooks.append(self._attach_tc(device, behind_filters))
        except OSError as error:
            return Attachment(device.name, device.index, (), f"TC: {error.strerror or error}")
        reason = self._attach_xdp(device)
        if not reason:
            hooks.append("xdp")
        return Attachment(device.name, device.index, tuple(hooks), reason)

    def _attach_tc(self, device: Device, behind_filters: bool) -> str:
        file = self._links / f"tc-{device.index}"
        program = self._programs["relevo_tc"]
        if behind_filters:
            add_filter(device.index, program)
            file.unlink(missing_ok=True)  # only after the filter is there: no packet passes without a program
            return "tc"
        if file.exists():
            return "tcx"
        try:
            link = syscall.link_create(program, device.index, TCX_INGRESS)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
                raise
            add_filter(device.index, program)
            return "tc"
        try:
            syscall.pin(link, str(file))
        finally:
            os.close(link)
        return "tcx"

    def _attach_xdp(self, device: Device) -> str:
        """Attach XDP; return an empty string, or why it is not attached."""
        file = self._links / f"xdp-{device.index}"
        if file.exists():
            return ""
        if self._hooks == "tc":
            return "XDP is disabled by ebpf_hooks"
        why = no_xdp(device)
        if why and not (self._hooks == "xdp" and not device.xdp_program):
            return why
        try:
            link = syscall.link_create(self._programs["relevo_xdp"], device.index, XDP, XDP_FLAGS_DRV_MODE)
        except OSError as error:
            return f"no native XDP: {error.strerror or error}"
        try:
            syscall.pin(link, str(file))
        finally:
            os.close(link)
        self._exits.update(
            _number(device.index), _number(device.index)
        )  # a driver that runs XDP natively also sends redirected frames
        return ""

    def detach(self) -> None:
        """Detach the programs from every interface."""
        for attachment in self.attachments.values():
            if "tc" in attachment.hooks:
                remove_filter(attachment.index)
        for file in self._links.glob("*"):
            file.unlink(missing_ok=True)
        self.attachments.clear()


@contextlib.contextmanager
def _netlink() -> Iterator[NetlinkSocket]:
    with contextlib.closing(NetlinkSocket(ROUTE)) as sock:
        yield sock


def _has_filter(index: int) -> bool:
    with _netlink() as sock:
        sequence = sock.next_sequence()
        answers = sock.converse(traffic_control.list_filters(sequence, index), sequence)
    return any(traffic_control.priority_of(answer) == PRIORITY for answer in answers)


def remove_filter(index: int) -> None:
    """Delete our filter from ``clsact``; the qdisc stays, because other tools may use it."""
    with contextlib.suppress(OSError), _netlink() as sock:
        sequence = sock.next_sequence()
        sock.converse(traffic_control.delete_filters(sequence, index, PRIORITY), sequence)


def add_filter(index: int, program: int) -> None:
    """Attach ``program`` as a ``clsact`` filter; the qdisc is added if it is missing. ``OSError`` with the kernel's reason."""
    with _netlink() as sock:
        sequence = sock.next_sequence()
        try:
            sock.converse(traffic_control.add_clsact(sequence, index), sequence)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise OSError(error.errno, f"clsact: {error.strerror}") from error
        sequence = sock.next_sequence()
        try:
            sock.converse(traffic_control.put_filter(sequence, index, PRIORITY, program, "relevo"), sequence)
        except NetlinkError as error:
            raise OSError(error.errno, f"filter: {error.strerror}") from error
