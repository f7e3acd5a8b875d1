"""A real kernel of its own for a test: Debian's user-mode-linux, a program that is Linux 6.1 with IPVS and all its schedulers.

It boots in a second with this machine's files as its root, runs one script as root, and powers off. It has one processor, no
BPF just-in-time compiler, no type information, and believes that its processor cannot read at odd addresses: an
eBPF program that it takes will be taken anywhere.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PATH, program

BOOT = """#!/bin/sh
export PATH={path} HOME=/root TMPDIR=/run/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mkdir /run/tmp
mount -t tmpfs tmpfs /lib/modules
ln -s /usr/lib/uml/modules/$(uname -r) /lib/modules/$(uname -r)
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
cd {folder}
echo BEGIN
{script}
echo "END $?"
echo o > /proc/sysrq-trigger
sleep 9
"""
ROOT = Path(__file__).parents[2]
"""Of the project."""


@dataclass(frozen=True)
class Ran:
    """What a script left."""

    status: int
    output: str


def run(script: str, folder: Path, *, memory: str = "1G", limit_s: float = 300.0) -> Ran:
    """Boot, run a shell script with the project as its working folder, and power off; skips where there is no such kernel."""
    kernel = program("linux.uml")
    if os.geteuid() != 0:
        pytest.skip("user-mode Linux would see this machine's files as this user does: only root runs it")
    boot = folder / "boot"
    boot.write_text(BOOT.format(path=shlex.quote(PATH), folder=shlex.quote(str(ROOT)), script=script))
    boot.chmod(0o755)
    arguments = f"mem={memory} root=/dev/root rootfstype=hostfs rootflags=/ rw init={boot} con=null con0=fd:0,fd:1 quiet"
    done = subprocess.run(
        [kernel, *arguments.split()], stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False, text=True
    )
    found = re.search(r"^BEGIN\r?\n(.*)^END (\d+)\r?$", done.stdout, re.DOTALL | re.MULTILINE)
    assert found, done.stdout[-4000:] + done.stderr[-2000:]
    return Ran(int(found[2]), found[1].replace("\r\n", "\n"))
