/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * plugin.c - the callbacks through which nbdkit runs logcache. The first of the rooms that a
 * request walks through: plugin -> volume -> log -> store.
 *
 *	nbdkit			here
 *	config*			params.h: check each parameter, make paths absolute
 *	config_complete		params.h: check what they mean together
 *	get_ready		open.h: open and lock, refuse, format, recover. Still root, still on the
 *				terminal: whatever can fail fails here
 *	(change of user, fork, chdir /)
 *	after_fork		start the threads; threads do not survive a fork
 *	open, pread, pwrite, flush, ...
 *	cleanup			drain if wanted, seal the log, close. Connections may be alive
 *				without ever having been closed; no request is running
 *	unload			release what is left, however far a start came
 *
 * Threads: nbdkit calls from up to 16 threads per connection at a time. Everything here is constant
 * while requests run; the engine does its own locking. What a flush promises holds across
 * connections (I2), so clients may spread requests over several.
 *
 * Zeroing: there is no zero callback, so nbdkit writes zeros through pwrite and fails fast-zero
 * requests at once, which is what both mean. No trim, no extents.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "format.h"
#include "messages.h"
#include "logcache/logcache.h"
#include "open.h"
#include "params.h"
#include "report.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define REQUEST_MAX_BYTES (64u << 20)

/* nbdkit has one plugin per process, and gives callbacks no place for a context before open. */
static struct params params;
static struct served served;
static struct report report;

static void plugin_load(void)
{
	messages_init();
	params_init(&params);
}

/* Also after a start that failed, and after --dump-plugin, which never comes to get_ready. */
static void plugin_unload(void)
{
	(void)served_close(&served); /* empty after plugin_cleanup; nobody could be told otherwise */
	params_free(&params);
}

static int plugin_config(const char *key, const char *value)
{
	return params_set(&params, key, value);
}

static int plugin_config_complete(void)
{
	return params_complete(&params);
}

static void plugin_dump(void)
{
	printf("logcache_version=%s\n", LOGCACHE_VERSION);
	printf("logcache_format_version=%u\n", LC_FORMAT_VERSION);
	printf("logcache_memory_bytes_per_block=%.1f\n",
	       lc_memory_per_block(LC_SEGMENT_DEFAULT_BYTES));
	printf("logcache_block_bytes=%u\n", LC_BLOCK);
	printf("logcache_segment_min_bytes=%u\n", LC_SEGMENT_MIN_BYTES);
	printf("logcache_segment_max_bytes=%u\n", LC_SEGMENT_MAX_BYTES);
	printf("logcache_segment_default_bytes=%u\n", LC_SEGMENT_DEFAULT_BYTES);
	printf("logcache_cache_min_bytes=%" PRIu64 "\n",
	       lc_cache_min_bytes(LC_SEGMENT_DEFAULT_BYTES));
}

/*
 * When server and client share a host, the kernel may need this process to free memory. The flag tells it
 * not to wait for that from within; the threads to come inherit it.
 */
static void become_io_flusher(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0)
		return;
	if (errno == EPERM) /* not root: then no kernel client runs on this host, most likely */
		lc_log(LC_LOG_DEBUG, "not marked as an I/O flusher: %s", strerror(errno));
	else
		lc_log(LC_LOG_WARNING,
		       "not marked as an I/O flusher (%s): do not use /dev/nbdX of this server on "
		       "this same host, it could run out of memory for good",
		       strerror(errno));
}

static int plugin_get_ready(void)
{
	struct lc_error err = {""};

	become_io_flusher();
	if (served_open(&served, &params, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	report_opened(served.cache, served.ssd, served.backing);
	return 0;
}

static int plugin_after_fork(void)
{
	struct lc_error err = {""};
	int rc;

	messages_after_fork();
	if (lc_cache_start(served.cache, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	/* Statistics are no reason to refuse service. */
	rc = report_start(&report, served.cache, params.stats_interval_s);
	if (rc < 0)
		lc_log(LC_LOG_WARNING, "no statistics: cannot start a thread: %s", strerror(-rc));
	return 0;
}

static void plugin_cleanup(void)
{
	int rc;

	if (!served.cache)
		return;
	if (params.drain_on_exit) {
		lc_log(LC_LOG_INFO, "writing everything back to %s before exit", params.backing_path);
		rc = lc_cache_drain(served.cache);
		if (rc < 0)
			lc_log(LC_LOG_ERROR,
			       "could not write everything back to %s: %s; the rest stays in "
			       "%s, start again to retry",
			       params.backing_path, strerror(-rc), params.cache_path);
	}
	report_stop(&report);
	rc = served_close(&served);
	if (rc < 0)
		lc_log(LC_LOG_ERROR,
		       "could not close cache %s in good order: %s; what was flushed is safe, and "
		       "the next start recovers it",
		       params.cache_path, strerror(-rc));
	else
		lc_log(LC_LOG_INFO, "cache %s closed", params.cache_path);
}

static void *plugin_open(int readonly)
{
	const char *name = nbdkit_export_name();

	(void)readonly; /* nbdkit itself refuses writes then */
	if (name && name[0] != '\0') {
		nbdkit_error("there is no export '%s', only the default one, ''", name);
		nbdkit_set_error(ENOENT);
		return NULL;
	}
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle)
{
	(void)handle;
	return lc_volume_size_bytes(served.volume);
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	/* Anything works. A larger minimum would make strict clients refuse what FUSE or nbdcopy ask for. */
	*minimum = 1;
	*preferred = LC_BLOCK;
	*maximum = REQUEST_MAX_BYTES;
	return 0;
}

static int plugin_can_write(void *handle)
{
	(void)handle;
	return 1;
}

static int plugin_can_flush(void *handle)
{
	(void)handle;
	return 1;
}

static int plugin_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int plugin_can_multi_conn(void *handle)
{
	(void)handle;
	return 1;
}

/*
 * Tell nbdkit why a request failed. The protocol knows few error numbers, and nbdkit turns the rest into
 * EINVAL, which blames the client.
 */
static int failed(int rc, const char *what, uint32_t count, uint64_t offset)
{
	bool known = rc == -ENOSPC || rc == -ENOMEM || rc == -ESHUTDOWN || rc == -EINVAL;

	nbdkit_error("%s of %" PRIu32 " bytes at offset %" PRIu64 " failed: %s", what, count,
		     offset, strerror(-rc));
	nbdkit_set_error(known ? -rc : EIO);
	return -1;
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	int rc = lc_read(served.volume, buf, count, offset);

	(void)handle;
	(void)flags; /* none are defined */
	return rc < 0 ? failed(rc, "read", count, offset) : 0;
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			 uint32_t flags)
{
	unsigned lc_flags = flags & NBDKIT_FLAG_FUA ? LC_FUA : 0;
	int rc = lc_write(served.volume, buf, count, offset, lc_flags);

	(void)handle;
	return rc < 0 ? failed(rc, "write", count, offset) : 0;
}

static int plugin_flush(void *handle, uint32_t flags)
{
	int rc = lc_flush(served.volume);

	(void)handle;
	(void)flags; /* none are defined */
	if (rc == 0)
		return 0;
	nbdkit_error("flush failed: %s", strerror(-rc));
	nbdkit_set_error(rc == -ENOSPC || rc == -ENOMEM ? -rc : EIO);
	return -1;
}

static struct nbdkit_plugin plugin = {
	.name = "logcache",
	.longname = "log-structured SSD cache",
	.version = LOGCACHE_VERSION,
	.description = "Serve a slow block device or file through a log on an SSD.",
	.load = plugin_load,
	.unload = plugin_unload,
	.config = plugin_config,
	.config_complete = plugin_config_complete,
	.config_help = params_help,
	.dump_plugin = plugin_dump,
	.get_ready = plugin_get_ready,
	.after_fork = plugin_after_fork,
	.cleanup = plugin_cleanup,
	.open = plugin_open,
	.get_size = plugin_get_size,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = plugin_can_flush,
	.can_fua = plugin_can_fua,
	.can_multi_conn = plugin_can_multi_conn,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
