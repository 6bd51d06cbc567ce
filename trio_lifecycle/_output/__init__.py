"""What a daemon writes: kept, cut into lines, passed on, and never in its way."""

from trio_lifecycle._output._fed import FedOutput
from trio_lifecycle._output._file import FileOutput
from trio_lifecycle._output._opening import open_log
from trio_lifecycle._output._piped import PipedOutput

__all__ = ["FedOutput", "FileOutput", "PipedOutput", "open_log"]
