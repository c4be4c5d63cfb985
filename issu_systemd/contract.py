"""The contract org.issu1.xml, read: what each interface takes, gives, tells and has."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import IssuError

INSTALLED = Path("/usr/share/dbus-1/interfaces/org.issu1.xml")
NAME, TOP = "org.issu1", "/org/issu1"
JOBS = f"{TOP}/job"
MANAGER, JOB = f"{NAME}.Manager", f"{NAME}.Job"
PROPERTIES, PEER = "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.Peer"
CONST = "org.freedesktop.DBus.Property.EmitsChangedSignal"
DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    '"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
# As the D-Bus specification has them, "Standard Interfaces".
STANDARD = """
<interface name="org.freedesktop.DBus.Introspectable">
 <method name="Introspect"><arg name="xml_data" type="s" direction="out"/></method>
</interface>
<interface name="org.freedesktop.DBus.Peer">
 <method name="Ping"/>
 <method name="GetMachineId"><arg name="machine_uuid" type="s" direction="out"/></method>
</interface>
"""
WITH_PROPERTIES = """
<interface name="org.freedesktop.DBus.Properties">
 <method name="Get"><arg name="interface_name" type="s" direction="in"/>
  <arg name="property_name" type="s" direction="in"/>
  <arg name="value" type="v" direction="out"/></method>
 <method name="GetAll"><arg name="interface_name" type="s" direction="in"/>
  <arg name="props" type="a{sv}" direction="out"/></method>
 <method name="Set"><arg name="interface_name" type="s" direction="in"/>
  <arg name="property_name" type="s" direction="in"/>
  <arg name="value" type="v" direction="in"/></method>
 <signal name="PropertiesChanged"><arg name="interface_name" type="s"/>
  <arg name="changed_properties" type="a{sv}"/>
  <arg name="invalidated_properties" type="as"/></signal>
</interface>
"""


class Typed(NamedTuple):
    """A value in a variant, with the D-Bus type it is to have."""

    type: str
    value: Any


class Method(NamedTuple):
    """The signatures of a method's arguments and of its answer."""

    takes: str
    gives: str


@dataclass(frozen=True)
class Interface:
    """One interface; signals and properties with their signature."""

    name: str
    methods: dict[str, Method]
    signals: dict[str, str]
    properties: dict[str, str]
    constant: frozenset[str]  # properties that never change
    xml: str  # without comments


def read(path: Path = INSTALLED) -> dict[str, Interface]:
    """The interfaces of the contract by name; raises IssuError."""
    try:
        tree = ET.parse(path)
    except (OSError, ET.ParseError) as error:
        raise IssuError(f"{path}: {error}", hint="install issu-systemd again") from error
    return {one.name: one for one in map(interface, tree.iter("interface"))}


def interface(element: ET.Element) -> Interface:
    """One interface out of its element."""
    methods = {
        method.attrib["name"]: Method(arguments(method, "in"), arguments(method, "out"))
        for method in element.iter("method")
    }
    ET.indent(element)
    element.tail = None
    constant = {
        one.attrib["name"] for one in element.iter("property")
        if any(a.attrib == {"name": CONST, "value": "const"} for a in one.iter("annotation"))
    }  # fmt: skip
    return Interface(
        element.attrib["name"], methods,
        {one.attrib["name"]: arguments(one, None) for one in element.iter("signal")},
        {one.attrib["name"]: one.attrib["type"] for one in element.iter("property")},
        frozenset(constant), ET.tostring(element, encoding="unicode"),
    )  # fmt: skip


def arguments(element: ET.Element, direction: str | None) -> str:
    """The joint signature of the arguments that go in one direction; signals have none."""
    return "".join(
        arg.attrib["type"] for arg in element.iter("arg") if arg.get("direction") == direction
    )


def introspection(own: Interface | None, children: Iterable[str]) -> str:
    """What an object answers to Introspect."""
    nodes = "".join(f'<node name="{name}"/>\n' for name in children)
    mine = WITH_PROPERTIES + own.xml if own else ""
    return f"{DOCTYPE}<node>{STANDARD}{mine}\n{nodes}</node>\n"


def job_path(id: str) -> str:
    """The object of an upgrade."""
    return f"{JOBS}/{id}"


def job_id(path: str) -> str:
    """The upgrade whose object is at a path, "" if none can be."""
    start, _, id = path.rpartition("/")
    return id if start == JOBS else ""
