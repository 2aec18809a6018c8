"""Which resources need the membership unbroken."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from standfast.core.unbroken import needing_membership


def _cib(inner: str) -> ET.Element:
    return ET.fromstring(f"<cib><configuration><resources>{inner}</resources></configuration></cib>")


def _filesystem(fstype: str) -> str:
    return (
        '<primitive id="fs" class="ocf" provider="heartbeat" type="Filesystem"><instance_attributes id="a">'
        f'<nvpair id="b" name="fstype" value="{fstype}"/></instance_attributes></primitive>'
    )


@pytest.mark.parametrize("kind", ["controld", "lvmlockd", "clvm", "o2cb"])
def test_what_stands_on_the_lock_manager_is_found_in_clones_and_groups_too(kind: str) -> None:
    primitive = f'<primitive id="dlm" class="ocf" provider="pacemaker" type="{kind}"/>'
    assert needing_membership(_cib(primitive)) == ("dlm",)
    nested = f'<clone id="c"><group id="g">{primitive}{_filesystem("gfs2")}</group></clone>'
    assert needing_membership(_cib(nested)) == ("dlm", "fs")


@pytest.mark.parametrize(("fstype", "found"), [("gfs2", ("fs",)), ("OCFS2", ("fs",)), ("ext4", ()), ("", ())])
def test_a_file_system_counts_by_its_type(fstype: str, found: tuple[str, ...]) -> None:
    assert needing_membership(_cib(_filesystem(fstype))) == found


def test_a_fence_device_and_a_template_of_that_name_do_not_count() -> None:
    inner = (
        '<primitive id="a" class="stonith" type="controld"/><template id="t" class="ocf" type="controld"/>'
    )
    assert needing_membership(_cib(inner)) == ()
