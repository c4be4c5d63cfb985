"""What ip, bridge and nft print as JSON: what of it makes a difference, and what does not."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import continuity, netstate
from issu_systemd.kernelstate import Source

Said = dict[str, Any]

HERE = Path(__file__).parents[2]
FOREVER = 4294967295

# What the programs said on an element, shortened.
LINKS = [
    {"ifindex": 1, "ifname": "lo", "flags": ["UP"], "mtu": 65536},
    {"ifindex": 2, "ifname": "br0", "linkinfo": {"info_kind": "bridge", "info_data": {
        "forward_delay": 1500, "max_age": 2000, "ageing_time": 30000, "stp_state": 0,
        "vlan_filtering": 1, "bridge_id": "8000.2e:10:9:a8:67:92",
        "root_id": "8000.2e:10:9:a8:67:92", "root_port": 0, "root_path_cost": 0,
        "topology_change": 0, "topology_change_detected": 0, "hello_timer": 0.0,
        "gc_timer": 0.08, "fdb_n_learned": 3, "fdb_max_learned": 0}}},
    {"ifindex": 3, "ifname": "p1", "master": "br0", "linkinfo": {"info_slave_kind": "bridge",
        "info_slave_data": {
            "state": "forwarding", "priority": 32, "cost": 2, "root_block": False, "id": "0x8001",
            "designated_port": 32769, "designated_cost": 0, "hold_timer": 0.0,
            "message_age_timer": 0.0, "forward_delay_timer": 14.98, "config_pending": 0}}},
    {"ifindex": 4, "ifname": "p1.10", "link": "p1", "linkinfo": {"info_kind": "vlan", "info_data": {
        "protocol": "802.1Q", "id": 10, "flags": ["REORDER_HDR"]}}},
]  # fmt: skip
ADDRESSES = [
    {"ifindex": 1, "ifname": "lo", "addr_info": []},
    {"ifindex": 3, "ifname": "p1", "addr_info": [
        {"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "scope": "global", "label": "p1",
         "valid_life_time": FOREVER, "preferred_life_time": FOREVER},
        {"family": "inet", "local": "10.7.0.1", "address": "10.7.0.2", "prefixlen": 32,
         "scope": "global", "valid_life_time": FOREVER, "preferred_life_time": FOREVER},
        {"family": "inet", "local": "10.7.0.1", "address": "10.7.0.3", "prefixlen": 32,
         "scope": "global", "valid_life_time": FOREVER, "preferred_life_time": FOREVER},
        {"family": "inet6", "local": "2001:db8::5", "prefixlen": 64, "scope": "global",
         "dynamic": True, "valid_life_time": 86390, "preferred_life_time": 14390}]},
    {},
]  # fmt: skip
ROUTES4 = [
    {"type": "unicast", "dst": "default", "gateway": "10.0.0.254", "dev": "p1", "table": "main",
     "protocol": "static", "scope": "global", "flags": []},
    {"type": "unicast", "dst": "10.0.0.0/24", "dev": "p1", "table": "main", "protocol": "kernel",
     "scope": "link", "prefsrc": "10.0.0.1", "flags": []},
    {"type": "unicast", "dst": "10.9.0.0/16", "table": "100", "protocol": "boot", "nexthops": [
        {"gateway": "10.0.0.3", "dev": "p1", "weight": 1, "flags": []},
        {"gateway": "10.0.0.4", "dev": "p1", "weight": 1, "flags": []}]},
]  # fmt: skip
ROUTES6 = [
    {"type": "unicast", "dst": "default", "gateway": "fe80::1", "dev": "p1", "table": "main",
     "protocol": "ra", "metric": 1024, "flags": [], "expires": 1790, "pref": "medium"},
    {"type": "unicast", "dst": "2001:db8:1::/48", "gateway": "fe80::1", "dev": "p1",
     "table": "main", "protocol": "static", "metric": 1024, "flags": [], "pref": "medium"},
    {"type": "unicast", "dst": "2001:db8:1::/48", "gateway": "fe80::2", "dev": "p1",
     "table": "main", "protocol": "static", "metric": 1024, "flags": [], "pref": "medium"},
]  # fmt: skip
RULES = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 32764, "src": "10.1.0.0", "srclen": 16, "table": "100"},
    {"priority": 32765, "src": "all", "fwmark": "0x1", "table": "100"},
    {"priority": 32765, "not": None, "src": "10.2.0.1", "table": "7"},
]
NEIGHBOURS = [
    {"dst": "10.0.0.9", "dev": "p1", "lladdr": "02:00:00:00:00:09", "state": ["PERMANENT"]}
]
NEXTHOPS = [{"id": 7, "gateway": "10.0.0.3", "dev": "p1", "scope": "link", "flags": []}]
VLANS = [
    {"ifname": "p1", "vlans": [{"vlan": 1, "flags": ["PVID", "Egress Untagged"]}, {"vlan": 20}]},
    {"ifname": "br0", "vlans": [{"vlan": 1, "flags": ["PVID", "Egress Untagged"]}]},
]
RULESET = {"nftables": [
    {"metainfo": {"version": "1.1.3", "json_schema_version": 1}},
    {"table": {"family": "inet", "name": "filter", "handle": 1}},
    {"chain": {"family": "inet", "table": "filter", "name": "forward", "handle": 2,
               "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
    {"counter": {"family": "inet", "name": "web", "table": "filter", "handle": 3, "packets": 5,
                 "bytes": 300}},
    {"set": {"family": "inet", "name": "allowed", "table": "filter", "type": "ipv4_addr",
             "handle": 4, "flags": ["interval"],
             "elem": ["10.0.0.1", {"elem": {"val": "10.0.0.2", "counter": {
                 "packets": 1, "bytes": 60}}}]}},
    {"set": {"family": "inet", "name": "seen", "table": "filter", "type": "ipv4_addr",
             "handle": 5, "flags": ["timeout", "dynamic"], "timeout": 60,
             "elem": [{"elem": {"val": "10.0.0.77", "timeout": 60, "expires": 41}}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 6, "expr": [
        {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                   "right": 80}},
        {"counter": {"packets": 100, "bytes": 6000}},
        {"quota": {"val": 10, "val_unit": "mbytes", "used": 900, "used_unit": "bytes"}},
        {"last": None},
        {"accept": None}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 7,
              "expr": [{"drop": None}]}},
]}  # fmt: skip

SAID: Said = {
    "ip -details -json link show": LINKS,
    "ip -json address show": ADDRESSES,
    "ip -4 -details -json route show table all": ROUTES4,
    "ip -6 -details -json route show table all": ROUTES6,
    "ip -json nexthop show": NEXTHOPS,
    "ip -4 -json rule show": RULES,
    "ip -6 -json rule show": RULES[:1],
    "ip -json neighbour show nud permanent": NEIGHBOURS,
    "bridge -json vlan show": VLANS,
    "nft --json list ruleset": RULESET,
}
ROUTE4, ROUTE6, LINK, RULE, NFT = (
    next(words for words in SAID if part in words)
    for part in ("-4 -details", "-6 -details", "link", "-4 -json rule", "nft")
)
ADDRESS, VLAN, NEIGHBOUR, NEXTHOP = (
    next(words for words in SAID if part in words)
    for part in ("address", "vlan", "neighbour", "nexthop")
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """What each program says; a test may change it."""
    words = copy.deepcopy(SAID)
    monkeypatch.setattr(netstate, "say", lambda *argv: copy.deepcopy(words[" ".join(argv)]))
    return words


@pytest.fixture
def element(tmp_path: Path) -> Source:
    """A root whose kernel has loaded nf_tables."""
    (tmp_path / "sys/module/nf_tables").mkdir(parents=True)
    return Source(tmp_path)


def read(element: Source) -> dict[str, Any]:
    return {kind: reader(element) for kind, reader in netstate.READERS.items()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    return [(d["what"], d["name"]) for d in continuity.diff(before, after)["differences"]]


def put(said: Said, words: str, *way: str | int, **more: Any) -> None:
    """Set fields of the object that lies this way; None where a field shall go."""
    place = said[words]
    for step in way:
        place = place[step]
    for key, value in more.items():
        place[key] = value
        if value is None:
            del place[key]


# --- what is found ------------------------------------------------------------------------------


def test_everything_has_a_name(said: Said, element: Source) -> None:
    found = read(element)
    assert {kind: len(state) for kind, state in found.items()} == {
        "link": 4,
        "address": 4,
        "route": 6,
        "nexthop": 1,
        "rule": 5,
        "neighbour": 1,
        "vlan": 3,
        "nftables": 7,
    }
    assert "type unicast dst default dev p1 table main" in found["route"]
    assert found["link"]["p1.10"] == {
        "link": "p1",
        "master": None,
        "info_kind": "vlan",
        "info_slave_kind": None,
        "info_data.protocol": "802.1Q",
        "info_data.id": 10,
        "info_data.flags": ["REORDER_HDR"],
    }
    assert "rule inet filter forward 6" in found["nftables"]
    assert "table inet filter" in found["nftables"]


def test_it_crosses_the_record(said: Said, element: Source) -> None:
    found = read(element)
    assert json.loads(json.dumps(found)) == found
    assert read(element) == found


def test_equal_names_are_numbered(said: Said, element: Source) -> None:
    routes = read(element)["route"]
    name = "type unicast dst 2001:db8:1::/48 dev p1 table main metric 1024"
    assert (routes[name]["gateway"], routes[f"{name} #2"]["gateway"]) == ("fe80::1", "fe80::2")
    assert f"{name} #3" not in routes


def test_two_addresses_that_differ_in_their_peer(said: Said, element: Source) -> None:
    peers = [
        what["address"] for name, what in read(element)["address"].items() if "10.7.0.1/32" in name
    ]
    assert peers == ["10.7.0.2", "10.7.0.3"]


# --- what makes no difference -------------------------------------------------------------------

Change = Callable[[Said], object]
BY_ITSELF: dict[str, Change] = {
    "the lifetime of an address": lambda said: put(
        said, ADDRESS, 1, "addr_info", 3, valid_life_time=86000, preferred_life_time=14000
    ),
    "the lifetime of a route": lambda said: put(said, ROUTE6, 0, expires=3),
    "the cache of a route": lambda said: put(said, ROUTE4, 0, cache=["x"], age=4, used=9, refcnt=2),
    "the timers of a bridge": lambda said: put(
        said, LINK, 1, "linkinfo", "info_data", gc_timer=9.9, hello_timer=1.0, fdb_n_learned=4,
        root_id="7000.2e:10:9:a8:67:93", root_port=1, root_path_cost=4, topology_change=1
    ),
    "the timers of a port": lambda said: put(
        said, LINK, 2, "linkinfo", "info_slave_data", forward_delay_timer=0.0, hold_timer=0.4,
        message_age_timer=1.0, designated_cost=4, config_pending=1
    ),
    "the age of a neighbour": lambda said: put(said, NEIGHBOUR, 0, used=4, refcnt=1),
    "a named counter": lambda said: put(said, NFT, "nftables", 3, "counter", packets=6, bytes=400),
    "the counter of a rule": lambda said: put(
        said, NFT, "nftables", 6, "rule", "expr", 1, "counter", packets=101, bytes=6060
    ),
    "the use of a quota": lambda said: put(
        said, NFT, "nftables", 6, "rule", "expr", 2, "quota", used=2, used_unit="kbytes"
    ),
    "the last use of a rule": lambda said: put(
        said, NFT, "nftables", 6, "rule", "expr", 3, last={"used": 12}
    ),
    "the counter of an element": lambda said: put(
        said, NFT, "nftables", 4, "set", "elem", 1, "elem", "counter", packets=2, bytes=120
    ),
    "the elements that come and go": lambda said: put(
        said, NFT, "nftables", 5, "set", elem=["10.0.0.78"]
    ),
    "the version of nft": lambda said: put(said, NFT, "nftables", 0, "metainfo", version="1.0.6"),
}  # fmt: skip


@pytest.mark.parametrize("what", BY_ITSELF)
def test_what_changes_by_itself_makes_no_difference(
    said: Said, element: Source, what: str
) -> None:
    before = read(element)
    BY_ITSELF[what](said)
    assert changed(before, read(element)) == []


def test_a_newer_program_that_knows_more_makes_no_difference(said: Said, element: Source) -> None:
    """The old root's iproute2 has read the state before, the new root's reads it after."""
    before = read(element)
    put(said, LINK, 1, "linkinfo", "info_data", mst_enabled=0)
    put(said, LINK, 2, "linkinfo", "info_slave_data", mab=False)
    put(said, ROUTE4, 0, anything=1)
    assert changed(before, read(element)) == []
    put(said, LINK, 1, "linkinfo", "info_data", ageing_time=1)
    assert changed(before, read(element)) == [("link", "br0")]


def test_a_single_flag_of_a_set_may_be_a_word(said: Said, element: Source) -> None:
    """libnftables-json(5) has a list or, of one, the word alone."""
    put(said, NFT, "nftables", 5, "set", flags="dynamic")
    before = read(element)
    put(said, NFT, "nftables", 5, "set", elem=[])
    assert changed(before, read(element)) == []


# --- what does ----------------------------------------------------------------------------------

DEFAULT = "type unicast dst default dev p1 table main"
CHANGES: dict[str, tuple[Change, list[tuple[str, str]]]] = {
    "another gateway": (
        lambda said: put(said, ROUTE4, 0, gateway="10.0.0.253"), [("route", DEFAULT)]
    ),
    "no gateway": (lambda said: put(said, ROUTE4, 0, gateway=None), [("route", DEFAULT)]),
    "another nexthop's weight": (
        lambda said: put(said, ROUTE4, 2, "nexthops", 0, weight=2),
        [("route", "type unicast dst 10.9.0.0/16 table 100")],
    ),
    "a missing route": (
        lambda said: said[ROUTE4].pop(1),
        [("route", "type unicast dst 10.0.0.0/24 dev p1 table main")],
    ),
    "a missing twin": (
        lambda said: said[ROUTE6].pop(2),
        [("route", "type unicast dst 2001:db8:1::/48 dev p1 table main metric 1024 #2")],
    ),
    "a route in another table": (
        lambda said: put(said, ROUTE4, 2, table="101"),
        [("route", f"type unicast dst 10.9.0.0/16 table 10{n}") for n in (0, 1)],
    ),
    "a missing address": (
        lambda said: said[ADDRESS][1]["addr_info"].pop(0), [("address", "p1 10.0.0.1/24")]
    ),
    "an address that will end": (
        lambda said: put(said, ADDRESS, 1, "addr_info", 0, valid_life_time=60),
        [("address", "p1 10.0.0.1/24")],
    ),
    "another peer": (
        lambda said: put(said, ADDRESS, 1, "addr_info", 2, address="10.7.0.4"),
        [("address", "p1 10.7.0.1/32 #2")],
    ),
    "another VLAN id": (
        lambda said: put(said, LINK, 3, "linkinfo", "info_data", id=11), [("link", "p1.10")]
    ),
    "another parent": (lambda said: put(said, LINK, 3, link="p2"), [("link", "p1.10")]),
    "a bridge's setting": (
        lambda said: put(said, LINK, 1, "linkinfo", "info_data", max_age=600), [("link", "br0")]
    ),
    "a port that blocks": (
        lambda said: put(said, LINK, 2, "linkinfo", "info_slave_data", state="blocking"),
        [("link", "p1")],
    ),
    "a port's setting": (
        lambda said: put(said, LINK, 2, "linkinfo", "info_slave_data", root_block=True),
        [("link", "p1")],
    ),
    "a port that is none any more": (
        lambda said: put(said, LINK, 2, master=None, linkinfo=None), [("link", "p1")]
    ),
    "a missing device": (lambda said: said[LINK].pop(3), [("link", "p1.10")]),
    "a rule's mark": (
        lambda said: put(said, RULE, 2, fwmark=None), [("rule", "priority 32765 src all table 100")]
    ),
    "a rule turned round": (
        lambda said: said[RULE][3].pop("not"), [("rule", "priority 32765 src 10.2.0.1 table 7")]
    ),
    "a rule's prefix": (
        lambda said: put(said, RULE, 1, srclen=None),
        [("rule", "priority 32764 src 10.1.0.0 table 100")],
    ),
    "a neighbour's address": (
        lambda said: put(said, NEIGHBOUR, 0, lladdr="02:00:00:00:00:0a"),
        [("neighbour", "dst 10.0.0.9 dev p1")],
    ),
    "a nexthop": (lambda said: put(said, NEXTHOP, 0, gateway="10.0.0.4"), [("nexthop", "id 7")]),
    "a VLAN that a port has no more": (
        lambda said: said[VLAN][0]["vlans"].pop(1), [("vlan", "p1 20")]
    ),
    "a VLAN that is tagged now": (
        lambda said: put(said, VLAN, 0, "vlans", 0, flags=None), [("vlan", "p1 1")]
    ),
    "a chain's policy": (
        lambda said: put(said, NFT, "nftables", 2, "chain", policy="accept"),
        [("nftables", "chain inet filter forward")],
    ),
    "a table made again": (
        lambda said: put(said, NFT, "nftables", 1, "table", handle=9),
        [("nftables", "table inet filter")],
    ),
    "a rule made again": (
        lambda said: put(said, NFT, "nftables", 7, "rule", handle=8),
        [("nftables", f"rule inet filter forward {n}") for n in (7, 8)],
    ),
    "what a rule says": (
        lambda said: put(said, NFT, "nftables", 6, "rule", "expr", 0, "match", right=443),
        [("nftables", "rule inet filter forward 6")],
    ),
    "a rule's quota": (
        lambda said: put(said, NFT, "nftables", 6, "rule", "expr", 2, "quota", val=20),
        [("nftables", "rule inet filter forward 6")],
    ),
    "the elements of a set": (
        lambda said: put(said, NFT, "nftables", 4, "set", elem=["10.0.0.1"]),
        [("nftables", "set inet filter allowed")],
    ),
    "the timeout of a set": (
        lambda said: put(said, NFT, "nftables", 5, "set", timeout=30),
        [("nftables", "set inet filter seen")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_somebody_changed_is_a_difference(said: Said, element: Source, what: str) -> None:
    change, want = CHANGES[what]
    before = read(element)
    change(said)
    assert changed(before, read(element)) == want


# --- nft is asked where it changes nothing ------------------------------------------------------


def test_without_nf_tables_nft_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would load the module, and that would be a difference of our own making."""
    asked: list[tuple[str, ...]] = []

    def say(*argv: str) -> Any:
        asked.append(argv)
        return {"nftables": []}

    monkeypatch.setattr(netstate, "say", say)
    release = tmp_path / "proc/sys/kernel/osrelease"
    release.parent.mkdir(parents=True)
    release.write_text("6.12.1\n")
    builtin = tmp_path / "usr/lib/modules/6.12.1/modules.builtin"
    builtin.parent.mkdir(parents=True)
    builtin.write_text("kernel/net/netfilter/nf_conntrack.ko\n")
    assert netstate.nftables(Source(tmp_path)) == {}
    assert asked == []
    builtin.write_text("kernel/net/netfilter/nf_tables.ko\n")
    assert netstate.nftables(Source(tmp_path)) == {}
    assert asked == [("nft", "--json", "list", "ruleset")]


def test_with_nf_tables_nft_is_run(said: Said, element: Source, tmp_path: Path) -> None:
    assert netstate.nftables(element)
    (tmp_path / "sys/module/nf_tables").rmdir()
    assert netstate.nftables(element) == {}


@pytest.mark.parametrize(("printed", "want"), [("", []), ("[ ]\n", []), ('[{"a": 1}]', [{"a": 1}])])
def test_what_a_program_says(
    monkeypatch: pytest.MonkeyPatch, printed: str, want: list[Any]
) -> None:
    done = subprocess.CompletedProcess[str]([], 0, printed, "")
    monkeypatch.setattr(netstate, "run", lambda argv: done)
    assert netstate.say("ip") == want


# --- the programs themselves --------------------------------------------------------------------

# Each line of standard input is a command; what differs after it is printed. A command that this
# kernel has not is told. The readers of /sys are left out: it is of another namespace.
INSIDE = """
import json, subprocess, sys
from issu_systemd import continuity, kernelstate, netstate
from issu_systemd.kernelstate import Source

readers = {**netstate.READERS, "sysctl": kernelstate.sysctls}
del readers["nftables"]

def snap():
    return {kind: read(Source()) for kind, read in readers.items()}

def names(before, after):
    return sorted({d["what"] for d in continuity.diff(before, after)["differences"]})

before = snap()
for line in sys.stdin:
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    after = snap()
    told = {"error": done.stderr} if done.returncode else {}
    print(json.dumps({**told, "differs": names(before, after), "twice": names(after, snap())}))
    before = after
"""
SETUP = """\
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 addrgenmode none
ip link set v1 addrgenmode none
ip link set v0 up
ip link set v1 up
timeout 20 sh -c 'until ip link show v0 | grep "state UP"; do :; done'
timeout 20 sh -c 'until ip link show v1 | grep "state UP"; do :; done'
ip address add 10.0.0.1/24 dev v1
"""
# After the command: what differs.
STEPS: dict[str, set[str]] = {
    "true": set(),
    "ip address add 10.0.0.2/24 dev v1": {"address", "route"},
    "ip -6 address add 2001:db8::1/64 dev v1 nodad": {"address", "route"},
    "ip address change 10.0.0.2/24 dev v1 valid_lft 900 preferred_lft 800": {"address"},
    "ip address change 10.0.0.2/24 dev v1 valid_lft 700 preferred_lft 600": set(),
    "ip route add 10.8.0.0/16 via 10.0.0.254 table 100": {"route"},
    "ip route change 10.8.0.0/16 via 10.0.0.253 table 100": {"route"},
    "ip route change 10.8.0.0/16 via 10.0.0.253 table 100 ": set(),
    "ip route delete 10.8.0.0/16 table 100": {"route"},
    "ip -6 route add default via 2001:db8::2": {"route"},
    "ip nexthop add id 7 via 10.0.0.3 dev v1": {"nexthop"},
    "ip rule add from 10.1.0.0/16 table 100": {"rule"},
    "ip rule add not from 10.2.0.0/16 fwmark 1 table 100 priority 50": {"rule"},
    "ip neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev v1 nud permanent": {"neighbour"},
    "ip neighbour change 10.0.0.9 lladdr 02:00:00:00:00:0a dev v1 nud permanent": {"neighbour"},
    "ip neighbour add 10.0.0.8 lladdr 02:00:00:00:00:08 dev v1 nud reachable": set(),
    "echo 1 >/proc/sys/net/ipv4/conf/v1/proxy_arp": {"sysctl"},
    "ip link add br0 type bridge": {"link", "sysctl"},
    "ip link set br0 type bridge ageing_time 1000": {"link"},
    "ip link set v0 master br0": {"link"},
    "ip link set v0 type bridge_slave root_block on": {"link"},
}
# Not every kernel has these.
MORE: dict[str, set[str]] = {
    "ip link set v0 nomaster; ip link delete br0; true": set(),
    "ip link add d0 type dummy": {"link"},
    "ip link add link v1 name v1.10 type vlan id 10": {"link"},
    "ip link add link v1 name m0 type macvlan mode bridge": {"link"},
    "ip link set m0 type macvlan mode private": {"link"},
    "ip link delete m0": {"link"},
    "ip link add br1 type bridge vlan_filtering 1": {"link", "vlan"},
    "bridge vlan add dev br1 vid 20 self": {"vlan"},
}


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What differs after each command, in a network namespace that ends with the program."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a network namespace")
    if need := [tool for tool in ("ip", "bridge", "unshare") if not shutil.which(tool)]:
        pytest.skip(f"needs {', '.join(need)}")
    lines = [*SETUP.splitlines(), *STEPS, *MORE]
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", INSIDE],
        input="".join(f"{line}\n" for line in lines),
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))


def test_a_namespace_is_set_up(told: dict[str, dict[str, Any]]) -> None:
    assert [told[line]["error"] for line in SETUP.splitlines() if "error" in told[line]] == []


@pytest.mark.parametrize("command", STEPS)
def test_a_command_differs_and_only_once(told: dict[str, dict[str, Any]], command: str) -> None:
    assert "error" not in told[command], told[command]
    assert {*told[command]["differs"]} == STEPS[command]
    assert told[command]["twice"] == []


@pytest.mark.parametrize("command", MORE)
def test_a_command_that_this_kernel_may_not_have(
    told: dict[str, dict[str, Any]], command: str
) -> None:
    if error := told[command].get("error"):
        pytest.skip(f"this kernel cannot: {error.strip()}")
    assert MORE[command] <= {*told[command]["differs"]}
    assert told[command]["twice"] == []


CHECKED = '''
import json, subprocess, time
from issu_systemd import netstate
from issu_systemd.kernelstate import Source

def local():
    return [name for name in netstate.routes(Source()) if "local dst fe80" in name]

# The check takes as long as this: long enough for a slow machine to see it.
subprocess.run("""
ip link add v0 type veth peer name v1
for port in v0 v1; do
    echo 4000 >/proc/sys/net/ipv6/neigh/$port/retrans_time_ms
    ip link set $port up
done
""", shell=True, check=True)
early = netstate.settle(0), len(local())
print(json.dumps([early, [netstate.settle(time.monotonic() + 20), len(local())]]))
'''


def test_an_address_that_is_being_checked_is_waited_for() -> None:
    """Its route comes when the check has ended; a snapshot from before would differ then."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a network namespace")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", CHECKED],
        env=os.environ | {"PYTHONPATH": str(HERE)}, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    early, late = json.loads(done.stdout)
    assert early == [False, 0]
    assert late == [True, 2]
