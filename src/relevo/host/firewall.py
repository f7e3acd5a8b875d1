"""nftables rules that drop packets for the addresses of ``no_accept`` masters (keepalived.conf(5), "no_accept").

The rules are one table of our own; ``nft`` replaces it in one transaction. Neighbour discovery passes, so that IPv6 addresses
are found.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Collection
from typing import Final

from relevo.host.run_command import DEFAULT_PATH
from relevo.model.configuration import Firewall

LIMIT_S: Final = 10.0
"""Seconds that nft may take."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_/\\.-]{0,30}")
"""Names that nft accepts for a table, and that break out of no line."""


def ruleset(firewall: Firewall, addresses: Collection[str]) -> str:
    """Return the input for ``nft -f -`` that drops packets to and from these addresses, and nothing else."""
    name = f"table inet {firewall.table}"
    if not addresses:
        return f"{name}\ndelete {name}\n"
    counter = "counter " if firewall.counters else ""
    lines = [name, f"delete {name}", f"{name} {{"]
    rules: dict[str, list[str]] = {"input": [], "output": []}
    for family, kind, chosen in (
        ("ip", "ipv4_addr", sorted(a for a in addresses if ":" not in a)),
        ("ip6", "ipv6_addr", sorted(a for a in addresses if ":" in a)),
    ):
        if not chosen:
            continue
        lines.append(f"  set {family}_no_accept {{ type {kind}; elements = {{ {', '.join(chosen)} }} }}")
        rules["input"].append(f"{family} daddr @{family}_no_accept {counter}drop")
        rules["output"].append(f"{family} saddr @{family}_no_accept {counter}drop")
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept"
    for hook, found in rules.items():
        lines.append(f"  chain {hook} {{")
        lines.append(f"    type filter hook {hook} priority {firewall.priority}; policy accept;")
        lines += [f"    {rule}" for rule in ([neighbours, *found] if "ip6 " in " ".join(found) else found)]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


async def apply(firewall: Firewall, addresses: Collection[str]) -> str:
    """Replace the rules; return an empty string, or why that failed."""
    program = shutil.which("nft", path=DEFAULT_PATH)
    if program is None:
        return "nft is not installed: packets for no_accept addresses are not dropped"
    if not _NAME.fullmatch(firewall.table):
        return f"'{firewall.table}' is no name for an nftables table"
    process = await asyncio.create_subprocess_exec(
        program, "-f", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            _, errors = await process.communicate(ruleset(firewall, addresses).encode())
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return f"nft did not end within {LIMIT_S:g} s"
    return errors.decode("utf-8", "replace").strip().partition("\n")[0] if process.returncode else ""
