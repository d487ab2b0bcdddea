/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * drain.c - logcachectl drain --offline: write everything back, without serving.
 *
 * The stores are given in the words of the plugin's command line, opened and refused as the plugin does it, except
 * that nothing is ever formatted. The engine runs as in a server, but has no client; so when it is drained, the
 * backing stores have everything.
 *
 * One thread besides the engine's: it tells the progress, and waits for SIGINT and SIGTERM, which end the
 * drain in good order: what was written back by then is, the rest stays in the cache.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "backing.h"
#include "cache.h"
#include "ctl.h"
#include "file.h"
#include "name.h"
#include "progress.h"

struct draining {
	const char *cache_path;
	const char *backing_paths[LC_VOLUMES_MAX];
	struct lc_volume_spec specs[LC_VOLUMES_MAX];
	unsigned nr;
	bool offline, wanted, quiet;

	struct lc_store *ssd;
	struct lc_cache *cache;
	u64 total; /* blocks that were to be written back or zeroed */
	atomic_bool done;
};

/* --- the command line --- */

static int set_volume(struct draining *d, const char *value)
{
	if (d->nr && !d->backing_paths[d->nr - 1])
		return misused("volume=%s has no backing store: give backing=PATH behind it",
			       d->specs[d->nr - 1].name);
	if (!*value)
		return misused("volume=: a name is missing; the default export has none, put its "
			       "backing= before the first volume=");
	if (!name_is_text(value) || strlen(value) >= LC_NAME_BYTES)
		return misused("volume=%s: must be UTF-8 without control characters, at most 63 bytes "
			       "long",
			       value);
	if (d->nr == LC_VOLUMES_MAX)
		return misused("volume=%s: one volume too many: a cache has at most %u", value,
			       LC_VOLUMES_MAX);
	d->specs[d->nr++].name = value;
	return CTL_OK;
}

static int set_backing(struct draining *d, const char *value)
{
	if (d->nr == 0)
		d->specs[d->nr++].name = "";
	if (!*value)
		return misused("backing=: a path is missing");
	if (d->backing_paths[d->nr - 1])
		return misused("backing=%s: there is one already: to begin another volume, put volume=NAME "
			       "before it",
			       value);
	d->backing_paths[d->nr - 1] = value;
	return CTL_OK;
}

static int set(struct draining *d, const char *word)
{
	if (!strncmp(word, "cache=", 6)) {
		if (d->cache_path || !word[6])
			return misused("%s: give one path", word);
		d->cache_path = word + 6;
		return CTL_OK;
	}
	if (!strncmp(word, "volume=", 7))
		return set_volume(d, word + 7);
	if (!strncmp(word, "backing=", 8))
		return set_backing(d, word + 8);
	return misused("drain: '%s' is none of cache=, volume= and backing=", word);
}

static int parse(int argc, char **argv, struct draining *d)
{
	static const struct option options[] = {
		{"offline", no_argument, NULL, 'o'},
		{"progress", no_argument, NULL, 'p'},
		{"quiet", no_argument, NULL, 'q'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (c == 'o')
			d->offline = true;
		else if (c == 'p')
			d->wanted = true;
		else if (c == 'q')
			d->quiet = quiet_log = true;
		else
			return misused_option("drain", argv);
	}
	if (!d->offline)
		return misused("drain: give --offline, if no server uses the cache");
	for (int i = optind; i < argc; i++) {
		int status = set(d, argv[i]);

		if (status)
			return status;
	}
	if (!d->cache_path)
		return misused("drain: cache=PATH is required");
	if (!d->nr)
		return misused("drain: backing=PATH is required");
	if (!d->backing_paths[d->nr - 1])
		return misused("volume=%s has no backing store: give backing=PATH behind it",
			       d->specs[d->nr - 1].name);
	return CTL_OK;
}

/* --- opening --- */

/* No file or device may be given twice. What cannot be looked at is refused by name when it is opened. */
static int check_different(const struct draining *d, struct lc_error *err)
{
	for (unsigned i = 0; i < d->nr; i++) {
		if (lc_backing_same(d->cache_path, d->backing_paths[i]))
			return lc_fail(err, -EINVAL,
				       "cache=%s and backing=%s are the same file, device or server",
				       d->cache_path, d->backing_paths[i]);
		for (unsigned k = 0; k < i; k++)
			if (lc_backing_same(d->backing_paths[k], d->backing_paths[i]))
				return lc_fail(err, -EINVAL,
					       "backing=%s and backing=%s are the same file, device or server",
					       d->backing_paths[k], d->backing_paths[i]);
	}
	return 0;
}

static int open_all(struct draining *d, struct lc_error *err)
{
	struct lc_settings settings;
	struct lc_nbd_options nbd;
	int rc = check_different(d, err);

	lc_nbd_options_init(&nbd);
	for (unsigned i = 0; i < d->nr && !rc; i++)
		rc = lc_backing_open(d->backing_paths[i], 0, &nbd, &d->specs[i].backing, err);
	if (!rc)
		rc = lc_file_open(d->cache_path, 0, &d->ssd, err);
	if (rc)
		return rc;
	rc = lc_cache_probe(d->ssd, err);
	if (rc == 0)
		return lc_fail(err, -EMEDIUMTYPE,
			       "cache=%s is not a logcache: there is nothing to write back",
			       d->cache_path);
	if (rc < 0)
		return rc;
	lc_settings_init(&settings);
	return lc_cache_open(d->ssd, d->specs, d->nr, &settings, &d->cache, err);
}

/* Returns what lc_cache_close() returned. */
static int close_all(struct draining *d)
{
	int rc = d->cache ? lc_cache_close(d->cache) : 0;

	d->cache = NULL;
	if (d->ssd)
		lc_store_close(d->ssd);
	for (unsigned i = 0; i < d->nr; i++)
		if (d->specs[i].backing)
			lc_store_close(d->specs[i].backing);
	return rc;
}

/* --- draining --- */

static u64 left(struct draining *d)
{
	struct lc_stats s;

	lc_cache_stats(d->cache, &s);
	return s.dirty_blocks + s.pending_zero_blocks;
}

static void *watch(void *arg)
{
	struct timespec step = {.tv_nsec = 200 * LC_NS_PER_MS};
	struct draining *d = arg;
	struct progress p;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	progress_begin(&p, "writing back", d->wanted, d->quiet);
	while (!atomic_load(&d->done)) {
		u64 now = left(d);

		if (sigtimedwait(&set, NULL, &step) > 0)
			lc_cache_interrupt(d->cache);
		progress_tell(&p, d->total > now ? d->total - now : 0, d->total, LC_BLOCK);
	}
	progress_end(&p);
	return NULL;
}

static int drain(struct draining *d)
{
	pthread_t watcher;
	int rc = -pthread_create(&watcher, NULL, watch, d);

	if (rc)
		return rc;
	rc = lc_cache_drain(d->cache);
	atomic_store(&d->done, true);
	pthread_join(watcher, NULL);
	return rc;
}

/* What is on the list of lost blocks: the backing stores have older data there. */
static u64 lost_blocks(struct draining *d)
{
	u64 nr;

	lc_mutex_lock(&d->cache->core.lock);
	nr = d->cache->core.meta.bad.nr;
	lc_mutex_unlock(&d->cache->core.lock);
	return nr;
}

static int run(struct draining *d)
{
	struct lc_error err = {""}, why = {""};
	char blocks[LC_COUNT_BYTES];
	u64 rest, lost;
	int rc = open_all(d, &err), closed;

	if (!rc)
		rc = lc_cache_start(d->cache, &err);
	if (rc) {
		(void)close_all(d); /* nothing was begun that could fail to end */
		return fail("%s", err.text);
	}
	d->total = left(d);
	rc = drain(d);
	if (rc)
		lc_cache_drain_error(d->cache, rc, &why);
	rest = left(d);
	lost = lost_blocks(d);
	closed = close_all(d);
	if (rc == -ECANCELED)
		return fail("interrupted: %llu of %s stay in %s, go on with the same command",
			    (unsigned long long)rest, lc_count_text(blocks, d->total, "block"),
			    d->cache_path);
	if (rc)
		return fail("could not write everything back: %s; %llu of %s stay in %s: try again once the "
			    "reason is gone",
			    why.text, (unsigned long long)rest,
			    lc_count_text(blocks, d->total, "block"), d->cache_path);
	if (lost)
		(void)blocks_are_lost(d->cache_path, lost); /* the exit status is that below */
	if (closed)
		return fail("nothing in %s is dirty any more, but it could not be closed in good order: %s",
			    d->cache_path, strerror(-closed));
	if (lost)
		return CTL_FAILED;
	if (!d->quiet)
		printf("%s: %s written back: the backing stores have everything\n", d->cache_path,
		       lc_count_text(blocks, d->total, "block"));
	return CTL_OK;
}

int command_drain(int argc, char **argv)
{
	static struct draining d; /* large, and zero */
	sigset_t set;
	int rc = parse(argc, argv, &d);

	if (rc)
		return rc;
	/* All threads inherit it; the one that watches takes the signals. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return run(&d);
}
