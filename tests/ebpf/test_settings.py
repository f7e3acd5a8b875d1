"""Sysctls of IPVS, and time-outs, on the ebpf plane: their effect on packets."""

from __future__ import annotations

import asyncio

import pytest

from relevo.model import PlaneTimeouts, Sysctl
from relevo.model.table import PlaneSettings
from relevo.planes.ebpf.layout import SettingFlag, TcpState
from tests.ebpf.packets import PASS, REDIRECT, Director, syn


def set_(director: Director, name: str, *values: int) -> list[str]:
    return asyncio.run(director.plane.set_sysctls([Sysctl(name, values)]))


def test_sloppy_tcp_opens_amid_a_connection_and_can_be_switched_off(director: Director) -> None:
    director.serve()
    for value, verdict in ((1, REDIRECT), (0, PASS)):
        assert set_(director, "sloppy_tcp", value) == []
        assert director.run(syn(flags="A"))[0] == verdict
        director.delete_all()


def test_orphans_stay_as_in_ipvs_unless_they_are_to_expire(director: Director) -> None:
    usual = director.settings.flags
    assert set_(director, "expire_nodest_conn", 0) == []
    assert director.settings.flags != usual
    assert set_(director, "expire_nodest_conn", 1) == []
    assert director.settings.flags == usual


def test_the_threshold_of_synchronisation_is_two_numbers(director: Director) -> None:
    assert set_(director, "sync_threshold", 2, 100) == []
    assert (director.settings.sync_threshold, director.settings.sync_period) == (2, 100)


def test_the_refresh_of_synchronisation_is_in_seconds(director: Director) -> None:
    wanted = [Sysctl("sync_refresh_period", (8,)), Sysctl("sync_retries", (2,)), Sysctl("sync_persist_mode", (1,))]
    assert asyncio.run(director.plane.set_sysctls(wanted)) == []
    assert (director.settings.sync_refresh, director.settings.sync_retries) == (8 * director.settings.hz, 2)
    assert director.settings.flags & SettingFlag.SYNC_TEMPLATES_ONLY
    assert 0.1 < (1 << director.settings.tick_shift) / director.settings.hz < 0.4


@pytest.mark.parametrize("value", [1, 2])
def test_secure_tcp_by_memory_pressure_is_refused_with_a_remedy(director: Director, value: int) -> None:
    (reason,) = set_(director, "secure_tcp", value)
    assert "write 0 or 3" in reason


def test_time_outs_are_changed_one_at_a_time_and_apply_from_the_next_packet(director: Director) -> None:
    director.serve()
    for flags in ("S", "A"):
        director.run(syn(flags=flags))
    asyncio.run(director.plane.set_timeouts(PlaneTimeouts(tcp_s=7200)))
    director.run(syn(flags="A"))
    assert round(director.expires_in(director.connection()), -1) == 7200
    buckets = director.instance.maps["buckets"].max_entries
    assert asyncio.run(director.plane.settings()) == PlaneSettings(buckets, PlaneTimeouts(7200, 120, 300))
    assert director.settings.timeout[TcpState.FIN_WAIT] == 120 * director.settings.hz


def test_the_longest_time_out_is_within_the_range_of_the_clock(director: Director) -> None:
    director.serve()
    director.settings.hz, usual = 1000, director.settings.hz
    asyncio.run(director.plane.set_timeouts(PlaneTimeouts(tcp_s=2_678_400)))
    director.settings.hz = usual
    for flags in ("S", "A", "A"):
        director.run(syn(flags=flags))
    assert director.connection().state == TcpState.ESTABLISHED
    assert director.expires_in(director.connection()) > 86_400


def test_a_sysctl_that_is_no_longer_configured_is_reset(director: Director) -> None:
    wanted = [
        Sysctl("sloppy_tcp", (1,)),
        Sysctl("expire_nodest_conn", (0,)),
        Sysctl("sync_threshold", (9, 99)),
        Sysctl("sync_refresh_period", (5,)),
    ]
    assert asyncio.run(director.plane.set_sysctls(wanted)) == []
    assert bytes(director.settings) != director._usual
    assert asyncio.run(director.plane.set_sysctls([])) == []
    assert bytes(director.settings) == director._usual


def test_time_outs_of_a_previous_daemon_are_reset(director: Director) -> None:
    asyncio.run(director.plane.set_timeouts(PlaneTimeouts(7, 7, 7)))
    director.instance.forget_timeouts()
    assert bytes(director.settings) == director._usual
