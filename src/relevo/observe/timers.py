"""How soon a configuration reacts: when a crash of the master is noticed, and when a server is removed and returns."""

from __future__ import annotations

import msgspec

from relevo.machines.vrrp.times import master_down_s, skew_s
from relevo.model import Check, Configuration, VrrpInstance


class Timer(msgspec.Struct, frozen=True):
    """One reaction: what happens, after how many seconds at most, and the sum."""

    what: str
    after_s: float
    sum: str


class Timers(msgspec.Struct, frozen=True):
    """The reactions of one instance or virtual server."""

    name: str
    timers: tuple[Timer, ...]


def timers(configuration: Configuration) -> list[Timers]:
    """Return the reactions of every instance, as a backup with its own priority, and of the checks of every virtual server."""
    found = [Timers(f"vrrp_instance {instance.name}", tuple(_instance(instance))) for instance in configuration.vrrp_instances]
    for service in configuration.virtual_servers:
        checks = dict.fromkeys(check for server in service.real_servers for check in server.checks)
        slowest: dict[str, Timer] = {}
        for timer in (timer for check in checks for timer in _check(check)):
            if timer.what not in slowest or slowest[timer.what].after_s < timer.after_s:
                slowest[timer.what] = timer
        if slowest:
            found.append(Timers(f"virtual_server {service.name}", tuple(slowest.values())))
    return found


def _instance(instance: VrrpInstance) -> list[Timer]:
    version, interval, adverts = instance.version, instance.advert_interval_s, instance.down_timer_adverts
    skew = skew_s(version, instance.priority, interval)
    skew_text = f"skew time (256 - {instance.priority}) * {1.0 if version == 2 else interval:g} / 256"
    found = [
        Timer(
            "a crash of the master is noticed",
            master_down_s(version, instance.priority, interval, adverts),
            f"{adverts} * advert_int {interval:g} + {skew_text}",
        ),
        Timer("a master that stops is replaced", skew, skew_text),
    ]
    if instance.preempt and instance.preempt_delay_s:
        found.append(Timer("a master of lower priority is replaced", instance.preempt_delay_s, "preempt_delay"))
    if instance.garp.delay_s and instance.garp.repeat:
        found.append(Timer("the addresses are announced again", instance.garp.delay_s, "garp_master_delay"))
    return found


def _check(check: Check) -> list[Timer]:
    timing, limit = check.timing, check.limit_s
    wait, again, retries = timing.delay_loop_s, timing.delay_before_retry_s, timing.retry
    silent = wait + limit + retries * (again + limit)
    refused = wait + retries * again
    tries = f" + {retries} * (delay_before_retry {again:g} + connect_timeout {limit:g})" if retries else ""
    pauses = f" + {retries} * delay_before_retry {again:g}" if retries else ""
    return [
        Timer(f"a server that refuses is removed ({check.name})", refused, f"delay_loop {wait:g}{pauses}"),
        Timer(
            f"a server that is silent is removed ({check.name})",
            silent,
            f"delay_loop {wait:g} + connect_timeout {limit:g}{tries}",
        ),
        Timer(f"a server that is back is used ({check.name})", wait, f"delay_loop {wait:g}"),
    ]
