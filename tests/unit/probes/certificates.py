"""A self-signed certificate for 127.0.0.1, made where openssl is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import program


def self_signed(folder: Path) -> tuple[str, str]:
    """Make a certificate and its key in ``folder``; return their paths. Skips the test where openssl is missing."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return str(certificate), str(key)
