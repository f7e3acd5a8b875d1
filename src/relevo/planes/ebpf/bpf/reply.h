/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies of the balancer itself: ICMP errors and TCP resets, built from the packet that caused them and sent back out of
 * its interface. TC only: XDP passes such packets on to TC. Each CPU sends a limited number per second, as the kernel does,
 * so that forged packets cannot turn the balancer into a flood source.
 *
 * A packet from a neighbour on the same machine may carry a partial checksum (offload); the kernel completes it after this
 * program, over the bytes that the program leaves. The programs detect a partial checksum by bpf_l4_csum_replace, which
 * ignores a change of anything but the pseudo-header then.
 */
#pragma once
#include "count.h"
#include "parse.h"
#include "rewrite.h"

INLINE int may_reply(const struct settings *s, const struct packet *p)
{
	__u32 key = 0, began;
	__u64 *value = bpf_map_lookup_elem(&replies, &key);

	if (!value)
		return 0;
	began = (__u32)(*value >> 32);
	if (p->now - began >= s->hz)
		*value = (__u64)p->now << 32;
	if ((__u32)*value >= s->replies_per_second)
		return 0;
	*value += 1;
	return 1;
}

INLINE void swap_macs(struct ethhdr *e)
{
	__u8 mac[6];

	__builtin_memcpy(mac, e->h_dest, 6);
	__builtin_memcpy(e->h_dest, e->h_source, 6);
	__builtin_memcpy(e->h_source, mac, 6);
}

#define REPLY_TTL 64

/* Overwrites the IP header with one from `from` to `to`. */
INLINE int write_ip(frame_t *frame, const struct packet *p, const struct address *from, const struct address *to, __u8 protocol,
		    __u16 payload)
{
	struct ethhdr *ethernet = frame_begin(frame);

	if (p->family == 4) {
		struct iphdr *ip = (void *)(ethernet + 1);
		__u64 sum;

		if ((void *)(ip + 1) > frame_end(frame))
			return 0;
		*(__u16 *)ip = be16(0x4500);
		ip->tot_len = be16(sizeof(*ip) + payload);
		ip->id = 0;
		ip->frag_off = be16(0x4000);
		ip->ttl = REPLY_TTL;
		ip->protocol = protocol;
		ip->saddr = get_v4(from);
		ip->daddr = get_v4(to);
		sum = *(__u16 *)ip + ip->tot_len + ip->frag_off + *(__u16 *)&ip->ttl + (__u64)ip->saddr + ip->daddr;
		ip->check = (__sum16)~fold_16(sum);
	} else {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > frame_end(frame))
			return 0;
		*(__u32 *)ip = be32(0x60000000);
		ip->payload_len = be16(payload);
		ip->nexthdr = protocol;
		ip->hop_limit = REPLY_TTL;
		put_v6(&ip->saddr, from);
		put_v6(&ip->daddr, to);
	}
	swap_macs(ethernet);
	return 1;
}

INLINE __u16 ip_header(const struct packet *p)
{
	return p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* RFC 9293 §3.10.7.1: the reset's sequence number is the segment's acknowledgment, or it acknowledges the segment. */
INLINE void write_reset(struct tcphdr *tcp, const struct packet *p)
{
	__u32 sequence = be32(tcp->seq), acknowledged = tcp->ack_seq;
	__u32 sent = p->length - (p->l4 - ETHERNET) - p->l4_length + !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
	__u16 *words = (void *)tcp;

	tcp->source = p->destination_port;
	tcp->dest = p->source_port;
	words[6] = be16(5 << 12 | TCP_RST | (p->tcp_flags & TCP_ACK ? 0 : TCP_ACK));
	words[7] = 0; /* window */
	tcp->urg_ptr = 0;
	tcp->seq = p->tcp_flags & TCP_ACK ? acknowledged : 0;
	tcp->ack_seq = p->tcp_flags & TCP_ACK ? 0 : be32(sequence + sent);
}

INLINE __u64 sum_words(const __u16 *words, int count)
{
	__u64 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < count; i++)
		sum += words[i];
	return sum;
}

/* Turns a TCP segment into a reset, and sends it back. */
NOINLINE int reply_reset(frame_t *frame)
{
	struct packet *p = the_packet();
	struct tcphdr *tcp;
	__u64 sum;
	int begun;

	if (!p)
		return TC_ACT_SHOT;
	begun = checksum_begun(frame, p);

	/* With IP options or extension headers the TCP header has no fixed offset: drop without a reply. */
	if (p->l4 != ETHERNET + ip_header(p) || p->tcp_flags & TCP_RST || p->fragment != WHOLE)
		return TC_ACT_SHOT;
	if (bpf_skb_change_tail(frame, p->l4 + sizeof(*tcp), 0))
		return TC_ACT_SHOT;
	if (!write_ip(frame, p, &p->destination, &p->source, IPPROTO_TCP, sizeof(*tcp)))
		return TC_ACT_SHOT;
	tcp = frame_begin(frame) + ETHERNET + (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	if ((void *)(tcp + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	write_reset(tcp, p);
	tcp->check = 0;
	sum = sum_pseudo(&p->source, &p->destination, IPPROTO_TCP, sizeof(*tcp));
	tcp->check = begun ? fold_16(sum) : (__sum16)~fold_16(sum + sum_words((void *)tcp, 10));
	return bpf_redirect(frame->ifindex, 0);
}

#define ERROR_MOST_V4 576  /* largest ICMP error in bytes (RFC 1812 §4.3.2.3) */
#define ERROR_MOST_V6 1280 /* (RFC 4443 §2.4) */
#define SUM_CHUNK 256
#define QUOTED_ROOM (5 * SUM_CHUNK)
_Static_assert(QUOTED_ROOM >= ERROR_MOST_V6, "a whole error");

/* The checksum of the draft's bytes from `from` on; the bytes after the quoted ones are zero. */
GLOBAL __u32 sum_draft(__u32 from)
{
	struct draft *draft = the_draft();
	__s64 sum = 0;
	__u32 i;

	if (!draft)
		return 0;
	BOUND(from, 0x3ff);
	for (i = 0; i < 5; i++)
		sum = bpf_csum_diff(0, 0, draft->bytes + from + i * SUM_CHUNK, SUM_CHUNK, (__u32)sum);
	return (__u32)sum;
}

GLOBAL int clear_draft(void)
{
	struct draft *draft = the_draft();
	volatile __u64 *words;
	__u32 i;

	if (!draft)
		return 0;
	words = (void *)draft->bytes;
	for (i = 0; i < 2 * QUOTED_ROOM / 8; i++)
		words[i] = 0;
	return 1;
}

/*
 * What completing a partial checksum will add to the sum of the quoted packet: the kernel completes it after this program,
 * over the bytes from the transport header to the end.
 */
INLINE __u64 sum_of_finishing(frame_t *frame, const struct packet *p, __u32 begin)
{
	__u16 field = 0, finished;

	bpf_skb_load_bytes(frame, begin + p->l4 - ETHERNET + checksum_offset(p->protocol), &field, 2);
	finished = (__u16)~fold_16(sum_draft(p->l4 - ETHERNET));
	return (__u64)(__u16)~field + (finished ? finished : 0xffff);
}

/* Copies the first `length` bytes of the packet into the draft, followed by zeros. */
INLINE int copy_quoted(frame_t *frame, __u32 length)
{
	struct draft *draft = the_draft();

	if (!draft || length > ERROR_MOST_V6 || !clear_draft())
		return 0;
	return !bpf_skb_load_bytes(frame, ETHERNET, draft->bytes, LENGTH(length, 0x7ff));
}

/*
 * Turns the packet into an ICMP error about itself, from the packet's destination address, and sends it back. The error
 * quotes as much of the packet as its size limit allows.
 */
NOINLINE int reply_icmp(frame_t *frame)
{
	struct packet *p = the_packet();
	struct icmp_header icmp = {};
	__u32 header, quoted, most, begun;
	__u64 sum;

	if (!p)
		return TC_ACT_SHOT;
	if (p->quoted || (p->family == 4 && p->fragment == LATER_FRAGMENT))
		return TC_ACT_SHOT; /* no errors about errors, nor about later fragments (RFC 1812 §4.3.2.7) */
	icmp.type = p->icmp_type;
	icmp.code = p->icmp_code;
	icmp.mtu = be16(p->mtu);
	begun = p->fragment == WHOLE && checksum_begun(frame, p);
	header = ip_header(p);
	most = (p->family == 4 ? ERROR_MOST_V4 : ERROR_MOST_V6) - header - ICMP_ERROR_HEADER;
	quoted = p->length < most ? p->length : most;
	if (!copy_quoted(frame, quoted) || bpf_skb_change_tail(frame, ETHERNET + quoted, 0))
		return TC_ACT_SHOT;
	if (bpf_skb_adjust_room(frame, header + ICMP_ERROR_HEADER, BPF_ADJ_ROOM_MAC, 0))
		return TC_ACT_SHOT;
	sum = sum_words((void *)&icmp, 4) + sum_draft(0);
	if (begun)
		sum += sum_of_finishing(frame, p, ETHERNET + header + ICMP_ERROR_HEADER);
	if (p->family == 6)
		sum += sum_pseudo(&p->destination, &p->source, IPPROTO_ICMPV6, ICMP_ERROR_HEADER + quoted);
	icmp.checksum = (__sum16)~fold_16(sum);
	if (bpf_skb_store_bytes(frame, ETHERNET + header, &icmp, sizeof(icmp), 0))
		return TC_ACT_SHOT;
	if (!write_ip(frame, p, &p->destination, &p->source, p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, ICMP_ERROR_HEADER + quoted))
		return TC_ACT_SHOT;
	return bpf_redirect(frame->ifindex, 0);
}

/* Sends the reply that belongs to the packet's `reason`. Returns the program's return value. */
NOINLINE int reply(frame_t *frame)
{
	struct settings *s = the_settings();
	struct packet *p = the_packet();
	__u32 v4;

	if (!s || !p)
		return TC_ACT_SHOT;
	v4 = p->family == 4;
	if (!may_reply(s, p)) {
		count(DROP_REPLY_LIMIT);
		return TC_ACT_SHOT;
	}
	switch (p->reason) {
	case REFUSED_NO_DESTINATION:
		p->icmp_type = v4 ? 3 : 1;
		p->icmp_code = v4 ? 3 : 4;
		p->mtu = 0;
		return reply_icmp(frame);
	case REFUSED_TTL:
		p->icmp_type = v4 ? 11 : 3;
		p->icmp_code = 0;
		p->mtu = 0;
		return reply_icmp(frame);
	case REFUSED_TOO_BIG:
		p->icmp_type = v4 ? 3 : 2;
		p->icmp_code = v4 ? 4 : 0;
		return reply_icmp(frame);
	case REFUSED_ORPHAN:
	case REFUSED_WITH_RESET:
		return reply_reset(frame);
	default:
		return TC_ACT_SHOT;
	}
}
