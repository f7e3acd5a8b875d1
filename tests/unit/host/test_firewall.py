"""The rules of ``no_accept``: the text, and what nft and the kernel make of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys

import pytest

from relevo.host import firewall
from relevo.host.firewall import ruleset
from relevo.model.configuration import Firewall


def test_no_address_removes_the_table() -> None:
    assert ruleset(Firewall(), ()) == "table inet relevo\ndelete table inet relevo\n"


def test_packets_to_and_from_the_addresses_are_dropped_and_nothing_else() -> None:
    assert ruleset(Firewall("ha", -10, True), ("192.0.2.9", "192.0.2.10")) == (
        "table inet ha\n"
        "delete table inet ha\n"
        "table inet ha {\n"
        "  set ip_no_accept { type ipv4_addr; elements = { 192.0.2.10, 192.0.2.9 } }\n"
        "  chain input {\n"
        "    type filter hook input priority -10; policy accept;\n"
        "    ip daddr @ip_no_accept counter drop\n"
        "  }\n"
        "  chain output {\n"
        "    type filter hook output priority -10; policy accept;\n"
        "    ip saddr @ip_no_accept counter drop\n"
        "  }\n"
        "}\n"
    )


def test_neighbour_discovery_passes_before_ipv6_addresses_are_dropped() -> None:
    lines = ruleset(Firewall(), ("2001:db8::9",)).splitlines()
    rules = [line.strip() for line in lines if ("accept" in line and "icmpv6" in line) or "drop" in line]
    assert [rule.split()[0] for rule in rules] == ["icmpv6", "ip6", "icmpv6", "ip6"]


def test_a_name_that_would_break_out_of_its_line_is_refused() -> None:
    if shutil.which("nft", path=firewall.DEFAULT_PATH) is None:
        pytest.skip("nft is not installed")
    problem = asyncio.run(firewall.apply(Firewall('x { } ; add table inet evil"'), ("192.0.2.9",)))
    assert "is no name for an nftables table" in problem


@pytest.mark.usefixtures("namespaces")
def test_nft_takes_the_rules_again_and_again() -> None:
    if shutil.which("nft", path=firewall.DEFAULT_PATH) is None:
        pytest.skip("nft is not installed")
    code = (
        "import asyncio, os, sys\n"
        "from relevo.host import firewall, libc\n"
        "from relevo.model.configuration import Firewall\n"
        "libc.unshare(libc.CLONE_NEWNET)\n"
        "async def main():\n"
        "    for addresses in (('192.0.2.9', '2001:db8::9'), ('192.0.2.8',), ('192.0.2.8',)):\n"
        "        problem = await firewall.apply(Firewall(), addresses)\n"
        "        assert not problem, problem\n"
        "    sys.stdout.write(os.popen('nft -j list table inet relevo').read())\n"
        "    assert not await firewall.apply(Firewall(), ())\n"
        "    assert os.system('nft list table inet relevo 2>/dev/null') != 0\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects = [next(iter(each)) for each in json.loads(done.stdout)["nftables"]]
    assert objects.count("rule") == 2
    assert "192.0.2.8" in done.stdout
    assert "192.0.2.9" not in done.stdout
