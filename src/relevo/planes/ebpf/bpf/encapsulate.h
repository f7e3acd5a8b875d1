/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnels: IPIP, and GUE (UDP with a four-byte header). The outer header copies traffic class and TTL of the inner one, as
 * IPVS does; GUE's source port is a hash of the flow, so that routers and receivers spread flows. The inner and the outer
 * address family may differ, which no other forwarding method allows.
 */
#pragma once
#include "route.h"
#include "rewrite.h"

#define GUE_HEADER 4

struct gue {
	struct udphdr udp;
	__u8 control;           /* version 0, no control, no options */
	__u8 protocol;
	__be16 flags;
};

INLINE __u32 tunnel_overhead(const struct server *s)
{
	return (is_v4(&s->address) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + (s->tunnel == TUNNEL_GUE ? sizeof(struct gue) : 0);
}

/* Makes room for `bytes` before the IP header. Returns false when the kernel refuses. */
INLINE int make_room(frame_t *frame, __u32 bytes, int outer_v4, int gue)
{
#ifdef RELEVO_XDP
	struct ethhdr former;
	void *begin = frame_begin(frame);

	if (begin + ETHERNET > frame_end(frame))
		return 0;
	__builtin_memcpy(&former, begin, sizeof(former));
	if (bpf_xdp_adjust_head(frame, -(int)bytes))
		return 0;
	begin = frame_begin(frame);
	if (begin + ETHERNET > frame_end(frame))
		return 0;
	__builtin_memcpy(begin, &former, sizeof(former));
	return 1;
#else
	__u64 flags = outer_v4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;

	if (gue)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	return !bpf_skb_adjust_room(frame, bytes, BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_FIXED_GSO);
#endif
}

struct outer {
	__u32 length;           /* of the inner packet */
	__u8 inner_protocol;    /* IPPROTO_IPIP or IPPROTO_IPV6 */
	__u8 traffic_class;
	__u8 ttl;
	__be16 source_port;
};

INLINE void write_gue(struct gue *g, const struct outer *o, const struct server *s)
{
	g->udp.source = o->source_port;
	g->udp.dest = s->tunnel_port;
	g->udp.len = be16((__u16)(o->length + sizeof(*g)));
	g->udp.check = 0; /* the inner packet has its own; RFC 6935 allows it for tunnels over IPv6 too */
	g->control = 0;
	g->protocol = o->inner_protocol;
	g->flags = 0;
}

INLINE int write_outer_v4(frame_t *frame, const struct packet *p, const struct outer *o, const struct server *s)
{
	struct iphdr *ip = frame_begin(frame) + ETHERNET;
	struct gue *g = (void *)(ip + 1);
	struct ethhdr *ethernet = frame_begin(frame);
	__u64 sum;

	if ((void *)(ip + 1) > frame_end(frame))
		return 0;
	ethernet->h_proto = be16(ETH_P_IP);
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = o->traffic_class;
	ip->tot_len = be16((__u16)(o->length + tunnel_overhead(s)));
	ip->frag_off = p->dont_fragment ? be16(0x4000) : 0;
	if (!p->dont_fragment)
		ip->id = (__be16)bpf_get_prandom_u32(); /* needed for reassembly (RFC 6864) */
	ip->ttl = o->ttl;
	ip->protocol = s->tunnel == TUNNEL_GUE ? IPPROTO_UDP : o->inner_protocol;
	ip->saddr = get_v4(&s->outer_source);
	ip->daddr = get_v4(&s->address);
	sum = *(__u16 *)ip + ip->tot_len + ip->id + ip->frag_off + *(__u16 *)&ip->ttl + (__u64)ip->saddr + ip->daddr;
	ip->check = (__sum16)~fold_16(sum);
	if (s->tunnel != TUNNEL_GUE)
		return 1;
	if ((void *)(g + 1) > frame_end(frame))
		return 0;
	write_gue(g, o, s);
	return 1;
}

INLINE int write_outer_v6(frame_t *frame, const struct outer *o, const struct server *s)
{
	struct ipv6hdr *ip = frame_begin(frame) + ETHERNET;
	struct gue *g = (void *)(ip + 1);
	struct ethhdr *ethernet = frame_begin(frame);

	if ((void *)(ip + 1) > frame_end(frame))
		return 0;
	ethernet->h_proto = be16(ETH_P_IPV6);
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->priority = o->traffic_class >> 4;
	ip->flow_lbl[0] = (__u8)(o->traffic_class << 4);
	ip->payload_len = be16((__u16)(o->length + tunnel_overhead(s) - sizeof(*ip)));
	ip->nexthdr = s->tunnel == TUNNEL_GUE ? IPPROTO_UDP : o->inner_protocol;
	ip->hop_limit = o->ttl;
	put_v6(&ip->saddr, &s->outer_source);
	put_v6(&ip->daddr, &s->address);
	if (s->tunnel != TUNNEL_GUE)
		return 1;
	if ((void *)(g + 1) > frame_end(frame))
		return 0;
	write_gue(g, o, s);
	return 1;
}

INLINE __u8 traffic_class(frame_t *frame, const struct packet *p)
{
	__u8 *ip = frame_begin(frame) + ETHERNET;

	if ((void *)(ip + 2) > frame_end(frame))
		return 0;
	return p->family == 4 ? ip[1] : (__u8)(ip[0] << 4 | ip[1] >> 4);
}

/* Adds the outer headers for server `s`. */
NOINLINE enum reason encapsulate(frame_t *frame, const struct packet *p, const struct server *s)
{
	int outer_v4 = is_v4(&s->address), gue = s->tunnel == TUNNEL_GUE;
	struct outer o = {
		.length = p->length,
		.inner_protocol = p->family == 4 ? IPPROTO_IPIP : IPPROTO_IPV6,
		.traffic_class = traffic_class(frame, p),
		.ttl = p->ttl - 1,
		/* 49152…65535, by the flow (RFC 7510 §3) */
		.source_port = be16((__u16)(0xc000 | (hash_32(fold_address(&p->source) ^ ((__u32)p->source_port << 16 | p->destination_port), 14)))),
	};

	if (!make_room(frame, tunnel_overhead(s), outer_v4, gue))
		return DROP_REWRITE;
	if (outer_v4 ? !write_outer_v4(frame, p, &o, s) : !write_outer_v6(frame, &o, s))
		return DROP_REWRITE;
	return GO_ON;
}
