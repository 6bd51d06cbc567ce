"""Certificates that nobody but themselves vouches for, and servers that show them."""

import ssl
import subprocess
from pathlib import Path

import pytest

__all__ = ["certificate", "tls"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and localhost, with its key; it is its own authority."""
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    extension = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = ["openssl", *words.split(), "-addext", extension, "-keyout", str(path), "-out", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    path.write_bytes(path.read_bytes() + done.stdout)
    return path


def tls(certificate: Path, *, of_clients: bool = False) -> ssl.SSLContext:
    """What a server needs that shows the certificate, and may want one of its clients, too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if of_clients:
        context.load_verify_locations(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
