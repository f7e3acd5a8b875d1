/* SPDX-License-Identifier: Apache-2.0 */
/* Generators of small UDP packets and of SYNs, and a sink, all in XDP, so that the balancer takes nearly all of the time. */
#define RELEVO_XDP
#include "checksum.h"

struct plan {
	__u32 interface;
	__u32 flows;
	__u32 next;
	__u32 reserved;
	__u64 received;
	__u8 frame[64];
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct plan);
} plans SEC(".maps");

INLINE struct plan *the_plan(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&plans, &key);
}

/* The kernel recycles live frames, and the last use has changed their content. */
INLINE int restore(struct xdp_md *frame, struct plan *plan)
{
	__u64 *to = (void *)(long)frame->data, *from = (void *)plan->frame;
	int i;

	if ((void *)(to + 8) > (void *)(long)frame->data_end)
		return 0;
#pragma unroll
	for (i = 0; i < 8; i++)
		to[i] = from[i];
	return 1;
}

/* Run on live frames: a SYN from a random address and port. */
SEC("xdp")
int traffic_flood(struct xdp_md *frame)
{
	void *begin = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	struct iphdr *ip = begin + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);
	struct plan *plan = the_plan();
	__u32 random = bpf_get_prandom_u32();
	__u64 difference;
	__be32 source;

	if (!plan || !restore(frame, plan) || (void *)(tcp + 1) > end)
		return XDP_DROP;
	source = be32(0x0b000000 | (random & 0xffffff)); /* 11.0.0.0/8 */
	difference = (__u64)(__u32)~ip->saddr + source;
	ip->check = checksum_after(ip->check, difference);
	difference += port_difference(tcp->source, (__be16)(random >> 16));
	tcp->check = checksum_after(tcp->check, difference);
	ip->saddr = source;
	tcp->source = (__be16)(random >> 16);
	plan->next += 1;
	return bpf_redirect(plan->interface, 0);
}

/* Run on live frames: gives each the next flow's source port and sends it. The UDP checksum is 0 (none). */
SEC("xdp")
int traffic_send(struct xdp_md *frame)
{
	void *begin = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	struct plan *plan = the_plan();
	__be16 *port = begin + sizeof(struct ethhdr) + sizeof(struct iphdr);

	if (!plan || !restore(frame, plan) || (void *)(port + 1) > end)
		return XDP_DROP;
	*port = be16(1024 + plan->next);
	plan->next = plan->next + 1 >= plan->flows ? 0 : plan->next + 1;
	return bpf_redirect(plan->interface, 0);
}

/* At the server: counts and drops. */
SEC("xdp")
int traffic_receive(struct xdp_md *frame)
{
	void *begin = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	struct ethhdr *ethernet = begin;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct plan *plan = the_plan();

	if (!plan || (void *)(ip + 1) > end || ethernet->h_proto != be16(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	plan->received += 1;
	return XDP_DROP;
}

/* The same at TC, for paths that arrive as socket buffers: drops them before the stack. */
SEC("tc")
int traffic_receive_tc(struct __sk_buff *skb)
{
	struct plan *plan = the_plan();

	if (!plan || skb->protocol != be16(ETH_P_IP) || skb->len < 42)
		return TC_ACT_UNSPEC;
	plan->received += 1;
	return TC_ACT_SHOT;
}

/* Lets frames through: a veth takes frames from XDP only where its other end has a program. */
SEC("xdp")
int traffic_pass(struct xdp_md *frame)
{
	return XDP_PASS;
}

char terms[] SEC("license") = "Dual BSD/GPL";
