"""What a mode's texts mean in one spawn: with its port, and from its directory on."""

from pathlib import Path

from trio_lifecycle._markers import FREE_PORT, Marker, fill
from trio_lifecycle.abc import Start


def port_values(start: Start) -> dict[Marker, str]:
    """Give what FREE_PORT stands for."""
    return {} if start.port is None else {FREE_PORT: str(start.port)}


def file_path(path: str, start: Start) -> str:
    """Give the path of a file: from the daemon's directory on."""
    filled = fill(path, port_values(start))
    return filled if start.working_dir is None else str(Path(start.working_dir, filled))
