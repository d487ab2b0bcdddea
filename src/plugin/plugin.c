/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * plugin.c - the callbacks through which nbdkit runs logcache. The first of the rooms that a
 * request walks through: plugin -> volume -> log -> store.
 *
 *	nbdkit			here
 *	config*			params.h: check each parameter, make paths absolute
 *	config_complete		params.h: check what they mean together
 *	get_ready		open.h: open and lock, refuse, format, recover. Still root, still on the
 *				terminal: whatever can fail fails here. Before all that, control.h: bind
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
 * Exports: each volume is one, called by its name. The handle of a connection is a struct connection. A client
 * that names none gets the default export, or else the only volume; nobody gets one of several
 * by accident.
 *
 * Zeroing is native: what the backing store cannot do quickly is still refused quickly (fast zero), and
 * nbdkit's own fall-back to writing zeros, which is wrong above 64 MiB in version 1.32, is never used.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "control.h"
#include "format.h"
#include "messages.h"
#include "logcache/logcache.h"
#include "name.h"
#include "notify.h"
#include "open.h"
#include "params.h"
#include "report.h"
#include "request.h"
#include "shutdown.h"
#include "size.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define REQUEST_MAX_BYTES (64u << 20)

/* A block status request looks at so many stretches at most: the client asks again for the rest. */
#define EXTENTS_MAX 256u

/* nbdkit has one plugin per process, and gives callbacks no place for a context before open. */
static struct params params;
static struct served served;
static struct report report;
static struct control *control; /* NULL: none is wanted */
static struct shutdown ending;

/*
 * lc_settings.abandoned: nbdkit ends a sleep, also one of no time at all, when the connection that this
 * thread works for is closed or the server is shutting down. Who is asked has waited for longer than its client
 * wanted to: then a server that is to end need not wait for it either, and an error is a true answer.
 */
static bool client_is_gone(void)
{
	return nbdkit_nanosleep(0, 0) == -1 && errno == ESHUTDOWN;
}

static void plugin_load(void)
{
	messages_init();
	requests_init();
	params_init(&params);
	params.settings.abandoned = client_is_gone;
	params.settings.waits_since = request_waits_since;
}

/* Also after --dump-plugin, which never comes to get_ready. */
static void plugin_unload(void)
{
	control_stop(control); /* both empty after plugin_cleanup; nobody could be told otherwise */
	control = NULL;
	(void)served_close(&served);
	params_free(&params);
	requests_fini();
}

/*
 * nbdkit calls exit() and nothing else when a start fails, be it get_ready or after_fork, or that it cannot make its own socket
 * or pid file in between. The parent of a server that went into the background comes here as well; its child has the lock.
 */
static void __attribute__((destructor)) plugin_exit(void)
{
	control_abandon(control);
}

static int plugin_config(const char *key, const char *value)
{
	return params_set(&params, key, value);
}

static int plugin_config_complete(void)
{
	return params_complete(&params);
}

/*
 * May this process use it now? A call that can only be refused for its arguments tells: what the
 * kernel lacks, or a setting or a filter forbids, is refused for that first.
 */
static const char *system_has(long number)
{
	return syscall(number, 0, NULL) == -1 && (errno == EINVAL || errno == EFAULT) ? "yes" : "no";
}

static void plugin_dump(void)
{
	printf("logcache_version=%s\n", LOGCACHE_VERSION);
	printf("logcache_format_version=%u\n", LC_FORMAT_VERSION);
	printf("logcache_io_uring=%s\n", system_has(SYS_io_uring_setup));
	printf("logcache_libaio=%s\n", system_has(SYS_io_setup));
	printf("logcache_memory_bytes_per_block=%.1f\n",
	       lc_memory_per_block(LC_SEGMENT_DEFAULT_BYTES));
	printf("logcache_block_bytes=%u\n", LC_BLOCK);
	printf("logcache_segment_min_bytes=%u\n", LC_SEGMENT_MIN_BYTES);
	printf("logcache_segment_max_bytes=%u\n", LC_SEGMENT_MAX_BYTES);
	printf("logcache_segment_default_bytes=%u\n", LC_SEGMENT_DEFAULT_BYTES);
	printf("logcache_cache_min_bytes=%" PRIu64 "\n",
	       lc_cache_min_bytes(LC_SEGMENT_DEFAULT_BYTES));
	printf("logcache_volumes_max=%u\n", LC_VOLUMES_MAX);
	printf("logcache_volume_name_max_bytes=%u\n", LC_NAME_BYTES - 1);
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

_Static_assert((int)PARAMS_FORMAT_AUTO == (int)CONTROL_FORMAT_AUTO &&
		       (int)PARAMS_FORMAT_NO == (int)CONTROL_FORMAT_NO &&
		       (int)PARAMS_FORMAT_FORCE == (int)CONTROL_FORMAT_FORCE,
	       "the same words");

static int attach(const char *path, enum control_format format, u32 segment_bytes,
		  struct lc_error *err)
{
	return served_attach(&served, &params, path, (enum params_format)format, segment_bytes, err);
}

static int detach(struct lc_error *err)
{
	return served_detach(&served, err);
}

static int start_control(struct lc_error *err)
{
	struct control_config config = {
		.version = LOGCACHE_VERSION,
		.cache = served.cache,
		.nr_volumes = served.nr_volumes,
		.cache_path = params.cache_path,
		.drain_on_exit = &params.drain_on_exit,
		.attach = attach,
		.detach = detach,
	};

	return control_start(control, &config, err);
}

static int plugin_get_ready(void)
{
	struct lc_error err = {""};

	become_io_flusher();
	notify_systemd("STATUS=opening");
	if (control_listen(params.control_path, params.metrics_address, &control, &err) < 0 ||
	    served_open(&served, &params, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	report_opened(&served);
	return 0;
}

static int plugin_after_fork(void)
{
	struct lc_error err = {""};
	int rc;

	messages_after_fork();
	if (served_start(&served, &err) < 0) {
		nbdkit_error("%s", err.text);
		return -1;
	}
	/* Statistics are no reason to refuse service. */
	rc = report_start(&report, served.cache, params.stats_interval_s);
	if (rc < 0)
		lc_log(LC_LOG_WARNING, "no statistics: cannot start a thread: %s", strerror(-rc));
	/* Nor is this one. */
	if (start_control(&err) < 0)
		lc_log(LC_LOG_ERROR, "%s", err.text);
	/* And without this one, the end is silent. */
	rc = shutdown_start(&ending, served.cache, control, &params.drain_on_exit);
	if (rc < 0)
		lc_log(LC_LOG_WARNING, "the end will be silent: cannot start a thread: %s",
		       strerror(-rc));
	/* nbdkit listens already. */
	notify_systemd("READY=1\nSTATUS=serving");
	return 0;
}

/* What a drain writes to, for a message. */
static const char *backings_text(char *text, size_t n)
{
	if (served.nr_volumes == 1)
		return served.volumes[0].backing->name;
	snprintf(text, n, "%u backing stores", served.nr_volumes);
	return text;
}

static void drain(void)
{
	const char *cache = served.ssd->name;
	char text[32], lost[LC_COUNT_BYTES];
	struct lc_error why;
	struct lc_stats st;
	int rc;

	notify_systemd("STATUS=writing everything back");
	lc_log(LC_LOG_INFO, "writing everything back to %s before exit",
	       backings_text(text, sizeof text));
	rc = lc_cache_drain(served.cache);
	lc_cache_stats(served.cache, &st);
	if (rc == -ECANCELED) {
		lc_log(LC_LOG_INFO,
		       "on-exit was set to keep: the rest stays in %s, for the next start", cache);
	} else if (rc < 0) {
		lc_cache_drain_error(served.cache, rc, &why);
		lc_log(LC_LOG_ERROR,
		       "could not write everything back: %s; the rest stays in %s, start again to retry",
		       why.text, cache);
	} else if (st.bad_blocks) {
		lc_log(LC_LOG_ERROR,
		       "could not write everything back: %s has %s, where the backing stores have what was "
		       "there before; logcachectl dump tells which",
		       cache, lc_count_text(lost, st.bad_blocks, "lost block"));
	} else {
		lc_log(LC_LOG_INFO, "everything is written back to %s",
		       backings_text(text, sizeof text));
	}
}

static void plugin_cleanup(void)
{
	char cache[PATH_MAX] = "";
	bool has_ssd, drain_wanted;
	int rc;

	if (!served.cache)
		return;
	notify_systemd("STOPPING=1\nSTATUS=closing");
	drain_wanted = __atomic_load_n(&params.drain_on_exit, __ATOMIC_RELAXED);
	if (drain_wanted)
		shutdown_draining(&ending); /* from here on: a job that drains is waited for as well */
	control_finish_jobs(control, drain_wanted);
	requests_tell_rest();
	has_ssd = served.ssd;
	if (has_ssd)
		snprintf(cache, sizeof cache, "%s", served.ssd->name);
	if (drain_wanted && has_ssd)
		drain();
	shutdown_stop(&ending);
	control_stop(control);
	control = NULL;
	report_stop(&report);
	rc = served_close(&served);
	if (rc < 0 && has_ssd)
		lc_log(LC_LOG_ERROR,
		       "could not close cache %s in good order: %s; what was flushed is safe, and "
		       "the next start recovers it",
		       cache, strerror(-rc));
	else if (has_ssd)
		lc_log(LC_LOG_INFO, "cache %s closed", cache);
	else if (rc < 0)
		lc_log(LC_LOG_ERROR, "could not flush the backing stores: %s", strerror(-rc));
	else
		lc_log(LC_LOG_INFO, "backing stores closed");
}

static const char *description_of(const struct served_volume *v, char *text, size_t n)
{
	const char *path = v->backing->name, *slash = strrchr(path, '/');
	char size[SIZE_TEXT_BYTES];

	/* The folder, or the server, is nobody's business on the other side of a network. */
	if (lc_is_uri(path))
		path = "NBD server";
	else if (slash)
		path = slash + 1;
	snprintf(text, n, "%.255s%s%s%s, %s", name_is_text(path) ? path : "",
		 name_is_text(path) ? " (" : "", size_text(size, v->backing->size_bytes),
		 name_is_text(path) ? ")" : "",
		 lc_cache_has_ssd(served.cache) ? "cached" : "not cached");
	return text;
}

#define DESCRIPTION_BYTES 320u

static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	char text[DESCRIPTION_BYTES];

	(void)readonly; /* every client may see every volume */
	(void)is_tls;
	for (unsigned i = 0; i < served.nr_volumes; i++) {
		const struct served_volume *v = &served.volumes[i];

		if (nbdkit_add_export(exports, v->name, description_of(v, text, sizeof text)) == -1)
			return -1;
	}
	return 0;
}

/* What a client gets that asks for the empty name. */
static const char *plugin_default_export(int readonly, int is_tls)
{
	(void)readonly;
	(void)is_tls;
	/* One of several would be a guess, and the client would write to it: plugin_open refuses. */
	return served.nr_volumes == 1 ? served.volumes[0].name : "";
}

/* Many names are not of much help in a message. */
#define LIST_BYTES 600u

static const char *list_of_exports(char list[LIST_BYTES])
{
	int n = 0;

	list[0] = '\0';
	for (unsigned i = 0; i < served.nr_volumes; i++) {
		if (n + LC_NAME_BYTES + 32 > LIST_BYTES) {
			snprintf(list + n, LIST_BYTES - n, " and %u more", served.nr_volumes - i);
			break;
		}
		n += snprintf(list + n, LIST_BYTES - n, "%s'%s'", i ? ", " : "",
			      served.volumes[i].name);
	}
	return list;
}

struct connection {
	const struct served_volume *served;
	struct lc_client client;
};

static void *plugin_open(int readonly)
{
	const char *name = nbdkit_export_name();
	const struct served_volume *v;
	struct connection *c;
	char list[LIST_BYTES];

	(void)readonly; /* nbdkit itself refuses writes then */
	if (!name)
		return NULL; /* nbdkit has said why */
	v = served_find(&served, name);
	if (!v) {
		if (name[0])
			nbdkit_error("there is no export '%s': ask for one of %s", name,
				     list_of_exports(list));
		else
			nbdkit_error("there is no default export: ask for one of %s",
				     list_of_exports(list));
		nbdkit_set_error(ENOENT);
		return NULL;
	}
	c = malloc(sizeof *c);
	if (!c) {
		nbdkit_error("no memory for a connection");
		return NULL;
	}
	c->served = v;
	lc_client_begin(v->volume, &c->client);
	shutdown_client(&ending, true);
	return c;
}

static void plugin_close(void *handle)
{
	shutdown_client(&ending, false);
	free(handle);
}

static const struct served_volume *served_of(void *handle)
{
	const struct connection *c = handle;

	return c->served;
}

static const char *plugin_export_description(void *handle)
{
	char text[DESCRIPTION_BYTES];

	return nbdkit_strdup_intern(description_of(served_of(handle), text, sizeof text));
}

static struct lc_volume *volume_of(void *handle)
{
	return served_of(handle)->volume;
}

static int64_t plugin_get_size(void *handle)
{
	return lc_volume_size_bytes(volume_of(handle));
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

static int plugin_can_zero(void *handle)
{
	(void)handle;
	return 1;
}

/*
 * Always: it promises an answer at once, and "no" is one. And nbdkit 1.32 aborts when a client asks for what
 * was not offered.
 */
static int plugin_can_fast_zero(void *handle)
{
	(void)handle;
	return 1;
}

/* Said only where it does something: mkfs discards whole disks, and need not wait for nothing. */
static int plugin_can_trim(void *handle)
{
	return lc_volume_can_trim(volume_of(handle));
}

static int plugin_can_extents(void *handle)
{
	(void)handle;
	return 1;
}

static int plugin_can_multi_conn(void *handle)
{
	(void)handle;
	return 1;
}

static unsigned lc_flags(uint32_t flags)
{
	return (flags & NBDKIT_FLAG_FUA ? LC_FUA : 0) |
	       (flags & NBDKIT_FLAG_MAY_TRIM ? LC_MAY_TRIM : 0) |
	       (flags & NBDKIT_FLAG_FAST_ZERO ? LC_FAST_ONLY : 0);
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct request r = request_begin(REQUEST_READ, served_of(handle), count, offset, flags);

	return request_end(&r, lc_read(volume_of(handle), buf, count, offset));
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			 uint32_t flags)
{
	struct request r = request_begin(REQUEST_WRITE, served_of(handle), count, offset, flags);

	return request_end(&r, lc_write(volume_of(handle), buf, count, offset, lc_flags(flags)));
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct request r = request_begin(REQUEST_ZERO, served_of(handle), count, offset, flags);

	return request_end(&r, lc_zero(volume_of(handle), count, offset, lc_flags(flags)));
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct request r = request_begin(REQUEST_TRIM, served_of(handle), count, offset, flags);

	return request_end(&r, lc_trim(volume_of(handle), count, offset, lc_flags(flags)));
}

static int plugin_flush(void *handle, uint32_t flags)
{
	struct request r = request_begin(REQUEST_FLUSH, served_of(handle), 0, 0, flags);
	struct connection *c = handle;

	return request_end(&r, lc_client_flush(volume_of(handle), &c->client));
}

/*
 * nbdkit joins neighbours that are alike. The answer may end before the range does; it holds one stretch
 * at least. With NBDKIT_FLAG_REQ_ONE nobody looks at more than one.
 */
static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			  struct nbdkit_extents *extents)
{
	struct request r = request_begin(REQUEST_EXTENTS, served_of(handle), count, offset, flags);
	u64 at = offset, end = offset + count;
	struct lc_extent e;
	bool hole = false;

	for (unsigned i = 0; i < EXTENTS_MAX && at < end; i++) {
		int rc = lc_extent(volume_of(handle), end - at, at, &e);

		if (rc < 0)
			return request_end(&r, rc);
		if (i > 0 && e.hole != hole && flags & NBDKIT_FLAG_REQ_ONE)
			break;
		hole = e.hole;
		if (nbdkit_add_extent(extents, at, e.len_bytes,
				      hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0) == -1)
			return request_end(&r, -ENOMEM);
		at += e.len_bytes;
	}
	return request_end(&r, 0);
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
	.magic_config_key = "backing",
	.dump_plugin = plugin_dump,
	.get_ready = plugin_get_ready,
	.after_fork = plugin_after_fork,
	.cleanup = plugin_cleanup,
	.list_exports = plugin_list_exports,
	.default_export = plugin_default_export,
	.open = plugin_open,
	.close = plugin_close,
	.export_description = plugin_export_description,
	.get_size = plugin_get_size,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = plugin_can_flush,
	.can_fua = plugin_can_fua,
	.can_zero = plugin_can_zero,
	.can_fast_zero = plugin_can_fast_zero,
	.can_trim = plugin_can_trim,
	.can_extents = plugin_can_extents,
	.can_multi_conn = plugin_can_multi_conn,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
	.zero = plugin_zero,
	.trim = plugin_trim,
	.extents = plugin_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
