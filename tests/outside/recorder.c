/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recorder.c - a FUSE file system below our own I/O, which records every write and flush.
 *
 *	recorder MOUNTPOINT LOG MAX_DELAY_US SEED NAME=FILE...
 *
 * The folder MOUNTPOINT holds the given NAMEs. Each passes its I/O through to FILE, and what changes or secures
 * something is appended to LOG when it is done: struct entry, behind a write its data. So the log is in the order
 * in which writes became visible, and `run` can build from it what a power cut leaves at any moment.
 *
 * A request is delayed by a random time between its arrival and its execution, and several are in work
 * at a time: they overlap, and end in another order than they came. A write that has arrived and not ended is one
 * that a power cut may tear. The kernel lets no fsync overtake a write to the same file (it holds the inode's
 * lock), so a server that flushes too early is not found here but in the simulation.
 *
 * Files are opened with direct_io: nothing stays in the page cache, and O_DIRECT works. Runs in the foreground until
 * SIGTERM or SIGINT. Locks: `lock` guards the log, the random numbers, and makes a write and its entry one step.
 */
#define FUSE_USE_VERSION 312
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 4
#define THREADS 16
#define ENTRY_MAGIC 0x6c637265u

/* Linux 6.2; libfuse 3.14 has no name for it yet. An older kernel ignores it, and writes come one at a time. */
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1u << 6)
#endif

/* Little-endian, like the machines that run the tests; `run` reads it. */
struct entry {
	uint32_t magic;
	uint8_t file; /* the number of its NAME=FILE */
	char op;      /* W, F */
	uint16_t reserved;
	uint32_t len_bytes;
	int32_t error; /* 0 or errno */
	uint64_t offset_bytes;
	uint64_t begin_ns; /* CLOCK_MONOTONIC, as Python's time.monotonic_ns() */
	uint64_t end_ns;
};
static_assert(sizeof(struct entry) == 40, "run reads 40 bytes");

struct file {
	const char *name;
	int fd;
};

static struct file files[FILES_MAX];
static unsigned nr_files;
static int log_fd;
static unsigned max_delay_us;
static uint64_t random_state;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* xorshift64*. [lock] */
static uint64_t draw(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1du;
}

/* Mostly nothing, often a little, now and then long enough for all others to pass. */
static void delay(void)
{
	unsigned us = 0;

	if (!max_delay_us)
		return;
	pthread_mutex_lock(&lock);
	switch (draw() >> 61) {
	case 0:
		us = (unsigned)(draw() >> 33) % max_delay_us;
		break;
	case 1:
	case 2:
		us = (unsigned)(draw() >> 33) % (max_delay_us / 8 + 1);
		break;
	}
	pthread_mutex_unlock(&lock);
	if (us)
		usleep(us);
}

/* A recorder that cannot record proves nothing. */
static void die(const char *what)
{
	perror(what);
	_exit(1);
}

/* [lock] */
static void record(const struct entry *e, const void *data)
{
	size_t data_bytes = e->op == 'W' && !e->error ? e->len_bytes : 0;
	struct iovec iov[2] = {
		{.iov_base = (void *)e, .iov_len = sizeof(*e)},
		{.iov_base = (void *)data, .iov_len = data_bytes},
	};

	if (writev(log_fd, iov, data_bytes ? 2 : 1) != (ssize_t)(sizeof(*e) + data_bytes))
		die("recorder: log");
}

/* --- the file system: a root folder, and file I as inode I + 2 --- */

static struct file *file_of(fuse_ino_t ino)
{
	return ino >= 2 && ino < nr_files + 2 ? &files[ino - 2] : NULL;
}

static int attributes(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	if (ino == FUSE_ROOT_ID) {
		st->st_mode = S_IFDIR | 0700;
		st->st_nlink = 2;
	} else {
		if (!file_of(ino))
			return ENOENT;
		if (fstat(file_of(ino)->fd, st) < 0)
			return errno;
		st->st_nlink = 1;
	}
	st->st_ino = ino;
	return 0;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int rc = attributes(ino, &st);

	(void)fi;
	if (rc)
		fuse_reply_err(req, rc);
	else
		fuse_reply_attr(req, &st, 0);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {0};

	for (unsigned i = 0; parent == FUSE_ROOT_ID && i < nr_files; i++) {
		if (strcmp(files[i].name, name) != 0)
			continue;
		e.ino = i + 2;
		int rc = attributes(e.ino, &e.attr);

		if (rc)
			fuse_reply_err(req, rc);
		else
			fuse_reply_entry(req, &e);
		return;
	}
	fuse_reply_err(req, ENOENT);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = {
		.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
	};

	(void)fi;
	if (!file_of(ino))
		fuse_reply_err(req, EISDIR);
	else
		/* fuse_reply_open() of this libfuse cannot say "parallel". */
		fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	char *buf = malloc(size);
	ssize_t got;

	(void)fi;
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	got = pread(file_of(ino)->fd, buf, size, offset);
	if (got < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buf, (size_t)got);
	free(buf);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct entry e = {
		.magic = ENTRY_MAGIC,
		.file = (uint8_t)(ino - 2),
		.op = 'W',
		.len_bytes = (uint32_t)size,
		.offset_bytes = (uint64_t)offset,
		.begin_ns = now_ns(),
	};

	(void)fi;
	delay();
	pthread_mutex_lock(&lock);
	if (pwrite(file_of(ino)->fd, buf, size, offset) != (ssize_t)size)
		die("recorder: pwrite");
	e.end_ns = now_ns();
	record(&e, buf);
	pthread_mutex_unlock(&lock);
	fuse_reply_write(req, size);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct entry e = {
		.magic = ENTRY_MAGIC,
		.file = (uint8_t)(ino - 2),
		.op = 'F',
		.begin_ns = now_ns(),
	};

	(void)datasync;
	(void)fi;
	/* Nothing to do: FILE only has to outlive us, and a power cut here is one in the log. */
	delay();
	pthread_mutex_lock(&lock);
	e.end_ns = now_ns();
	record(&e, NULL);
	pthread_mutex_unlock(&lock);
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
};

/* --- main --- */

static int add_file(char *arg)
{
	char *equals = strchr(arg, '=');

	if (!equals || nr_files == FILES_MAX)
		return -1;
	*equals = '\0';
	files[nr_files].name = arg;
	files[nr_files].fd = open(equals + 1, O_RDWR | O_CLOEXEC);
	if (files[nr_files].fd < 0) {
		perror(equals + 1);
		return -1;
	}
	nr_files++;
	return 0;
}

static int serve(const char *mountpoint)
{
	char *argv[] = {"recorder", "-o", "fsname=logcache-recorder", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rc = 1;

	if (!se || !config)
		goto out;
	fuse_loop_cfg_set_max_threads(config, THREADS);
	fuse_loop_cfg_set_idle_threads(config, THREADS);
	if (fuse_set_signal_handlers(se) != 0)
		goto out;
	if (fuse_session_mount(se, mountpoint) == 0) {
		/* A signal ends it, too, and that is a good end. */
		rc = fuse_session_loop_mt(se, config) < 0;
		fuse_session_unmount(se);
	}
	fuse_remove_signal_handlers(se);
out:
	if (config)
		fuse_loop_cfg_destroy(config);
	if (se)
		fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return rc;
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: %s MOUNTPOINT LOG MAX_DELAY_US SEED NAME=FILE...\n", argv[0]);
		return 2;
	}
	max_delay_us = (unsigned)strtoul(argv[3], NULL, 0);
	random_state = strtoull(argv[4], NULL, 0) | 1;
	for (int i = 5; i < argc; i++) {
		if (add_file(argv[i]) < 0)
			return 2;
	}
	log_fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0) {
		perror(argv[2]);
		return 1;
	}
	return serve(argv[1]);
}
