"""The top level of the language."""

from __future__ import annotations

from typing import Any, Final

from relevo.config.blocks.global_defs import GLOBAL_DEFS
from relevo.config.blocks.groups import local_address_group, virtual_server_group
from relevo.config.blocks.process import ROOT_ROWS as PROCESS_ROWS
from relevo.config.blocks.registry import OURS, Again, Block, Keyword
from relevo.config.blocks.services import VIRTUAL_SERVER
from relevo.config.blocks.standing import ROOT_ROWS
from relevo.config.blocks.trackers import TRACK_FILE, TRACK_PROCESS, VRRP_SCRIPT
from relevo.config.blocks.vrrp import VRRP_INSTANCE, VRRP_SYNC_GROUP
from relevo.config.blocks.vrrp_behaviour import GARP_GROUP_ROWS

GLOBALS: Final[Keyword[Any]] = Keyword("global_defs", GLOBAL_DEFS.argument, "identity, mail and defaults", again=Again.JOIN)
INSTANCES: Final[Keyword[Any]] = Keyword("vrrp_instance", VRRP_INSTANCE.argument, "a virtual router", again=Again.EACH)
SYNC_GROUPS: Final[Keyword[Any]] = Keyword(
    "vrrp_sync_group", VRRP_SYNC_GROUP.argument, "instances that move together", again=Again.EACH
)
SCRIPTS: Final[Keyword[Any]] = Keyword("vrrp_script", VRRP_SCRIPT.argument, "a command that is tracked", again=Again.EACH)
TRACKED_FILES: Final[Keyword[Any]] = Keyword("track_file", TRACK_FILE.argument, "a file that is tracked", again=Again.EACH)
OLD_TRACKED_FILES: Final[Keyword[Any]] = Keyword(
    "vrrp_track_file",
    TRACK_FILE.argument,
    "old spelling of track_file",
    again=Again.EACH,
    alias_of="track_file",
    note="'vrrp_track_file' was renamed 'track_file' in keepalived 2.1.0",
)
TRACKED_PROCESSES: Final[Keyword[Any]] = Keyword(
    "vrrp_track_process", TRACK_PROCESS.argument, "processes that are tracked", again=Again.EACH
)
SERVICES: Final[Keyword[Any]] = Keyword("virtual_server", VIRTUAL_SERVER.argument, "a virtual service", again=Again.EACH)
SERVICE_GROUPS: Final[Keyword[Any]] = Keyword(
    "virtual_server_group", virtual_server_group(), "addresses and firewall marks that one pool serves", again=Again.EACH
)
LOCAL_GROUPS: Final[Keyword[Any]] = Keyword(
    "local_address_group", local_address_group(), "source addresses for FULLNAT", again=Again.EACH, since=OURS
)

GARP_GROUPS: Final[Keyword[Any]] = Keyword(
    "garp_group", Block("garp_group", GARP_GROUP_ROWS).argument, "pauses between announcements by interface", again=Again.EACH
)

ROOT: Final = Block(
    "",
    (
        GLOBALS,
        SCRIPTS,
        TRACKED_FILES,
        OLD_TRACKED_FILES,
        TRACKED_PROCESSES,
        INSTANCES,
        SYNC_GROUPS,
        SERVICES,
        SERVICE_GROUPS,
        LOCAL_GROUPS,
        GARP_GROUPS,
        *PROCESS_ROWS,
        *ROOT_ROWS,
    ),
)
