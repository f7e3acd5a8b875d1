/* SPDX-License-Identifier: Apache-2.0 */
/* The TC program, at ingress: complete. It works on every Ethernet device, and super-packets pass whole. */
#include "balance.h"
#include "answer.h"

/*
 * A service whose address another node holds is closed: its packets are only passing through. If the address is here already,
 * the node is taking over at this moment: the local stack would answer with a reset, so the client had better ask again.
 */
NOINLINE enum reason closed(frame_t *frame, struct job *job)
{
	struct packet *p = job->packet;
	struct way way = {};

	return ask_kernel(frame, p, &p->source, &p->destination, &way) == PASS_LOCAL ? DROP_NOT_YET : PASS_CLOSED;
}

/* Packets that are not ours go on to the programs behind this one (TC_ACT_UNSPEC; it is TCX_NEXT too). */
INLINE int finish(frame_t *frame, struct job *job, enum reason reason)
{
	if (likely(reason == GO_ON))
		return leave(frame, &job->way);
	if (unlikely(reason == PASS_CLOSED))
		reason = closed(frame, job);
	count(reason);
	if (reason < REFUSED_NO_DESTINATION)
		return TC_ACT_UNSPEC;
	if (reason < DROP_TABLE_FULL)
		return answer(frame, reason, job->way.mtu);
	return TC_ACT_SHOT;
}

SEC("tc")
int relevo_tc(struct __sk_buff *frame)
{
	struct job job = {};

	/* Other machines' frames, and those of a VLAN, which arrive once more on the VLAN's own interface. */
	if (frame->pkt_type || frame->vlan_present)
		return TC_ACT_UNSPEC;
	job.packet = the_packet();
	job.settings = the_settings();
	if (!job.packet || !job.settings)
		return TC_ACT_UNSPEC;
	return finish(frame, &job, balance(frame, &job));
}

char terms[] SEC("license") = "Dual BSD/GPL";
