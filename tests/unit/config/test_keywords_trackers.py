"""``vrrp_script``, ``track_file``, ``vrrp_track_process``, and what instances and sync groups track."""

import msgspec
import pytest

from relevo.model import ParameterMatch, Script, Tracked, TrackerKind, TrackFile, TrackProcess, VrrpScript
from tests.unit.config.compiling import SECURED, compiled, messages

INTERFACE, SCRIPT, FILE, PROCESS, SERVICE = TrackerKind
SERVER = "virtual_server 192.0.2.80 80 {\nprotocol TCP\nreal_server 10.0.0.1 80 {\n}\n}\n"


def instance(name, body, number=1):
    head = f"vrrp_instance {name} {{\ninterface eth0\nvirtual_router_id {number}\n"
    return f"{head}virtual_ipaddress {{\n192.0.2.{number}\n}}\n{body}\n}}\n"


def tracking(body, outside="", group=""):
    """One instance with ``body``, and its findings; ``outside`` is declared before it."""
    text = SECURED + outside + instance("VI", body)
    if group:
        text += f"vrrp_sync_group G {{\ngroup {{\nVI\n}}\n{group}\n}}\n"
    return compiled(text)


def tracked(body, outside="", group=""):
    return tracking(body, outside, group).configuration.vrrp_instances[0].tracked


def declared(body):
    """What is declared and tracked with the weight of its own, so that nothing is left out."""
    return compiled(SECURED + body + instance("VI", "track_script {\nchk\n}")).configuration.trackers


def chk(body=""):
    return f'vrrp_script chk {{\nscript "/bin/chk -x 1"\n{body}\n}}\n'


# -- vrrp_script ------------------------------------------------------------------------------------------------------

PLAIN = VrrpScript(name="chk", script=Script(("/bin/chk", "-x", "1")))


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("", {}),
        ("interval 5", {"interval_s": 5.0, "timeout_s": 5.0}),
        ("interval 5\ntimeout 2", {"interval_s": 5.0, "timeout_s": 2.0}),
        ("interval 0.25", {"interval_s": 0.25, "timeout_s": 0.25}),
        ("interval 0", {"interval_s": 1.0, "timeout_s": 1.0}),
        ("rise 3\nfall 4", {"rise": 3, "fall": 4}),
        ("rise x\nfall 0", {"rise": 1, "fall": 1}),
        ("init_fail", {"init_fail": True}),
        ("user nobody", {"script": Script(("/bin/chk", "-x", "1"), "nobody")}),
        ("user nobody nogroup", {"script": Script(("/bin/chk", "-x", "1"), "nobody", "nogroup")}),
    ],
)
def test_a_script(body, changes):
    assert declared(chk(body)).scripts == (msgspec.structs.replace(PLAIN, **changes),)


def test_words_behind_an_unquoted_command_are_ignored_as_in_keepalived():
    result = tracking("track_script {\nchk\n}", "vrrp_script chk {\nscript /usr/bin/killall -0 nginx\n}\n")
    assert result.configuration.trackers.scripts[0].script == Script(("/usr/bin/killall",))
    assert messages(result) == ["warning: '-0 nginx' after the command is ignored, as in keepalived"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vrrp_script chk {\ninterval 1\n}", "error: vrrp_script 'chk' has no script: left out"),
        (chk() + chk(), "error: vrrp_script 'chk' is there already: left out"),
        (chk() + 'vrrp_script other {\nscript "/bin/other"\n}', "warning: vrrp_script 'other' is not used: it does not run"),
        (chk("interval 2.5"), "note: keepalived before 2.3 takes 2.5 for 2 s"),
        (chk("weight 254"), "error: 254 is out of range"),
    ],
)
def test_findings_about_scripts(text, message):
    assert message in messages(tracking("track_script {\nchk\n}", text + "\n"))


# -- track_file and vrrp_track_process --------------------------------------------------------------------------------


def test_files():
    text = "track_file a {\nfile /run/a\n}\nvrrp_track_file b {\nfile /run/b\ninit_file 5 overwrite\n}\n"
    text += "track_file c {\nfile /c\ninit_file\n}\n"
    assert declared(text).files == (
        TrackFile(name="a", path="/run/a"),
        TrackFile(name="b", path="/run/b", init_value=5, init_overwrite=True),
        TrackFile(name="c", path="/c", init_value=0),
    )


WEB = TrackProcess(name="web", process="nginx")


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("", {}),
        ("full_command", {"full_command": True}),
        ("param_match initial", {"match": ParameterMatch.INITIAL, "full_command": True}),
        ("param_match partial", {"match": ParameterMatch.PARTIAL, "full_command": True}),
        ("param_match", {"match": ParameterMatch.EXACT, "full_command": True}),
        ("quorum 3", {"quorum": 3}),
        ("quorum 3\nquorum_max 5", {"quorum": 3, "quorum_max": 5}),
        ("quorum_max 0", {"quorum": 0, "quorum_max": 0}),
        ("quorum 3\nquorum_max 2", {"quorum": 3}),
        ("delay 2", {"fork_delay_s": 2.0, "terminate_delay_s": 2.0}),
        ("delay 2\nfork_delay 0.5", {"fork_delay_s": 0.5, "terminate_delay_s": 2.0}),
        ("terminate_delay 3", {"terminate_delay_s": 3.0}),
    ],
)
def test_processes(body, changes):
    found = declared(f"vrrp_track_process web {{\nprocess nginx\n{body}\n}}\n").processes
    assert found == (msgspec.structs.replace(WEB, **changes),)


def test_parameters_of_a_process_are_compared_whole():
    (found,) = declared('vrrp_track_process web {\nprocess nginx -g "daemon off;"\n}\n').processes
    assert (found.parameters, found.match, found.full_command) == (("-g", "daemon off;"), ParameterMatch.EXACT, True)


# -- lists ------------------------------------------------------------------------------------------------------------

SOURCES = (
    chk("weight -20") + "track_file mode {\nfile /m\nweight 2 reverse\n}\nvrrp_track_process web {\nprocess nginx\nweight 7\n}\n"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("track_script {\nchk\n}", Tracked(SCRIPT, "chk", -20)),
        ("track_script {\nchk weight 5\n}", Tracked(SCRIPT, "chk", 5)),
        ("track_script {\nchk weight 5 reverse\n}", Tracked(SCRIPT, "chk", 5, True)),
        ("track_file {\nmode\n}", Tracked(FILE, "mode", 2, True)),
        ("track_file {\nmode weight -254 noreverse\n}", Tracked(FILE, "mode", -254)),
        ("track_process {\nweb\n}", Tracked(PROCESS, "web", 7)),
        ("track_process {\nweb weight 0\n}", Tracked(PROCESS, "web")),
        ("track_virtual_server {\n192.0.2.80 80 weight -50\n}", Tracked(SERVICE, "[192.0.2.80]:tcp:80", -50)),
        ("track_virtual_server {\n192.0.2.80 80 tcp\n}", Tracked(SERVICE, "[192.0.2.80]:tcp:80")),
    ],
)
def test_a_line_has_its_own_weight_or_that_of_the_declaration(body, expected):
    assert tracked(body, SOURCES + SERVER) == (expected,)
    assert tracked("", SOURCES + SERVER, group=f"sync_group_tracking_weight\n{body}") == (expected,)


def test_a_declaration_may_follow():
    text = SECURED + instance("VI", "track_script {\nchk\n}") + chk()
    assert compiled(text).configuration.vrrp_instances[0].tracked == (Tracked(SCRIPT, "chk"),)


@pytest.mark.parametrize(
    ("body", "message", "expected"),
    [
        ("track_script {\nnone\n}", "error: track_script 'none' is not declared: ignored, as in keepalived", ()),
        ("track_file {\nnone\n}", "error: track_file 'none' is not declared: ignored, as in keepalived", ()),
        ("track_process {\nnone\n}", "error: track_process 'none' is not declared: ignored, as in keepalived", ()),
        ("track_virtual_server {\n192.0.2.81 80\n}", "error: virtual server '192.0.2.81 80' does not exist: ignored", ()),
        (
            "track_script {\nchk\nchk weight 1\n}",
            "warning: chk is tracked already: the first line counts, in keepalived too",
            (Tracked(SCRIPT, "chk", -20),),
        ),
        ("track_script {\nchk wait\n}", "error: 'wait' is not an option of a vrrp_script: left out", ()),
        ("track_script {\nchk weight\n}", "error: 'weight' needs a number: left out", ()),
        ("track_script {\nchk weight 300\n}", "error: 300 is out of range", (Tracked(SCRIPT, "chk", -20),)),
        (
            "track_script {\nchk weight 254\n}",
            "warning: a weight is at most 253 either way: 253 is used",
            (Tracked(SCRIPT, "chk", 253),),
        ),
        ("track_interface {\neth0\n}", "warning: eth0 is the instance's own interface: ignored, as in keepalived", ()),
    ],
)
def test_findings_about_lists(body, message, expected):
    result = tracking(body, SOURCES + SERVER)
    assert message in messages(result)
    assert result.configuration.vrrp_instances[0].tracked == expected


# -- sync groups and owners -------------------------------------------------------------------------------------------

WEIGHTED = "track_script {\nchk\n}\ntrack_interface {\neth1 weight 5\n}\ntrack_file {\nmode\nplain\n}\ntrack_process {\nweb\n}"
PLAIN_FILE = "track_file plain {\nfile /p\n}\n"


def test_weights_count_in_a_sync_group_with_tracking_weight():
    found = tracked(WEIGHTED, SOURCES + PLAIN_FILE, "sync_group_tracking_weight")
    assert {each.name: each.weight for each in found} == {"eth1": 5, "chk": -20, "mode": 2, "plain": 1, "web": 7}
    assert found == tracked(WEIGHTED, SOURCES + PLAIN_FILE, "global_tracking")


def test_in_a_sync_group_without_it_keepalived_ignores_lines_or_weights():
    result = tracking(WEIGHTED, SOURCES + PLAIN_FILE, "smtp_alert off")
    found = result.configuration.vrrp_instances[0].tracked
    assert {each.name: each.weight for each in found} == {"eth1": 5, "plain": 0, "web": 7}
    assert [message for message in messages(result) if "sync_group_tracking_weight" in message] == [
        "warning: the line is ignored, as in keepalived: the sync group has no sync_group_tracking_weight",  # chk
        "warning: the weight counts although the sync group has no sync_group_tracking_weight: "
        "keepalived applies it too, and says the contrary",  # eth1
        "warning: the line is ignored, as in keepalived: the sync group has no sync_group_tracking_weight",  # mode
        "warning: the weight is ignored, as in keepalived: the sync group has no sync_group_tracking_weight",  # plain
    ]


def test_an_owner_has_no_weights():
    found = tracked(f"priority 255\n{WEIGHTED}", SOURCES + PLAIN_FILE)
    assert {each.name: each.weight for each in found} == {"plain": 0}


def test_the_weight_of_the_group_counts_unless_the_own_one_is_0():
    group = "sync_group_tracking_weight\ntrack_script {\nchk weight 9\n}"
    assert tracked("track_script {\nchk weight 3\n}", SOURCES, group) == (Tracked(SCRIPT, "chk", 9),)
    assert tracked("track_script {\nchk weight 0\n}", SOURCES, group) == (Tracked(SCRIPT, "chk", 0),)


def test_what_a_group_tracks_has_no_weight_if_a_member_owns_its_address():
    result = tracking("priority 255", SOURCES, "track_script {\nchk weight 9\n}")
    assert result.configuration.vrrp_instances[0].tracked == (Tracked(SCRIPT, "chk", 0),)
    assert "warning: the weight is 0, as in keepalived: a member of the sync group owns its address" in messages(result)


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("vrrp_script late {\nscript /c\n}", "track_script {\nlate\n}"),
        ("track_file late {\nfile /p\n}", "track_file {\nlate\n}"),
        ("vrrp_track_process late {\nprocess x\n}", "track_process {\nlate\n}"),
    ],
)
def test_a_tracker_that_is_declared_below_counts_with_a_warning(block, line):
    found = {}
    for where in ("above", "below"):
        instance = f"vrrp_instance V {{\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {{\n10.0.0.1\n}}\n{line}\n}}"
        result = compiled("\n".join((block, instance) if where == "above" else (instance, block)))
        found[where] = result.configuration.vrrp_instances[0].tracked
        assert any("is declared further below" in message for message in messages(result)) == (where == "below")
    assert found["above"] == found["below"] != ()
