"""What a reload does: its operations in order, and what clients lose by them."""

from __future__ import annotations

import enum

import msgspec


class Do(enum.StrEnum):
    """Kinds of operations."""

    ADD_ADDRESS = "add address"
    REMOVE_ADDRESS = "remove address"
    OPEN_SOCKET = "open socket"
    CLOSE_SOCKET = "close socket"
    CHANGE_STATE = "change state"
    CHANGE_GROUP = "change group"
    CHANGE_PRIORITY = "change priority"
    ADD_SERVICE = "add service"
    EDIT_SERVICE = "edit service"
    DELETE_SERVICE = "delete service"
    ADD_SERVER = "add server"
    EDIT_SERVER = "edit server"
    DELETE_SERVER = "delete server"
    ADD_CHECK = "add check"
    EDIT_CHECK = "edit check"
    DELETE_CHECK = "delete check"
    CHANGE_QUORUM = "change quorum"
    START_PROCESS = "start process"
    END_PROCESS = "end process"
    ADD_TRACKER = "add tracker"
    EDIT_TRACKER = "edit tracker"
    DELETE_TRACKER = "delete tracker"


class Step(msgspec.Struct, frozen=True):
    """One operation on ``name``. ``detail`` says what changes, ``breaks`` what clients lose by it; both may be empty."""

    do: Do
    name: str
    detail: str = ""
    breaks: str = ""
