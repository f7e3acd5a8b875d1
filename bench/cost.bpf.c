/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a packet of an established NAT flow costs in the XDP program. The packet is restored before every run, with one flow or with
 * many in turn. `cost_restore` measures restoring alone, `cost_empty` an empty program.
 */
#define RELEVO_XDP
#include "balance.h"

struct plan {
	__u32 flows;            /* number of flows used in turn */
	__u32 next;
	__u32 step;             /* from one flow to the next: coprime to `flows`, so that flows next to each other in memory do not follow each other */
	__u32 server;
	__u32 generation;
	__u8 frame[64];         /* Ethernet, IPv4, UDP */
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct plan);
} plans SEC(".maps");

/* Flow `n`: 10.8.0.0/13 and 32 ports. */
INLINE __be32 client_of(__u32 n)
{
	return be32(0x0a080000 + (n >> 5));
}

INLINE __be16 port_of(__u32 n)
{
	return be16(1024 + (n & 31));
}

INLINE struct plan *the_plan(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&plans, &key);
}

INLINE int restore(frame_t *frame, struct plan *plan)
{
	__u64 *to = frame_begin(frame), *from = (void *)plan->frame;
	__u32 n = plan->next;
	struct iphdr *ip;
	int i;

	if ((void *)(to + 8) > frame_end(frame))
		return 0;
#pragma unroll
	for (i = 0; i < 8; i++)
		to[i] = from[i];
	ip = (void *)to + ETHERNET;
	ip->saddr = client_of(n);
	*(__be16 *)(ip + 1) = port_of(n);
	n += plan->step;
	plan->next = n >= plan->flows ? n - plan->flows : n;
	return 1;
}

SEC("xdp")
int cost_empty(struct xdp_md *frame)
{
	return XDP_DROP;
}

SEC("xdp")
int cost_restore(struct xdp_md *frame)
{
	struct plan *plan = the_plan();

	return plan && restore(frame, plan) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int cost_forward(struct xdp_md *frame)
{
	struct plan *plan = the_plan();
	struct job job = {};

	if (!plan || !restore(frame, plan))
		return XDP_PASS;
	job.packet = the_packet();
	job.settings = the_settings();
	if (!job.packet || !job.settings)
		return XDP_PASS;
	if (balance(frame, &job) != GO_ON)
		return XDP_PASS;
	return leave(frame, &job.route);
}

/* Inserts the next flow. */
SEC("xdp")
int cost_fill(struct xdp_md *frame)
{
	struct plan *plan = the_plan();
	struct scratch *work = the_scratch(1);
	__u32 now = (__u32)bpf_jiffies64();
	struct iphdr *ip;

	if (!plan || !work)
		return XDP_PASS;
	ip = (void *)plan->frame + ETHERNET;
	__builtin_memset(&work->fresh, 0, sizeof(work->fresh));
	set_v4(&work->fresh.client, client_of(plan->next));
	set_v4(&work->fresh.virtual, ip->daddr);
	work->fresh.client_port = port_of(plan->next);
	work->fresh.virtual_port = ((__be16 *)(ip + 1))[1];
	work->fresh.protocol = IPPROTO_UDP;
	work->fresh.state = STATE_UDP;
	work->fresh.server = plan->server;
	work->fresh.generation = plan->generation;
	work->fresh.expires = now + (1U << 30);
	plan->next += 1;
	return insert(now, 1) == NOWHERE ? XDP_PASS : XDP_DROP;
}

/* Renews the server's entry in `neighbours`, which nothing else does here. */
SEC("xdp")
int cost_neighbour(struct xdp_md *frame)
{
	struct plan *plan = the_plan();
	struct server *s;
	struct neighbour *neighbour;

	if (!plan)
		return XDP_PASS;
	s = bpf_map_lookup_elem(&servers, &plan->server);
	if (!s)
		return XDP_PASS;
	neighbour = neighbour_of(&s->address);
	if (!neighbour)
		return XDP_PASS;
	neighbour->destination = s->address;
	neighbour->interface = frame->ingress_ifindex;
	neighbour->expires = (__u32)bpf_jiffies64() + (1U << 30);
	return XDP_DROP;
}

char terms[] SEC("license") = "Dual BSD/GPL";
