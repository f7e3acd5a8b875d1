/* SPDX-License-Identifier: Apache-2.0 */
/* Internet checksums by difference (RFC 1624): sums grow in 64 bits and are folded once. */
#pragma once
#include "packet.h"

INLINE __u32 fold_32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)sum;
}

INLINE __u16 fold_16(__u64 sum)
{
	__u32 s = fold_32(sum);

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (__u16)s;
}

/* What replacing one address by another adds to a sum. IPv4 addresses differ in their last 32 bits only. */
INLINE __u64 address_difference(const struct address *from, const struct address *to)
{
	__u64 sum = (__u32)~(__u32)(from->half[1] >> 32);

	sum += (__u32)(to->half[1] >> 32);
	if (is_v4(from))
		return sum;
	sum += (__u32)~(__u32)from->half[1];
	sum += (__u32)to->half[1];
	sum += (__u32)~(__u32)from->half[0];
	sum += (__u32)to->half[0];
	sum += (__u32)~(__u32)(from->half[0] >> 32);
	sum += (__u32)(to->half[0] >> 32);
	return sum;
}

INLINE __u64 port_difference(__be16 from, __be16 to)
{
	return (__u64)(__u16)~from + to;
}

/* The checksum `field` after its data changed by `difference`. */
INLINE __sum16 checksum_after(__sum16 field, __u64 difference)
{
	return (__sum16)~fold_16((__u64)(__u16)~field + difference);
}

INLINE __u64 sum_address(const struct address *a)
{
	if (is_v4(a))
		return (__u32)(a->half[1] >> 32);
	return (a->half[0] & 0xffffffff) + (a->half[0] >> 32) + (a->half[1] & 0xffffffff) + (a->half[1] >> 32);
}

/* The pseudo-header of TCP, UDP and ICMPv6. */
INLINE __u64 sum_pseudo(const struct address *source, const struct address *destination, __u8 protocol, __u16 length)
{
	return sum_address(source) + sum_address(destination) + be16(protocol) + be16(length);
}
