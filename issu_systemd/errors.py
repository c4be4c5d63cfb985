"""What this package raises. Every message names the thing; the hint is the way out."""

from __future__ import annotations


class IssuError(Exception):
    """An expected failure, told to the operator as one sentence and a way out."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def sentence(self) -> str:
        """The message and, in brackets, the way out."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class Refused(IssuError):
    """The upgrade was refused by preflight; nothing was changed."""


class Busy(Refused):
    """Another upgrade runs."""


class Inhibited(Refused):
    """Somebody forbids upgrades for now; the message says who and why."""


class SettingsError(IssuError):
    """A settings file is wrong; the message names file and key."""


class RecordError(IssuError):
    """/run/issu/record.json is missing or cannot be read."""


class NoSuchJob(IssuError):
    """There is no such upgrade."""


class PastPointOfNoReturn(IssuError):
    """The upgrade has gone too far to be given up."""


class NotAuthorized(IssuError):
    """The caller may not do this."""


class InvalidArgument(IssuError):
    """What the caller passed is not what is wanted; the message names it."""


class RolledBack(IssuError):
    """The upgrade was taken back; the old root runs."""
