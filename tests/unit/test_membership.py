"""What crm_mon's XML means (texts of Pacemaker 2.1.5, shortened), and what is never taken for idle."""

from xml.etree import ElementTree

import pytest

from standfast.cluster import membership
from standfast.cluster.run import EngineError, Result

NODE = (
    '<node name="{name}" id="1" online="{online}" standby="false" standby_onfail="{onfail}"'
    ' maintenance="false" pending="{pending}" unclean="{unclean}" shutdown="false" type="member"/>'
)
RESOURCES = """
<resource id="g" resource_agent="stonith:fence_lab" role="Started" managed="true" failed="false">
  <node name="n1" id="1" cached="true"/>
</resource>
<clone id="c" multi_state="true">
  <resource id="stf" resource_agent="ocf:pacemaker:Stateful" role="Promoted" managed="true" failed="false">
    <node name="n1" id="1" cached="true"/>
  </resource>
  <resource id="stf" resource_agent="ocf:x:Stateful" role="Stopped" managed="false" failed="true"{more}/>
</clone>
"""


def _status(
    nodes: str, dc: str = 'present="true" name="n1" with_quorum="true"', more: str = "", history: str = ""
) -> membership.ClusterStatus:
    text = (
        '<pacemaker-result api-version="2.25"><summary>'
        f'<current_dc {dc}/><cluster_options stonith-enabled="true" maintenance-mode="false"/></summary>'
        f"<nodes>{nodes}</nodes><resources>{RESOURCES.replace('{more}', more)}</resources>"
        '<node_history><node name="n9"/></node_history>'
        f'{history}<status code="0" message="OK"/></pacemaker-result>'
    )
    return membership.parse_status(ElementTree.fromstring(text))


def _node(name: str, **flags: str) -> str:
    return NODE.format(
        name=name, **{"online": "true", "onfail": "false", "pending": "false", "unclean": "false", **flags}
    )


def test_nodes_and_resources_in_groups_and_clones_are_found() -> None:
    status = _status(_node("n1") + _node("n2", online="false"))
    assert [(node.name, node.well) for node in status.nodes] == [("n1", True), ("n2", False)]
    assert [(r.name, r.role, r.nodes, r.failed, r.managed) for r in status.resources] == [
        ("g", "Started", ("n1",), False, True),
        ("stf", "Promoted", ("n1",), False, True),
        ("stf", "Stopped", (), True, False),
    ]
    assert (status.dc, status.quorate) == ("n1", True)
    assert status.node("n9") is None


def test_a_quiet_cluster_is_idle() -> None:
    assert _status(_node("n1") + _node("n2", online="false")).idle("S_IDLE")


@pytest.mark.parametrize("state", [None, "", "S_TRANSITION_ENGINE", "S_NOT_DC"])
def test_a_dc_that_is_busy_or_silent_is_not_idle(state: str | None) -> None:
    assert not _status(_node("n1")).idle(state)


@pytest.mark.parametrize(
    "status",
    [
        _status(_node("n1", unclean="true")),
        _status(_node("n1", pending="true")),
        _status(_node("n1"), dc='present="true" name="n1" with_quorum="false"'),
        _status(_node("n1"), dc='present="false"'),
        _status(_node("n1"), more=' pending="Starting"'),
        _status(_node("n1"), history='<fence_history status="124"/>'),
        _status(_node("n1"), history='<fence_history><fence_event status="pending"/></fence_history>'),
    ],
)
def test_anything_unsettled_or_unknown_is_not_idle(status: membership.ClusterStatus) -> None:
    assert not status.idle("S_IDLE")


def test_a_finished_fencing_is_not_pending() -> None:
    events = "".join(
        f'<fence_event action="reboot" target="n3" status="{s}"/>' for s in ("success", "failed", "pending")
    )
    status = _status(_node("n1"), history=f"<fence_history>{events}</fence_history>")
    assert status.fencing_pending == ("reboot of n3",)


def test_a_pending_action_names_its_resource_whether_it_shows_as_attribute_or_as_role() -> None:
    starting = '<resource id="web" role="Starting"><node name="n1"/></resource>'
    text = f"<r><summary/><nodes/><resources>{starting}</resources></r>"
    status = membership.parse_status(ElementTree.fromstring(text))
    assert status.pending_actions == ("web: Starting",)
    assert _status(_node("n1"), more=' pending="Starting"').pending_actions == ("stf: Starting",)


def test_no_answer_is_an_unknown_state_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Result(("crmadmin",), 124, "", "", timed_out=True)
    monkeypatch.setattr(membership, "run", lambda argv, limit_seconds: silent)
    assert membership.dc_state(1.0) is None
    assert membership.controller_state(1.0) == ""
    with pytest.raises(EngineError, match="did not answer in time"):
        membership.status()


def test_what_pacemaker_says_instead_of_a_status_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '<pacemaker-result><status code="102" message="Not connected"><errors>'
        "<error>crm_mon: Connection to cluster failed: Connection refused</error></errors></status>"
        "</pacemaker-result>"
    )
    monkeypatch.setattr(membership, "run", lambda argv, limit_seconds: Result(("crm_mon",), 102, text, ""))
    with pytest.raises(EngineError, match="Connection refused"):
        membership.status()
