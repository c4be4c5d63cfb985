"""What the kernel forwards by: links, addresses, routes, rules, neighbours, VLANs and nftables.

Read with iproute2 and nft, which speak JSON. What changes by itself, such as a lifetime or a
counter, is left out, so that the same state gives the same values. Sources: ip(8), bridge(8),
libnftables-json(5).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .kernelstate import Source, line
from .run import run

State = dict[str, Any]
Objects = list[dict[str, Any]]

FOREVER = 0xFFFFFFFF  # a lifetime in seconds, ip-address(8)
MOVING = ("expires", "cache", "age", "used", "refcnt", "valid_life_time", "preferred_life_time")
# Of what `ip -d link` tells of a bridge and its ports, what the kernel counts and elects.
RUNNING = ("timer", "root_id", "root_port", "root_path_cost", "bridge_id", "designated_",
           "topology_change", "config_pending", "fdb_n_learned")  # fmt: skip
# What ip prints only where it is set; null otherwise, so that its loss is seen.
OF_ROUTE = ("gateway", "via", "prefsrc", "nexthops", "nhid", "metrics", "encap")
OF_RULE = ("srclen", "dstlen", "fwmark", "fwmask", "iif", "oif", "tos", "ipproto", "goto")
COUNTED = ("packets", "bytes", "used", "used_unit", "last")  # libnftables-json(5)
BUILTIN = "/nf_tables.ko"
# Not those that are tentative for good, since a duplicate was found.
TENTATIVE = ("address", "show", "tentative", "-dadfailed")
SETTLE_SEC = 5.0
POLL_SEC = 0.05


def settle(deadline: float) -> bool:
    """Wait until no IPv6 address is being checked for duplicates (RFC 4862 section 5.4).

    The kernel makes an address's routes when that is done, and that would be seen as a difference.
    `deadline` is in time.monotonic() seconds; returns whether all are done. Raises IssuError.
    """
    while any(link.get("addr_info") for link in say("ip", "-6", "-json", *TENTATIVE)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SEC)
    return True


def links(_: Source) -> State:
    """What kind of device each is, with its own settings: VLAN id, bridge, bond, parent."""
    return {
        link["ifname"]: {
            **{field: link.get(field) for field in ("link", "master")},
            **dict.fromkeys(("info_kind", "info_slave_kind")),
            **dict(_settled(link.get("linkinfo", {}))),
        }
        for link in say("ip", "-details", "-json", "link", "show")
    }


def addresses(_: Source) -> State:
    """Every address, by device; of one with a lifetime only that it has one."""
    return _numbered(
        (
            f"{link['ifname']} {address['local']}/{address['prefixlen']}",
            address | {"forever": address.get("valid_life_time", FOREVER) == FOREVER},
        )
        for link in say("ip", "-json", "address", "show")
        for address in link.get("addr_info", ())
    )


def routes(_: Source) -> State:
    """The routes of all tables, IPv4 and IPv6."""
    return _named(
        _both("-details", "-json", "route", "show", "table", "all"),
        ("type", "dst", "dev", "table", "metric", "tos"),
        OF_ROUTE,
    )


def nexthops(_: Source) -> State:
    """The nexthop objects, by number (ip-nexthop(8))."""
    return _named(say("ip", "-json", "nexthop", "show"), ("id",))


def rules(_: Source) -> State:
    """The policy rules, IPv4 and IPv6 (ip-rule(8))."""
    told = [rule | {"not": "not" in rule} for rule in _both("-json", "rule", "show")]
    return _named(told, ("priority", "src", "dst", "table"), OF_RULE)


def neighbours(_: Source) -> State:
    """The neighbours that were set by hand; the others come and go by themselves."""
    return _named(say("ip", "-json", "neighbour", "show", "nud", "permanent"), ("dst", "dev"))


def vlans(_: Source) -> State:
    """The VLANs of each bridge port (bridge(8))."""
    return {
        f"{port['ifname']} {vlan['vlan']}": {"flags": []} | _steady(vlan)
        for port in say("bridge", "-json", "vlan", "show")
        for vlan in port.get("vlans", ())
    }


def nftables(source: Source) -> State:
    """The ruleset, by object: its handle, and a digest of what it says without its counters.

    A handle is never used twice (nft(8)): another one tells that the rule was made anew. The
    elements of a set are part of it, unless they come and go by themselves.
    """
    if not _has_nftables(source):  # nft would load the module
        return {}
    found: State = {}
    for item in say("nft", "--json", "list", "ruleset")["nftables"]:
        for kind, what in item.items():
            if kind != "metainfo":
                found[_nft_name(kind, what)] = {"handle": what.get("handle"), "says": _digest(what)}
    return found


def _has_nftables(source: Source) -> bool:
    release = line(source.sysroot / "proc/sys/kernel/osrelease") or ""
    builtin = line(source.sysroot / "usr/lib/modules" / release / "modules.builtin") or ""
    return (source.sysroot / "sys/module/nf_tables").exists() or BUILTIN in builtin


def _nft_name(kind: str, what: dict[str, Any]) -> str:
    place = [what.get("family"), what.get("table") if kind != "table" else None]
    name = [what.get("chain"), str(what.get("handle"))] if kind == "rule" else [what.get("name")]
    return " ".join(str(word) for word in (kind, *place, *name) if word)


def _digest(what: dict[str, Any]) -> str:
    flags = what.get("flags", ())  # of a single one, a list or the word
    if "elem" in what and ("dynamic" in flags or "timeout" in flags):
        what = {key: value for key, value in what.items() if key != "elem"}
    text = json.dumps(_uncounted(what), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _uncounted(value: Any) -> Any:
    """A JSON value without what nftables counts."""
    if isinstance(value, list):
        return [_uncounted(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _uncounted(item) for key, item in value.items() if key not in COUNTED}


def _settled(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting in nested objects by its dotted name, without what a bridge counts and elects.

    Flat, since another version of iproute2 knows more settings, and only common ones are compared.
    """
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _settled(item, f"{prefix}{key}.")
        elif not any(word in key for word in RUNNING):
            yield prefix + key, item


def _steady(what: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in what.items() if key not in MOVING}


def _named(
    objects: Iterable[dict[str, Any]], keys: Sequence[str], optional: Sequence[str] = ()
) -> State:
    """The objects by what tells one from another; an `optional` field that is missing is null."""
    return _numbered(
        (
            " ".join(f"{key} {what[key]}" for key in keys if what.get(key) is not None),
            dict.fromkeys(optional) | what,
        )
        for what in objects
    )


def _numbered(objects: Iterable[tuple[str, dict[str, Any]]]) -> State:
    """The objects by name; equal names are numbered."""
    found: State = {}
    for name, what in objects:
        twin, count = name, 1
        while twin in found:
            count += 1
            twin = f"{name} #{count}"
        found[twin] = _steady(what)
    return found


def _both(*words: str) -> Objects:
    return [found for family in ("-4", "-6") for found in say("ip", family, *words)]


def say(*argv: str) -> Any:
    """What a program prints as JSON; nothing printed is an empty list. Raises IssuError."""
    return json.loads(run(argv).stdout.strip() or "[]")


READERS: dict[str, Callable[[Source], State]] = {
    "link": links,
    "address": addresses,
    "route": routes,
    "nexthop": nexthops,
    "rule": rules,
    "neighbour": neighbours,
    "vlan": vlans,
    "nftables": nftables,
}
