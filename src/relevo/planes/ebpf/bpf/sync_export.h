/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sync export: connections for other directors. The programs write entries in wire format into a ring; the loader puts
 * them into messages. IPVS's rule decides when a connection is synced (by packet count, by time since the last sync, or
 * both), with three differences. A connection in use is synced again at the first packet after half of its time-out, so
 * that peers do not expire it. A connection that was never synced from here, because the ring was full or because it came
 * from another director, is synced at its next packet. A template is synced once a second at most.
 */
#pragma once
#include "connection.h"

#define SYNC_NO_OUTPUT 0x0080
#define SYNC_INACTIVE 0x0100
#define SYNC_TEMPLATE 0x1000
#define SYNC_METHOD_TUN 2
#define SYNC_METHOD_DR 3

#define SYNC_HEAD __builtin_offsetof(struct sync_entry, addresses)
#define SYNC_V4 (SYNC_HEAD + 3 * 4)
#define SYNC_V6 (SYNC_HEAD + 3 * 16)

#define LAST_SYNC_RETRIES 3
#define LAST_SYNC_TICK_BITS 14
#define TICKS_MAX (1 << (LAST_SYNC_TICK_BITS - 1)) /* half of the range: longer times are cut to it */
#define TICKS_ASKEW 4                     /* another CPU's clock may be ahead by so much */

/* Returns the time `now` as `last_sync` stores it; never 0. */
INLINE __u16 last_sync_time(const struct settings *s, __u32 now)
{
	__u16 time = (__u16)(now >> (s->tick_shift & 31)) << 2;

	return time ? time : 1 << 2;
}

INLINE __u32 ticks_since(__u16 last_sync, __u16 time)
{
	__u32 ticks = (__u16)(time - (last_sync & ~LAST_SYNC_RETRIES)) >> 2;

	return ticks < (1 << LAST_SYNC_TICK_BITS) - TICKS_ASKEW ? ticks : 0;
}

INLINE __u32 in_ticks(const struct settings *s, __u32 jiffies)
{
	__u32 ticks = jiffies >> (s->tick_shift & 31);

	return ticks < TICKS_MAX ? ticks : TICKS_MAX;
}

INLINE __u32 sync_flags(const struct connection *e, const struct server *s)
{
	__u32 flags = 0;

	if (s->forwarding == FORWARDING_DR)
		flags = SYNC_METHOD_DR;
	else if (s->forwarding == FORWARDING_TUN)
		flags = SYNC_METHOD_TUN;
	if (e->flags & CONNECTION_TEMPLATE)
		return flags | SYNC_TEMPLATE | SYNC_INACTIVE;
	if (s->forwarding == FORWARDING_DR || s->forwarding == FORWARDING_TUN)
		flags |= SYNC_NO_OUTPUT;
	return e->flags & CONNECTION_ACTIVE ? flags : flags | SYNC_INACTIVE;
}

INLINE void write_ends(struct sync_entry *entry, const struct connection *e, const struct server *s, __be32 mark)
{
	__be32 *v4 = (__be32 *)entry->addresses;

	if (is_v4(&e->client)) {
		entry->type = 0;
		entry->length = be16(SYNC_V4);
		v4[0] = get_v4(&e->client);
		v4[1] = get_v4(&e->virtual);
		v4[2] = get_v4(&s->address);
		return;
	}
	entry->type = 1;
	entry->length = be16(SYNC_V6);
	put_v6(v4, &e->client);
	put_v6(v4 + 4, &e->virtual);
	put_v6(v4 + 8, &s->address);
	if (mark && (e->flags & CONNECTION_TEMPLATE)) { /* as IPVS writes it: the mark, then zeros */
		v4[4] = mark;
		v4[5] = v4[6] = v4[7] = 0;
	}
}

/* Persistence time-out of the entry's service in jiffies; 0 when it has none. */
INLINE __u32 persistence_of(const struct connection *e)
{
	__u32 key = e->server;
	struct server *s = bpf_map_lookup_elem(&servers, &key);
	struct service *service;

	if (!s || s->generation != e->generation)
		return 0;
	key = s->service;
	service = bpf_map_lookup_elem(&services, &key);
	return service ? service->persistence : 0;
}

/* Whether only the template of this connection is synced (sync_persist_mode). */
INLINE int template_suffices(const struct settings *s, const struct connection *e)
{
	return s->flags & SETTING_SYNC_TEMPLATES_ONLY && !(e->flags & CONNECTION_TEMPLATE) && persistence_of(e);
}

enum export_result { NOTHING_TO_EXPORT, EXPORTED, RING_FULL };

/* Writes the entry in slot `number` into the ring, using scratch buffer `scratch`. Returns an enum export_result. */
GLOBAL int export_connection(__u32 number, __u32 scratch)
{
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(scratch);
	struct connection *e = at_place(number);
	struct sync_entry *entry;
	struct service *service;
	struct server *s;
	__be32 mark = 0;
	__u32 key;
	long failed;

	if (!settings || !work || !e)
		return NOTHING_TO_EXPORT;
	key = e->server;
	s = bpf_map_lookup_elem(&servers, &key);
	if (!s || s->generation != e->generation)
		return NOTHING_TO_EXPORT;
	key = s->service;
	service = bpf_map_lookup_elem(&services, &key);
	if (!service)
		return NOTHING_TO_EXPORT;
	if (!service->protocol)
		mark = get_v4(&service->address);
	entry = &work->entry;
	entry->protocol = e->protocol;
	entry->flags = be32(sync_flags(e, s));
	entry->client_port = e->client_port;
	entry->virtual_port = e->virtual_port;
	entry->server_port = server_port(e, s);
	entry->mark = mark;
	if (e->flags & CONNECTION_TEMPLATE) {
		entry->state = be16(e->flags & CONNECTION_ASSURED ? 1 : 0);
		entry->seconds = be32(service->persistence / settings->hz);
		if (!e->virtual_port)
			entry->server_port = 0; /* one template for every port */
	} else {
		entry->state = e->state == STATE_UDP ? 0 : be16(e->state);
		entry->seconds = be32(settings->timeout[e->state & (TIMEOUTS - 1)] / settings->hz);
	}
	write_ends(entry, e, s, mark);
	failed = entry->type ? bpf_ringbuf_output(&sync_ring, entry, SYNC_V6, 0) : bpf_ringbuf_output(&sync_ring, entry, SYNC_V4, 0);
	if (failed)
		return RING_FULL;
	e->last_sync = last_sync_time(settings, (__u32)bpf_jiffies64());
	return EXPORTED;
}

/* States that other directors hear of; a connection that is not established yet may still be nothing. */
INLINE int is_synced_state(__u8 state)
{
	return state == STATE_ESTABLISHED || state == STATE_FIN_WAIT || state == STATE_CLOSE || state == STATE_CLOSE_WAIT ||
	       state == STATE_TIME_WAIT || state == STATE_UDP;
}

/* FULLNAT connections are not synced: the server knows them by an address and a port of this node. */
INLINE int can_sync(const struct connection *e)
{
	return !(e->flags & CONNECTION_FULLNAT) && ((e->flags & CONNECTION_TEMPLATE) || is_synced_state(e->state));
}

/* The due_* functions return NOT_DUE, 0 for a sync that is due, or the number of the retry. */
#define NOT_DUE (-1)

/*
 * By the time since the last sync (sync_refresh_period, sync_retries): due after the period or half of the time-out,
 * whichever is shorter. Within that time there are `sync_retries` retries, in case a message was lost.
 */
INLINE int due_by_time(const struct settings *s, __u16 last_sync, __u32 since, __u32 timeout)
{
	__u32 refresh = in_ticks(s, s->sync_refresh), half = in_ticks(s, timeout) / 2;

	if (since >= (refresh < half ? refresh : half))
		return 0;
	if ((last_sync & LAST_SYNC_RETRIES) >= s->sync_retries || since < (refresh + 7) / 8)
		return NOT_DUE;
	return (last_sync & LAST_SYNC_RETRIES) + 1;
}

INLINE int due_by_count(const struct settings *s, __u16 packets, int last_sync)
{
	__u16 period = s->sync_period, first = s->sync_threshold ? s->sync_threshold : period;

	if (!last_sync && packets > first)
		return 1;
	if (period)
		return packets % period == s->sync_threshold;
	return s->sync_refresh || packets == s->sync_threshold;
}

INLINE int connection_due(const struct settings *s, const struct connection *e, __u16 time, __u32 changed)
{
	__u32 timeout = s->timeout[e->state & (TIMEOUTS - 1)], since = ticks_since(e->last_sync, time);
	int due = 0;

	if (changed && e->state != STATE_ESTABLISHED)
		return 0;
	if (e->last_sync && since > in_ticks(s, timeout) / 2)
		return 0;
	if (s->sync_refresh && e->last_sync && !changed)
		due = due_by_time(s, e->last_sync, since, timeout);
	return due_by_count(s, e->packets, e->last_sync) ? due : NOT_DUE;
}

/* A template one of whose connections was just synced (`with_connection`), or passed a packet. */
INLINE int template_due(const struct settings *s, const struct connection *t, __u16 time, int with_connection)
{
	__u32 since = ticks_since(t->last_sync, time), timeout;

	if (!t->last_sync)
		return 0;
	if (since < in_ticks(s, s->hz))
		return NOT_DUE;
	timeout = persistence_of(t);
	if (s->sync_refresh)
		return due_by_time(s, t->last_sync, since, timeout);
	return with_connection || since > in_ticks(s, timeout) / 2 ? 0 : NOT_DUE;
}

/* Exports the entry in slot `number` as retry `due`. When the ring is full, the entry is counted as lost and left for its next packet. */
INLINE void export_due(__u32 number, struct connection *e, int due)
{
	int result = export_connection(number, 0);

	if (result == EXPORTED)
		e->last_sync |= due;
	else if (result == RING_FULL)
		count(COUNT_SYNC_LOST);
}

/* Exports the connection in slot `number`, and its template, if a sync is due. `changed`: the last packet changed its state. */
GLOBAL int maybe_sync(__u32 number, __u32 changed)
{
	struct connection *e = at_place(number), *template;
	struct settings *settings = the_settings();
	struct packet *p = the_packet();
	int due, template_export;
	__u16 time;

	if (!settings || !p || !e || !can_sync(e))
		return 0;
	time = last_sync_time(settings, p->now);
	due = connection_due(settings, e, time, changed);
	template = template_of(e, e->master);
	if (due != NOT_DUE) {
		if (template_suffices(settings, e))
			e->last_sync = time | due; /* its template is then synced as often as the connection would be */
		else
			export_due(number, e, due);
	}
	if (!template)
		return 0;
	template_export = template_due(settings, template, time, due != NOT_DUE);
	if (template_export != NOT_DUE)
		export_due(e->master - 1, template, template_export);
	return 0;
}
