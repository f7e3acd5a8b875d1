/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP errors about balanced packets. An error from the client's side quotes a packet that the server sent and goes to that
 * server; an error from the server's side quotes a packet that the client sent and goes to the client. The quoted packet
 * gets the addresses and ports with which its sender sent it, so that path MTU discovery works through NAT.
 */
#pragma once
#include "checksum.h"
#include "connection.h"
#include "route.h"
#include "parse.h"

/* New addresses and ports of an error, kept in a map because the stack is small. */
struct icmp_rewrite {
	struct translation outer, inner;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct icmp_rewrite);
} icmp_rewrites SEC(".maps");

INLINE struct icmp_rewrite *the_icmp_rewrite(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&icmp_rewrites, &key);
}

/*
 * Writes the addresses of `outer` into the IP header and the addresses and ports of `inner` into the quoted packet. The ICMP
 * checksum covers the quoted packet, so it is corrected for every change there, including the quoted IP checksum.
 */
INLINE enum reason rewrite_icmp_v4(frame_t *frame, const struct packet *p, const struct translation *outer, const struct translation *inner)
{
	struct iphdr *ip = frame_begin(frame) + ETHERNET, *quoted;
	struct icmp_header *icmp;
	struct ports *ports;
	__u64 addresses, difference;
	__u32 at = p->quoted - ICMP_ERROR_HEADER;
	__sum16 former;

	if ((void *)(ip + 1) > frame_end(frame))
		return DROP_REWRITE;
	write_addresses_v4(ip, outer);
	BOUND(at, 0x3ff);
	icmp = frame_begin(frame) + at;
	quoted = (void *)(icmp + 1);
	ports = (void *)(quoted + 1);
	if ((void *)(ports + 1) > frame_end(frame))
		return DROP_REWRITE;
	addresses = address_difference(&p->source, &inner->source) + address_difference(&p->destination, &inner->destination);
	former = quoted->check;
	quoted->check = checksum_after(quoted->check, addresses);
	quoted->saddr = get_v4(&inner->source);
	quoted->daddr = get_v4(&inner->destination);
	difference = addresses + (__u16)~former + quoted->check + port_difference(ports->source, inner->source_port) +
		     port_difference(ports->destination, inner->destination_port);
	ports->source = inner->source_port;
	ports->destination = inner->destination_port;
	icmp->checksum = checksum_after(icmp->checksum, difference);
	return GO_ON;
}

INLINE enum reason rewrite_icmp_v6(frame_t *frame, const struct packet *p, const struct translation *outer, const struct translation *inner)
{
	struct ipv6hdr *ip = frame_begin(frame) + ETHERNET, *quoted;
	struct icmp_header *icmp;
	struct address source, destination;
	struct ports *ports;
	__u64 difference;
	__u32 at = p->quoted - ICMP_ERROR_HEADER;

	BOUND(at, 0x3ff);
	icmp = frame_begin(frame) + at;
	if ((void *)(ip + 1) > frame_end(frame))
		return DROP_REWRITE;
	quoted = (void *)(icmp + 1);
	ports = (void *)(quoted + 1);
	if ((void *)(ports + 1) > frame_end(frame))
		return DROP_REWRITE;
	set_v6(&source, &ip->saddr);
	set_v6(&destination, &ip->daddr);
	difference = address_difference(&source, &outer->source) + address_difference(&destination, &outer->destination) +
		     address_difference(&p->source, &inner->source) + address_difference(&p->destination, &inner->destination) +
		     port_difference(ports->source, inner->source_port) + port_difference(ports->destination, inner->destination_port);
	write_addresses_v6(ip, outer);
	put_v6(&quoted->saddr, &inner->source);
	put_v6(&quoted->daddr, &inner->destination);
	ports->source = inner->source_port;
	ports->destination = inner->destination_port;
	icmp->checksum = checksum_after(icmp->checksum, difference);
	return GO_ON;
}

INLINE enum reason rewrite_icmp(frame_t *frame, const struct packet *p, const struct translation *outer, const struct translation *inner)
{
	return p->family == 4 ? rewrite_icmp_v4(frame, p, outer, inner) : rewrite_icmp_v6(frame, p, outer, inner);
}
