/* SPDX-License-Identifier: Apache-2.0 */
/* The TC program, at ingress: complete. It works on every Ethernet device, and super-packets pass whole. */
#include "balance.h"
#include "answer.h"

INLINE int finish(frame_t *frame, struct job *job, enum reason reason)
{
	if (likely(reason == GO_ON))
		return leave(frame, &job->way);
	count(reason);
	if (reason < REFUSED_NO_DESTINATION)
		return TC_ACT_OK;
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
		return TC_ACT_OK;
	job.packet = the_packet();
	job.settings = the_settings();
	if (!job.packet || !job.settings)
		return TC_ACT_OK;
	return finish(frame, &job, balance(frame, &job));
}

char terms[] SEC("license") = "Dual BSD/GPL";
