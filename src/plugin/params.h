/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * params.h - what the administrator asked for on nbdkit's command line.
 *
 * nbdkit hands over one key and one value at a time (params_set), then says that there are no more
 * (params_complete). Each value is checked where it arrives, so that a message can repeat it as it
 * was written; what depends on several of them is checked at the end. Nothing here opens or looks at
 * the files: that is open.h.
 *
 * Order matters for two keys only: volume=NAME begins a volume, and backing=PATH belongs to the one
 * that was begun last, or to the default export (the volume without a name) before the first volume=.
 *
 * Runs before nbdkit forks, in one thread. Paths are made absolute here, because nbdkit changes its
 * folder to / when it goes into the background.
 */
#ifndef LC_PLUGIN_PARAMS_H
#define LC_PLUGIN_PARAMS_H

#include "logcache/logcache.h"
#include "nbd.h"

enum params_format {
	PARAMS_FORMAT_AUTO,  /* format a blank cache device, never another one */
	PARAMS_FORMAT_NO,    /* never format */
	PARAMS_FORMAT_FORCE, /* format whatever is there */
};

enum params_io {
	PARAMS_IO_AUTO,	    /* io_uring, or libaio where that is not allowed */
	PARAMS_IO_IO_URING, /* this one or no start */
	PARAMS_IO_LIBAIO,
};

struct params_volume {
	char name[LC_NAME_BYTES]; /* "": the default export */
	char *backing_path;	  /* absolute, or the URI of an NBD server; NULL: not given */
};

struct params {
	struct params_volume volumes[LC_VOLUMES_MAX]; /* in the order of the command line */
	unsigned nr_volumes;
	char *cache_path;     /* absolute; NULL: not given, serve without a cache */
	u64 cache_size_bytes; /* 0: not given */
	enum params_format format;
	enum params_io io;
	struct lc_format_options format_options;
	struct lc_settings settings;
	struct lc_nbd_options nbd; /* for all backing stores that are NBD servers */
	bool drain_on_exit; /* the control interface changes it: read it atomically while serving */
	u32 stats_interval_s;  /* 0: no statistics in the log */
	char *control_path;    /* absolute; NULL: no control interface */
	char *metrics_address; /* [HOST:]PORT; NULL: none */
	u32 given;	       /* bit per key, to refuse a key that comes twice */
};

/* What `nbdkit --help logcache` says about the parameters. */
extern const char params_help[];

/* All defaults. */
void params_init(struct params *p);

/*
 * Take one parameter. Returns 0, or -1 when the key is unknown or its value out of range: then the
 * reason has gone to nbdkit_error().
 */
int params_set(struct params *p, const char *key, const char *value);

/* All parameters have come. Returns 0, or -1 with the reason gone to nbdkit_error(). */
int params_complete(struct params *p);

/* Release the paths; P may be used again after params_init(). */
void params_free(struct params *p);

#endif
