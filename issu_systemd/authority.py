"""Who may do what: polkit decides, for the sender of the message. See polkit(8).

User 0 may do everything, and without polkit nobody else may do anything.
"""

from __future__ import annotations

from itertools import count

from .contract import NAME, Typed
from .errors import IssuError, NotAuthorized
from .interface import BUS, BusError, Call, Connection

POLKIT, PATH = "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = f"{POLKIT}.Authority"
INTERACTION = 1  # AllowUserInteraction
ASK_SEC = 25.0
TYPE_SEC = 120.0  # for somebody to type a password
# Of polkit, where there is none, or where it has just gone.
NOBODY = ("ServiceUnknown", "NameHasNoOwner", "NoReply", "UnknownObject", "UnknownMethod",
          "AccessDenied", "TimedOut", "Disconnected", "UnknownInterface")  # fmt: skip
_numbers = count(1)


async def caller_of(bus: Connection, call: Call) -> tuple[int, int]:
    """User and process id of whoever calls; raises NotAuthorized if it has gone."""
    try:
        [found] = await bus.call(
            BUS, "/org/freedesktop/DBus", BUS, "GetConnectionCredentials", "s", call.sender
        )
        return int(found["UnixUserID"]), int(found.get("ProcessID", 0))
    except (BusError, KeyError) as error:
        raise NotAuthorized(f"the bus does not say who {call.sender} is: {error}") from error


async def ask(bus: Connection, call: Call, action: str, *, interactive: bool) -> str:
    """Whether the caller may: "yes", "no", or "challenge" if it may once it says who it is."""
    uid, _ = await caller_of(bus, call)
    if uid == 0:
        return "yes"
    subject = ("system-bus-name", {"name": Typed("s", call.sender)})
    cancel = f"{NAME}-{next(_numbers)}"
    flags, timeout = (INTERACTION, TYPE_SEC) if interactive else (0, ASK_SEC)
    try:
        [(may, challenge, _)] = await bus.call(
            POLKIT, PATH, AUTHORITY, "CheckAuthorization", "(sa{sv})sa{ss}us",
            subject, f"{NAME}.{action}", {}, flags, cancel, timeout=timeout,
        )  # fmt: skip
    except BusError as error:
        if error.name == f"{BUS}.Error.NoReply":
            await _give_up(bus, cancel)
        if error.name.rpartition(".")[2] in NOBODY:
            return "no"
        raise IssuError(f"polkit cannot decide on {NAME}.{action}: {error}") from error
    return "yes" if may else "challenge" if challenge else "no"


async def require(bus: Connection, call: Call, action: str) -> None:
    """Raise NotAuthorized unless the caller may do what the action says."""
    answer = await ask(bus, call, action, interactive=call.interactive)
    if answer != "yes":
        hint = "sudo, or a polkit rule" if answer == "no" else (
            "call with interactive authorisation allowed, or sudo")  # fmt: skip
        raise NotAuthorized(f"{call.member} needs the right to {NAME}.{action}", hint=hint)


async def _give_up(bus: Connection, cancel: str) -> None:
    try:
        await bus.call(POLKIT, PATH, AUTHORITY, "CancelCheckAuthorization", "s", cancel)
    except BusError:
        return  # polkit has gone: nobody asks any more
