/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a packet was not simply forwarded: one list, counted per CPU, read by `reasons.py`, shown by `relevo status`. A new
 * reason goes to the end of its group and into both files; a test holds them together.
 */
#pragma once

enum reason {
	GO_ON = 0,

	/* Left to the kernel's own stack, unchanged. */
	PASS_NOT_IP,
	PASS_NOT_OURS,           /* no service, no connection */
	PASS_MALFORMED,          /* the stack counts and drops it */
	PASS_MARTIAN,            /* a source that no client can have */
	PASS_PROTOCOL,           /* neither TCP nor UDP nor a related ICMP error */
	PASS_NO_CONNECTION,      /* a TCP segment in the middle of nothing: the stack answers with a reset */
	PASS_CLOSED,             /* the service's address is held by another node */
	PASS_FTP_DATA,           /* a client's port 20 is never scheduled (IPVS) */
	PASS_LOCAL,              /* the server is this node */
	PASS_SLOW,               /* XDP only: the TC program does it */

	/* Answered. */
	REFUSED_NO_DESTINATION,  /* ICMP port unreachable */
	REFUSED_TTL,             /* ICMP time exceeded */
	REFUSED_TOO_BIG,         /* ICMP fragmentation needed / packet too big */
	REFUSED_ORPHAN,          /* the connection's server was removed: reset */
	REFUSED_WITH_RESET,      /* no destination, and the service says reset */

	/* Dropped. */
	DROP_TABLE_FULL,
	DROP_NO_LOCAL_PORT,      /* FULLNAT: every local port towards this server is taken */
	DROP_NO_ROUTE,
	DROP_FORWARDING_OFF,     /* neither the interface nor lo may forward: net.ipv4.ip_forward */
	DROP_FRAGMENT,           /* its first had no connection, or hides its ports, or there is no room to hold it */
	DROP_REWRITE,            /* the kernel refused to change the packet */
	DROP_ORPHAN,             /* the connection's server was removed and orphans are kept */
	DROP_REPLY_LIMIT,       /* an answer was due, but too many were sent this second */
	DROP_TOO_BIG,            /* larger than the path, and nobody may be told */
	DROP_NOT_YET,            /* the service's address has just come, and the loader has not opened the service yet */

	/* Dropped, and comes in once more. */
	AGAIN_HELD,              /* a later fragment before its first: kept till that comes, two seconds at most */
	AGAIN_RELEASED,          /* a first fragment, with those that were held for it */
	AGAIN_CUT,               /* larger than the path, and may be fragmented: in pieces */

	/* Not about one packet. */
	COUNT_EVICTED,           /* a half-open connection gave its slot to a new one */
	COUNT_SYNC_LOST,            /* the ring was full: other directors do not hear of a connection, or late */
	COUNT_TEMPLATE_FULL,     /* persistence could not be remembered */
	REASONS,
};
