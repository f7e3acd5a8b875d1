"""Boots real kernels for tests: Debian's user-mode-linux, a program that is Linux 6.1 with IPVS and all its schedulers.

Each boots in a second with this machine's files as its root, runs one script as root, and powers off. It has one processor, no
BPF just-in-time compiler, no type information, and its verifier assumes a processor without unaligned access: any other kernel
accepts an eBPF program that this one accepts. Its modules are not where ``modprobe`` looks for them, and this machine may have no
``/lib/modules`` to mount them on. A wrapper, mounted over ``modprobe``, therefore gives it another root; the kernel calls it too.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conftest import PATH

BOOT: Final = """#!/bin/sh
export PATH={path} HOME=/root TMPDIR=/run/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/tmp /run/uml/lib/modules /run/uml/bin
ln -s /usr/lib/uml/modules/$(uname -r) /run/uml/lib/modules/
printf '#!/bin/sh\\nexec /run/uml/bin/modprobe -d /run/uml "$@"\\n' > /run/uml/modprobe
chmod 755 /run/uml/modprobe
modprobe=$(command -v modprobe) && cp $modprobe /run/uml/bin/ && mount --bind /run/uml/modprobe $modprobe
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
cd {folder}
echo BEGIN
{command}
echo "END $?"
echo o > /proc/sysrq-trigger
sleep 9
"""
ROOT: Final = Path(__file__).parents[2]
"""Root folder of the project."""
CONTAINED: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In a process namespace of its own that dies with the tests: such a kernel is many processes, in sessions of their own, that
survive the one that started them."""
LIMIT_S: Final = 1200.0
"""Limit for one command; the longest takes a quarter of it on a slow machine."""


@dataclass(frozen=True)
class Ran:
    """Exit status and output of a command."""

    status: int
    output: str


class Kernels:
    """Runs commands one after the other in the background, each in a new kernel."""

    def __init__(self, kernel: str, commands: dict[str, list[str]]) -> None:
        """Start; ``commands`` by name, with the project as their working folder."""
        self._temporary = tempfile.TemporaryDirectory(prefix="relevo-uml-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        steps = []
        for number, (name, command) in enumerate(commands.items()):
            boot = self._folder / f"boot-{number}"
            boot.write_text(BOOT.format(path=shlex.quote(PATH), folder=shlex.quote(str(ROOT)), command=shlex.join(command)))
            boot.chmod(0o755)
            arguments = f"mem=2G root=/dev/root rootfstype=hostfs rootflags=/ rw init={boot} con=null con0=fd:0,fd:1 quiet"
            output = self._output(name)
            limited = shlex.join(["timeout", "--signal=KILL", str(LIMIT_S), kernel, *arguments.split()])
            steps.append(f"{limited} </dev/null >{output}.part 2>&1; mv {output}.part {output}")
        self._process = subprocess.Popen([*CONTAINED, "sh", "-c", "\n".join(steps)])

    def _output(self, name: str) -> Path:
        return self._folder / f"{name}.out"

    def wait(self, name: str) -> Ran:
        """Wait until a command has ended; return its result."""
        output = self._output(name)
        while not output.exists():
            assert self._process.poll() is None, "the shell that runs the kernels died"
            time.sleep(0.2)
        text = output.read_text(errors="replace")
        found = re.search(r"^BEGIN\r?\n(.*)^END (\d+)\r?$", text, re.DOTALL | re.MULTILINE)
        assert found, text[-6000:]
        return Ran(int(found[2]), found[1].replace("\r\n", "\n"))

    def close(self) -> None:
        """Kill the running kernel; the others are not started."""
        self._process.kill()
        self._process.wait()
        self._temporary.cleanup()
