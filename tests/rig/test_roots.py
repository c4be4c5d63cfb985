"""Our package in a root; where roots come from."""

from pathlib import Path

import pytest

from tests.rig import roots, sh

pytestmark = pytest.mark.container


CONTROL = """\
Package: rig-test
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: test
"""
POSTINST = "#!/bin/sh\nset -e\ntest -e /proc/self\ntouch /etc/rig-test\n"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that has only the bare roots: what is installed here pushes out nobody's trees."""
    bare = [roots.base(suite) for suite in roots.SUITES]
    own = tmp_path / "cache"
    own.mkdir()
    for tar in bare:
        (own / tar.name).symlink_to(tar)
    monkeypatch.setenv("ISSU_CACHE", str(own))


def package(top: Path) -> Path:
    """A package whose maintainer script wants /proc, as many do."""
    control = top / "package/DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(CONTROL)
    (control / "postinst").write_text(POSTINST)
    (control / "postinst").chmod(0o755)
    sh.run(["dpkg-deb", "--build", "--root-owner-group", control.parent, top / "test.deb"])
    return top / "test.deb"


@pytest.mark.usefixtures("own_cache")
def test_package_is_installed(tmp_path: Path, suite: str) -> None:
    deb = package(tmp_path)
    tree = roots.installed(suite, deb)
    assert (tree / "etc/rig-test").exists()
    assert list((tree / "proc").iterdir()) == []
    assert roots.installed(suite, deb) == tree
    assert not (roots.installed(suite) / "etc/rig-test").exists()


@pytest.mark.usefixtures("own_cache")
def test_package_that_does_not_install_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.deb").write_text("not a package")
    with pytest.raises(sh.CommandError, match="dpkg"):
        roots.installed("bookworm", tmp_path / "bad.deb")


def test_mirror_is_the_machines_own() -> None:
    sites = sh.output(["apt-get", "indextargets", "--format", "$(SITE)"]).splitlines()
    assert roots.mirror() in sites
    assert "security" not in roots.mirror()
