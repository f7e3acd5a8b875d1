/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes, keyed with random bytes when the instance is made: without the key, an attacker cannot aim connections at one
 * bucket. SipHash-1-3 hashes keys longer than a word; the kernel's `hsiphash` is the same function on 64-bit machines, which
 * `mh` needs with fixed keys. An IPv4 address and port fit one pair of words and get a hash that takes a tenth of the
 * instructions; most packets are of this kind.
 */
#pragma once
#include "kernel.h"
#include "layout.h"

struct sip {
	__u64 v0, v1, v2, v3;
};

#define ROTATE(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))
#define SIP_ROUND(s)                                                                                                  \
	do {                                                                                                          \
		(s).v0 += (s).v1; (s).v1 = ROTATE((s).v1, 13); (s).v1 ^= (s).v0; (s).v0 = ROTATE((s).v0, 32);          \
		(s).v2 += (s).v3; (s).v3 = ROTATE((s).v3, 16); (s).v3 ^= (s).v2;                                       \
		(s).v0 += (s).v3; (s).v3 = ROTATE((s).v3, 21); (s).v3 ^= (s).v0;                                       \
		(s).v2 += (s).v1; (s).v1 = ROTATE((s).v1, 17); (s).v1 ^= (s).v2; (s).v2 = ROTATE((s).v2, 32);          \
	} while (0)

INLINE void sip_begin(struct sip *s, __u64 key0, __u64 key1)
{
	s->v0 = key0 ^ 0x736f6d6570736575ULL; /* "somepseudorandomlygeneratedbytes", from the SipHash paper */
	s->v1 = key1 ^ 0x646f72616e646f6dULL;
	s->v2 = key0 ^ 0x6c7967656e657261ULL;
	s->v3 = key1 ^ 0x7465646279746573ULL;
}

INLINE void sip_word(struct sip *s, __u64 word)
{
	s->v3 ^= word;
	SIP_ROUND(*s);
	s->v0 ^= word;
}

INLINE __u64 sip_end(struct sip *s, __u64 last)
{
	sip_word(s, last);
	s->v2 ^= 0xff;
	SIP_ROUND(*s);
	SIP_ROUND(*s);
	SIP_ROUND(*s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/*
 * NH (of UMAC, RFC 4418 §5.2.2) over one pair of words: two different pairs collide for one key in 2^32. The steps after it
 * are one to one, so they add no collisions, and spread every bit over the whole word.
 */
INLINE __u64 hash_pair(__u32 one, __u32 other, __u64 key0, __u64 key1)
{
	__u64 h = (__u64)(__u32)(one + (__u32)key0) * (__u32)(other + (__u32)(key0 >> 32));

	h ^= h >> 32;
	h *= key1 | 1;
	return h ^ h >> 32;
}

/* An address in 32 bits, host order: the words of an IPv6 address are XORed (IPVS). */
INLINE __u32 fold_address(const struct address *a)
{
	if (a->half[0] == 0 && (__u32)a->half[1] == 0xffff0000)
		return be32((__u32)(a->half[1] >> 32));
	return be32((__u32)a->half[0] ^ (__u32)(a->half[0] >> 32) ^ (__u32)a->half[1] ^ (__u32)(a->half[1] >> 32));
}

/* The kernel's multiplicative hash, upper `bits`. */
INLINE __u32 hash_32(__u32 value, int bits)
{
	return (value * 0x61C88647U) >> (32 - bits);
}

/* hsiphash of one 32-bit number, key halves both `key`. */
INLINE __u32 maglev_hash(__u32 value, __u64 key)
{
	struct sip s;

	sip_begin(&s, key, key);
	return (__u32)sip_end(&s, (4ULL << 56) | value);
}
