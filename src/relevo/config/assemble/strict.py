"""``vrrp_strict``: an instance that keeps to the RFC, with a finding for each setting that does not."""

from __future__ import annotations

from typing import Any

import msgspec

from relevo.config.blocks.registry import Fields
from relevo.config.blocks.vrrp_behaviour import ACCEPT
from relevo.config.cursor import Rejected
from relevo.config.diagnostics import Severity
from relevo.model import VrrpInstance
from relevo.model.vrrp import PRIORITY_OWNER

DOWN_TIMER_ADVERTS = 3
"""RFC 9568 §6.1: the master-down interval is three advert intervals and the skew time."""


def accepts(fields: Fields, priority: int, version: int, *, strict: bool) -> bool:
    """Return whether a master takes packets for its addresses (RFC 9568 §6.1, "Accept_Mode"); an owner always does."""
    if priority == PRIORITY_OWNER:
        return True
    wanted = fields.given(ACCEPT, not strict)
    if wanted and strict and version == 2:
        _warn(
            fields,
            ACCEPT.key,
            "VRRPv2 has no accept mode: in strict mode packets for the addresses are dropped",
            "write version 3",
        )
        return False
    return wanted


def keep_to_the_rfc(instance: VrrpInstance, fields: Fields) -> VrrpInstance:
    """Return the instance with the settings that strict mode allows. ``Rejected`` if it cannot be one."""
    if instance.unicast_peers:
        message = f"vrrp_instance '{instance.name}' has unicast peers in strict mode: left out; keepalived stops VRRP"
        fields.report(Severity.ERROR, "unicast_peer", message, "remove vrrp_strict or the peers")
        raise Rejected
    if not instance.addresses:
        message = f"vrrp_instance '{instance.name}' has no address in strict mode: left out; keepalived stops VRRP"
        fields.report(Severity.ERROR, "name", message, "add a virtual_ipaddress block")
        raise Rejected
    changes: dict[str, Any] = {}
    owner = instance.priority == PRIORITY_OWNER
    if instance.starts_as_master is not owner:
        changes["starts_as_master"] = owner
        _warn(
            fields,
            "state",
            "in strict mode only a node with priority 255 is declared MASTER",
            "write state BACKUP, or priority 255",
        )
    if instance.authentication is not None:
        changes["authentication"] = None
        _warn(fields, "authentication", "strict mode has no authentication: adverts have none", "remove the block or vrrp_strict")
    if instance.preempt_delay_s:
        changes["preempt_delay_s"] = 0.0
        _warn(fields, "preempt_delay", "strict mode has no preempt_delay: ignored", "remove the line")
    if instance.down_timer_adverts != DOWN_TIMER_ADVERTS:
        changes["down_timer_adverts"] = DOWN_TIMER_ADVERTS
        _warn(fields, "down_timer_adverts", "in strict mode three adverts may be missed: ignored", "remove the line")
    garp = instance.garp
    changes["garp"] = msgspec.structs.replace(garp, lower_prio_repeat=0, lower_prio_delay_s=0.0)
    for keyword, given in (
        ("garp_lower_prio_repeat", garp.lower_prio_repeat),
        ("garp_lower_prio_delay", garp.lower_prio_delay_s),
    ):
        if keyword in fields and given:
            _warn(fields, keyword, f"strict mode has no {keyword}: ignored", "remove the line")
    if "lower_prio_no_advert" in fields and not instance.lower_prio_no_advert:
        _warn(fields, "lower_prio_no_advert", "in strict mode adverts of lower priority are not answered", "remove the line")
    if "higher_prio_send_advert" in fields and instance.higher_prio_send_advert:
        _warn(fields, "higher_prio_send_advert", "strict mode sends no more advert before giving way", "remove the line")
    return msgspec.structs.replace(instance, lower_prio_no_advert=True, higher_prio_send_advert=False, **changes)


def _warn(fields: Fields, keyword: str, message: str, hint: str) -> None:
    fields.report(Severity.WARNING, keyword, message, hint)
