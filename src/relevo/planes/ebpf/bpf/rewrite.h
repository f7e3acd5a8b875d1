/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address and port translation, with checksums kept by difference: a packet that came with a wrong one leaves with a wrong
 * one, and its receiver drops it. A UDP checksum of 0 stays 0 (none), and none is made by accident.
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

/* What of an IPv4 header changes on the way: its last twelve octets. */
struct v4_tail {
	__u8 ttl, protocol;
	__sum16 check;
	__be32 source, destination;
};
#define V4_TAIL (ETHERNET + 8)

/* What of an IPv6 header changes: the hop limit and all behind it; what stands before it makes an even word. */
struct v6_tail {
	__be16 payload;
	__u8 next, hop_limit;
	__u32 source[4], destination[4];
};
#define V6_TAIL (ETHERNET + 4)

/* One hop less to live; the time to live is the upper octet of its 16-bit word. */
INLINE void age_v4(struct v4_tail *ip, __u64 difference)
{
	difference += (__u16)~be16((__u16)(ip->ttl << 8)) + (__u64)be16((__u16)((ip->ttl - 1) << 8));
	ip->ttl -= 1;
	ip->check = checksum_after(ip->check, difference);
}

INLINE int write_addresses_v4(frame_t *frame, const struct translation *t)
{
	struct v4_tail *found = frame_begin(frame) + V4_TAIL, ip;
	__u64 difference;

	if ((void *)(found + 1) > frame_end(frame))
		return 0;
	ip = *found;
	difference = (__u64)(__u32)~ip.source + get_v4(&t->source) + (__u32)~ip.destination + get_v4(&t->destination);
	ip.source = get_v4(&t->source);
	ip.destination = get_v4(&t->destination);
	age_v4(&ip, difference);
	return put(frame, V4_TAIL, &ip, sizeof(ip));
}

INLINE int write_addresses_v6(frame_t *frame, const struct translation *t)
{
	struct v6_tail *found = frame_begin(frame) + V6_TAIL, ip;

	if ((void *)(found + 1) > frame_end(frame))
		return 0;
	ip.payload = found->payload;
	ip.next = found->next;
	ip.hop_limit = found->hop_limit - 1;
	put_v6(ip.source, &t->source);
	put_v6(ip.destination, &t->destination);
	return put(frame, V6_TAIL, &ip, sizeof(ip));
}

/* Gives the packet the addresses of `t`, and one hop less to live. */
INLINE int write_addresses(frame_t *frame, const struct packet *p, const struct translation *t)
{
	return p->family == 4 ? write_addresses_v4(frame, t) : write_addresses_v6(frame, t);
}

/* Corrects the transport checksum. Pointers into the frame are void afterwards. */
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

	/* A half-done checksum (offload) covers the addresses alone so far; the kernel knows by the flag which part this is. */
	if (bpf_l4_csum_replace(frame, at, 0, fold_32(addresses), flags | BPF_F_PSEUDO_HDR))
		return 0;
	return ports == 0xffff || !bpf_l4_csum_replace(frame, at, 0, fold_32(ports), flags);
#endif
}

INLINE int write_ports(frame_t *frame, const struct packet *p, const struct translation *t)
{
	__be16 ports[2] = {t->source_port, t->destination_port};

	return put(frame, p->l4, ports, sizeof(ports));
}

/* Gives the packet the addresses and ports of `t`, and one hop less to live. */
INLINE enum reason translate(frame_t *frame, const struct packet *p, const struct translation *t)
{
	__u64 addresses = 0, ports = 0xffff; /* a difference of nothing: 0xffff is another 0 */

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
	return write_addresses(frame, p, t) ? GO_ON : DROP_REWRITE;
}

/* One hop less to live, nothing else (DR). */
INLINE enum reason age(frame_t *frame, const struct packet *p)
{
	if (p->family == 4) {
		struct v4_tail *found = frame_begin(frame) + V4_TAIL, ip;

		if ((void *)(found + 1) > frame_end(frame))
			return DROP_REWRITE;
		ip = *found;
		age_v4(&ip, 0);
		return put(frame, V4_TAIL, &ip, 4) ? GO_ON : DROP_REWRITE; /* up to the checksum */
	} else {
		__u8 hop_limit = p->ttl - 1;

		return put(frame, ETHERNET + 7, &hop_limit, 1) ? GO_ON : DROP_REWRITE;
	}
}
