/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams in pieces (TC only). Only the first fragment has ports; `fragments` keeps them for those that follow. A fragment
 * that comes before its first is copied into `held`. When the first comes, it is put back at the interface's ingress with
 * those that were held behind it: they come in once more, in order. So nothing is lost, and nothing of a server's leaves
 * by the kernel's own forwarding, under the server's address, because its first fragment had not been seen.
 *
 * The same way serves a packet that is too big for its way and may be fragmented: it is cut here, as a router would (RFC 791
 * §3.2), and its pieces come in once more, as fragments like any others.
 */
#pragma once
#include "count.h"
#include "parse.h"
#include "rewrite.h"

#define FRAGMENT_LIFE 2 /* seconds; an identification may soon be used again (RFC 4963) */
#define HELD_PIECES 64  /* of one datagram: 64 KiB in frames of 1500 bytes are 45 */
#define CUT_PIECES 16
#define CUT_MOST 8192   /* bytes of one */
#define LEAST_CUT 68    /* the smallest MTU that there is (RFC 791 §3.2) */
#define MORE_FRAGMENTS 0x2000

INLINE void describe_fragment(const struct packet *p, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = p->source;
	key->destination = p->destination;
	key->identification = p->identification;
	/* IPv6 does without it (RFC 8200 §4.5): behind other headers, only the first fragment tells the transport. */
	if (p->family == 4)
		key->protocol = p->protocol;
}

/* What the first fragment of the packet's datagram left, or 0. */
INLINE struct fragment_ports *find_first(const struct packet *p, const struct fragment_key *key)
{
	struct fragment_ports *found = bpf_map_lookup_elem(&fragments, key);

	return found && !past(found->expires, p->now) ? found : 0;
}

/*
 * Keeps a copy of the frame, a later fragment, until its first comes. AGAIN_HELD when it is kept; GO_ON when the first came
 * on another CPU meanwhile; DROP_FRAGMENT when there is no room.
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
	/* The first looks for held ones after it has left its ports, so either it finds this one or its ports are there now. */
	if (find_first(p, &key.datagram) && !bpf_map_delete_elem(&held, &key))
		return GO_ON;
	return AGAIN_HELD;
}

/* Gives the frame the bytes of a held one. */
INLINE int load_held(frame_t *frame, const struct held_frame *h)
{
	__u32 length = h->length;

	return !bpf_skb_change_tail(frame, length, 0) &&
	       !bpf_skb_store_bytes(frame, 0, h->bytes, LENGTH(length, HELD_BYTES - 1), BPF_F_RECOMPUTE_CSUM);
}

/*
 * If fragments of this first one's datagram are held, puts it and them back at the interface's ingress, the first in front;
 * true then, and the frame is to be dropped. Whoever deletes an entry has it: no fragment comes twice.
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
		return 0; /* no memory: this one goes on, those that are held will be lost */
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

/* Leaves the ports of a first fragment to those that follow. */
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
	return release(frame) ? AGAIN_RELEASED : GO_ON; /* one that was held in between, on another CPU */
}

/* Gives a later fragment the ports of its first, or keeps it until that comes. */
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

/* One-packet scheduling leaves no connection: later fragments go to the server of the first. */
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

/* Describes the next piece of the packet in the draft: `size` bytes of payload, or what is left; false when nothing is left. */
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
	offset = (be16(draft->whole.frag_off) & 0x3fff) + draft->at / 8; /* the last keeps the bit that says whether more follow */
	if (left > size)
		offset |= MORE_FRAGMENTS;
	draft->piece = draft->whole;
	draft->piece.tot_len = be16((__u16)(sizeof(struct iphdr) + draft->length));
	draft->piece.frag_off = be16((__u16)offset);
	draft->piece.check = 0;
	draft->piece.check = header_checksum(&draft->piece);
	return 1;
}

/* Makes the frame the piece that the draft describes; false when the kernel refuses. */
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
 * Cuts an IPv4 packet into fragments that fit its way and puts them back at the interface's ingress; true then, and the
 * frame is to be dropped. False, and the frame is as it was, when it cannot be cut: one with IP options, of which some would
 * have to be copied and some not, a super-packet, or one whose transport checksum is only begun: the kernel would finish
 * it over the piece.
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
