/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP states of IPVS. A balancer sees packets, not sockets, and with DR or TUN only the client's packets, so there are
 * three tables: for the client's packets, for the server's, and for connections of which only the client's pass.
 */
#pragma once
#include "sync_export.h"

enum tcp_event { EVENT_SYN, EVENT_FIN, EVENT_ACK, EVENT_RST };
enum tcp_view { VIEW_INPUT, VIEW_OUTPUT, VIEW_INPUT_ONLY };

#define NO STATE_NONE
#define ES STATE_ESTABLISHED
#define SS STATE_SYN_SENT
#define SR STATE_SYN_RECV
#define FW STATE_FIN_WAIT
#define TW STATE_TIME_WAIT
#define CL STATE_CLOSE
#define CW STATE_CLOSE_WAIT
#define LA STATE_LAST_ACK
#define LI STATE_LISTEN
#define SA STATE_SYNACK

/* [secure_tcp * 4 + view][state][event: SYN FIN ACK RST] → next state */
static const __u8 tcp_table[8][16][4] = {
	[VIEW_INPUT] = {
		[NO] = {SR, CL, ES, CL}, [ES] = {ES, CW, ES, CL}, [SS] = {ES, SS, SS, CL}, [SR] = {SR, TW, ES, SR},
		[FW] = {SR, TW, FW, CL}, [TW] = {SR, TW, TW, CL}, [CL] = {SR, CL, CL, CL}, [CW] = {SR, CW, CW, CL},
		[LA] = {SR, LA, CL, LA}, [LI] = {SR, LI, LI, LI}, [SA] = {SR, TW, ES, SR},
	},
	[VIEW_OUTPUT] = {
		[NO] = {SS, TW, ES, CL}, [ES] = {ES, FW, ES, CL}, [SS] = {SS, SS, SS, SS}, [SR] = {SR, TW, ES, CL},
		[FW] = {SS, FW, FW, CL}, [TW] = {SS, TW, TW, TW}, [CL] = {SS, CL, CL, CL}, [CW] = {SS, TW, CW, CL},
		[LA] = {SS, LA, LA, CL}, [LI] = {LI, LI, ES, CL}, [SA] = {SR, TW, ES, CL},
	},
	[VIEW_INPUT_ONLY] = {
		[NO] = {SR, CL, ES, CL}, [ES] = {ES, FW, ES, CL}, [SS] = {ES, SS, SS, CL}, [SR] = {SR, TW, ES, SR},
		[FW] = {SR, FW, FW, CL}, [TW] = {SR, TW, TW, CL}, [CL] = {SR, CL, CL, CL}, [CW] = {SR, CW, CW, CL},
		[LA] = {SR, LA, CL, LA}, [LI] = {SR, LI, LI, LI}, [SA] = {SR, TW, ES, CL},
	},
	[4 + VIEW_INPUT] = {
		[NO] = {SR, CL, ES, CL}, [ES] = {ES, CW, ES, CL}, [SS] = {ES, SS, SS, CL}, [SR] = {SR, TW, SR, SR},
		[FW] = {SR, TW, FW, CL}, [TW] = {SR, TW, TW, CL}, [CL] = {SR, CL, CL, CL}, [CW] = {SR, CW, CW, CL},
		[LA] = {SR, LA, CL, LA}, [LI] = {SR, LI, LI, LI}, [SA] = {SA, SA, SA, CL},
	},
	[4 + VIEW_OUTPUT] = {
		[NO] = {SS, TW, ES, CL}, [ES] = {ES, FW, ES, CL}, [SS] = {SS, SS, SS, SS}, [SR] = {SA, TW, ES, CL},
		[FW] = {SS, FW, FW, CL}, [TW] = {SS, TW, TW, TW}, [CL] = {SS, CL, CL, CL}, [CW] = {SS, TW, CW, CL},
		[LA] = {SS, LA, LA, CL}, [LI] = {LI, LI, ES, CL}, [SA] = {SA, TW, ES, CL},
	},
	[4 + VIEW_INPUT_ONLY] = {
		[NO] = {SA, CL, ES, CL}, [ES] = {ES, FW, ES, CL}, [SS] = {ES, SS, SS, CL}, [SR] = {SR, TW, ES, SR},
		[FW] = {SA, FW, FW, CL}, [TW] = {SA, TW, TW, CL}, [CL] = {SA, CL, CL, CL}, [CW] = {SA, CW, CW, CL},
		[LA] = {SA, LA, CL, LA}, [LI] = {SA, LI, LI, LI}, [SA] = {SA, TW, ES, CL},
	},
};

#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

INLINE int is_active_state(__u8 state)
{
	return state == STATE_ESTABLISHED || state == STATE_SYN_SENT || state == STATE_SYN_RECV || state == STATE_SYNACK;
}

/* One event per segment: RST, else SYN, else FIN, else ACK; a segment with none of them closes the connection (IPVS). */
INLINE __u8 next_tcp_state(const struct settings *s, __u8 state, __u8 flags, enum tcp_view view)
{
	__u32 event, row = view + (s->flags & SETTING_SECURE_TCP ? 4 : 0);

	if (flags & TCP_RST)
		event = EVENT_RST;
	else if (flags & TCP_SYN)
		event = EVENT_SYN;
	else if (flags & TCP_FIN)
		event = EVENT_FIN;
	else if (flags & TCP_ACK)
		event = EVENT_ACK;
	else
		return STATE_CLOSE;
	BOUND(row, 7);
	return tcp_table[row][state & 15][event];
}

INLINE __u32 expiry(const struct settings *s, __u8 state, __u32 now)
{
	return now + s->timeout[state & (TIMEOUTS - 1)];
}

/*
 * States after the end of the connection, where the entry remains only for stray segments. Such an entry no longer keeps its
 * template: the template expires one persistence time-out after the client's last connection, two minutes earlier than in
 * IPVS.
 */
INLINE int is_closed_state(__u8 state)
{
	return state == STATE_TIME_WAIT || state == STATE_CLOSE || state == STATE_LAST_ACK;
}

INLINE void release_template(const struct connection *e, __u32 master)
{
	struct connection *template = template_of(e, master);

	if (template)
		ADD(template->master, -1);
}

/* Marks the template as assured: one of its connections was established or answered. */
INLINE void mark_assured(const struct connection *e, __u32 master)
{
	struct connection *template = template_of(e, master);

	if (template && !(template->flags & CONNECTION_ASSURED))
		template->flags |= CONNECTION_ASSURED;
}

/* Moves the entry in slot `number` from state `former` to `state` and corrects the counters. Only the first CPU succeeds. */
GLOBAL int change_state(__u32 number, __u32 former, __u32 state)
{
	__u32 bucket = number / BUCKET_SLOTS, slot = number % BUCKET_SLOTS, was = 0, is = 0, moved = 0, master = 0;
	struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(0);
	struct connection *e;
	struct server *server;

	if (!b || !settings || !work)
		return 0;
	e = &b->slot[slot];
	bpf_spin_lock(&b->lock);
	if (b->tag[slot] && e->state == (__u8)former) {
		was = e->flags;
		is = is_active_state(state) ? was | CONNECTION_ACTIVE : was & ~CONNECTION_ACTIVE;
		e->state = state;
		e->flags = is;
		master = e->master;
		if (is_closed_state(state))
			e->master = 0;
		moved = 1;
	}
	bpf_spin_unlock(&b->lock);
	if (!moved)
		return 0;
	if (state == STATE_ESTABLISHED)
		mark_assured(e, master);
	else if (is_closed_state(state))
		release_template(e, master);
	bucket = e->server;
	server = bpf_map_lookup_elem(&servers, &bucket);
	if (server && counts_for(server, e->generation) && ((was ^ is) & CONNECTION_ACTIVE)) {
		int step = is & CONNECTION_ACTIVE ? 1 : -1;

		ADD(server->active, step);
		ADD(server->inactive, -step);
	}
	return 0;
}

/* Updates state, time-out and counters for a packet of an existing connection, and exports the connection if due. */
INLINE void advance(const struct settings *s, const struct packet *p, struct place *place, enum direction direction)
{
	struct connection *e = place->entry;
	__u8 state = e->state, next = state;
	__u32 expires;

	if (direction == TO_SERVER)
		e->packets += 1;
	if (p->protocol == IPPROTO_TCP && likely(p->fragment != LATER_FRAGMENT)) {
		enum tcp_view view = direction == TO_CLIENT ? VIEW_OUTPUT : e->flags & CONNECTION_NO_OUTPUT ? VIEW_INPUT_ONLY : VIEW_INPUT;

		next = next_tcp_state(s, state, p->tcp_flags, view);
	} else if (p->protocol == IPPROTO_UDP && direction == TO_CLIENT && unlikely(e->master)) {
		mark_assured(e, e->master);
	}
	expires = expiry(s, next, p->now);
	if (e->expires != expires)
		e->expires = expires; /* at most once a jiffy: the cache line stays shared in between */
	if (unlikely(next != state))
		change_state(place->number, state, next);
	if (unlikely(p->flags & SETTING_SYNC) && (direction == TO_SERVER || next != state))
		maybe_sync(place->number, next != state);
}
