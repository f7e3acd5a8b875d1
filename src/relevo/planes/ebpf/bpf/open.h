/* SPDX-License-Identifier: Apache-2.0 */
/* Opens connections: checks the packet, picks a server (by template, else by the scheduler), and inserts the entry. */
#pragma once
#include "parse.h"
#include "schedule.h"
#include "service.h"
#include "state.h"

#define FTP_DATA be16(20)

/* GO_ON if the packet may open a connection, else the reason why not. */
INLINE enum reason may_open(const struct packet *p, const struct service *service)
{
	if (service->flags & SERVICE_CLOSED)
		return PASS_CLOSED;
	if (p->quoted)
		return PASS_NO_CONNECTION;
	if (p->source_port == FTP_DATA)
		return PASS_FTP_DATA;
	if (p->fragment == LATER_FRAGMENT)
		return DROP_FRAGMENT;
	if (p->protocol != IPPROTO_TCP)
		return GO_ON;
	if (p->tcp_flags & TCP_RST)
		return PASS_NO_CONNECTION;
	if (!(p->tcp_flags & TCP_SYN) && !(p->flags & SETTING_SLOPPY_TCP))
		return PASS_NO_CONNECTION;
	return GO_ON;
}

/* Fills in the key of the template of `p`'s client. */
INLINE void describe_template(const struct packet *p, const struct service *service, struct connection *t)
{
	__builtin_memset(t, 0, sizeof(*t));
	t->client.half[0] = p->source.half[0] & service->mask.half[0];
	t->client.half[1] = p->source.half[1] & service->mask.half[1];
	t->virtual = service->address;
	t->virtual_port = service->port;
	t->protocol = service->protocol;
	t->flags = CONNECTION_TEMPLATE;
}

/* Whether a template's server can still be used. */
INLINE int usable(const struct packet *p, const struct connection *t, const struct server *s)
{
	if (s->generation != t->generation)
		return 0;
	return s->weight || !(p->flags & SETTING_EXPIRE_QUIESCENT);
}

/*
 * Template lookup: returns the server of the client's template, or 0 when there is no template or its server was removed. The
 * template's slot + 1 is left in the scratch's `fresh.master`. A template whose server was removed is deleted.
 */
GLOBAL __u32 lookup_template(__u32 service_number)
{
	struct service *service = service_at(service_number);
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(0);
	struct packet *p = the_packet();
	struct place found;
	struct server *s;
	__u32 number;

	if (!service || !settings || !work || !p)
		return 0;
	describe_template(p, service, &work->template);
	if (!find(settings, p, &work->template, template_hash(settings, &work->template), TEMPLATE, &found))
		return 0;
	number = found.entry->server;
	s = bpf_map_lookup_elem(&servers, &number);
	if (!s || !usable(p, found.entry, s)) {
		delete(found.number, 0, 0);
		return 0;
	}
	found.entry->expires = p->now + service->persistence;
	ADD(found.entry->master, 1);
	work->fresh.master = found.number + 1;
	return number;
}

/* Inserts a template for the client and its server. Returns its slot, or NOWHERE. */
GLOBAL __u32 insert_template(__u32 service_number, __u32 server_number)
{
	struct service *service = service_at(service_number);
	struct server *s = bpf_map_lookup_elem(&servers, &server_number);
	struct scratch *work = the_scratch(0);
	struct packet *p = the_packet();

	if (!service || !s || !work || !p)
		return NOWHERE;
	describe_template(p, service, &work->fresh);
	work->fresh.server = server_number;
	work->fresh.generation = s->generation;
	work->fresh.expires = p->now + service->persistence;
	work->fresh.master = 1;
	return insert(p->now, 0);
}

#define PORT_TRIES 24 /* random ports tried: with nine of ten ports in use, one connection in thirteen finds none */

/* FULLNAT: reserves a local address and port, unused towards this server, for the scratch's `fresh`. Returns 0 when none is free. */
GLOBAL int reserve_port(__u32 server_number)
{
	struct server *s = bpf_map_lookup_elem(&servers, &server_number);
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(0);
	__u32 i, nowhere = NOWHERE, random;
	struct connection *c;

	if (!s || !settings || !work || !s->snat_count || !settings->local_port_count)
		return 0;
	c = &work->fresh;
	for (i = 0; i < PORT_TRIES; i++) {
		random = bpf_get_prandom_u32();
		c->snat_address = (__u16)(s->snat_first + (random >> 16) % s->snat_count);
		c->local_port = be16((__u16)(settings->local_port_first + (random & 0xffff) % settings->local_port_count));
		translation_of(c, s, &work->translation);
		if (!bpf_map_update_elem(&translations, &work->translation, &nowhere, BPF_NOEXIST))
			return 1;
	}
	return 0;
}

/* Fills in the connection of `p` to server `number`. */
INLINE void describe(const struct settings *settings, const struct packet *p, const struct service *service, struct connection *c,
		     __u32 number, const struct server *s)
{
	__builtin_memset(c, 0, sizeof(*c));
	c->client = p->source;
	c->virtual = p->destination;
	c->client_port = p->source_port;
	c->virtual_port = p->destination_port;
	c->protocol = p->protocol;
	c->server = number;
	c->generation = s->generation;
	c->packets = 1;
	if (s->forwarding == FORWARDING_DR || s->forwarding == FORWARDING_TUN || s->is_local)
		c->flags |= CONNECTION_NO_OUTPUT;
	else if (s->forwarding == FORWARDING_FULLNAT)
		c->flags |= CONNECTION_FULLNAT;
	if (service->flags & SERVICE_ANY_PORT)
		c->flags |= CONNECTION_KEEP_PORT;
	if (p->protocol == IPPROTO_TCP) {
		enum tcp_view view = c->flags & CONNECTION_NO_OUTPUT ? VIEW_INPUT_ONLY : VIEW_INPUT;

		c->state = next_tcp_state(settings, STATE_NONE, p->tcp_flags, view);
		if (is_active_state(c->state))
			c->flags |= CONNECTION_ACTIVE;
	} else {
		c->state = STATE_UDP;
	}
	c->expires = expiry(settings, c->state, p->now);
}

/* Inserts the packet's connection to a server, controlled by the template in slot `master` - 1 (0: none). */
GLOBAL int insert_connection(__u32 service_number, __u32 server_number, __u32 master)
{
	struct server *s = bpf_map_lookup_elem(&servers, &server_number);
	struct service *service = service_at(service_number);
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(0);
	struct packet *p = the_packet();
	__u32 place, fullnat;

	if (!s || !service || !settings || !work || !p)
		return DROP_ORPHAN;
	describe(settings, p, service, &work->fresh, server_number, s);
	work->fresh.master = master;
	fullnat = work->fresh.flags & CONNECTION_FULLNAT;
	if (fullnat && !reserve_port(server_number))
		return DROP_NO_LOCAL_PORT;
	place = insert(p->now, 0);
	if (fullnat) {
		translation_of(&work->fresh, s, &work->translation);
		if (place == NOWHERE)
			bpf_map_delete_elem(&translations, &work->translation);
		else
			bpf_map_update_elem(&translations, &work->translation, &place, BPF_EXIST);
	}
	if (place == NOWHERE)
		return DROP_TABLE_FULL;
	work->place = place;
	count_connection(server_number);
	if (unlikely(p->flags & SETTING_SYNC))
		maybe_sync(place, 0);
	return GO_ON;
}

/* The server for a new connection: that of the client's template, else the scheduler's pick; 0 when there is none. */
INLINE __u32 choose(const struct packet *p, struct service *service, __u32 service_number, struct scratch *work, __u32 *master)
{
	__u32 number = 0, place;

	if (service->persistence) {
		number = lookup_template(service_number);
		*master = work->fresh.master;
	}
	if (number)
		return number;
	number = pick(service, service_number, p);
	*master = 0;
	if (!number) {
		ADD(service->refused, 1);
		return 0;
	}
	if (service->persistence) {
		place = insert_template(service_number, number);
		if (place == NOWHERE)
			count(COUNT_TEMPLATE_FULL);
		*master = place + 1; /* NOWHERE + 1 is 0: no template */
	}
	return number;
}

/* Opens a connection for the packet. Its server and slot are left in the scratch's `fresh.server` and `place`. */
GLOBAL int open_connection(__u32 service_number)
{
	struct service *service = service_at(service_number);
	struct scratch *work = the_scratch(0);
	struct packet *p = the_packet();
	__u32 master = 0, number, inserted;
	enum reason reason;

	if (!service || !work || !p)
		return PASS_NOT_OURS;
	reason = may_open(p, service);
	if (reason != GO_ON)
		return reason;
	number = choose(p, service, service_number, work, &master);
	if (!number)
		return service->flags & SERVICE_RESET && p->protocol == IPPROTO_TCP ? REFUSED_WITH_RESET : REFUSED_NO_DESTINATION;
	work->fresh.server = number;
	work->place = NOWHERE;
	if (service->flags & SERVICE_ONE_PACKET && p->protocol == IPPROTO_UDP) {
		count_connection(number);
		reason = GO_ON;
		inserted = 0;
	} else {
		reason = insert_connection(service_number, number, master);
		inserted = reason == GO_ON;
	}
	if (!inserted && master) {
		struct connection *t = at_place(master - 1);

		if (t && t->master)
			ADD(t->master, -1);
	}
	return reason;
}
