/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP errors about balanced packets. One that comes from the client's side quotes what the server sent under the virtual
 * address and goes to that server; one from the server's side quotes what the client sent, translated, and goes to the
 * client. The quoted packet is translated back to what its sender knows, so that path MTU discovery works through NAT.
 */
#pragma once
#include "checksum.h"
#include "connection.h"
#include "forward.h"
#include "parse.h"
#include "rewrite.h"

/* What an error becomes: in a map, for the stack is small. */
struct relation {
	struct translation outer, inner;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct relation);
} relations SEC(".maps");

INLINE struct relation *the_relation(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&relations, &key);
}

/*
 * Replaces addresses and ports: outer ones become `outer`, quoted ones `inner`. The ICMP checksum covers the quoted packet, so
 * every change in there counts, the quoted IP header's own checksum included.
 */
INLINE enum reason relate_v4(frame_t *frame, const struct packet *p, const struct translation *outer, const struct translation *inner)
{
	__u32 at = p->quoted - ICMP_ERROR_HEADER;
	struct quoted_v4 {
		struct v4_tail ip;
		__be16 source_port, destination_port;
	} *found, quoted;
	__u64 addresses, difference;
	struct icmp_header *icmp;
	__sum16 checksum;

	BOUND(at, 0x3ff);
	icmp = frame_begin(frame) + at;
	found = (void *)(icmp + 1) + (V4_TAIL - ETHERNET);
	if ((void *)(found + 1) > frame_end(frame))
		return DROP_REWRITE;
	addresses = address_difference(&p->source, &inner->source) + address_difference(&p->destination, &inner->destination);
	quoted.ip = found->ip;
	quoted.ip.check = checksum_after(found->ip.check, addresses);
	quoted.ip.source = get_v4(&inner->source);
	quoted.ip.destination = get_v4(&inner->destination);
	quoted.source_port = inner->source_port;
	quoted.destination_port = inner->destination_port;
	difference = addresses + (__u16)~found->ip.check + quoted.ip.check + port_difference(found->source_port, inner->source_port) +
		     port_difference(found->destination_port, inner->destination_port);
	checksum = checksum_after(icmp->checksum, difference);
	if (!put(frame, at + ICMP_ERROR_HEADER + (V4_TAIL - ETHERNET), &quoted, sizeof(quoted)) ||
	    !put(frame, at + __builtin_offsetof(struct icmp_header, checksum), &checksum, sizeof(checksum)) || !write_addresses_v4(frame, outer))
		return DROP_REWRITE;
	return GO_ON;
}

INLINE enum reason relate_v6(frame_t *frame, const struct packet *p, const struct translation *outer, const struct translation *inner)
{
	struct ipv6hdr *ip = frame_begin(frame) + ETHERNET;
	struct quoted_v6 {
		__u32 source[4], destination[4];
		__be16 source_port, destination_port;
	} *found, quoted;
	struct address source, destination;
	__u32 at = p->quoted - ICMP_ERROR_HEADER;
	struct icmp_header *icmp;
	__sum16 checksum;
	__u64 difference;

	BOUND(at, 0x3ff);
	icmp = frame_begin(frame) + at;
	found = (void *)(icmp + 1) + __builtin_offsetof(struct ipv6hdr, saddr);
	if ((void *)(ip + 1) > frame_end(frame) || (void *)(found + 1) > frame_end(frame))
		return DROP_REWRITE;
	set_v6(&source, &ip->saddr);
	set_v6(&destination, &ip->daddr);
	difference = address_difference(&source, &outer->source) + address_difference(&destination, &outer->destination) +
		     address_difference(&p->source, &inner->source) + address_difference(&p->destination, &inner->destination) +
		     port_difference(found->source_port, inner->source_port) +
		     port_difference(found->destination_port, inner->destination_port);
	put_v6(quoted.source, &inner->source);
	put_v6(quoted.destination, &inner->destination);
	quoted.source_port = inner->source_port;
	quoted.destination_port = inner->destination_port;
	checksum = checksum_after(icmp->checksum, difference);
	if (!put(frame, at + ICMP_ERROR_HEADER + __builtin_offsetof(struct ipv6hdr, saddr), &quoted, sizeof(quoted)) ||
	    !put(frame, at + __builtin_offsetof(struct icmp_header, checksum), &checksum, sizeof(checksum)) || !write_addresses_v6(frame, outer))
		return DROP_REWRITE;
	return GO_ON;
}

INLINE enum reason relate(frame_t *frame, const struct packet *p, const struct translation *outer, const struct translation *inner)
{
	return p->family == 4 ? relate_v4(frame, p, outer, inner) : relate_v6(frame, p, outer, inner);
}
