/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spindle.c - nbdkit plugin: a file with the timing of a 7200 rpm disk. `nbdkit --help spindle.so` lists the parameters.
 *
 * What a request costs is the business of model.h. This file gives the model the clock of the machine, times speed:
 *
 *	client's thread   reads or writes the file, submits the request, sleeps until it is completed
 *	scheduler thread  sleeps until the model's next event, lets it go on, wakes who is done
 *
 * The machine is not as punctual as a disk. A thread that wakes up late delays the client, but not the disk: what the head
 * did meanwhile follows from what was in the queue at that time, so lateness does not add up. But
 * a client that answers late lets the queue of the disk become shorter, and with speed=N everything on the way costs
 * N times as much of the disk's time: how far speed may be raised has to be tried (the statistics say what the head had to
 * choose from).
 *
 * The data is only there so that somebody can check it: nothing is lost with the volatile cache when the server is killed, and a flush
 * does not flush the file.
 *
 * Locking: `lock` guards the model and what is around it in struct spindle.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "model.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static struct {
	char *path;
	char *stats_path;
	int64_t size_bytes; /* -1: that of the file */
	unsigned speed;
	int write_cache;
} config = {.size_bytes = -1, .speed = 1, .write_cache = 1};

static struct spindle {
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t wake; /* on CLOCK_MONOTONIC */
	pthread_t thread;
	bool running, stop;
	struct disk disk;
	bool have_disk;
	u64 began_ns;  /* of the machine's clock: the disk's time 0 */
	u64 asleep_ns; /* until then, in the disk's time; 0: the scheduler is awake */
} spindle = {.fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

struct waiting {
	struct disk_request request;
	sem_t done;
};

/* --- time --- */

static u64 machine_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * LC_NS_PER_S + (u64)ts.tv_nsec;
}

static u64 disk_ns(void)
{
	return (machine_ns() - spindle.began_ns) * config.speed;
}

/* Rounded up: who wakes then finds that it is time. */
static struct timespec machine_time(u64 of_disk_ns)
{
	u64 ns = spindle.began_ns + (of_disk_ns + config.speed - 1) / config.speed;

	return (struct timespec){.tv_sec = (time_t)(ns / LC_NS_PER_S),
				 .tv_nsec = (long)(ns % LC_NS_PER_S)};
}

/* --- the scheduler --- */

static void wake_all(struct disk_request *r)
{
	struct disk_request *next;

	for (; r; r = next) {
		struct waiting *w = r->context;

		next = r->next; /* r is gone when its client wakes */
		sem_post(&w->done);
	}
}

static void *schedule(void *unused)
{
	(void)unused;
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* be punctual; the default is 50 us */
	pthread_mutex_lock(&spindle.lock);
	while (!spindle.stop) {
		struct disk_request *done = disk_advance(&spindle.disk, disk_ns());
		u64 next_ns = disk_next_ns(&spindle.disk);

		if (done) {
			pthread_mutex_unlock(&spindle.lock);
			wake_all(done);
			pthread_mutex_lock(&spindle.lock);
			continue;
		}
		spindle.asleep_ns = next_ns;
		if (next_ns == DISK_NEVER) {
			pthread_cond_wait(&spindle.wake, &spindle.lock);
		} else {
			struct timespec until = machine_time(next_ns);

			pthread_cond_timedwait(&spindle.wake, &spindle.lock, &until);
		}
		spindle.asleep_ns = 0;
	}
	pthread_mutex_unlock(&spindle.lock);
	return NULL;
}

/* One request, until the disk says that it is done. */
static void wait_for_disk(enum disk_op op, u64 offset_bytes, u64 len_bytes, bool fua)
{
	struct waiting w = {
		.request =
			{
				.op = op,
				.fua = fua,
				.offset_bytes = offset_bytes,
				.len_bytes = len_bytes,
			},
	};
	bool wake;

	w.request.context = &w;
	sem_init(&w.done, 0, 0);
	pthread_mutex_lock(&spindle.lock);
	disk_submit(&spindle.disk, &w.request, disk_ns());
	wake = spindle.asleep_ns > disk_next_ns(&spindle.disk);
	pthread_mutex_unlock(&spindle.lock);
	if (wake)
		pthread_cond_signal(&spindle.wake);
	while (sem_wait(&w.done) < 0)
		; /* a signal */
	sem_destroy(&w.done);
}

/* --- parameters --- */

static int spindle_config(const char *key, const char *value)
{
	if (!strcmp(key, "file")) {
		free(config.path);
		config.path = nbdkit_absolute_path(value);
		return config.path ? 0 : -1;
	}
	if (!strcmp(key, "stats")) {
		free(config.stats_path);
		config.stats_path = nbdkit_absolute_path(value);
		return config.stats_path ? 0 : -1;
	}
	if (!strcmp(key, "size")) {
		config.size_bytes = nbdkit_parse_size(value);
		return config.size_bytes < 0 ? -1 : 0;
	}
	if (!strcmp(key, "speed")) {
		if (nbdkit_parse_unsigned(key, value, &config.speed) < 0)
			return -1;
		if (config.speed < 1 || config.speed > 1000) {
			nbdkit_error("speed=%s: give 1 (real time) to 1000", value);
			return -1;
		}
		return 0;
	}
	if (!strcmp(key, "write-cache")) {
		config.write_cache = nbdkit_parse_bool(value);
		return config.write_cache < 0 ? -1 : 0;
	}
	nbdkit_error("unknown parameter '%s': there are file, size, speed, stats, write-cache", key);
	return -1;
}

static int spindle_config_complete(void)
{
	if (!config.path) {
		nbdkit_error("give the file that has the data: file=PATH");
		return -1;
	}
	return 0;
}

#define spindle_config_help                                                                       \
	"[file=]PATH          (required) The data. Made if it is not there and size is given.\n"  \
	"size=SIZE            Make the file, sparse, with this size. By default it must exist.\n" \
	"write-cache=on|off   A volatile cache of 64 MiB (default: on).\n"                        \
	"speed=N              Run N times as fast as a real disk, 1 to 1000 (default: 1).\n"      \
	"stats=PATH           Where to write at exit what the disk did (default: stderr).\n"

static int spindle_get_ready(void)
{
	struct disk_options options;
	struct stat st;
	int err;

	spindle.fd = open(config.path, O_RDWR | O_CLOEXEC | (config.size_bytes >= 0 ? O_CREAT : 0),
			  0600);
	if (spindle.fd < 0 || fstat(spindle.fd, &st) < 0) {
		nbdkit_error("%s: %m", config.path);
		return -1;
	}
	if (config.size_bytes >= 0 && st.st_size != config.size_bytes) {
		if (st.st_size > 0) {
			nbdkit_error("%s has another size than size=%" PRId64 ": remove one of both",
				     config.path, config.size_bytes);
			return -1;
		}
		if (ftruncate(spindle.fd, config.size_bytes) < 0) {
			nbdkit_error("%s: cannot give it %" PRId64 " bytes: %m", config.path,
				     config.size_bytes);
			return -1;
		}
	} else {
		config.size_bytes = st.st_size;
	}
	options = disk_7200rpm((u64)config.size_bytes, config.write_cache);
	err = disk_init(&spindle.disk, &options);
	if (err) {
		nbdkit_error("%s: no disk can be made of it: %s (it needs some MiB)", config.path,
			     strerror(-err));
		return -1;
	}
	spindle.have_disk = true;
	return 0;
}

static int spindle_after_fork(void)
{
	pthread_condattr_t attr;
	int err;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&spindle.wake, &attr);
	pthread_condattr_destroy(&attr);
	spindle.began_ns = machine_ns();
	err = pthread_create(&spindle.thread, NULL, schedule, NULL);
	if (err) {
		nbdkit_error("cannot start the scheduler: %s", strerror(err));
		return -1;
	}
	spindle.running = true;
	return 0;
}

/* --- the end --- */

static double per(u64 sum, u64 nr)
{
	return nr ? (double)sum / (double)nr : 0;
}

/* One "key: value" a line, times in seconds or milliseconds of the disk. */
static void print_stats(FILE *f)
{
	const struct disk_stats *s = &spindle.disk.stats;
	u64 span_ns = s->last_ns > s->first_ns ? s->last_ns - s->first_ns : 0;
	u64 n = s->accesses;

	fprintf(f, "speed: %u\n", config.speed);
	fprintf(f, "reads: %ju\nread_bytes: %ju\n", (uintmax_t)s->reads, (uintmax_t)s->read_bytes);
	fprintf(f, "writes: %ju\nwritten_bytes: %ju\n", (uintmax_t)s->writes,
		(uintmax_t)s->written_bytes);
	fprintf(f, "flushes: %ju\n", (uintmax_t)s->flushes);
	fprintf(f, "cached_writes: %ju\ncache_read_hits: %ju\n", (uintmax_t)s->cached_writes,
		(uintmax_t)s->cache_read_hits);
	fprintf(f, "accesses: %ju\nseeks: %ju\ncoalesced: %ju\naged: %ju\n", (uintmax_t)n,
		(uintmax_t)s->seeks, (uintmax_t)s->coalesced, (uintmax_t)s->aged);
	fprintf(f, "seek_s: %.6f\nrotation_s: %.6f\ntransfer_s: %.6f\n", (double)s->seek_ns / 1e9,
		(double)s->rotation_ns / 1e9, (double)s->transfer_ns / 1e9);
	fprintf(f, "mean_seek_ms: %.3f\nmean_rotation_ms: %.3f\n", per(s->seek_ns, n) / 1e6,
		per(s->rotation_ns, n) / 1e6);
	fprintf(f, "busy_s: %.6f\nspan_s: %.6f\n", (double)s->busy_ns / 1e9, (double)span_ns / 1e9);
	fprintf(f, "mean_queue: %.2f\nmax_queue: %u\n", per(s->depth_sum, n), s->depth_max);
}

static void spindle_cleanup(void)
{
	FILE *f = stderr;

	if (!spindle.running)
		return;
	pthread_mutex_lock(&spindle.lock);
	spindle.stop = true;
	pthread_cond_signal(&spindle.wake);
	pthread_mutex_unlock(&spindle.lock);
	pthread_join(spindle.thread, NULL);
	spindle.running = false;
	if (config.stats_path) {
		f = fopen(config.stats_path, "we");
		if (!f) {
			nbdkit_error("%s: %m", config.stats_path);
			return;
		}
	}
	print_stats(f);
	if (f != stderr && fclose(f) != 0)
		nbdkit_error("%s: %m", config.stats_path);
}

static void spindle_unload(void)
{
	if (spindle.have_disk)
		disk_destroy(&spindle.disk);
	if (spindle.fd >= 0)
		close(spindle.fd);
	free(config.path);
	free(config.stats_path);
}

/* --- requests --- */

static void *spindle_open(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t spindle_get_size(void *handle)
{
	(void)handle;
	return config.size_bytes;
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

static int spindle_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int spindle_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	char *p = buf;
	uint32_t left = count;
	uint64_t at = offset;

	(void)handle;
	(void)flags;
	while (left) {
		ssize_t n = pread(spindle.fd, p, left, (off_t)at);

		if (n < 0) {
			nbdkit_error("%s: %m", config.path);
			return -1;
		}
		if (n == 0) {
			nbdkit_error("%s has become shorter", config.path);
			errno = EIO;
			return -1;
		}
		p += n;
		left -= (uint32_t)n;
		at += (uint64_t)n;
	}
	wait_for_disk(DISK_READ, offset, count, false);
	return 0;
}

static int spindle_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			  uint32_t flags)
{
	const char *p = buf;
	uint32_t left = count;
	uint64_t at = offset;

	(void)handle;
	while (left) {
		ssize_t n = pwrite(spindle.fd, p, left, (off_t)at);

		if (n < 0) {
			nbdkit_error("%s: %m", config.path);
			return -1;
		}
		p += n;
		left -= (uint32_t)n;
		at += (uint64_t)n;
	}
	wait_for_disk(DISK_WRITE, offset, count, flags & NBDKIT_FLAG_FUA);
	return 0;
}

static int spindle_flush(void *handle, uint32_t flags)
{
	(void)handle;
	(void)flags;
	wait_for_disk(DISK_FLUSH, 0, 0, false);
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name = "spindle",
	.longname = "a file with the timing of a 7200 rpm disk",
	.description = "For benchmarks: seek, rotation, transfer, a queue served by shortest positioning "
		       "time, a write cache.",
	.config = spindle_config,
	.config_complete = spindle_config_complete,
	.config_help = spindle_config_help,
	.magic_config_key = "file",
	.get_ready = spindle_get_ready,
	.after_fork = spindle_after_fork,
	.cleanup = spindle_cleanup,
	.unload = spindle_unload,
	.open = spindle_open,
	.get_size = spindle_get_size,
	.is_rotational = yes,
	.can_flush = yes,
	.can_multi_conn = yes,
	.can_fua = spindle_can_fua,
	.pread = spindle_pread,
	.pwrite = spindle_pwrite,
	.flush = spindle_flush,
	.errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
