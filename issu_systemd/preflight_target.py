"""The checks of preflight that concern the system in the target."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .evidence import ACCEPT_SINCE, SYSCTL_SINCE, Facts, by_age, systemd_major, version
from .finding import BLOCK, INFO, WARN, Check, Finding

PACKAGE = "the running kernel's package in the new root"
# From and to: a systemd that takes over the state of a newer one, as the tests have shown.
DOWNWARDS = frozenset({(257, 252)})


def target_is_not_root(f: Facts) -> Iterator[Finding]:
    if f.target_dev == f.root_dev:
        yield Finding(
            "running-root", BLOCK, f"{f.target} holds the running root", "name the other root"
        )


def target_is_the_image(f: Facts) -> Iterator[Finding]:
    if f.verity:
        yield Finding(
            "verity", BLOCK, f"{f.target} is not what [stage] verity says: {f.verity}",
            "write the image to it again, or correct [stage] verity and verity-hashes",
        )  # fmt: skip


def the_site_is_content(f: Facts) -> Iterator[Finding]:
    if f.verify_command:
        yield Finding(
            "verify-command", BLOCK, f"[stage] verify-command refuses {f.target}, "
            f"{f.verify_command}", "run it by hand to see all that it says",
        )  # fmt: skip


def target_holds_an_os(f: Facts) -> Iterator[Finding]:
    if f.tree and not f.tree.os:
        yield Finding(
            "no-os", BLOCK, f"{f.target} holds no operating system: no os-release in it",
            "install the new root on it",
        )  # fmt: skip


def target_has_init(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.os and not f.tree.init:
        yield Finding(
            "no-init", BLOCK, f"{f.target} has no /usr/lib/systemd/systemd",
            "install systemd and systemd-sysv in the new root",
        )  # fmt: skip


def target_init_is_ours(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.init and f.tree.machine != f.machine:
        yield Finding(
            "architecture", BLOCK,
            f"{f.tree.init} in {f.target} is for another machine "
            f"(ELF machine {f.tree.machine}, this one is {f.machine})",
            "build the new root for this architecture",
        )  # fmt: skip


def target_init_runs(f: Facts) -> Iterator[Finding]:
    t = f.tree
    if t and t.init and t.machine == f.machine and not t.init_says.startswith("systemd "):
        yield Finding(
            "init-runs", BLOCK, f"{t.init} in {f.target} does not run: {t.init_error}",
            f"chroot into it and try `{t.init} --version`",
        )  # fmt: skip


def target_is_merged(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.os and not f.tree.merged_usr:
        yield Finding(
            "merged-usr", BLOCK, f"/lib or /bin in {f.target} is not a link into /usr",
            "install usrmerge in the new root",
        )  # fmt: skip


def target_has_us(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.init_says and not f.tree.issu_says:
        yield Finding(
            "issu-missing", BLOCK, f"issu-systemd is not installed in {f.target}",
            "install its package in the new root",
        )  # fmt: skip


def target_settings_are_right(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.settings_error:
        yield Finding(
            "target-settings", BLOCK, f"in {f.target}: {f.tree.settings_error}", "mend the file"
        )


def target_has_modules(f: Facts) -> Iterator[Finding]:
    if not f.tree or not f.tree.lacks_modules:
        return
    what, install = f"{f.target} holds no modules for the running kernel", f"install {PACKAGE}"
    if f.modules != "bind":
        yield Finding(
            "modules", BLOCK, f"{what}; none that is not loaded yet could be",
            f'set [stage] modules = "bind" to have them copied, or {install}',
        )  # fmt: skip
    elif f.tree.no_copy:
        why, way_out = f.tree.no_copy
        yield Finding("modules", BLOCK, f"{what}; {why}", f"{way_out}, or {install}")
    else:
        yield Finding("modules", INFO, f"{what}; they will be copied to it", "")


def kernel_of_target_waits(f: Facts) -> Iterator[Finding]:
    others = [release for release in f.tree.kernels if release != f.kernel] if f.tree else []
    if others:
        yield Finding(
            "kernel-waits", INFO, f"kernel {max(others, key=by_age)} of the new root waits for "
            f"the next reboot; {f.kernel} runs on", "",
        )  # fmt: skip


def target_knows_sysctl(f: Facts) -> Iterator[Finding]:
    says = f.tree.issu_says if f.tree else ""
    asked = f.sysctl or bool(f.tree and f.tree.sysctl)
    if asked and says and version(says) < SYSCTL_SINCE:
        yield Finding(
            "sysctl", WARN, f"{says} in {f.target} does not know [arrive] sysctl; the kernel's "
            "settings stay as they are", "install a newer issu-systemd there",
        )  # fmt: skip


def target_libc_knows_the_kernel(f: Facts) -> Iterator[Finding]:
    oldest = f.tree.oldest_kernel if f.tree else ()
    runs = tuple(int(part) for part in re.findall(r"\d+", f.kernel)[:3])
    if oldest and runs and runs < oldest[: len(runs)]:
        yield Finding(
            "libc", BLOCK,
            f"libc in {f.target} needs kernel {'.'.join(map(str, oldest))}, {f.kernel} runs",
            "reboot with a newer kernel, or use a root made for this one",
        )  # fmt: skip


def target_systemd_takes_our_state(f: Facts) -> Iterator[Finding]:
    theirs = systemd_major(f.tree.init_says) if f.tree else 0
    if 0 < theirs < f.systemd and (f.systemd, theirs) not in DOWNWARDS:
        yield Finding(
            "systemd-older", BLOCK,
            f"systemd {theirs} in {f.target} is older than {f.systemd}, which runs; "
            "that it takes over the state was never tested", "install a newer systemd there",
        )  # fmt: skip


def target_boots_alike(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.command_line:
        yield Finding(
            "command-line", INFO, "the kernel's command line stays; from the next reboot on the "
            f"new root's differs: {' '.join(f.tree.command_line)}", "",
        )  # fmt: skip


def target_policy_is_ours(f: Facts) -> Iterator[Finding]:
    for name, differs in f.tree.policies if f.tree else ():
        yield Finding(
            "policy", WARN, f"{name} {differs}; what is loaded stays until the next reboot",
            f"give both roots the same policy of {name}",
        )  # fmt: skip


def target_start_can_be_foreseen(f: Facts) -> Iterator[Finding]:
    if f.no_plan:
        yield Finding("start-up", BLOCK, *f.no_plan)


def target_has_a_default(f: Facts) -> Iterator[Finding]:
    if not f.tree or not f.tree.os:
        return
    there = f.tree.default_target
    if not there:
        yield Finding(
            "default-target", BLOCK, f"default.target in {f.target} leads nowhere",
            "`systemctl set-default multi-user.target` in it",
        )  # fmt: skip
    elif f.default_target not in ("", there) and there != "default.target":
        yield Finding(
            "default-target", INFO, f"the new root goes to {there}, not {f.default_target}", ""
        )


def no_unit_is_lost(f: Facts) -> Iterator[Finding]:
    for unit, does in f.lost:
        yield Finding(
            "unit-lost", WARN, f"{unit} is enabled and active here, and {f.target} {does}",
            f"install it there, or `systemctl disable {unit}` here",
        )  # fmt: skip


def target_units_can_start(f: Facts) -> Iterator[Finding]:
    for unit, why in f.tree.faults if f.tree else ():
        yield Finding(
            "unit-broken", WARN, f"{unit} in {f.target} cannot start: {why}",
            f"mend it there, or disable it: `systemd-analyze verify {unit}`",
        )  # fmt: skip


def owners_are_the_same(f: Facts) -> Iterator[Finding]:
    for kind, name, here, there, path in f.tree.owners if f.tree else ():
        same = f"give {kind} {name} the number {here} there"
        if there is None:
            yield Finding(
                "ids", WARN,
                f"{kind} {name} ({here}) owns {path}, which is carried; {f.target} has none", same,
            )  # fmt: skip
        else:
            yield Finding(
                "ids", BLOCK,
                f"{kind} {name} owns {path}, which is carried, as {here}; in {f.target} it is "
                f"{there}", same,
            )  # fmt: skip


def target_knows_acceptance(f: Facts) -> Iterator[Finding]:
    says = f.tree.issu_says if f.tree else ""
    if f.accept_mode == "manual" and says and version(says) < ACCEPT_SINCE:
        yield Finding(
            "accept-mode", BLOCK, f"{says} in {f.target} would not wait for `issu accept`",
            'install a newer issu-systemd there, or set [accept] mode = "auto"',
        )  # fmt: skip


def target_goes_back(f: Facts) -> Iterator[Finding]:
    says = f.tree.issu_says if f.tree else ""
    if f.accept_mode != "manual" and says and version(says) < ACCEPT_SINCE:
        yield Finding(
            "way-back", WARN, f"{says} in {f.target} would not go back by itself if the new root "
            "is not healthy", "install a newer issu-systemd there",
        )  # fmt: skip


TARGET: tuple[Check, ...] = (
    target_is_not_root, target_is_the_image, the_site_is_content, target_holds_an_os,
    target_has_init, target_init_is_ours, target_init_runs, target_is_merged, target_has_us,
    target_settings_are_right, target_has_modules, kernel_of_target_waits, target_knows_sysctl,
    target_knows_acceptance, target_goes_back,
    target_libc_knows_the_kernel, target_systemd_takes_our_state, target_boots_alike,
    target_policy_is_ours, target_start_can_be_foreseen, target_has_a_default, no_unit_is_lost,
    target_units_can_start, owners_are_the_same,
)  # fmt: skip
