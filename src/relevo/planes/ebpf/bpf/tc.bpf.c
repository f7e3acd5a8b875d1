/* SPDX-License-Identifier: Apache-2.0 */
/* The TC program, at ingress. It handles everything, on every Ethernet device, and forwards GSO packets whole. */
#include "balance.h"
#include "reply.h"

/*
 * A service whose address another node has is closed: its packets only pass through. If the address is already on this node,
 * the node is taking over right now. The local stack would reply with a reset, so the packet is dropped and the client
 * retransmits it.
 */
NOINLINE enum reason closed(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	struct route route = {};

	return look_up_neighbour(frame, p, &p->source, &p->destination, &route) == PASS_LOCAL ? DROP_NOT_YET : PASS_CLOSED;
}

/*
 * Assigns the SYN of a connection to a server on this node to the socket that listens at the server's address and port;
 * nothing is translated. The kernel's connection then has the virtual address, so replies are sent from it and later
 * segments reach it without help.
 */
NOINLINE void deliver(frame_t *frame, struct job *job)
{
	struct server *s = bpf_map_lookup_elem(&servers, &job->server);
	struct packet *p = job->packet;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__be16 port;
	int v4;

	if (!s || p->protocol != IPPROTO_TCP || !(p->tcp_flags & TCP_SYN) || s->forwarding == FORWARDING_DR || s->forwarding == FORWARDING_TUN)
		return;
	port = s->port ? s->port : p->destination_port;
	v4 = is_v4(&s->address);
	if (v4) {
		tuple.ipv4.saddr = get_v4(&p->source);
		tuple.ipv4.daddr = get_v4(&s->address);
		tuple.ipv4.sport = p->source_port;
		tuple.ipv4.dport = port;
	} else {
		put_v6(tuple.ipv6.saddr, &p->source);
		put_v6(tuple.ipv6.daddr, &s->address);
		tuple.ipv6.sport = p->source_port;
		tuple.ipv6.dport = port;
	}
	socket = bpf_sk_lookup_tcp(frame, &tuple, v4 ? sizeof(tuple.ipv4) : sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return;
	bpf_sk_assign(frame, socket, 0);
	bpf_sk_release(socket);
}

/* Fragments, refuses with a reply, or drops the packet, by its `reason`. */
NOINLINE int refuse(frame_t *frame)
{
	struct packet *p = the_packet();

	if (!p)
		return TC_ACT_SHOT;
	if (p->reason == AGAIN_CUT && !cut(frame))
		p->reason = p->fragment == LATER_FRAGMENT ? DROP_TOO_BIG : REFUSED_TOO_BIG;
	count(p->reason);
	return p->reason < DROP_TABLE_FULL ? reply(frame) : TC_ACT_SHOT;
}

/* Packets that are not ours continue to the next program (TC_ACT_UNSPEC, which equals TCX_NEXT). */
INLINE int finish(frame_t *frame, struct job *job, enum reason reason)
{
	if (likely(reason == GO_ON))
		return leave(frame, &job->route);
	if (unlikely(reason == PASS_CLOSED))
		reason = closed(frame, job);
	if (unlikely(reason == PASS_LOCAL))
		deliver(frame, job);
	if (reason < REFUSED_NO_DESTINATION) {
		count(reason);
		return TC_ACT_UNSPEC;
	}
	/* In the map, not as arguments: the verifier then checks the rest once, not once for every path that leads here. */
	job->packet->reason = reason;
	job->packet->mtu = job->route.mtu;
	return refuse(frame);
}

SEC("tc")
int relevo_tc(struct __sk_buff *frame)
{
	struct job job = {};

	/* Frames for other hosts, and those of a VLAN, which arrive again on the VLAN's own interface. */
	if (frame->pkt_type || frame->vlan_present)
		return TC_ACT_UNSPEC;
	job.packet = the_packet();
	job.settings = the_settings();
	if (!job.packet || !job.settings)
		return TC_ACT_UNSPEC;
	return finish(frame, &job, balance(frame, &job));
}

char terms[] SEC("license") = "Dual BSD/GPL";
