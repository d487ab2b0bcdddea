/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blank.h - is there anything on a device that somebody might miss (I12)?
 */
#ifndef LOGCACHE_IO_BLANK_H
#define LOGCACHE_IO_BLANK_H

#include "logcache/store.h"
#include "logcache/types.h"

/*
 * Look whether S is blank: no signature that libblkid knows (file systems, RAID, LVM, encryption,
 * swap, partition tables), and zeros in the first and last 16 MiB and in 1024 blocks spread over
 * the rest. Only reads. A logcache is for libblkid nothing special: ask lc_cache_probe() before.
 *
 * Returns 1 blank; 0 not blank, with what is there in WHAT, fit for "...: it holds WHAT"; -errno
 * with ERR. Any thread; not while somebody writes to S.
 */
int lc_blank_check(struct lc_store *s, char *what, size_t what_len, struct lc_error *err);

#endif
