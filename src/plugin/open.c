/* SPDX-License-Identifier: BSD-3-Clause */
/* open.c - see open.h. */
#include "open.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backing.h"
#include "blank.h"
#include "file.h"
#include "name.h"
#include "size.h"

/* What is at cache=, as far as it matters for formatting. */
enum content {
	CONTENT_MISSING,
	CONTENT_LOGCACHE,
	CONTENT_BLANK,
	CONTENT_FOREIGN,
};

struct found {
	enum content content;
	char what[256]; /* CONTENT_FOREIGN: what it seems to be */
};

/* How the stores' queues are to be driven, as flags of lc_file_open(). */
static unsigned io_flags(const struct params *p)
{
	switch (p->io) {
	case PARAMS_IO_IO_URING:
		return LC_FILE_IO_URING;
	case PARAMS_IO_LIBAIO:
		return LC_FILE_IO_AIO;
	case PARAMS_IO_AUTO:
		break;
	}
	return 0;
}

/* No file, device or server may be given twice. What cannot be looked at is refused by name when it is opened. */
static int check_different(const struct params *p, struct lc_error *err)
{
	char a[NAME_TEXT_BYTES], b[NAME_TEXT_BYTES];

	for (unsigned i = 0; i < p->nr_volumes; i++) {
		const struct params_volume *v = &p->volumes[i];

		if (p->cache_path && lc_backing_same(p->cache_path, v->backing_path))
			return lc_fail(err, -EINVAL,
				       "cache=%s and backing=%s are the same file or device: "
				       "the log needs a device of its own",
				       p->cache_path, v->backing_path);
		for (unsigned k = 0; k < i; k++) {
			const struct params_volume *w = &p->volumes[k];

			if (!lc_backing_same(w->backing_path, v->backing_path))
				continue;
			return lc_fail(err, -EINVAL,
				       "backing=%s of %s and backing=%s of %s are the same file, "
				       "device or server: each volume needs a backing store of its own",
				       w->backing_path, name_text(a, w->name), v->backing_path,
				       name_text(b, v->name));
		}
	}
	return 0;
}

/*
 * Open the cache device, or find out that it is missing and may be created: then *SSD stays NULL.
 */
static int open_ssd(const struct params *p, struct lc_store **ssd, struct lc_error *err)
{
	char have[SIZE_TEXT_BYTES], want[SIZE_TEXT_BYTES];
	struct stat st = {0};
	int rc;

	*ssd = NULL;
	if (stat(p->cache_path, &st) == -1 && errno == ENOENT) {
		if (!p->cache_size_bytes)
			return lc_fail(err, -ENOENT,
				       "cache=%s does not exist: correct the path, or give "
				       "cache-size=SIZE to create the file",
				       p->cache_path);
		if (p->format == PARAMS_FORMAT_NO)
			return lc_fail(err, -ENOENT,
				       "cache=%s does not exist, and format=no forbids to make a "
				       "new cache: correct the path, or leave out format=no",
				       p->cache_path);
		return 0;
	}
	rc = lc_file_open(p->cache_path, io_flags(p), ssd, err);
	if (rc < 0)
		return rc;
	if (p->cache_size_bytes && p->cache_size_bytes != (*ssd)->size_bytes) {
		rc = lc_fail(err, -EINVAL,
			     "cache=%s exists with a size of %s (%" PRIu64 " bytes), not "
			     "cache-size=%s: leave out cache-size=%s",
			     p->cache_path, size_text(have, (*ssd)->size_bytes), (*ssd)->size_bytes,
			     size_text(want, p->cache_size_bytes),
			     S_ISBLK(st.st_mode) ?
				     ", which is for files" :
				     ", or remove the file once it holds nothing of value");
		lc_store_close(*ssd);
		*ssd = NULL;
	}
	return rc;
}

static int look_at(struct lc_store *ssd, struct found *f, struct lc_error *err)
{
	int rc;

	f->what[0] = '\0';
	if (!ssd) {
		f->content = CONTENT_MISSING;
		return 0;
	}
	rc = lc_cache_probe(ssd, err);
	if (rc < 0)
		return rc;
	if (rc == 1) {
		f->content = CONTENT_LOGCACHE;
		return 0;
	}
	rc = lc_blank_check(ssd, f->what, sizeof f->what, err);
	if (rc < 0)
		return rc;
	f->content = rc == 1 ? CONTENT_BLANK : CONTENT_FOREIGN;
	return 0;
}

/* The table in open.h. Returns 1 to format, 0 to open what is there. */
static int decide(const struct params *p, const struct lc_store *ssd, const struct found *f,
		  struct lc_error *err)
{
	u64 min = lc_cache_min_bytes(p->format_options.segment_bytes);
	char have[SIZE_TEXT_BYTES], least[SIZE_TEXT_BYTES], segment[SIZE_TEXT_BYTES];

	if (f->content == CONTENT_LOGCACHE && p->format != PARAMS_FORMAT_FORCE)
		return 0;
	if (f->content == CONTENT_FOREIGN && p->format != PARAMS_FORMAT_FORCE)
		return lc_fail(err, -EEXIST,
			       "cache=%s is not a logcache and not blank: it holds %s; correct the "
			       "path, or give format=force (to logcachectl attach: --format=force) to destroy "
			       "what is there",
			       p->cache_path, f->what);
	if (p->format == PARAMS_FORMAT_NO)
		return lc_fail(err, -EMEDIUMTYPE,
			       "cache=%s is blank, and format=no forbids to make a new cache: "
			       "correct the path, or leave out format=no",
			       p->cache_path);
	/* A new file has a size that params_complete() has approved. */
	if (ssd && ssd->size_bytes < min)
		return lc_fail(err, -ENOSPC,
			       "cache=%s is too small: it has %s, the least is %s with "
			       "segment-size=%s; give a larger one%s",
			       p->cache_path, size_text(have, ssd->size_bytes), size_text(least, min),
			       size_text(segment, p->format_options.segment_bytes),
			       p->format_options.segment_bytes > LC_SEGMENT_MIN_BYTES ?
				       ", or a smaller segment-size=" :
				       "");
	return 1;
}

static void warn_of_loss(const struct params *p, const struct found *f)
{
	if (f->content == CONTENT_LOGCACHE)
		lc_log(LC_LOG_WARNING,
		       "format=force: the logcache on %s is destroyed, with whatever it had not "
		       "written back; leave out format=force from now on",
		       p->cache_path);
	if (f->content == CONTENT_FOREIGN)
		lc_log(LC_LOG_WARNING,
		       "format=force: what %s held (%s) is destroyed; leave out format=force from "
		       "now on",
		       p->cache_path, f->what);
}

static int open_backing(const struct params *p, const char *path, struct lc_store **backing,
			struct lc_error *err)
{
	int rc = lc_backing_open(path, io_flags(p), &p->nbd, backing, err);

	if (rc < 0)
		return rc;
	/* Not refused: what a backing store holds is its clients' affair. But rather a mistake. */
	rc = lc_cache_probe(*backing, err);
	if (rc == 1)
		lc_log(LC_LOG_WARNING,
		       "backing=%s holds a logcache itself: are cache= and backing= swapped?", path);
	if (rc < 0) {
		lc_store_close(*backing);
		*backing = NULL;
	}
	return rc < 0 ? rc : 0;
}

static int open_backings(struct served *s, const struct params *p, struct lc_error *err)
{
	for (unsigned i = 0; i < p->nr_volumes; i++) {
		struct served_volume *v = &s->volumes[i];
		int rc = open_backing(p, p->volumes[i].backing_path, &v->backing, err);

		if (rc < 0)
			return rc;
		v->name = p->volumes[i].name;
		s->nr_volumes++;
	}
	return 0;
}

/*
 * Can there be queues of the kind that io= asks for? The engine would notice, too, but after a new cache has been
 * formatted. Servers have queues of another kind.
 */
static int check_queues(const struct served *s, struct lc_error *err)
{
	struct lc_queue *queue;
	unsigned i = 0;
	int rc;

	while (i < s->nr_volumes && lc_is_fence(s->volumes[i].backing))
		i++;
	if (i == s->nr_volumes)
		return 0;
	rc = lc_queue_open(s->volumes[i].backing, 1, NULL, 0, &queue, err);
	if (rc == 0)
		lc_queue_close(queue);
	return rc;
}

/* Threads do not survive the fork that comes now: in between there are no connections to servers. */
static void pause_links(struct served *s)
{
	for (unsigned i = 0; i < s->nr_volumes; i++)
		if (lc_is_fence(s->volumes[i].backing))
			lc_fence_pause(s->volumes[i].backing);
}

int served_start(struct served *s, struct lc_error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < s->nr_volumes && rc == 0; i++)
		if (lc_is_fence(s->volumes[i].backing))
			rc = lc_fence_resume(s->volumes[i].backing, err);
	return rc < 0 ? rc : lc_cache_start(s->cache, err);
}

static int create(struct served *s, const struct params *p, struct lc_error *err)
{
	int rc = lc_file_create(p->cache_path, p->cache_size_bytes, err);

	if (rc < 0)
		return rc;
	rc = lc_file_open(p->cache_path, io_flags(p), &s->ssd, err);
	if (rc < 0)
		unlink(p->cache_path); /* best effort: the reason for failing is another one */
	return rc;
}

/* Open the cache device, and make a cache of it if that is called for. *CREATED: its file is new. */
static int prepare_ssd(struct served *s, const struct params *p, bool *created, struct lc_error *err)
{
	struct found found;
	int rc = open_ssd(p, &s->ssd, err);

	if (rc < 0)
		return rc;
	rc = look_at(s->ssd, &found, err);
	if (rc < 0)
		return rc;
	rc = decide(p, s->ssd, &found, err);
	if (rc >= 0 && s->ssd)
		lc_file_warn_cache(s->ssd);
	if (rc <= 0)
		return rc;
	warn_of_loss(p, &found);
	if (found.content == CONTENT_MISSING) {
		rc = create(s, p, err);
		if (rc < 0)
			return rc;
		*created = true;
	}
	return lc_cache_format(s->ssd, &p->format_options, err);
}

/* The engine says what is wrong with a cache; what to do about it is the same whatever it is. */
static int with_remedy(int rc, struct lc_error *err)
{
	struct lc_error why;

	if (rc != -EUCLEAN)
		return rc;
	why = *err;
	return lc_fail(err, rc,
		       "%s; logcachectl check shows all that is damaged, logcachectl repair says what can be done",
		       why.text);
}

int served_open(struct served *s, const struct params *p, struct lc_error *err)
{
	struct lc_volume_spec specs[LC_VOLUMES_MAX];
	bool created = false;
	int rc;

	memset(s, 0, sizeof *s);
	rc = check_different(p, err);
	if (rc < 0)
		return rc;
	rc = open_backings(s, p, err);
	if (rc == 0 && p->cache_path)
		rc = check_queues(s, err);
	if (rc == 0 && p->cache_path)
		rc = prepare_ssd(s, p, &created, err);
	if (rc < 0)
		goto fail;

	for (unsigned i = 0; i < s->nr_volumes; i++)
		specs[i] = (struct lc_volume_spec){
			.name = s->volumes[i].name,
			.backing = s->volumes[i].backing,
		};
	rc = with_remedy(lc_cache_open(s->ssd, specs, s->nr_volumes, &p->settings, &s->cache, err),
			 err);
	if (rc < 0)
		goto fail;
	for (unsigned i = 0; i < s->nr_volumes; i++)
		s->volumes[i].volume = lc_cache_volume(s->cache, i);
	pause_links(s);
	return 0;

fail:
	(void)served_close(s); /* there is no cache in it that could fail to close */
	if (created)
		unlink(p->cache_path); /* best effort, as above */
	return rc;
}

static void close_ssd(struct served *s)
{
	struct lc_store *ssd = s->ssd;

	s->ssd = NULL;
	if (ssd)
		lc_store_close(ssd);
}

int served_attach(struct served *s, const struct params *p, const char *path,
		  enum params_format format, u32 segment_bytes, struct lc_error *err)
{
	struct params q = *p;
	bool created;
	struct stat st;
	int rc;

	/* The remedies of a start, which are told otherwise, do not apply. */
	if (stat(path, &st) == -1)
		return lc_fail(err, -errno, "%s: %s: give a block device or file that exists", path,
			       strerror(errno));
	q.cache_path = (char *)path; /* read only, like all of it */
	q.cache_size_bytes = 0;	     /* so nothing is created */
	q.format = format;
	if (segment_bytes)
		q.format_options.segment_bytes = segment_bytes;
	rc = check_different(&q, err);
	if (rc == 0)
		rc = check_queues(s, err);
	if (rc == 0)
		rc = prepare_ssd(s, &q, &created, err);
	if (rc == 0)
		rc = with_remedy(lc_cache_attach(s->cache, s->ssd, err), err);
	if (rc < 0 && !lc_cache_has_ssd(s->cache))
		close_ssd(s);
	return rc;
}

int served_detach(struct served *s, struct lc_error *err)
{
	int rc = lc_cache_detach(s->cache, err);

	if (rc == 0)
		close_ssd(s);
	return rc;
}

const struct served_volume *served_find(const struct served *s, const char *name)
{
	for (unsigned i = 0; i < s->nr_volumes; i++)
		if (strcmp(s->volumes[i].name, name) == 0)
			return &s->volumes[i];
	return NULL;
}

int served_close(struct served *s)
{
	int rc = 0;

	if (s->cache)
		rc = lc_cache_close(s->cache);
	if (s->ssd)
		lc_store_close(s->ssd);
	for (unsigned i = 0; i < s->nr_volumes; i++)
		lc_store_close(s->volumes[i].backing);
	memset(s, 0, sizeof *s);
	return rc;
}
