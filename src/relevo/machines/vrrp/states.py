"""States, inputs and transitions of a virtual router (RFC 9568 §6.4, with keepalived's additions).

::

              start              master-down timer, GROUP_MASTER
     INIT ────────────▶ BACKUP ─────────────────────────────────▶ MASTER
      ▲                  ▲   ◀───────────────────────────────────  │  │
      │           recover│   ADVERT_HIGHER, GROUP_BACKUP           │  │hand_over
      │                  │                                         │  ▼
      │                FAULT ◀── fail (from any running state)     │ HANDING_OVER ─▶ BACKUP, or MASTER again
      │                                                        stop│
      └────────────────── LEAVING ◀────────────────────────────────┘

Two states are not in the RFC:

* **LEAVING.** A graceful stop sends priority 0 at once, but keeps the addresses until the first advert of the successor, at
  most one advert interval. The RFC and keepalived remove the addresses first, so that no router answers during the skew time.
* **HANDING_OVER.** The same for a planned hand-over. It ends as BACKUP, or as MASTER if no other router takes over.

How to read the table. ``VrrpMachine`` classifies each input into one symbol: an advert with priority 0 and one with a lower
priority are different columns, so no action compares priorities. It looks up (state, symbol), calls the method that the rule
names, and checks that the state it leaves is one of the rule's. A pair that cannot happen is absent and raises
``ImpossibleTransition``; a pair without consequence says ``_ignore``, which shows a reviewer that it was considered. The tests
give every symbol to every state.
"""

from __future__ import annotations

import enum
from typing import Final

from relevo.machines.machine import Rule


class State(enum.StrEnum):
    """States of RFC 9568 §6.4 and of keepalived, and two more."""

    INIT = "INIT"
    BACKUP = "BACKUP"
    MASTER = "MASTER"
    FAULT = "FAULT"
    LEAVING = "LEAVING"
    """The router has sent priority 0 and keeps its addresses until the successor sends an advert."""
    HANDING_OVER = "HANDING_OVER"
    """The same for a planned hand-over: then BACKUP, or MASTER again without a successor."""


class Symbol(enum.StrEnum):
    """Columns of the transition table: every input and timer, classified against the router's own priority."""

    START = "start"
    STOP = "stop"
    FAIL = "fail"
    RECOVER = "recover"
    PRIORITY = "priority"
    ADVERT_ZERO = "advert_zero"
    ADVERT_HIGHER = "advert_higher"
    ADVERT_LOWER = "advert_lower"
    CLAIM = "claim"
    GROUP_MASTER = "group_master"
    GROUP_BACKUP = "group_backup"
    HAND_OVER = "hand_over"
    RESTORE = "restore"
    RECONFIGURE = "reconfigure"
    RESTART = "restart"
    PLANE = "plane"
    MASTER_DOWN_TIMER = "master_down_timer"
    ADVERT_TIMER = "advert_timer"
    GARP_TIMER = "garp_timer"
    REFRESH_TIMER = "refresh_timer"
    LEAVE_TIMER = "leave_timer"
    LAST_WORD_TIMER = "last_word_timer"
    DEFEND_TIMER = "defend_timer"


TIMERS: Final = (
    Symbol.MASTER_DOWN_TIMER,
    Symbol.ADVERT_TIMER,
    Symbol.GARP_TIMER,
    Symbol.REFRESH_TIMER,
    Symbol.LEAVE_TIMER,
    Symbol.LAST_WORD_TIMER,
    Symbol.DEFEND_TIMER,
)

_I, _B, _M, _F, _L, _H = State.INIT, State.BACKUP, State.MASTER, State.FAULT, State.LEAVING, State.HANDING_OVER

TRANSITIONS: Final = {
    # State: INIT. Before the start, and after the stop.
    (_I, Symbol.START): Rule("_start", (_B, _M, _F)),
    (_I, Symbol.STOP): Rule("_ignore", (_I,)),
    (_I, Symbol.FAIL): Rule("_ignore", (_I,)),
    (_I, Symbol.RECOVER): Rule("_ignore", (_I,)),
    (_I, Symbol.PRIORITY): Rule("_ignore", (_I,)),
    (_I, Symbol.ADVERT_ZERO): Rule("_ignore", (_I,)),
    (_I, Symbol.ADVERT_HIGHER): Rule("_ignore", (_I,)),
    (_I, Symbol.ADVERT_LOWER): Rule("_ignore", (_I,)),
    (_I, Symbol.CLAIM): Rule("_ignore", (_I,)),
    (_I, Symbol.GROUP_MASTER): Rule("_ignore", (_I,)),
    (_I, Symbol.GROUP_BACKUP): Rule("_ignore", (_I,)),
    (_I, Symbol.HAND_OVER): Rule("_ignore", (_I,)),
    (_I, Symbol.RESTORE): Rule("_ignore", (_I,)),
    (_I, Symbol.RECONFIGURE): Rule("_ignore", (_I,)),
    (_I, Symbol.RESTART): Rule("_ignore", (_I,)),
    (_I, Symbol.PLANE): Rule("_ignore", (_I,)),
    # State: BACKUP. RFC 9568 §6.4.2: receives adverts; takes over when the master-down timer fires.
    (_B, Symbol.STOP): Rule("_stop", (_I,)),
    (_B, Symbol.FAIL): Rule("_fail", (_F,)),
    (_B, Symbol.PRIORITY): Rule("_ignore", (_B,)),
    (_B, Symbol.ADVERT_ZERO): Rule("_shorten_wait", (_B,)),
    (_B, Symbol.ADVERT_HIGHER): Rule("_follow", (_B,)),
    (_B, Symbol.ADVERT_LOWER): Rule("_consider_preemption", (_B,)),
    (_B, Symbol.CLAIM): Rule("_hear_announcement", (_B,)),
    (_B, Symbol.GROUP_MASTER): Rule("_take_over_with_group", (_M,)),
    (_B, Symbol.GROUP_BACKUP): Rule("_wait_again", (_B,)),
    (_B, Symbol.HAND_OVER): Rule("_suppress_preemption", (_B,)),
    (_B, Symbol.RESTORE): Rule("_restore", (_B,)),
    (_B, Symbol.RECONFIGURE): Rule("_wait_no_longer", (_B,)),
    (_B, Symbol.RESTART): Rule("_start_over", (_B,)),
    (_B, Symbol.PLANE): Rule("_take_plane_up", (_B,)),
    (_B, Symbol.MASTER_DOWN_TIMER): Rule("_take_over", (_M, _B)),
    (_B, Symbol.LAST_WORD_TIMER): Rule("_say_last_word", (_B,)),
    # State: MASTER. RFC 9568 §6.4.3: advertises; yields to a higher priority only.
    (_M, Symbol.STOP): Rule("_leave", (_L,)),
    (_M, Symbol.FAIL): Rule("_fail", (_F,)),
    (_M, Symbol.PRIORITY): Rule("_ignore", (_M,)),
    (_M, Symbol.ADVERT_ZERO): Rule("_answer_zero", (_M,)),
    (_M, Symbol.ADVERT_HIGHER): Rule("_give_way", (_B,)),
    (_M, Symbol.ADVERT_LOWER): Rule("_outrank", (_M,)),
    (_M, Symbol.CLAIM): Rule("_hear_claim", (_M,)),
    (_M, Symbol.GROUP_MASTER): Rule("_ignore", (_M,)),
    (_M, Symbol.GROUP_BACKUP): Rule("_give_way_with_group", (_B,)),
    (_M, Symbol.HAND_OVER): Rule("_begin_hand_over", (_H,)),
    (_M, Symbol.RESTORE): Rule("_ignore", (_M,)),
    (_M, Symbol.RECONFIGURE): Rule("_retime", (_M,)),
    (_M, Symbol.RESTART): Rule("_start_over", (_B,)),
    (_M, Symbol.PLANE): Rule("_ignore", (_M,)),
    (_M, Symbol.ADVERT_TIMER): Rule("_advertise", (_M,)),
    (_M, Symbol.GARP_TIMER): Rule("_announce_again", (_M,)),
    (_M, Symbol.REFRESH_TIMER): Rule("_refresh", (_M,)),
    (_M, Symbol.DEFEND_TIMER): Rule("_defend", (_M,)),
    # State: FAULT. It has a fault: no adverts until it recovers.
    (_F, Symbol.STOP): Rule("_stop", (_I,)),
    (_F, Symbol.RECOVER): Rule("_recover", (_B,)),
    (_F, Symbol.PRIORITY): Rule("_ignore", (_F,)),
    (_F, Symbol.ADVERT_ZERO): Rule("_ignore", (_F,)),
    (_F, Symbol.ADVERT_HIGHER): Rule("_ignore", (_F,)),
    (_F, Symbol.ADVERT_LOWER): Rule("_ignore", (_F,)),
    (_F, Symbol.CLAIM): Rule("_hear_announcement", (_F,)),
    (_F, Symbol.GROUP_MASTER): Rule("_ignore", (_F,)),
    (_F, Symbol.GROUP_BACKUP): Rule("_ignore", (_F,)),
    (_F, Symbol.HAND_OVER): Rule("_ignore", (_F,)),
    (_F, Symbol.RESTORE): Rule("_restore", (_F,)),
    (_F, Symbol.RECONFIGURE): Rule("_ignore", (_F,)),
    (_F, Symbol.RESTART): Rule("_ignore", (_F,)),
    (_F, Symbol.PLANE): Rule("_ignore", (_F,)),
    # State: LEAVING. The successor's first advert, the timer or a second stop ends it.
    (_L, Symbol.STOP): Rule("_release", (_I,)),
    (_L, Symbol.FAIL): Rule("_release", (_I,)),
    (_L, Symbol.PRIORITY): Rule("_ignore", (_L,)),
    (_L, Symbol.ADVERT_ZERO): Rule("_ignore", (_L,)),
    (_L, Symbol.ADVERT_HIGHER): Rule("_release", (_I,)),
    (_L, Symbol.ADVERT_LOWER): Rule("_release", (_I,)),
    (_L, Symbol.CLAIM): Rule("_ignore", (_L,)),
    (_L, Symbol.GROUP_MASTER): Rule("_ignore", (_L,)),
    (_L, Symbol.GROUP_BACKUP): Rule("_ignore", (_L,)),
    (_L, Symbol.HAND_OVER): Rule("_ignore", (_L,)),
    (_L, Symbol.RESTORE): Rule("_ignore", (_L,)),
    (_L, Symbol.RECONFIGURE): Rule("_ignore", (_L,)),
    (_L, Symbol.RESTART): Rule("_ignore", (_L,)),
    (_L, Symbol.PLANE): Rule("_ignore", (_L,)),
    (_L, Symbol.LEAVE_TIMER): Rule("_release", (_I,)),
    # State: HANDING_OVER. A planned hand-over: the successor's first advert ends it, or the timer when there is no successor.
    (_H, Symbol.STOP): Rule("_release", (_I,)),
    (_H, Symbol.FAIL): Rule("_fail", (_F,)),
    (_H, Symbol.PRIORITY): Rule("_ignore", (_H,)),
    (_H, Symbol.ADVERT_ZERO): Rule("_ignore", (_H,)),
    (_H, Symbol.ADVERT_HIGHER): Rule("_finish_hand_over", (_B,)),
    (_H, Symbol.ADVERT_LOWER): Rule("_finish_hand_over", (_B,)),
    (_H, Symbol.CLAIM): Rule("_ignore", (_H,)),
    (_H, Symbol.GROUP_MASTER): Rule("_ignore", (_H,)),
    (_H, Symbol.GROUP_BACKUP): Rule("_give_way_with_group", (_B,)),
    (_H, Symbol.HAND_OVER): Rule("_ignore", (_H,)),
    (_H, Symbol.RESTORE): Rule("_stay", (_M,)),
    (_H, Symbol.RECONFIGURE): Rule("_ignore", (_H,)),
    (_H, Symbol.RESTART): Rule("_start_over", (_B,)),
    (_H, Symbol.PLANE): Rule("_ignore", (_H,)),
    (_H, Symbol.LEAVE_TIMER): Rule("_stay", (_M,)),
}
"""(state, symbol) → action and possible next states. Leaving a state cancels its timers."""
