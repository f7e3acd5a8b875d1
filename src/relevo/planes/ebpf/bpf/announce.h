/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling other directors of connections. The programs write entries as they go over the wire into a ring; the loader puts
 * them into messages. When a connection is worth it is IPVS's rule, but for one thing: a connection in use is told again
 * before half of its time-out has passed, so that the others never forget it first. Templates are told with their
 * connections, once in `TOLD_SHIFT` jiffies at most.
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

INLINE __u16 told_time(__u32 now)
{
	__u16 time = (__u16)(now >> TOLD_SHIFT);

	return time ? time : 1;
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

#define NOTHING_TO_TELL (-1)

/* Announces the entry at place `number`, whatever it is; 0 when that is in the ring, less when the ring is full. */
GLOBAL int announce(__u32 number, __u32 which)
{
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(which);
	struct connection *e = at_place(number);
	struct sync_entry *entry;
	struct service *service;
	struct server *s;
	__be32 mark = 0;
	__u32 key;
	long failed;

	if (!settings || !work || !e)
		return NOTHING_TO_TELL;
	key = e->server;
	s = bpf_map_lookup_elem(&servers, &key);
	if (!s || s->generation != e->generation)
		return NOTHING_TO_TELL;
	key = s->service;
	service = bpf_map_lookup_elem(&services, &key);
	if (!service)
		return NOTHING_TO_TELL;
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
	failed = entry->type ? bpf_ringbuf_output(&announcements, entry, SYNC_V6, 0) : bpf_ringbuf_output(&announcements, entry, SYNC_V4, 0);
	if (failed)
		count(COUNT_UNTOLD);
	else
		e->told = told_time((__u32)bpf_jiffies64());
	return (int)failed;
}

/* States that other directors hear of; a connection that is not established yet may still be nothing. */
INLINE int is_told_state(__u8 state)
{
	return state == STATE_ESTABLISHED || state == STATE_FIN_WAIT || state == STATE_CLOSE || state == STATE_CLOSE_WAIT ||
	       state == STATE_TIME_WAIT || state == STATE_UDP;
}

/* The entry of a FULLNAT connection would be of no use: its server knows it by an address and a port of this node. */
INLINE int can_be_told(const struct connection *e)
{
	return !(e->flags & CONNECTION_FULLNAT) && ((e->flags & CONNECTION_TEMPLATE) || is_told_state(e->state));
}

INLINE int is_due(const struct settings *s, const struct connection *e, __u16 time)
{
	__u16 packets = e->packets, period = s->sync_period;

	if ((period ? packets % period : packets) == s->sync_threshold)
		return 1;
	return e->told && (__u16)(time - e->told) > s->timeout[e->state & (TIMEOUTS - 1)] >> (TOLD_SHIFT + 1);
}

/* A packet has passed on the connection at place `number`, and `changed` its state or not: announces it if that is due. */
GLOBAL int consider(__u32 number, __u32 changed)
{
	struct connection *e = at_place(number), *template;
	struct settings *settings = the_settings();
	struct packet *p = the_packet();
	__u16 time;

	if (!settings || !p || !e || !can_be_told(e))
		return 0;
	time = told_time(p->now);
	if (!(changed && e->state != STATE_ESTABLISHED) && !is_due(settings, e, time))
		return 0;
	announce(number, 0);
	template = template_of(e, e->master);
	if (template && template->told != time)
		announce(e->master - 1, 0);
	return 0;
}
