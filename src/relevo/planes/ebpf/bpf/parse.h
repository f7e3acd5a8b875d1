/* SPDX-License-Identifier: Apache-2.0 */
/* Parses a frame into `struct packet`. The kernel's stack gets what cannot be parsed, and counts and drops it. */
#pragma once
#include "packet.h"

#define IPV6_EXTENSIONS 6 /* most extension headers that are parsed; legitimate traffic has fewer */
#define ICMP_ERROR_HEADER 8

struct icmp_header {
	__u8 type, code;
	__sum16 checksum;
	__be16 unused, mtu;
};

struct ports {
	__be16 source, destination;
};

/* Sources that no client can have: "this" network, loopback, multicast and above (RFC 1122 §3.2.1.3). */
INLINE int martian_v4(__be32 source)
{
	__u8 first = (__u8)source;

	return first == 0 || first == 127 || first >= 224;
}

INLINE int martian_v6(const struct address *source)
{
	if ((__u8)source->half[0] == 0xff)
		return 1;
	return source->half[0] == 0 && (source->half[1] == 0 || source->half[1] == 1ULL << 56);
}

INLINE int icmp_is_error(__u8 family, __u8 type)
{
	if (family == 6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 4 || type == 11 || type == 12;
}

INLINE enum reason parse_v4(frame_t *frame, struct packet *p)
{
	struct iphdr *ip = frame_begin(frame) + ETHERNET;
	__u16 offset, total;

	if ((void *)(ip + 1) > frame_end(frame) || ip->version != 4 || ip->ihl < 5)
		return PASS_MALFORMED;
	total = be16(ip->tot_len);
	if (total > p->length || (total && total < ip->ihl * 4))
		return PASS_MALFORMED;
	if (total)
		p->length = total; /* 0: a GSO packet above 64 KiB; less than the frame: Ethernet padding */
	if (unlikely(martian_v4(ip->saddr)))
		return PASS_MARTIAN;
	set_v4(&p->source, ip->saddr);
	set_v4(&p->destination, ip->daddr);
	p->family = 4;
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	p->l4 = ETHERNET + ip->ihl * 4;
	offset = be16(ip->frag_off);
	p->dont_fragment = !!(offset & 0x4000);
	if (unlikely(offset & 0x3fff)) {
		p->fragment = offset & 0x1fff ? LATER_FRAGMENT : FIRST_FRAGMENT;
		p->identification = ip->id;
	}
	return GO_ON;
}

struct extension {
	__u8 next, length;
	__be16 offset;          /* fragment header */
	__be32 identification;
};

NOINLINE enum reason skip_extensions(frame_t *frame, struct packet *p)
{
	__u32 at = p->l4;
	int i;

	for (i = 0; i < IPV6_EXTENSIONS; i++) {
		struct extension *e;

		if (p->protocol != IPPROTO_HOPOPTS && p->protocol != IPPROTO_ROUTING && p->protocol != IPPROTO_DSTOPTS &&
		    p->protocol != IPPROTO_FRAGMENT)
			break;
		if (at > 0x3ff)
			return PASS_MALFORMED;
		if (!ensure_readable(frame, at + sizeof(*e)))
			return PASS_MALFORMED;
		e = frame_begin(frame) + at;
		if ((void *)(e + 1) > frame_end(frame))
			return PASS_MALFORMED;
		if (p->protocol == IPPROTO_FRAGMENT) {
			p->identification = e->identification;
			p->fragment = be16(e->offset) & 0xfff8 ? LATER_FRAGMENT : FIRST_FRAGMENT;
			if (!(be16(e->offset) & 0xfff9))
				p->fragment = WHOLE; /* an atomic fragment, RFC 6946 */
			at += 8;
		} else {
			at += (e->length + 1) * 8;
		}
		p->protocol = e->next;
		if (p->fragment == LATER_FRAGMENT)
			break;
	}
	if (at > 0x3ff)
		return PASS_MALFORMED;
	p->l4 = at;
	return GO_ON;
}

INLINE enum reason parse_v6(frame_t *frame, struct packet *p)
{
	struct ipv6hdr *ip;
	__u32 total;

	if (!ensure_readable(frame, ETHERNET + sizeof(*ip)))
		return PASS_MALFORMED;
	ip = frame_begin(frame) + ETHERNET;
	if ((void *)(ip + 1) > frame_end(frame) || ip->version != 6)
		return PASS_MALFORMED;
	total = be16(ip->payload_len);
	if (total + sizeof(*ip) > p->length)
		return PASS_MALFORMED;
	if (total)
		p->length = total + sizeof(*ip);
	set_v6(&p->source, &ip->saddr);
	set_v6(&p->destination, &ip->daddr);
	if (unlikely(martian_v6(&p->source) || is_v4(&p->source) || is_v4(&p->destination)))
		return PASS_MARTIAN; /* mapped addresses mean IPv4 here, and must not be on the wire (RFC 4291 §2.5.5) */
	p->family = 6;
	p->protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->l4 = ETHERNET + sizeof(*ip);
	p->dont_fragment = 1;
	if (likely(p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_ICMPV6))
		return GO_ON;
	return skip_extensions(frame, p);
}

/* Ports and TCP flags. */
INLINE enum reason parse_transport(frame_t *frame, struct packet *p)
{
	__u32 at = p->l4, bytes = p->protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	struct ports *ports;

	BOUND(at, 0x3ff);
	if (at - ETHERNET + bytes > p->length || !ensure_readable(frame, at + bytes))
		return PASS_MALFORMED; /* bytes after the packet are padding */
	ports = frame_begin(frame) + at;
	if ((void *)ports + sizeof(struct udphdr) > frame_end(frame))
		return PASS_MALFORMED;
	p->source_port = ports->source;
	p->destination_port = ports->destination;
	p->l4_length = sizeof(struct udphdr);
	if (bytes == sizeof(struct tcphdr)) {
		struct tcphdr *tcp = (void *)ports;

		if ((void *)(tcp + 1) > frame_end(frame) || tcp->doff < 5)
			return PASS_MALFORMED;
		p->tcp_flags = ((__u8 *)tcp)[13];
		p->l4_length = tcp->doff * 4;
		if (at - ETHERNET + p->l4_length > p->length)
			return PASS_MALFORMED;
	}
	return GO_ON;
}

#define PATH_MTU_LIFE 600 /* seconds, as the kernel's ip_rt_mtu_expires */
#define LEAST_MTU_V4 552  /* the kernel's ip_rt_min_pmtu: a forged error cannot make packets smaller */
#define LEAST_MTU_V6 1280

/* Stores the MTU of a "too big" error about a tunnel's packet to a server. The client's next packet above it gets an error. */
GLOBAL int learn_path_mtu(__u32 type, __u32 code, __u32 mtu)
{
	struct settings *s = the_settings();
	struct packet *p = the_packet();
	struct path_mtu path = {};
	__u32 least;

	if (!s || !p || (p->family == 4 ? type != 3 || code != 4 : type != 2) || !in_filter(s->server_filter, &p->destination))
		return 0;
	least = p->family == 4 ? LEAST_MTU_V4 : LEAST_MTU_V6;
	path.mtu = mtu > least ? mtu : least;
	path.expires = (__u32)bpf_jiffies64() + PATH_MTU_LIFE * s->hz;
	bpf_map_update_elem(&path_mtus, &p->destination, &path, BPF_ANY);
	s->path_mtus = 1;
	return 0;
}

/*
 * Parses an ICMP error: source, destination, ports and protocol become those of the quoted packet, and `quoted` is its
 * offset. A forged error matches no connection.
 */
NOINLINE enum reason parse_quoted(frame_t *frame, struct packet *p)
{
	__u32 at = p->l4, wanted;
	struct icmp_header *icmp;
	struct ports *ports;
	void *quoted;

	BOUND(at, 0x3ff);
	wanted = at + ICMP_ERROR_HEADER + (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + 8;
	if (wanted - ETHERNET > p->length || !ensure_readable(frame, wanted))
		return PASS_MALFORMED;
	icmp = frame_begin(frame) + at;
	if ((void *)(icmp + 1) > frame_end(frame))
		return PASS_MALFORMED;
	if (!icmp_is_error(p->family, icmp->type))
		return PASS_PROTOCOL;
	quoted = icmp + 1;
	p->quoted = at + ICMP_ERROR_HEADER;
	if (p->family == 4) {
		struct iphdr *ip = quoted;

		/* Options in a quoted packet would move the ports away from the offset checked here; they do not occur in practice. */
		if ((void *)(ip + 1) > frame_end(frame) || ip->version != 4 || ip->ihl != 5 || ip->frag_off & be16(0x1fff))
			return PASS_MALFORMED;
		set_v4(&p->source, ip->saddr);
		set_v4(&p->destination, ip->daddr);
		p->protocol = ip->protocol;
		ports = (void *)(ip + 1);
		p->l4 = p->quoted + sizeof(*ip);
	} else {
		struct ipv6hdr *ip = quoted;

		if ((void *)(ip + 1) > frame_end(frame) || ip->version != 6)
			return PASS_MALFORMED;
		set_v6(&p->source, &ip->saddr);
		set_v6(&p->destination, &ip->daddr);
		p->protocol = ip->nexthdr;
		ports = (void *)(ip + 1);
		p->l4 = p->quoted + sizeof(*ip);
	}
#ifndef RELEVO_XDP
	if (p->protocol == IPPROTO_IPIP || p->protocol == IPPROTO_IPV6 || p->protocol == IPPROTO_UDP)
		learn_path_mtu(icmp->type, icmp->code, be16(icmp->mtu));
#endif
	if ((p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP) || (void *)ports + 8 > frame_end(frame))
		return PASS_MALFORMED;
	p->source_port = ports->source;
	p->destination_port = ports->destination;
	return GO_ON;
}

/* Parses a frame. GO_ON when it is TCP, UDP or an ICMP error about one of them. */
INLINE enum reason parse(frame_t *frame, const struct settings *s, struct packet *p)
{
	struct ethhdr *ethernet;
	enum reason reason;

	if (!ensure_readable(frame, ETHERNET + sizeof(struct iphdr)))
		return PASS_NOT_IP;
	ethernet = frame_begin(frame);
	if ((void *)(ethernet + 1) > frame_end(frame))
		return PASS_NOT_IP;
	if (ethernet->h_dest[0] & 1)
		return PASS_NOT_IP; /* multicast and broadcast belong to no connection */
	p->length = frame_length(frame);
	p->flags = s->flags;
	p->quoted = 0;
	p->fragment = WHOLE;
	p->tcp_flags = 0;
	if (ethernet->h_proto == be16(ETH_P_IP))
		reason = parse_v4(frame, p);
	else if (ethernet->h_proto == be16(ETH_P_IPV6))
		reason = parse_v6(frame, p);
	else
		return PASS_NOT_IP;
	if (unlikely(reason != GO_ON))
		return reason;
	p->now = (__u32)bpf_jiffies64();
	if (unlikely(p->fragment == LATER_FRAGMENT)) /* after IPv6 options only the first fragment has the protocol */
		return p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP || (p->family == 6 && p->protocol == IPPROTO_DSTOPTS)
			       ? GO_ON : PASS_PROTOCOL;
	if (likely(p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP))
		return parse_transport(frame, p);
	if (p->protocol == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) && p->fragment == WHOLE)
		return parse_quoted(frame, p);
	return PASS_PROTOCOL;
}
