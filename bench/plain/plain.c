/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * plain.c - nbdkit plugin that makes the system calls that a cache cannot do without, and does nothing else: what nbdkit
 * itself leaves of an SSD's rate.
 *
 *	read		one O_DIRECT read at the same offset, and a copy, because nbdkit's buffer is not aligned
 *	write		nothing
 *	flush, FUA	8 KiB at the next place of the file, as many as a record with one block has, and fdatasync
 *
 * So it keeps nothing, and what was in the file is overwritten. It does not gather flushes of several clients.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define ALIGN_BYTES 4096u
#define RECORD_BYTES 8192u
#define PIECE_BYTES 65536u

static char *path;
static int fd = -1;
static int64_t size_bytes;
static atomic_uint_fast64_t next_record;

static int plain_config(const char *key, const char *value)
{
	if (strcmp(key, "file") != 0) {
		nbdkit_error("%s: no such parameter; there is file=PATH", key);
		return -1;
	}
	free(path);
	path = nbdkit_absolute_path(value);
	return path ? 0 : -1;
}

static int plain_get_ready(void)
{
	struct stat st;

	if (!path) {
		nbdkit_error("file=PATH is missing");
		return -1;
	}
	fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		nbdkit_error("%s: %m", path);
		return -1;
	}
	size_bytes = st.st_size / ALIGN_BYTES * ALIGN_BYTES;
	if (size_bytes < RECORD_BYTES) {
		nbdkit_error("%s: smaller than %u bytes", path, RECORD_BYTES);
		return -1;
	}
	return 0;
}

static void plain_unload(void)
{
	if (fd >= 0)
		close(fd);
	free(path);
}

static void *plain_open(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plain_get_size(void *handle)
{
	(void)handle;
	return size_bytes;
}

static int plain_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = ALIGN_BYTES;
	*preferred = ALIGN_BYTES;
	*maximum = 32u << 20;
	return 0;
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

static int plain_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int plain_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	_Alignas(ALIGN_BYTES) char piece[PIECE_BYTES];

	(void)handle;
	(void)flags;
	if (count % ALIGN_BYTES || offset % ALIGN_BYTES) {
		nbdkit_error("a request that is not aligned to %u bytes", ALIGN_BYTES);
		errno = EINVAL;
		return -1;
	}
	while (count > 0) {
		uint32_t nr = count < PIECE_BYTES ? count : PIECE_BYTES;
		ssize_t n = pread(fd, piece, nr, (off_t)offset);

		if (n <= 0) {
			errno = n ? errno : EIO; /* it has become shorter */
			nbdkit_error("%s: %m", path);
			return -1;
		}
		memcpy(buf, piece, (size_t)n);
		buf = (char *)buf + n;
		count -= (uint32_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int plain_flush(void *handle, uint32_t flags)
{
	static const _Alignas(ALIGN_BYTES) char record[RECORD_BYTES];
	uint64_t nr = atomic_fetch_add(&next_record, 1) % ((uint64_t)size_bytes / RECORD_BYTES);

	(void)handle;
	(void)flags;
	if (pwrite(fd, record, sizeof record, (off_t)(nr * RECORD_BYTES)) != (ssize_t)sizeof record ||
	    fdatasync(fd) < 0) {
		nbdkit_error("%s: %m", path);
		return -1;
	}
	return 0;
}

static int plain_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)buf;
	(void)count;
	(void)offset;
	return flags & NBDKIT_FLAG_FUA ? plain_flush(handle, 0) : 0;
}

static struct nbdkit_plugin plugin = {
	.name = "plain",
	.longname = "the system calls of a cache, and nothing else",
	.description = "For benchmarks: what nbdkit itself leaves of an SSD's rate. It keeps nothing.",
	.config = plain_config,
	.config_help = "file=PATH   (required) a file or block device on the SSD, which is overwritten",
	.magic_config_key = "file",
	.get_ready = plain_get_ready,
	.unload = plain_unload,
	.open = plain_open,
	.get_size = plain_get_size,
	.block_size = plain_block_size,
	.can_flush = yes,
	.can_multi_conn = yes,
	.can_fua = plain_can_fua,
	.pread = plain_pread,
	.pwrite = plain_pwrite,
	.flush = plain_flush,
	.errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
