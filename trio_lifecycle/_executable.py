"""Whether a file can be started, judged as execve(2) would, and why not."""

import os
import struct
import sys
from functools import cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO, Final, NamedTuple

# What execve(2) reads of a file to tell its kind (BINPRM_BUF_SIZE).
_HEAD_BYTES: Final = 256

# As many interpreters of interpreters as execve(2) follows.
_DEEPEST_SCRIPT: Final = 5

# Numbers of the manual page elf(5).
_ELF_MAGIC: Final = b"\x7fELF"
_PROGRAM_TYPES: Final = (2, 3)  # ET_EXEC, ET_DYN
_PT_INTERP: Final = 3
_MACHINES: Final = {3: "i386", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V"}

# The 32-bit elder of each is usually started by the same kernel; only exec can say.
_FAMILIES: Final = ({3, 62}, {40, 183})

# What load_elf_phdrs takes, and PATH_MAX for the loader's path.
_TABLE_BYTES: Final = 65_536
_PATH_BYTES: Final = 4_096


def find_problem(path: Path) -> str | None:
    """Say why a file can't be started, as the end of a sentence that begins with its path.

    A file that may be executed but not read is believed. So is every format where this program
    itself is no ELF file.

    Returns:
        None when it can be started, as far as it can be told without doing so.

    Raises:
        OSError: It is not there, or may not be looked at.
    """
    return _find_problem(path, _DEEPEST_SCRIPT)


def _find_problem(path: Path, depth: int) -> str | None:
    facts = path.stat()
    if S_ISDIR(facts.st_mode):
        return "is a directory"
    if not S_ISREG(facts.st_mode):
        return "is no regular file"
    if not facts.st_mode & 0o111:
        return f"is not executable: chmod +x {path}"
    if not os.access(path, os.X_OK):
        return "may not be executed by this user, or its file system is mounted noexec"
    if not facts.st_size:
        return "is empty"
    try:
        with path.open("rb") as file:
            return _find_problem_inside(file, depth)
    except PermissionError:
        return None


def _find_problem_inside(file: BinaryIO, depth: int) -> str | None:
    head = file.read(_HEAD_BYTES)
    if head.startswith(b"#!"):
        return _find_problem_of_script(head, depth)
    own = _own_kind()
    if own is None:
        return None
    if not head.startswith(_ELF_MAGIC):
        return "is neither an ELF program nor a script that begins with #!"
    try:
        return _find_problem_of_elf(file, head, own)
    except (struct.error, LookupError, ValueError, OverflowError):
        return "is a damaged ELF file"


# --- scripts --------------------------------------------------------------------------------------


def _find_problem_of_script(head: bytes, depth: int) -> str | None:
    line = head[2:].partition(b"\n")[0].strip(b" \t")
    # Blanks end the interpreter's path; a carriage return, as left by Windows, does not.
    interpreter = os.fsdecode(line.replace(b"\t", b" ").partition(b" ")[0])
    if not interpreter:
        return "names no interpreter after #!"
    if "\0" in interpreter:
        return "has a NUL in its #! line"
    if not depth:
        return "is a script for a script for a script, too many for the kernel"
    try:
        problem = _find_problem(Path(interpreter), depth - 1)
    except OSError as error:
        problem = f"can't be used: {error.strerror}"
    if problem and interpreter.endswith("\r"):
        return "has Windows line ends, so that its interpreter is not found: dos2unix mends that"
    return f"needs the interpreter {interpreter}, which {problem}" if problem else None


# --- ELF ------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """What an ELF file is made for.

    Attributes:
        wide: True for 64 bits.
        order: The order of bytes, as ``struct`` writes it.
        machine: The processor, as elf(5) counts.
    """

    wide: bool
    order: str
    machine: int

    def __str__(self) -> str:
        bits = 64 if self.wide else 32
        end = {"<": "little", ">": "big"}[self.order]
        processor = _MACHINES.get(self.machine, f"processor {self.machine} of elf(5)")
        return f"{processor} ({bits} bits, {end}-endian)"

    def runs_on(self, other: "_Kind") -> bool:
        """Say whether a kernel that starts the other may start this one."""
        machines = {self.machine, other.machine}
        return self == other or (
            self.order == other.order and any(machines <= family for family in _FAMILIES)
        )


def _parse_kind(head: bytes) -> _Kind:
    order = {1: "<", 2: ">"}[head[5]]
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    return _Kind({1: False, 2: True}[head[4]], order, machine)


@cache
def _own_kind() -> _Kind | None:
    """Give what the running interpreter is made for; None where that is no ELF file."""
    try:
        with Path(sys.executable or os.devnull).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    return _parse_kind(head) if head.startswith(_ELF_MAGIC) else None


def _find_problem_of_elf(file: BinaryIO, head: bytes, own: _Kind) -> str | None:
    kind = _parse_kind(head.ljust(6, b"\0"))
    if not kind.runs_on(own):
        return f"is made for {kind}; this machine is {own}"
    (type_,) = struct.unpack_from(f"{kind.order}H", head, 16)
    if type_ not in _PROGRAM_TYPES:
        return "is an ELF file, but no program: an object or a core dump"
    loader = _read_loader(file, head, kind)
    if loader and not os.access(loader, os.F_OK):
        return f"needs the loader {loader}, which is not here: it was made for another C library"
    return None


def _read_loader(file: BinaryIO, head: bytes, kind: _Kind) -> str:
    """Give the path of the dynamic loader that it names (PT_INTERP), empty for a static program."""
    # Where the program headers begin, their size and number; then in each: type, offset, length.
    table, shape = ("32xQ14xHH", "I4xQ16xQ16x") if kind.wide else ("28xI10xHH", "II8xI12x")
    offset, size, number = struct.unpack_from(kind.order + table, head)
    if size != struct.calcsize(kind.order + shape) or not number or size * number > _TABLE_BYTES:
        raise ValueError("no table of program headers that the kernel would take")
    file.seek(offset)
    headers = file.read(size * number)
    if len(headers) != size * number:
        raise ValueError("the table is cut off")
    for type_, place, length in struct.iter_unpack(kind.order + shape, headers):
        if type_ == _PT_INTERP:
            file.seek(place)
            return os.fsdecode(file.read(min(length, _PATH_BYTES)).partition(b"\0")[0])
    return ""
