/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * types.h - widths, units and the error text that every part of logcache shares.
 *
 * Units are in names: _bytes, _sectors (512 bytes), _blocks (4096 bytes), _ns, _ms.
 * Functions return 0 (or a count) on success and a negative errno on failure.
 */
#ifndef LOGCACHE_TYPES_H
#define LOGCACHE_TYPES_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* The unit of atomicity that a client may rely on. */
#define LC_SECTOR 512u
/* The unit of caching, and of all I/O on the cache device. */
#define LC_BLOCK 4096u
#define LC_SECTORS_PER_BLOCK (LC_BLOCK / LC_SECTOR)
/* A block all of whose sectors are valid. */
#define LC_MASK_FULL 0xffu

/* No deadline: wait as long as it takes. */
#define LC_FOREVER UINT64_MAX

#define LC_NS_PER_MS 1000000ull
#define LC_NS_PER_S 1000000000ull

/*
 * What went wrong, for a person: it names the thing, the reason and the remedy. Functions that
 * take one fill it in whenever they fail, and leave it alone when they succeed.
 */
struct lc_error {
	char text[768];
};

/* Fill in ERR (which may be NULL) and return CODE, so that a caller can `return lc_fail(...)`. */
int lc_fail(struct lc_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define LC_COUNT_BYTES 64u

/* "1 block", "2 blocks": NR of WHAT, for a message, into TEXT. Returns TEXT. */
const char *lc_count_text(char text[LC_COUNT_BYTES], u64 nr, const char *what);

#endif
