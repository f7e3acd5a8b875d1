/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a packet was not simply forwarded. The programs count each reason per CPU; `relevo status` shows the sums. A new reason
 * goes to the end of its group here and in `reasons.py`; a test compares the two.
 */
#pragma once

enum reason {
	GO_ON = 0,

	/* Passed to the kernel's stack unchanged. */
	PASS_NOT_IP,
	PASS_NOT_OURS,           /* no service, no connection */
	PASS_MALFORMED,          /* the stack counts and drops it */
	PASS_MARTIAN,            /* a source that no client can have */
	PASS_PROTOCOL,           /* neither TCP nor UDP nor a related ICMP error */
	PASS_NO_CONNECTION,      /* a TCP segment without a connection: the stack replies with a reset */
	PASS_CLOSED,             /* another node has the service's address */
	PASS_FTP_DATA,           /* a client's port 20 is never scheduled (IPVS) */
	PASS_LOCAL,              /* the server is this node */
	PASS_SLOW,               /* XDP only: the TC program handles it */

	/* Refused with a reply. */
	REFUSED_NO_DESTINATION,  /* ICMP port unreachable */
	REFUSED_TTL,             /* ICMP time exceeded */
	REFUSED_TOO_BIG,         /* ICMP fragmentation needed / packet too big */
	REFUSED_ORPHAN,          /* the connection's server was removed: reset */
	REFUSED_WITH_RESET,      /* no destination, in a service with refuse_with reset */

	/* Dropped. */
	DROP_TABLE_FULL,
	DROP_NO_LOCAL_PORT,      /* FULLNAT: all local ports towards this server are in use */
	DROP_NO_ROUTE,
	DROP_FORWARDING_OFF,     /* neither the interface nor lo may forward: net.ipv4.ip_forward */
	DROP_FRAGMENT,           /* no connection for its first one, or too short for its ports, or no room to hold it */
	DROP_REWRITE,            /* the kernel refused to change the packet */
	DROP_ORPHAN,             /* the connection's server was removed and orphans are kept */
	DROP_REPLY_LIMIT,        /* a reply was due, but the limit of this second is reached */
	DROP_TOO_BIG,            /* exceeds the MTU, and no error may be sent about it */
	DROP_NOT_YET,            /* this node has just got the service's address, and the loader has not opened the service yet */

	/* Dropped; the frame or its fragments are sent to the ingress again. */
	AGAIN_HELD,              /* a later fragment before its first one: held until that arrives, two seconds at most */
	AGAIN_RELEASED,          /* a first fragment, with the ones that were held for it */
	AGAIN_CUT,               /* exceeds the MTU and may be fragmented: its fragments */

	/* Not about one packet. */
	COUNT_EVICTED,           /* a new connection took the slot of a half-open one */
	COUNT_SYNC_LOST,         /* the sync ring was full: peers get a connection late or never */
	COUNT_TEMPLATE_FULL,     /* no room for a persistence template */
	REASONS,
};
