/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map values, shared by the programs and their loader. `layout.py` mirrors this file field by field, and a test compares
 * the two through the type information in the object. Every change here needs a new LAYOUT_VERSION: the loader does not
 * adopt pinned maps of another version.
 *
 * Addresses are 16 bytes; IPv4 addresses are mapped (::ffff:a.b.c.d), so that one table, one hash and one comparison serve
 * both families. Ports are in network order. Times are in jiffies, 32 bits, compared with wrap-around.
 */
#pragma once
#include <linux/bpf.h>

#define LAYOUT_VERSION 6

struct address {
	__u64 half[2];
};

/* -- connections ---------------------------------------------------------------------------------------------------- */

/* Eight slots share a lock and 528 bytes: tags in the first cache line decide which slots are compared. */
#define BUCKET_SLOTS 8

enum connection_flag {
	CONNECTION_TEMPLATE = 1 << 0,  /* a persistence template: `client` is masked, no port */
	CONNECTION_ACTIVE = 1 << 1,    /* counted as active at its server, else as inactive */
	CONNECTION_NO_OUTPUT = 1 << 2, /* replies do not pass here (DR, TUN): the input-only state table applies */
	CONNECTION_FULLNAT = 1 << 3,   /* `local` and `local_port` stand for the client at the server */
	CONNECTION_ASSURED = 1 << 4,   /* template: one of its connections was established, or answered by its server (UDP) */
	CONNECTION_FOREIGN = 1 << 5,   /* created or updated by sync from another director */
	CONNECTION_KEEP_PORT = 1 << 6, /* packets go to the virtual port, whatever port the server has */
};

struct connection {
	struct address client;
	struct address virtual;
	__be16 client_port;
	__be16 virtual_port;
	__u8 protocol;
	__u8 state;
	__u16 flags;
	__u32 server;            /* index in `servers` */
	__u32 expires;           /* jiffies */
	__u32 master;            /* slot of the controlling template + 1, 0: none; in a template: number of connections it controls */
	__u16 packets;           /* from the client, modulo 2^16; compared with the sync threshold */
	__u16 last_sync;         /* time of the last sync in ticks (14 bits) and its retry number (2 bits); 0: never synced */
	__be16 local_port;
	__u16 snat_address;      /* index in `snat_addresses` */
	__u32 generation;        /* of the server when the connection was made; if it differs now, that server was removed */
};

struct bucket {
	struct bpf_spin_lock lock;
	__u32 spilled;           /* connections whose first-choice bucket is this one but which are stored in their second choice */
	__u8 tag[BUCKET_SLOTS];  /* 0: free slot */
	struct connection slot[BUCKET_SLOTS];
};

/* -- services and servers ------------------------------------------------------------------------------------------- */

struct service_key {
	struct address address;
	__be16 port;             /* 0: every port */
	__u8 protocol;           /* 0: `address.half[0]` is a firewall mark */
	__u8 family;             /* of a firewall-mark service: 4 or 6, else 0 */
	__u32 reserved;
};

enum scheduler {
	SCHEDULER_NONE, SCHEDULER_RR, SCHEDULER_WRR, SCHEDULER_LC, SCHEDULER_WLC, SCHEDULER_SED, SCHEDULER_NQ, SCHEDULER_FO,
	SCHEDULER_OVF, SCHEDULER_SH, SCHEDULER_DH, SCHEDULER_MH,
};

enum service_flag {
	SERVICE_USED = 1 << 0,
	SERVICE_CLOSED = 1 << 1,      /* another node has its address: do not balance its packets */
	SERVICE_FALLBACK = 1 << 2,    /* sh-fallback, mh-fallback */
	SERVICE_HASH_PORT = 1 << 3,   /* sh-port, mh-port */
	SERVICE_ONE_PACKET = 1 << 4,  /* UDP: every datagram is scheduled on its own; no connection entry */
	SERVICE_ANY_PORT = 1 << 5,    /* port 0: servers keep the packet's port */
	SERVICE_RESET = 1 << 6,       /* without a server, TCP clients get a reset instead of an ICMP error */
};

struct counters {
	__u64 connections;
	__u64 packets_in, packets_out;
	__u64 bytes_in, bytes_out;
};

struct service {
	struct address address;
	struct address mask;     /* persistence granularity */
	__be16 port;
	__u8 protocol;
	__u8 family;             /* of a firewall-mark service, as in its key; `address` is then the mark (7: 0.0.0.7) and protocol 0 */
	__u32 flags;
	__u32 scheduler;
	__u32 persistence;       /* jiffies, 0: off */
	__u64 server_list;       /* first << 32 | count: its servers in `server_lists`, newest first; replaced by one store */
	__u64 table;             /* first << 32 | size: its hash table in `server_lists` */
	/* Scheduler state. */
	__u32 cursor;            /* position of the last pick in the server list + 1; 0 is the head */
	__u32 threshold;         /* wrr */
	__u32 step;              /* wrr: greatest common divisor of the weights */
	__u32 ceiling;           /* wrr */
	__u64 refused;           /* connections that found no server */
	struct counters former;  /* traffic of removed servers */
};

enum forwarding {
	FORWARDING_NAT,
	FORWARDING_DR,
	FORWARDING_TUN,
	FORWARDING_FULLNAT,
};

enum tunnel {
	TUNNEL_IPIP,
	TUNNEL_GUE,
};

struct server {
	struct address address;
	struct address outer_source; /* TUN: source address of the outer header */
	__be16 port;                 /* 0: the packet's own */
	__u8 forwarding;
	__u8 tunnel;
	__be16 tunnel_port;
	__u16 snat_count;            /* FULLNAT: number of source addresses that replace the client's … */
	__u32 snat_first;            /* … and index of the first in `snat_addresses` */
	__u32 service;
	__u32 weight;
	__u32 upper, lower;          /* thresholds, 0: off */
	__u32 generation;            /* incremented when the server is removed; odd while the slot is free */
	__u32 overloaded;
	__u32 active, inactive;      /* connections */
	__u32 templates;
	__u32 is_local;              /* its address is this node's: bpf_fib_lookup reports a local address and a missing route alike */
	__u32 reserved;
};

/* -- FULLNAT -------------------------------------------------------------------------------------------------------- */

struct translation_key {     /* the addresses and ports of a server's reply */
	struct address remote, local;
	__be16 remote_port, local_port;
	__u8 protocol;
	__u8 reserved[3];
};

/* -- neighbours, fragments ------------------------------------------------------------------------------------------ */

struct neighbour {
	struct address destination;
	__u32 interface;
	__u32 expires;
	__u16 mtu;               /* 0: not known */
	__u8 destination_mac[6], source_mac[6]; /* in the order of a frame */
	__u8 flags;              /* enum device_flag, of the interface */
	__u8 reserved[5];
};

enum device_flag {
	DEVICE_PEER = 1 << 0,    /* a veth whose peer is in another namespace: frames are redirected straight to the peer */
};
#define NEIGHBOURS 2048 /* per CPU, chosen by a hash of the destination: a collision costs a route look-up */

struct fragment_key {
	struct address source, destination;
	__u32 identification;
	__u8 protocol;           /* IPv6: 0 */
	__u8 reserved[3];
};

struct fragment_ports {      /* of a first fragment, used for the later ones */
	__be16 source, destination;
	__u32 expires;
	__u32 server, generation; /* one-packet scheduling: server of the first fragment; else 0: the connection has it */
	__u8 protocol;
	__u8 reserved[3];
};

struct held_key {
	struct fragment_key datagram;
	__u32 number;            /* in order of arrival */
	__u32 reserved;
};

#define HELD_BYTES 2048      /* the largest frame that is held */
struct held_frame {          /* a later fragment that arrived before its first fragment */
	__u32 length;
	__u32 expires;
	__u8 bytes[HELD_BYTES];
};

/* Path MTU to a tunnel endpoint, from a router's ICMP error: the kernel learns path MTUs only for its own tunnels. */
struct path_mtu {
	__u32 expires;
	__u16 mtu;
	__u16 reserved;
};

/* -- synchronisation ------------------------------------------------------------------------------------------------ */

/* A connection in IPVS's sync protocol, version 1, as sent on the wire. */
struct sync_entry {
	__u8 type;               /* 0: IPv4, 1: IPv6 */
	__u8 protocol;           /* 0: the template of a firewall mark */
	__be16 length;
	__be32 flags;
	__be16 state;
	__be16 client_port, virtual_port, server_port;
	__be32 mark;
	__be32 seconds;          /* the full time-out */
	__u8 addresses[48];      /* client, virtual, server; IPv4 ones take the first 12 */
};

/* -- settings ------------------------------------------------------------------------------------------------------- */

enum tcp_state {             /* the numbers of IPVS, which its sync protocol carries */
	STATE_NONE, STATE_ESTABLISHED, STATE_SYN_SENT, STATE_SYN_RECV, STATE_FIN_WAIT, STATE_TIME_WAIT, STATE_CLOSE,
	STATE_CLOSE_WAIT, STATE_LAST_ACK, STATE_LISTEN, STATE_SYNACK, STATE_UDP, STATES,
};
#define TIMEOUTS 16

enum setting_flag {
	SETTING_SLOPPY_TCP = 1 << 0,      /* any segment except RST opens a connection */
	SETTING_SYNC = 1 << 1,        /* connections are exported to `sync_ring` */
	SETTING_MARKS = 1 << 2,           /* there are firewall-mark services */
	SETTING_KEEP_ORPHANS = 1 << 3,    /* connections of a removed server stay until they time out (expire_nodest_conn 0) */
	SETTING_EXPIRE_QUIESCENT = 1 << 4,/* templates of a server of weight 0 are no longer used */
	SETTING_SECURE_TCP = 1 << 5,
	SETTING_SYNC_TEMPLATES_ONLY = 1 << 6, /* of persistent connections, only templates are synced */
};

#define FILTER_BITS 15
struct settings {
	__u32 version;           /* LAYOUT_VERSION */
	__u32 flags;
	__u32 hz;                /* jiffies a second */
	__u32 replies_per_second; /* ICMP errors and resets that each CPU may send */
	__u32 timeout[TIMEOUTS]; /* jiffies, by state */
	__u64 key[2];            /* of the connection hash: random, set once */
	__u32 bucket_mask;       /* number of buckets - 1 */
	__u32 path_mtus;         /* `path_mtus` has entries */
	__u16 sync_threshold, sync_period; /* a connection is synced at this packet, and again every so many packets (0: never again) */
	__u32 sync_refresh;      /* jiffies; least time between two syncs of a connection, 0: the packet count alone decides */
	__u16 sync_retries;      /* retries within that time, each an eighth of it after the last */
	__u16 tick_shift;        /* `last_sync` counts jiffies >> tick_shift: a tick is about a quarter of a second, the range about an hour */
	__u16 local_port_first, local_port_count; /* FULLNAT: below the system's ephemeral port range */
	__u8 virtual_filter[1 << (FILTER_BITS - 3)]; /* addresses that may be virtual, one bit per hash value; false positives are harmless */
	__u8 server_filter[1 << (FILTER_BITS - 3)];
};
