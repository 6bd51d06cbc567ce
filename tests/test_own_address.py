"""A health URL with an address of this machine that is no loopback address."""

import pytest

from tests.support import permitted, run_app

NETWORK = ("unshare", "--net")

# In a network of its own, with an address that nobody has (RFC 5737).
PROGRAM = """
import fcntl, socket, struct, subprocess
from contextlib import asynccontextmanager
from tests.test_health import SERVES, WAITS, stranger

HOST, PORT = "192.0.2.9", 8080
SIOCSIFADDR, SIOCSIFFLAGS, UP = 0x8916, 0x8914, 0x49

def configure(name, host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = name.encode()
        address = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(host))
        fcntl.ioctl(any_socket, SIOCSIFADDR, address)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", name, UP))

def daemon(code, **options):
    config = LifecycleConfig(
        sys.executable, args=["-SsEc", code, "0.0.0.0", str(PORT)], name="daemon",
        ready_mode=HealthCheck(f"http://{HOST}:{PORT}/"),
    )
    return DaemonLifecycle(config, **options).running()

configure("lo", "127.0.0.1")
configure("lo:1", HOST)
"""

ADOPTS = """
async def main():
    async with daemon(SERVES) as first, daemon(SERVES) as second:
        print(first.origin, second.origin, first.pid == second.pid)

trio.run(main)
"""

REFUSES = """
async def main():
    with stranger(SERVES, "0.0.0.0", str(PORT)) as pid:
        config = LifecycleConfig("sleep", ready_mode=HealthCheck(f"http://{HOST}:{PORT}/"))
        try:
            async with DaemonLifecycle(config).running():
                print("the stranger was adopted")
        except ForeignDaemonError as error:
            print(str(pid) in error.owner)

trio.run(main)
"""

LOSES = """
others = []
def take_the_port(event):
    if event.kind == "spawned":
        command = [sys.executable, "-SsEc", SERVES, "0.0.0.0", str(PORT)]
        others.append(subprocess.Popen(command, stdout=subprocess.PIPE))

async def main():
    try:
        async with daemon(WAITS, observer=take_the_port):
            print("the stranger counted as ready")
    except ForeignDaemonError as error:
        print(str(others[0].pid) in error.owner)
    others[0].kill()
    others[0].communicate()

trio.run(main)
"""


@pytest.mark.fault(13, 19)
@pytest.mark.skipif(not permitted(*NETWORK, "true"), reason="no network may be made")
@pytest.mark.parametrize(
    ("code", "said"),
    [(ADOPTS, "spawned adopted True"), (REFUSES, "True"), (LOSES, "True")],
    ids=["adopts its own", "refuses a stranger", "loses its port"],
)
def test_who_answers_there_is_looked_at(code: str, said: str) -> None:
    assert [said] == run_app(PROGRAM + code, within=NETWORK)
