"""What can't be started, and what is said about it: files, scripts, ELF programs."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests import program_files
from tests.program_files import Write
from trio_lifecycle import _executable
from trio_lifecycle._binary import find_binary
from trio_lifecycle._errors import BinaryNotFoundError

write = program_files.write


def near_miss(path: Path) -> str:
    """What is said about a file that can't be started, without its path."""
    with pytest.raises(BinaryNotFoundError) as caught:
        find_binary(str(path))
    assert (str(path),) == caught.value.searched
    (miss,) = caught.value.near_misses
    return miss.removeprefix(f"{path} ")


# --- near misses ----------------------------------------------------------------------------------


@pytest.mark.fault(2)
def test_file_without_permission_to_execute_says_chmod(write: Write) -> None:
    tool = write("tool", mode=0o644)
    assert f"is not executable: chmod +x {tool}" == near_miss(tool)


@pytest.mark.fault(2)
def test_directory_is_a_near_miss(tmp_path: Path) -> None:
    assert "is a directory" == near_miss(tmp_path)


@pytest.mark.fault(2)
def test_empty_file_is_a_near_miss(write: Write) -> None:
    assert "is empty" == near_miss(write("tool", b""))


def test_pipe_is_a_near_miss_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tool", 0o755)
    assert "is no regular file" == near_miss(tmp_path / "tool")


def test_dangling_link_is_a_near_miss(tmp_path: Path) -> None:
    (tmp_path / "tool").symlink_to(tmp_path / "gone")
    assert "is a symbolic link to what is not there" == near_miss(tmp_path / "tool")


def test_circle_of_links_is_a_near_miss(tmp_path: Path) -> None:
    (tmp_path / "tool").symlink_to(tmp_path / "tool")
    assert near_miss(tmp_path / "tool").startswith("can't be looked at: Too many levels")


def test_circle_of_links_is_passed_over_when_only_path_names_it(tmp_path: Path) -> None:
    (tmp_path / "tool").symlink_to(tmp_path / "tool")
    with pytest.raises(BinaryNotFoundError) as caught:
        find_binary("tool", path=str(tmp_path))
    assert () == caught.value.near_misses


def test_file_that_others_may_execute_is_a_near_miss(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write("tool")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may execute everything
    assert near_miss(tool).startswith("may not be executed by this user")


def test_program_that_can_be_executed_but_not_read_is_believed(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write("tool", b"not to be read", mode=0o111)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)  # root can read everything
    assert str(tool) == find_binary(str(tool))


# --- scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"#!/bin/sh", b"#! /bin/sh -e\n", b"#!\t/bin/sh\t-e\n", b"#!/usr/bin/env python3\n"]
)
def test_script_is_found_when_its_interpreter_is_there(write: Write, line: bytes) -> None:
    tool = write("tool", line)
    assert str(tool) == find_binary(str(tool))


@pytest.mark.fault(2)
def test_interpreter_that_is_not_there_is_named(write: Write) -> None:
    missing = "/no/such/python"
    expected = f"needs the interpreter {missing}, which can't be used: No such file or directory"
    assert expected == near_miss(write("tool", f"#!{missing} -u\n".encode()))


@pytest.mark.fault(2)
def test_interpreter_that_is_not_executable_is_named(write: Write) -> None:
    shell = write("shell", mode=0o644)
    expected = f"needs the interpreter {shell}, which is not executable: chmod +x {shell}"
    assert expected == near_miss(write("tool", f"#!{shell}\n".encode()))


def test_windows_line_ends_are_recognised(write: Write) -> None:
    assert near_miss(write("tool", b"#!/bin/sh\r\nexit\r\n")).startswith("has Windows line ends")


def test_script_without_an_interpreter_is_a_near_miss(write: Write) -> None:
    assert "names no interpreter after #!" == near_miss(write("tool", b"#! \n"))


def test_script_with_a_nul_in_its_first_line_is_a_near_miss(write: Write) -> None:
    assert "has a NUL in its #! line" == near_miss(write("tool", b"#!/bin/\0sh\n"))


def test_script_that_is_its_own_interpreter_is_a_near_miss(write: Write, tmp_path: Path) -> None:
    tool = write("tool", f"#!{tmp_path}/tool\n".encode())
    assert near_miss(tool).endswith("too many for the kernel")
    with pytest.raises(OSError, match="symbolic links"):
        subprocess.run([tool], check=True)


# --- ELF ------------------------------------------------------------------------------------------

SIXTY_FOUR, THIRTY_TWO = 2, 1
X86_64, I386, S390, UNHEARD_OF = 62, 3, 22, 999
OWN = struct.unpack_from("H", Path(sys.executable).read_bytes(), 18)[0]
linux_on_x86 = pytest.mark.skipif(OWN != X86_64, reason="the files are made for x86-64")


def elf(
    bits: int = SIXTY_FOUR,
    order: str = "<",
    machine: int = X86_64,
    kind: int = 2,
    loader: bytes | None = b"/bin/sh",
    entry_size: int | None = None,
) -> bytes:
    """An ELF file of nothing but headers."""
    wide = bits == SIXTY_FOUR
    ident = b"\x7fELF" + bytes([bits, 1 if order == "<" else 2, 1]) + bytes(9)
    header_size, own_entry_size = (64, 56) if wide else (52, 32)
    shape = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    header = struct.pack(
        order + shape,
        *(kind, machine, 1, 0, header_size, 0, 0, header_size),
        *(own_entry_size if entry_size is None else entry_size, 2, 0, 0, 0),
    )
    place = header_size + 2 * own_entry_size
    second = 1 if loader is None else 3  # PT_LOAD or PT_INTERP
    loader = b"" if loader is None else loader
    if wide:
        entries = [
            struct.pack(order + "IIQQQQQQ", 1, 0, 0, 0, 0, 0, 0, 0),
            struct.pack(order + "IIQQQQQQ", second, 0, place, 0, 0, len(loader) + 1, 0, 0),
        ]
    else:
        entries = [
            struct.pack(order + "IIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0),
            struct.pack(order + "IIIIIIII", second, place, 0, 0, len(loader) + 1, 0, 0, 0),
        ]
    return ident + header + b"".join(entries) + loader + b"\0"


RUNNABLE = {
    "64 bits": elf(),
    "position-independent": elf(kind=3),
    "static": elf(loader=None),
    "32 bits": elf(THIRTY_TWO, machine=I386),
}
DAMAGED = {
    **{f"cut off after {size} bytes": elf()[:size] for size in (4, 5, 6, 18, 19, 40, 63, 100)},
    "3 bits": elf()[:4] + b"\x03" + elf()[5:],
    "no byte order": elf()[:5] + b"\x03" + elf()[6:],
    "entries of 1 byte": elf(entry_size=1),
    "no entries": elf()[:56] + bytes(2) + elf()[58:],
    "too many entries": elf()[:56] + b"\xff\xff" + elf()[58:],
}


@linux_on_x86
@pytest.mark.parametrize("content", RUNNABLE.values(), ids=RUNNABLE)
def test_program_for_this_machine_is_found(write: Write, content: bytes) -> None:
    tool = write("tool", content)
    assert str(tool) == find_binary(str(tool))


@linux_on_x86
@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("content", "made_for"),
    [
        (elf(machine=183), "AArch64 (64 bits, little-endian)"),
        (elf(order=">", machine=S390), "processor 22 of elf(5) (64 bits, big-endian)"),
        (elf(THIRTY_TWO, machine=40), "ARM (32 bits, little-endian)"),
        (elf(order=">"), "x86-64 (64 bits, big-endian)"),
        (elf(machine=UNHEARD_OF), "processor 999 of elf(5) (64 bits, little-endian)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_program_for_another_machine_names_both(
    write: Write, content: bytes, made_for: str
) -> None:
    expected = f"is made for {made_for}; this machine is x86-64 (64 bits, little-endian)"
    assert expected == near_miss(write("tool", content))


@linux_on_x86
@pytest.mark.parametrize("bits", [SIXTY_FOUR, THIRTY_TWO])
def test_program_whose_loader_is_not_there_names_the_loader(write: Write, bits: int) -> None:
    machine = X86_64 if bits == SIXTY_FOUR else I386
    tool = write("tool", elf(bits, machine=machine, loader=b"/lib/ld-other-libc.so.1"))
    assert near_miss(tool).startswith("needs the loader /lib/ld-other-libc.so.1, which is not here")


@linux_on_x86
@pytest.mark.parametrize("kind", [1, 4])
def test_object_file_and_core_dump_are_near_misses(write: Write, kind: int) -> None:
    expected = "is an ELF file, but no program: an object or a core dump"
    assert expected == near_miss(write("tool", elf(kind=kind)))


@linux_on_x86
@pytest.mark.fault(2)
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_elf_file_is_a_near_miss(write: Write, content: bytes) -> None:
    assert "is a damaged ELF file" == near_miss(write("tool", content))


@pytest.mark.fault(2)
def test_text_without_an_interpreter_is_a_near_miss_as_exec_would_refuse_it(write: Write) -> None:
    tool = write("tool", b"echo hello\n")
    assert "is neither an ELF program nor a script that begins with #!" == near_miss(tool)
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([tool], check=True)


@pytest.mark.parametrize("own", [None, b"", b"\xcf\xfa\xed\xfe not ELF"])
def test_other_formats_are_believed_when_this_program_is_no_elf_file(
    write: Write, monkeypatch: pytest.MonkeyPatch, own: bytes | None
) -> None:
    tool = write("tool", b"\xcf\xfa\xed\xfe")
    interpreter = "/no/such/file" if own is None else str(write("python", own))
    monkeypatch.setattr(sys, "executable", interpreter)
    _executable._own_kind.cache_clear()
    try:
        assert str(tool) == find_binary(str(tool))
    finally:
        _executable._own_kind.cache_clear()
