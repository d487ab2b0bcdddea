/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blank.c - is there anything on a device that somebody might miss?
 *
 * Two looks. libblkid knows the signatures of some hundred formats, and names them, which is what
 * the administrator wants to read; it probes through a buffered descriptor of its own, because its
 * reads are not aligned. Data without a signature (a database's raw volume, an encrypted disk with
 * a detached header) is found by looking for a byte that is not zero: in the first and last 16 MiB,
 * where formats keep what matters, and in samples between. The samples lie at fixed places: two
 * looks at the same disk say the same.
 *
 * Locks: none, and no state.
 */
#include <blkid/blkid.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blank.h"
#include "file_priv.h"
#include "logcache/rt.h"

#define EDGE_BYTES (16ull << 20)
#define CHUNK_BYTES (1u << 20)
#define SAMPLES 1024u

/* --- signatures --- */

static const char *value(blkid_probe pr, const char *name)
{
	const char *v = NULL;

	return blkid_probe_lookup_value(pr, name, &v, NULL) == 0 ? v : NULL;
}

static void describe(blkid_probe pr, char *what, size_t what_len)
{
	const char *type = value(pr, "TYPE");
	const char *usage = value(pr, "USAGE");
	const char *label = value(pr, "LABEL");
	const char *table = value(pr, "PTTYPE");
	const char *kind = "data of the format ";
	const char *noun = "";

	if (!type) {
		snprintf(what, what_len, "a partition table (%s)", table ? table : "unknown");
		return;
	}
	if (usage && strcmp(usage, "filesystem") == 0) {
		kind = strchr("aeioux", type[0]) ? "an " : "a ";
		noun = " file system";
	} else if (usage && strcmp(usage, "raid") == 0) {
		kind = "a part of a volume group or RAID: ";
	} else if (usage && strcmp(usage, "crypto") == 0) {
		kind = "an encrypted volume: ";
	} else if (strcmp(type, "swap") == 0) {
		kind = "a ";
		noun = " space";
	}
	if (label)
		snprintf(what, what_len, "%s%s%s labelled '%s'", kind, type, noun, label);
	else
		snprintf(what, what_len, "%s%s%s", kind, type, noun);
}

/* 1 no signature; 0 WHAT says which; -errno */
static int look_for_signatures(const struct lc_file *f, char *what, size_t what_len,
			       struct lc_error *err)
{
	int fd = lc_file_reopen(f, O_RDONLY);
	blkid_probe pr;
	int rc;

	if (fd < 0)
		return lc_fail(err, fd, "cannot look for file systems on '%s': %s; check its path",
			       f->path, strerror(-fd));
	pr = blkid_new_probe();
	if (!pr) {
		close(fd);
		return lc_fail(err, -ENOMEM,
			       "no memory to look for file systems on '%s': free some", f->path);
	}
	/* A superblock with a wrong checksum is somebody's data all the more. */
	if (blkid_probe_set_device(pr, fd, 0, 0) < 0 || blkid_probe_enable_superblocks(pr, 1) < 0 ||
	    blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
							  BLKID_SUBLKS_LABEL |
							  BLKID_SUBLKS_BADCSUM) < 0 ||
	    blkid_probe_enable_partitions(pr, 1) < 0) {
		rc = -1;
	} else {
		errno = 0;
		rc = blkid_do_fullprobe(pr);
	}
	if (rc < 0)
		rc = lc_fail(err, errno ? -errno : -EIO,
			     "cannot look for file systems on '%s': %s; check the device and the "
			     "kernel's log",
			     f->path, errno ? strerror(errno) : "libblkid failed");
	else if (rc == 0)
		describe(pr, what, what_len);
	else
		rc = 1;
	blkid_free_probe(pr);
	close(fd);
	return rc;
}

/* --- zeros --- */

static const u8 *first_nonzero(const u8 *p, size_t n)
{
	/* Comparing the buffer with itself, one byte on, lets memcmp do the work. */
	if (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0)
		return NULL;
	while (*p == 0)
		p++;
	return p;
}

/* [FROM, TO), multiples of LC_BLOCK: 1 zeros; 0 WHAT says where not; -errno */
static int look_for_data(struct lc_store *s, u8 *buf, u64 from, u64 to, char *what, size_t what_len,
			 struct lc_error *err)
{
	while (from < to) {
		u32 n = to - from < CHUNK_BYTES ? (u32)(to - from) : CHUNK_BYTES;
		int rc = lc_store_read(s, buf, n, from);
		const u8 *p;

		if (rc)
			return lc_fail(err, rc,
				       "cannot read '%s' at byte %llu, to see whether it is blank: %s; "
				       "check the device and the kernel's log",
				       s->name, (unsigned long long)from, strerror(-rc));
		p = first_nonzero(buf, n);
		if (p) {
			snprintf(what, what_len, "data that is not zero at byte %llu",
				 (unsigned long long)(from + (u64)(p - buf)));
			return 0;
		}
		from += n;
	}
	return 1;
}

static int look_for_zeros(struct lc_store *s, char *what, size_t what_len, struct lc_error *err)
{
	u64 end = (s->size_bytes + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
	u64 first_end = end < EDGE_BYTES ? end : EDGE_BYTES;
	u64 last_start = end - first_end < EDGE_BYTES ? first_end : end - EDGE_BYTES;
	u64 blocks = (last_start - first_end) / LC_BLOCK;
	u8 *buf = lc_alloc(CHUNK_BYTES);
	int rc;

	if (!buf)
		return lc_fail(err, -ENOMEM, "no memory to look at '%s': free some", s->name);
	rc = look_for_data(s, buf, 0, first_end, what, what_len, err);
	if (rc == 1)
		rc = look_for_data(s, buf, last_start, end, what, what_len, err);
	for (u64 i = 0; rc == 1 && blocks && i < SAMPLES; i++) {
		u64 at = first_end + i * blocks / SAMPLES * LC_BLOCK;

		rc = look_for_data(s, buf, at, at + LC_BLOCK, what, what_len, err);
	}
	lc_free(buf, CHUNK_BYTES);
	return rc;
}

int lc_blank_check(struct lc_store *s, char *what, size_t what_len, struct lc_error *err)
{
	int rc = 1;

	/* Other kinds of stores have no path that libblkid could open; zeros are asked of all. */
	if (s->ops == &lc_file_ops)
		rc = look_for_signatures(lc_file_of(s), what, what_len, err);
	if (rc == 1)
		rc = look_for_zeros(s, what, what_len, err);
	return rc;
}
