/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XDP program: the fast path of established connections, before the kernel allocates anything for a frame. Everything
 * else is passed unchanged to the TC program on the same interface, which shares every map.
 */
#define RELEVO_XDP
#include "balance.h"

SEC("xdp")
int relevo_xdp(struct xdp_md *frame)
{
	struct job job = {};
	enum reason reason;

	job.packet = the_packet();
	job.settings = the_settings();
	if (!job.packet || !job.settings)
		return XDP_PASS;
	reason = balance(frame, &job);
	if (likely(reason == GO_ON))
		return leave(frame, &job.route);
	if (reason == DROP_REWRITE) {
		count(reason);
		return XDP_DROP;
	}
	return XDP_PASS;
}

char terms[] SEC("license") = "Dual BSD/GPL";
