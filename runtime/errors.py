"""The faults that probrt explains, as one tree. A message is one line: what was wrong, where, what to do.

ProbrtError
├── Refused              exit 2: nothing was done, the request has to change
│   ├── UsageError       the command line asks for something that cannot be
│   ├── ConfigError      a training config: path in the file, what was expected
│   ├── DataError        training data: file, row, reason
│   ├── BundleError      a bundle that is damaged, altered, unsafe or too new
│   ├── InputError       no images, or images of a kind that the model does not take
│   └── MissingError     an extra or a device that is missing here, with the command that installs it
├── Fault                exit 3: the attempt failed
│   ├── ParityError      the answers of an exported file differ from those of the model
│   └── StorageError     the disk: full, read-only, gone
└── ImageError           one image; becomes an error row, never ends a run
"""

from typing import ClassVar


class ProbrtError(Exception):
    """A fault that probrt explains to a person in one line."""

    exit_code: ClassVar[int] = 3


class Refused(ProbrtError):
    exit_code = 2


class UsageError(Refused):
    pass


class ConfigError(Refused):
    pass


class DataError(Refused):
    pass


class BundleError(Refused):
    pass


class InputError(Refused):
    pass


class MissingError(Refused):
    pass


class Fault(ProbrtError):
    pass


class ParityError(Fault):
    pass


class StorageError(Fault):
    pass


class ImageError(ProbrtError):
    pass


def one_line(error: BaseException) -> str:
    """The message of an exception as one printable line; its type if it has no message."""
    return printable(str(error)) or type(error).__name__


def printable(text: str) -> str:
    """A text, such as the name of a file, on one line and without control characters."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))
