/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packet path: parse, find the connection (or open one), find the route, check the MTU, then rewrite and send. A packet
 * is not changed before it is certain that it can be sent, so a packet that XDP passes on reaches TC unchanged.
 *
 * Every function returns a `reason`: GO_ON, or why the packet is not forwarded. The hook's program turns it into its own
 * return value.
 */
#pragma once
#include "encapsulate.h"
#include "route.h"
#include "parse.h"
#include "rewrite.h"
#include "service.h"
#include "state.h"
#ifndef RELEVO_XDP
#include "fragment.h"
#include "open.h"
#include "rewrite_icmp.h"
#endif

struct job {
	struct packet *packet;
	struct settings *settings;
	struct place place;
	struct route route;
	__u32 server;
};

/* The client's address and port as the server sees them: with FULLNAT, a local address and port. */
INLINE void client_at_server(const struct connection *e, struct address *address, __be16 *port)
{
	__u32 number = e->snat_address;
	struct address *local;

	*address = e->client;
	*port = e->client_port;
	if (likely(!(e->flags & CONNECTION_FULLNAT)))
		return;
	local = bpf_map_lookup_elem(&snat_addresses, &number);
	if (local)
		*address = *local;
	*port = e->local_port;
}

/* Finds the route to server `s` and rewrites the packet for it by the server's forwarding method. */
INLINE enum reason forward(frame_t *frame, struct job *job, const struct server *s, const struct translation *t)
{
	struct packet *p = job->packet;
	__u32 overhead = s->forwarding == FORWARDING_TUN ? tunnel_overhead(s) : 0;
	enum reason reason;

	reason = find_route(frame, p, &t->source, &s->address, &job->route);
	if (unlikely(reason != GO_ON))
		return reason == PASS_LOCAL && !s->is_local ? DROP_NO_ROUTE : reason;
	if (unlikely(overhead))
		job->route.mtu = path_mtu(job->server, job->route.mtu);
	if (unlikely(!fits_mtu(frame, p, &job->route, overhead))) {
		job->route.mtu -= overhead; /* what the client may send */
		return p->dont_fragment ? REFUSED_TOO_BIG : AGAIN_CUT;
	}
#ifdef RELEVO_XDP
	if (job->route.interface != frame->ingress_ifindex && !has_exit(&job->route))
		return PASS_SLOW;
#endif
	if (s->forwarding == FORWARDING_NAT || s->forwarding == FORWARDING_FULLNAT)
		return translate(frame, p, t);
	reason = decrement_ttl(frame, p);
	if (reason == GO_ON && s->forwarding == FORWARDING_TUN)
		reason = encapsulate(frame, p, s);
	return reason;
}

/* A client's packet, to the server of its connection. */
INLINE enum reason to_server(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	struct connection *e = job->place.entry;
	struct server *s = bpf_map_lookup_elem(&servers, &job->server);
	struct translation t;
	enum reason reason;

	if (!s)
		return DROP_ORPHAN;
	if (e) {
		client_at_server(e, &t.source, &t.source_port);
		t.destination_port = server_port(e, s);
	} else { /* one-packet scheduling: no connection entry */
		t.source = p->source;
		t.source_port = p->source_port;
		t.destination_port = s->port ? s->port : p->destination_port;
	}
	t.destination = s->address;
	if (unlikely(p->ttl <= 1))
		return REFUSED_TTL;
	reason = forward(frame, job, s, &t);
	if (reason == GO_ON || reason == PASS_LOCAL)
		count_traffic(job->server, TO_SERVER, p->length);
	return reason;
}

/* A server's packet, to the client, from the virtual address. */
INLINE enum reason to_client(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	struct connection *e = job->place.entry;
	struct translation t;
	enum reason reason;

	if (!e)
		return PASS_NOT_OURS;
	t.source = e->virtual;
	t.source_port = e->virtual_port;
	t.destination = e->client;
	t.destination_port = e->client_port;
	if (unlikely(p->ttl <= 1))
		return REFUSED_TTL;
	reason = find_route(frame, p, &t.source, &t.destination, &job->route);
	if (unlikely(reason != GO_ON))
		return reason;
	if (unlikely(!fits_mtu(frame, p, &job->route, 0)))
		return p->dont_fragment ? REFUSED_TOO_BIG : AGAIN_CUT;
#ifdef RELEVO_XDP
	if (job->route.interface != frame->ingress_ifindex && !has_exit(&job->route))
		return PASS_SLOW;
#endif
	reason = translate(frame, p, &t);
	if (reason != GO_ON)
		return reason;
	count_traffic(e->server, TO_CLIENT, p->length);
	advance(job->settings, p, &job->place, TO_CLIENT);
	return GO_ON;
}

/* FULLNAT: finds the connection of a server's packet to a local address and port. */
NOINLINE int find_translation(const struct packet *p, struct place *found)
{
	struct translation_key key;
	struct connection *e;
	__u32 *place, number;

	__builtin_memset(&key, 0, sizeof(key));
	key.remote = p->source;
	key.local = p->destination;
	key.remote_port = p->source_port;
	key.local_port = p->destination_port;
	key.protocol = p->protocol;
	place = bpf_map_lookup_elem(&translations, &key);
	if (!place || *place == NOWHERE)
		return 0;
	number = *place / BUCKET_SLOTS;
	found->bucket = bpf_map_lookup_elem(&buckets, &number);
	found->number = *place;
	if (!found->bucket)
		return 0;
	number = *place % BUCKET_SLOTS;
	e = &found->bucket->slot[number];
	found->entry = e;
	return e->local_port == p->destination_port && (e->flags & CONNECTION_FULLNAT) && e->protocol == p->protocol && !is_expired(e, p->now);
}

/*
 * Finds the connection of a client's packet. A SYN on a connection in TIME_WAIT or CLOSE deletes it, so that a new one opens
 * at once (port reuse). A connection whose server was removed is deleted, and a TCP client gets a reset, unless orphans are
 * kept.
 */
INLINE enum reason find_connection(struct job *job)
{
	struct packet *p = job->packet;
	struct connection *e;
	struct server *s;

	if (!find_forward(job->settings, p, &job->place))
		return PASS_NO_CONNECTION;
	e = job->place.entry;
	job->server = e->server;
	s = bpf_map_lookup_elem(&servers, &job->server);
	if (likely(s && s->generation == e->generation &&
		   !((e->state == STATE_TIME_WAIT || e->state == STATE_CLOSE) && p->tcp_flags & TCP_SYN)))
		return GO_ON;
	if (p->quoted)
		return PASS_NO_CONNECTION;
	if (s && s->generation != e->generation && (p->flags & SETTING_KEEP_ORPHANS))
		return DROP_ORPHAN;
	delete(job->place.number, p->source_port, 0);
	job->place.entry = 0;
	return p->protocol == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN) ? REFUSED_ORPHAN : PASS_NO_CONNECTION;
}

INLINE void swap_ends(struct packet *p)
{
	struct address a = p->source;
	__be16 port = p->source_port;

	p->source = p->destination;
	p->destination = a;
	p->source_port = p->destination_port;
	p->destination_port = port;
}

#ifndef RELEVO_XDP

/* The addresses of the frame's IP header; `p` has those of the quoted packet. */
INLINE int outer_addresses(frame_t *frame, const struct packet *p, struct translation *t)
{
	if (p->family == 4) {
		struct iphdr *ip = frame_begin(frame) + ETHERNET;

		if ((void *)(ip + 1) > frame_end(frame))
			return 0;
		set_v4(&t->source, ip->saddr);
		set_v4(&t->destination, ip->daddr);
	} else {
		struct ipv6hdr *ip = frame_begin(frame) + ETHERNET;

		if ((void *)(ip + 1) > frame_end(frame))
			return 0;
		set_v6(&t->source, &ip->saddr);
		set_v6(&t->destination, &ip->daddr);
	}
	return 1;
}

/* An error from the client's side, to the server whose packet it quotes. `p` has source and destination as in a client's packet. */
INLINE enum reason error_to_server(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	struct server *s = bpf_map_lookup_elem(&servers, &job->server);
	struct icmp_rewrite *r = the_icmp_rewrite();
	enum reason reason;

	if (!s || !r || !job->place.entry || !outer_addresses(frame, p, &r->outer))
		return PASS_NO_CONNECTION;
	r->inner.source = s->address; /* as the server sent it */
	r->inner.source_port = server_port(job->place.entry, s);
	client_at_server(job->place.entry, &r->inner.destination, &r->inner.destination_port);
	reason = find_route(frame, p, &r->outer.source, &s->address, &job->route);
	if (reason != GO_ON)
		return reason;
	if (s->forwarding == FORWARDING_NAT || s->forwarding == FORWARDING_FULLNAT) {
		r->outer.destination = s->address;
		swap_ends(p);
		return rewrite_icmp(frame, p, &r->outer, &r->inner);
	}
	reason = decrement_ttl(frame, p);
	return reason == GO_ON && s->forwarding == FORWARDING_TUN ? encapsulate(frame, p, s) : reason;
}

/* An error from the server's side, to the client whose packet it quotes. `p` has source and destination as in a server's packet. */
INLINE enum reason error_to_client(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	struct connection *e = job->place.entry;
	struct icmp_rewrite *r = the_icmp_rewrite();
	enum reason reason;

	if (!e || !r)
		return PASS_NO_CONNECTION;
	r->inner.source = e->client;
	r->inner.source_port = e->client_port;
	r->inner.destination = e->virtual;
	r->inner.destination_port = e->virtual_port;
	r->outer.source = e->virtual;
	r->outer.destination = e->client;
	reason = find_route(frame, p, &e->virtual, &e->client, &job->route);
	if (reason != GO_ON)
		return reason;
	swap_ends(p);
	return rewrite_icmp(frame, p, &r->outer, &r->inner);
}

/* Sends an ICMP error on to the sender of the packet that it quotes. */
NOINLINE enum reason balance_error(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;

	if (p->ttl <= 1)
		return PASS_NO_CONNECTION; /* no errors about errors */
	swap_ends(p); /* as in a reply to the quoted packet */
	if (maybe_virtual(job->settings, &p->destination) && find_connection(job) == GO_ON)
		return error_to_server(frame, job);
	if (maybe_server(job->settings, &p->source) && (find_reverse(job->settings, p, &job->place) || find_translation(p, &job->place)))
		return error_to_client(frame, job);
	return PASS_NO_CONNECTION;
}

/* Loads the connection that was just opened into `job`; one-packet scheduling makes no entry. */
INLINE void take_opened(struct job *job)
{
	struct scratch *work = the_scratch(0);
	__u32 number, slot;

	job->place.entry = 0;
	if (!work)
		return;
	job->server = work->fresh.server;
	if (work->place == NOWHERE) {
		if (unlikely(job->packet->fragment))
			record_scheduled(job->server);
		return;
	}
	job->place.number = work->place;
	number = work->place / BUCKET_SLOTS;
	slot = work->place % BUCKET_SLOTS;
	job->place.bucket = bpf_map_lookup_elem(&buckets, &number);
	if (job->place.bucket)
		job->place.entry = &job->place.bucket->slot[slot];
}

#endif

/*
 * Opens a connection if there is a service for the packet. XDP leaves this to TC: if XDP then could not send the packet, TC
 * would schedule it a second time.
 */
INLINE enum reason begin_connection(frame_t *frame, struct job *job)
{
#ifdef RELEVO_XDP
	return find_service(0) == NOWHERE ? PASS_NOT_OURS : PASS_SLOW;
#else
	__u32 service = find_service(job->packet->flags & SETTING_MARKS ? frame->mark : 0);
	enum reason reason;

	if (service == NOWHERE)
		return PASS_NOT_OURS;
	if (unlikely(job->packet->fragment == LATER_FRAGMENT && job->packet->scheduled)) {
		job->server = job->packet->scheduled;
		job->place.entry = 0;
		return GO_ON;
	}
	reason = open_connection(service);
	if (reason == GO_ON)
		take_opened(job);
	return reason;
#endif
}

/* Whether the packet may be to a virtual address or from a server. */
INLINE int is_ours(const struct settings *s, const struct packet *p)
{
	return maybe_virtual(s, &p->destination) || maybe_server(s, &p->source);
}

/* Parses, schedules and rewrites a frame. */
INLINE enum reason balance(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	enum reason reason;
	int opened;

	reason = parse(frame, job->settings, p);
	if (unlikely(reason != GO_ON)) {
		/* A first fragment this short hides its ports here, but not from a receiver that reassembles it (RFC 1858). */
		if (reason == PASS_MALFORMED && p->fragment && is_ours(job->settings, p))
			return DROP_FRAGMENT;
		return reason;
	}
	if (unlikely(p->quoted || p->fragment)) {
#ifdef RELEVO_XDP
		return PASS_SLOW;
#else
		if (p->quoted)
			return balance_error(frame, job);
		if (!is_ours(job->settings, p))
			return PASS_NOT_OURS;
		reason = follow_fragments(frame, job->settings, p);
		if (reason != GO_ON)
			return reason;
#endif
	}
	if (maybe_virtual(job->settings, &p->destination)) {
		reason = find_connection(job);
		opened = unlikely(reason == PASS_NO_CONNECTION);
		if (opened)
			reason = begin_connection(frame, job);
		if (likely(reason == GO_ON)) {
			reason = to_server(frame, job);
			if (likely((reason == GO_ON || reason == PASS_LOCAL) && !opened))
				advance(job->settings, p, &job->place, TO_SERVER);
			return reason;
		}
		if (reason != PASS_NOT_OURS)
			return reason;
	}
	if (maybe_server(job->settings, &p->source) && (find_reverse(job->settings, p, &job->place) || find_translation(p, &job->place)))
		return to_client(frame, job);
	return PASS_NOT_OURS;
}
