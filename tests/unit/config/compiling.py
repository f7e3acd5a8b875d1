"""Short ways to a compiled value, for the tests of the language."""

import textwrap
from pathlib import Path

from relevo.config import Compiled, Included, compile_text, render
from relevo.model import RealServer, VirtualServer, VrrpInstance

CORPUS = Path(__file__).parents[2] / "corpus"


def compiled(text: str) -> Compiled:
    return compile_text(textwrap.dedent(text), "test.conf")


def messages(result: Compiled) -> list[str]:
    return [f"{finding.severity}: {finding.message}" for finding in result.findings.in_order()]


def rendered(result: Compiled) -> str:
    return "\n\n".join(render(finding, result.sources) for finding in result.findings.in_order())


def with_globals(body: str) -> Compiled:
    """``body`` in ``global_defs``, and an instance so that there is something to run."""
    return compiled(f"global_defs {{\n{body}\n}}\n{INSTANCE}")


SECURED = "global_defs {\nenable_script_security\n}\n"
INSTANCE = "vrrp_instance VI {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n192.0.2.1\n}\n}\n"


def with_instance(body: str, outside: str = "") -> Compiled:
    """``body`` in an instance that is complete without it."""
    head = "vrrp_instance VI {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n192.0.2.1\n}\n"
    return compiled(f"{head}{body}\n}}\n{outside}")


def instance(body: str, outside: str = "") -> VrrpInstance:
    (found,) = with_instance(body, outside).configuration.vrrp_instances
    return found


def with_service(body: str, outside: str = "") -> Compiled:
    """``body`` in a TCP service of one real server."""
    return compiled(f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{body}\nreal_server 10.0.0.1 80 {{\n}}\n}}\n{outside}")


def service(body: str, outside: str = "") -> VirtualServer:
    (found,) = with_service(body, outside).configuration.virtual_servers
    return found


def with_server(body: str, around: str = "", outside: str = "") -> Compiled:
    """``body`` in the real server of a TCP service."""
    return compiled(
        f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{around}\nreal_server 10.0.0.1 80 {{\n{body}\n}}\n}}\n{outside}"
    )


def server(body: str, around: str = "", outside: str = "") -> RealServer:
    (found,) = with_server(body, around, outside).configuration.virtual_servers[0].real_servers
    return found


def out_of_range(result: Compiled) -> bool:
    return any("out of range" in finding.message for finding in result.findings)


def corpus_text(path: Path) -> str:
    """Text of a corpus file, decoded as the daemon decodes a configuration."""
    return path.read_bytes().decode("utf-8", "replace")


def read_corpus(pattern: str, including: str) -> list[Included]:
    """The reader of the corpus: names are relative to its folder, and one file is always locked."""
    folder = (CORPUS / including).parent
    if pattern.endswith("locked.conf"):
        return [Included("parts/locked.conf", error="Permission denied")]
    return [Included(str(path.relative_to(CORPUS)), corpus_text(path)) for path in sorted(folder.glob(pattern))]


def compile_corpus(path: Path) -> Compiled:
    return compile_text(corpus_text(path), path.name, read_corpus)


def corpus_files() -> list[Path]:
    return sorted(CORPUS.glob("*.conf"))
