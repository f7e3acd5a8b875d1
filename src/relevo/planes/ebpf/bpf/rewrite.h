/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address and port translation. Checksums are corrected by difference: a packet that arrives with a wrong checksum leaves
 * with a wrong one, and its receiver drops it. A UDP checksum of 0 (none) stays 0, and a computed 0 becomes 0xffff.
 */
#pragma once
#include "checksum.h"

struct translation {
	struct address source, destination;
	__be16 source_port, destination_port;
};

INLINE __u32 checksum_offset(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? 16 : 6;
}

INLINE void write_addresses_v4(struct iphdr *ip, const struct translation *t)
{
	__be32 source = get_v4(&t->source), destination = get_v4(&t->destination);
	__u64 difference = (__u64)(__u32)~ip->saddr + source + (__u32)~ip->daddr + destination;

	/* Includes the decremented TTL, the upper byte of its 16-bit word. */
	difference += (__u16)~be16((__u16)(ip->ttl << 8)) + (__u64)be16((__u16)((ip->ttl - 1) << 8));
	ip->saddr = source;
	ip->daddr = destination;
	ip->ttl -= 1;
	ip->check = checksum_after(ip->check, difference);
}

INLINE void write_addresses_v6(struct ipv6hdr *ip, const struct translation *t)
{
	put_v6(&ip->saddr, &t->source);
	put_v6(&ip->daddr, &t->destination);
	ip->hop_limit -= 1;
}

/* Corrects the transport checksum. Pointers into the frame are invalid afterwards. */
INLINE int correct_checksum(frame_t *frame, const struct packet *p, __u64 addresses, __u64 ports)
{
	__u32 at = p->l4 + checksum_offset(p->protocol);
#ifdef RELEVO_XDP
	__sum16 *field;

	BOUND(at, 0x3ff);
	field = frame_begin(frame) + at;
	if ((void *)(field + 1) > frame_end(frame))
		return 0;
	if (p->protocol == IPPROTO_UDP && *field == 0)
		return 1;
	*field = checksum_after(*field, addresses + ports);
	if (p->protocol == IPPROTO_UDP && *field == 0)
		*field = 0xffff;
	return 1;
#else
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	/* A partial checksum (offload) covers only the pseudo-header so far; the flag says that this change is part of it. */
	if (bpf_l4_csum_replace(frame, at, 0, fold_32(addresses), flags | BPF_F_PSEUDO_HDR))
		return 0;
	return ports == 0xffff || !bpf_l4_csum_replace(frame, at, 0, fold_32(ports), flags);
#endif
}

#ifndef RELEVO_XDP

/* Whether the transport checksum is partial (offload). */
INLINE int checksum_begun(frame_t *frame, const struct packet *p)
{
	__u32 at = p->l4 + checksum_offset(p->protocol);
	__u16 before = 0, after = 0;

	bpf_skb_load_bytes(frame, at, &before, 2);
	if (bpf_l4_csum_replace(frame, at, 0, 0x1234, 0))
		return 0;
	bpf_skb_load_bytes(frame, at, &after, 2);
	if (before == after)
		return 1;
	bpf_l4_csum_replace(frame, at, 0, 0xffff - 0x1234, 0);
	return 0;
}

#endif

INLINE int write_ports(frame_t *frame, const struct packet *p, const struct translation *t)
{
	__u32 at = p->l4;
	__be16 *ports;

	BOUND(at, 0x3ff);
	ports = frame_begin(frame) + at;
	if ((void *)(ports + 2) > frame_end(frame))
		return 0;
	ports[0] = t->source_port;
	ports[1] = t->destination_port;
	return 1;
}

/* Rewrites the packet's addresses and ports to those of `t`, and decrements its TTL. */
INLINE enum reason translate(frame_t *frame, const struct packet *p, const struct translation *t)
{
	__u64 addresses = 0, ports = 0xffff; /* 0xffff is 0 in one's complement: no change */

	if (!same_address(&p->source, &t->source))
		addresses += address_difference(&p->source, &t->source);
	if (!same_address(&p->destination, &t->destination))
		addresses += address_difference(&p->destination, &t->destination);
	if (p->fragment != LATER_FRAGMENT) {
		if (p->source_port != t->source_port || p->destination_port != t->destination_port)
			ports = port_difference(p->source_port, t->source_port) + port_difference(p->destination_port, t->destination_port);
		if (!correct_checksum(frame, p, addresses, ports) || !write_ports(frame, p, t))
			return DROP_REWRITE;
	}
	if (p->family == 4) {
		struct iphdr *ip = frame_begin(frame) + ETHERNET;

		if ((void *)(ip + 1) > frame_end(frame))
			return DROP_REWRITE;
		write_addresses_v4(ip, t);
	} else {
		struct ipv6hdr *ip = frame_begin(frame) + ETHERNET;

		if ((void *)(ip + 1) > frame_end(frame))
			return DROP_REWRITE;
		write_addresses_v6(ip, t);
	}
	return GO_ON;
}

/* Decrements the TTL or hop limit; nothing else changes (DR). */
INLINE enum reason decrement_ttl(frame_t *frame, const struct packet *p)
{
	if (p->family == 4) {
		struct iphdr *ip = frame_begin(frame) + ETHERNET;

		if ((void *)(ip + 1) > frame_end(frame))
			return DROP_REWRITE;
		ip->check = checksum_after(ip->check, (__u16)~be16((__u16)(ip->ttl << 8)) + (__u64)be16((__u16)((ip->ttl - 1) << 8)));
		ip->ttl -= 1;
	} else {
		struct ipv6hdr *ip = frame_begin(frame) + ETHERNET;

		if ((void *)(ip + 1) > frame_end(frame))
			return DROP_REWRITE;
		ip->hop_limit -= 1;
	}
	return GO_ON;
}
