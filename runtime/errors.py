"""What can go wrong, as one tree; the message is one line: what was wrong, where, what to do.

ProbrtError
├── Refused              exit 2: nothing was done, the request has to change
│   ├── UsageError       the command line asks for something that cannot be
│   ├── ConfigError      a training config: path in the file, what was expected
│   ├── DataError        training data: file, row, reason
│   ├── BundleError      a bundle that is damaged, altered, unsafe or too new
│   ├── InputError       no images, or images of a kind that the model does not take
│   └── MissingError     an extra or a device that is not here, with the command that brings it
├── Fault                exit 3: it was tried and did not work
│   ├── ParityError      an exported file does not say what the model says
│   └── StorageError     the disk: full, read-only, gone
└── ImageError           one image; becomes an error row, never ends a run
"""

from typing import ClassVar


class ProbrtError(Exception):
    """Any fault that probrt explains to a person in one line."""

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
    """The message of any exception as one printable line, never empty and with no control character."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
