/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fragments (TC only). Only the first fragment has ports; `fragments` keeps them for the later ones. A fragment that arrives
 * before its first one is copied into `held`. When the first one arrives, it is sent to the interface's ingress again,
 * followed by the held ones: the programs see them a second time, in order. So no fragment is lost, and no server's fragment
 * is forwarded by the kernel, with the server's own source address, because its first one was late.
 *
 * A packet that exceeds the MTU and may be fragmented is fragmented here, as a router would (RFC 791 §3.2). Its fragments
 * are sent to the ingress in the same way.
 */
#pragma once
#include "count.h"
#include "parse.h"
#include "rewrite.h"

#define FRAGMENT_LIFE 2 /* seconds; the sender may soon reuse an identification (RFC 4963) */
#define HELD_PIECES 64  /* of one datagram: 64 KiB in frames of 1500 bytes are 45 */
#define CUT_PIECES 16
#define CUT_MOST 8192   /* bytes of one */
#define LEAST_CUT 68    /* the smallest MTU (RFC 791 §3.2) */
#define MORE_FRAGMENTS 0x2000

INLINE void describe_fragment(const struct packet *p, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = p->source;
	key->destination = p->destination;
	key->identification = p->identification;
	/* Not for IPv6 (RFC 8200 §4.5): after other extension headers, only the first fragment has the transport protocol. */
	if (p->family == 4)
		key->protocol = p->protocol;
}

/* The ports of the datagram's first fragment, or null. */
INLINE struct fragment_ports *find_first(const struct packet *p, const struct fragment_key *key)
{
	struct fragment_ports *found = bpf_map_lookup_elem(&fragments, key);

	return found && !past(found->expires, p->now) ? found : 0;
}

/*
 * Holds a copy of the frame, a later fragment, until its first one arrives. Returns AGAIN_HELD, or GO_ON when the first one
 * arrived on another CPU meanwhile, or DROP_FRAGMENT when there is no room.
 */
NOINLINE int hold(frame_t *frame)
{
	struct settings *settings = the_settings();
	struct packet *p = the_packet();
	struct draft *draft = the_draft();
	__u32 length = frame->len;
	struct held_key key = {};
	struct held_frame *copy, *former;
	__u32 i;

	if (!settings || !p || !draft)
		return DROP_FRAGMENT;
	copy = (void *)draft;
	if (length > HELD_BYTES || bpf_skb_load_bytes(frame, 0, copy->bytes, LENGTH(length, HELD_BYTES - 1)))
		return DROP_FRAGMENT;
	copy->length = length;
	copy->expires = p->now + FRAGMENT_LIFE * settings->hz;
	describe_fragment(p, &key.datagram);
	for (i = 0; i < HELD_PIECES; i++) {
		key.number = i;
		former = bpf_map_lookup_elem(&held, &key);
		if (former && !past(former->expires, p->now))
			continue;
		if (!bpf_map_update_elem(&held, &key, copy, former ? BPF_ANY : BPF_NOEXIST))
			break;
	}
	if (i == HELD_PIECES)
		return DROP_FRAGMENT;
	/* The first fragment stores its ports before it looks for held ones: either it finds this one, or its ports are here now. */
	if (find_first(p, &key.datagram) && !bpf_map_delete_elem(&held, &key))
		return GO_ON;
	return AGAIN_HELD;
}

/* Replaces the frame by a held one. */
INLINE int load_held(frame_t *frame, const struct held_frame *h)
{
	__u32 length = h->length;

	return !bpf_skb_change_tail(frame, length, 0) &&
	       !bpf_skb_store_bytes(frame, 0, h->bytes, LENGTH(length, HELD_BYTES - 1), BPF_F_RECOMPUTE_CSUM);
}

/*
 * If fragments of this first one's datagram are held, sends it and then them to the interface's ingress. Returns true then,
 * and the caller drops the frame. Only the CPU that deletes an entry sends it, so no fragment is duplicated.
 */
NOINLINE int release(frame_t *frame)
{
	struct packet *p = the_packet();
	struct held_key key = {};
	struct held_frame *h;
	__u32 i, interface = frame->ifindex;

	if (!p)
		return 0;
	describe_fragment(p, &key.datagram);
	h = bpf_map_lookup_elem(&held, &key);
	if (likely(!h || past(h->expires, p->now)))
		return 0;
	if (bpf_clone_redirect(frame, interface, BPF_F_INGRESS))
		return 0; /* no memory: forward this one; the held ones will expire */
	for (i = 0; i < HELD_PIECES; i++) {
		int stale, made;

		key.number = i;
		h = bpf_map_lookup_elem(&held, &key);
		if (!h)
			continue;
		stale = past(h->expires, p->now);
		made = !stale && load_held(frame, h);
		if (bpf_map_delete_elem(&held, &key) || stale)
			continue;
		if (!made || bpf_clone_redirect(frame, interface, BPF_F_INGRESS))
			count(DROP_FRAGMENT);
	}
	return 1;
}

/* Stores the ports of a first fragment for the later ones. */
INLINE enum reason first_fragment(frame_t *frame, const struct settings *s, struct packet *p)
{
	struct fragment_ports ports;
	struct fragment_key key;

	if (release(frame))
		return AGAIN_RELEASED;
	__builtin_memset(&ports, 0, sizeof(ports));
	ports.source = p->source_port;
	ports.destination = p->destination_port;
	ports.protocol = p->protocol;
	ports.expires = p->now + FRAGMENT_LIFE * s->hz;
	describe_fragment(p, &key);
	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
	return release(frame) ? AGAIN_RELEASED : GO_ON; /* another CPU may have held one in between */
}

/* Gives a later fragment the ports of its first one, or holds it. */
INLINE enum reason later_fragment(frame_t *frame, struct packet *p)
{
	struct fragment_ports *found;
	struct fragment_key key;
	enum reason reason;
	struct server *s;
	__u32 server;

	describe_fragment(p, &key);
	found = find_first(p, &key);
	if (!found) {
		reason = hold(frame);
		if (reason != GO_ON)
			return reason;
		found = find_first(p, &key);
		if (!found)
			return DROP_FRAGMENT;
	}
	p->source_port = found->source;
	p->destination_port = found->destination;
	p->protocol = found->protocol;
	server = found->server;
	s = bpf_map_lookup_elem(&servers, &server);
	p->scheduled = s && s->generation == found->generation ? server : 0;
	return GO_ON;
}

NOINLINE enum reason follow_fragments(frame_t *frame, const struct settings *s, struct packet *p)
{
	return p->fragment == FIRST_FRAGMENT ? first_fragment(frame, s, p) : later_fragment(frame, p);
}

/* One-packet scheduling makes no connection entry: stores the server for the later fragments. */
GLOBAL int record_scheduled(__u32 server)
{
	struct server *s = bpf_map_lookup_elem(&servers, &server);
	struct packet *p = the_packet();
	struct fragment_ports *found;
	struct fragment_key key;

	if (!s || !p)
		return 0;
	describe_fragment(p, &key);
	found = find_first(p, &key);
	if (!found)
		return 0;
	found->server = server;
	found->generation = s->generation;
	return 0;
}

INLINE __sum16 header_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u64 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < 10; i++)
		sum += words[i];
	return (__sum16)~fold_16(sum);
}

/* Fills in the draft's next fragment: `size` bytes of payload, or the rest. Returns false when nothing is left. */
GLOBAL int next_piece(__u32 size)
{
	struct packet *p = the_packet();
	struct draft *draft = the_draft();
	__u32 left, offset;

	if (!p || !draft)
		return 0;
	draft->at += draft->length;
	left = p->length - sizeof(struct iphdr) - draft->at;
	if ((__s32)left <= 0)
		return 0;
	draft->length = left > size ? size : left;
	offset = (be16(draft->whole.frag_off) & 0x3fff) + draft->at / 8; /* the last fragment keeps the packet's own more-fragments bit */
	if (left > size)
		offset |= MORE_FRAGMENTS;
	draft->piece = draft->whole;
	draft->piece.tot_len = be16((__u16)(sizeof(struct iphdr) + draft->length));
	draft->piece.frag_off = be16((__u16)offset);
	draft->piece.check = 0;
	draft->piece.check = header_checksum(&draft->piece);
	return 1;
}

/* Replaces the frame by the draft's fragment. Returns false when the kernel refuses. */
INLINE int load_piece(frame_t *frame)
{
	struct draft *draft = the_draft();
	__u32 at;

	if (!draft)
		return 0;
	at = draft->at;
	BOUND(at, 0x3fff);
	return !bpf_skb_change_tail(frame, ETHERNET + sizeof(struct iphdr) + draft->length, 0) &&
	       !bpf_skb_store_bytes(frame, ETHERNET, &draft->piece, sizeof(struct iphdr), BPF_F_RECOMPUTE_CSUM) &&
	       !bpf_skb_store_bytes(frame, ETHERNET + sizeof(struct iphdr), draft->bytes + at, LENGTH(draft->length, CUT_MOST - 1),
				    BPF_F_RECOMPUTE_CSUM);
}

/*
 * Splits an IPv4 packet into fragments that fit the MTU and sends them to the interface's ingress. Returns true then, and the
 * caller drops the frame. Returns false, with the frame unchanged, for packets that cannot be fragmented here: with IP
 * options (only some of which are copied to fragments), GSO packets, and packets with a partial transport checksum, which
 * the kernel would complete over the fragment alone.
 */
NOINLINE int cut(frame_t *frame)
{
	struct packet *p = the_packet();
	struct draft *draft = the_draft();
	__u32 length, size, i;

	if (!p || !draft || p->family != 4 || p->l4 != ETHERNET + sizeof(struct iphdr) || frame->gso_size || p->mtu < LEAST_CUT)
		return 0;
	length = p->length - sizeof(struct iphdr);
	size = (p->mtu - sizeof(struct iphdr)) & ~7U;
	if (size > CUT_MOST)
		size = CUT_MOST;
	if (!length || length > DRAFT_BYTES || length > size * CUT_PIECES)
		return 0;
	if (p->fragment == WHOLE && checksum_begun(frame, p))
		return 0;
	if (bpf_skb_load_bytes(frame, ETHERNET, &draft->whole, sizeof(struct iphdr)) ||
	    bpf_skb_load_bytes(frame, ETHERNET + sizeof(struct iphdr), draft->bytes, LENGTH(length, 0x3fff)))
		return 0;
	draft->at = draft->length = 0;
	for (i = 0; i < CUT_PIECES && next_piece(size); i++) {
		if (!load_piece(frame) || bpf_clone_redirect(frame, frame->ifindex, BPF_F_INGRESS))
			count(DROP_FRAGMENT);
	}
	return 1;
}
