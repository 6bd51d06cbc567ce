"""What programs say when their port is another's."""

import pytest

from trio_lifecycle._taken_port import says_port_is_taken


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 98] Address already in use",
        "OSError: [Errno 48] error while attempting to bind on address",
        "nginx: [emerg] bind() to 127.0.0.1:80 failed (98: Address already in use)",
        "Could not create server TCP listening socket 127.0.0.1:7: bind: Address already in use",
        "Error: listen EADDRINUSE: address already in use :::3000",
        "Port 8080 is already in use.",
        "java.net.BindException: Address already in use (Bind failed)",
        'could not bind IPv4 address "127.0.0.1": Address already in use',
    ],
)
def test_what_well_known_programs_say_is_understood(line: str) -> None:
    assert says_port_is_taken(f"starting\n{line}\nbye\n")


@pytest.mark.parametrize(
    "line", ["", "no license", "address book loaded", "port 80 is in use by us"]
)
def test_other_output_is_no_word_of_a_port(line: str) -> None:
    assert not says_port_is_taken(line)
