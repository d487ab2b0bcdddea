/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io.c - the runtime, and the file store apart from its queues: synchronous I/O, odd sizes,
 * exclusive use, refusals, creation, blank check. The queues are in test_io_queue.c.
 */
#include "test_io.h"

#include <pthread.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "blank.h"
#include "logcache/rt.h"

/* --- runtime --- */

struct ping {
	struct lc_mutex m;
	struct lc_cond c;
	bool flag;
	bool signals_blocked;
};

static void ping_main(void *arg)
{
	struct ping *p = arg;
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	lc_mutex_lock(&p->m);
	p->signals_blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGINT);
	p->flag = true;
	lc_cond_signal(&p->c);
	lc_mutex_unlock(&p->m);
}

static void rt_threads(void **state)
{
	struct ping p = {0};
	struct lc_thread t;
	u64 before_ns;

	(void)state;
	lc_mutex_init(&p.m);
	lc_cond_init(&p.c);
	lc_mutex_lock(&p.m);
	before_ns = lc_now_ns();
	while (lc_cond_wait(&p.c, &p.m, before_ns + 20 * LC_NS_PER_MS) != -ETIMEDOUT)
		;
	assert_true(lc_now_ns() >= before_ns + 20 * LC_NS_PER_MS);
	assert_int_equal(lc_cond_wait(&p.c, &p.m, 0), -ETIMEDOUT);
	assert_int_equal(lc_thread_start(&t, "test-ping", ping_main, &p), 0);
	while (!p.flag)
		lc_cond_wait(&p.c, &p.m, LC_FOREVER);
	lc_mutex_unlock(&p.m);
	lc_thread_join(&t);
	assert_true(p.signals_blocked);
	lc_cond_destroy(&p.c);
	lc_mutex_destroy(&p.m);
}

static void rt_memory(void **state)
{
	static const size_t sizes[] = {1,    16,      100,	     4095,   4096,
				       5000, 1 << 20, (1 << 20) + 1, 9 << 20};

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		u8 *p = lc_alloc(sizes[i]);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % (sizes[i] >= 4096 ? 4096 : 16), 0);
		check_zero(p, sizes[i]);
		memset(p, 1, sizes[i]);
		lc_free(p, sizes[i]);
	}
	lc_free(NULL, 5);
	assert_null(lc_alloc((size_t)1 << 60));
}

static void rt_log_and_random(void **state)
{
	u8 a[16], b[16];

	(void)state;
	lc_random(a, sizeof(a));
	lc_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	errno = 7;
	lc_log(LC_LOG_INFO, "number %d", 42);
	assert_int_equal(errno, 7);
	assert_string_equal(log_text, "number 42\n");
}

/* --- what healthy kernels do not say: accounting fed by hand --- */

static void account(void **state)
{
	struct lc_io io = {.op = LC_IO_WRITE, .len_bytes = 16384};
	struct lc_io flush = {.op = LC_IO_FLUSH};

	(void)state;
	assert_false(lc_file_account(&io, 16384, 512, -EINTR));
	assert_false(lc_file_account(&io, 16384, 512, -EAGAIN));
	assert_int_equal(io.done_bytes, 0);
	assert_false(lc_file_account(&io, 16384, 512, 4096));
	/* a kernel that counted a part twice: once more from where it began */
	assert_false(lc_file_account(&io, 16384, 512, 16384 - 4096 + 512));
	assert_int_equal(io.done_bytes, 4096);
	assert_int_equal(io.done_bytes, 4096);
	/* A part that ends inside a logical block is continued from that block's start. */
	assert_false(lc_file_account(&io, 16384, 512, 1000));
	assert_int_equal(io.done_bytes, 4096 + 512);
	assert_false(lc_file_account(&io, 16384, 1, 100));
	assert_int_equal(io.done_bytes, 4096 + 612);
	assert_true(lc_file_account(&io, 16384, 512, 16384 - 4096 - 612));
	assert_int_equal(io.result, 0);

	/* No progress would go on for ever: the file shrank. */
	io.done_bytes = 4096;
	assert_true(lc_file_account(&io, 16384, 512, 0));
	assert_int_equal(io.result, -EIO);
	io.done_bytes = 4096;
	assert_true(lc_file_account(&io, 16384, 512, 100));
	assert_int_equal(io.result, -EIO);
	assert_true(lc_file_account(&io, 16384, 512, -ENOSPC));
	assert_int_equal(io.result, -ENOSPC);

	assert_false(lc_file_account(&flush, 0, 512, -EINTR));
	assert_true(lc_file_account(&flush, 0, 512, 0));
	assert_int_equal(flush.result, 0);
	assert_true(lc_file_account(&flush, 0, 512, -EIO));
	assert_int_equal(flush.result, -EIO);
}

/* --- synchronous I/O --- */

static void round_trip(void **state)
{
	const char *path = make_file("round", 8 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(2 << 20);

	(void)state;
	assert_int_equal(s->size_bytes, 8 << 20);
	assert_string_equal(s->name, path);
	fill(buf, 2 << 20, 4096, 1);
	assert_int_equal(lc_store_write(s, buf, 2 << 20, 4096), 0);
	assert_int_equal(lc_store_flush(s), 0);
	memset(buf, 0, 2 << 20);
	assert_int_equal(lc_store_read(s, buf, 2 << 20, 4096), 0);
	check_filled(buf, 2 << 20, 4096, 1);
	assert_int_equal(lc_store_read(s, buf, 4096, 0), 0);
	check_zero(buf, 4096);
	lc_free(buf, 2 << 20);
	lc_store_close(s);
	assert_int_equal(size_of(path), 8 << 20);
}

/* A file of any size: the end can be used, is never passed, and survives in both directions. */
static void odd_sizes(void **state)
{
	static const u64 sizes[] = {511, 512, 513, 512 * 5, 4096 * 3 + 17, 4095, 4096 * 2 + 512, 1};
	u8 *buf = lc_alloc(32768);
	u8 raw[32768];

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		u64 size = sizes[i];
		u32 whole = (u32)((size + 4095) / 4096 * 4096);
		const char *path = make_file("odd", size);
		struct lc_store *s = open_store(path);
		FILE *p;

		fill(buf, whole, 0, i);
		assert_int_equal(lc_store_write(s, buf, whole, 0), 0);
		assert_int_equal(size_of(path), size);
		memset(buf, 0xee, whole);
		assert_int_equal(lc_store_read(s, buf, whole, 0), 0);
		check_filled(buf, size, 0, i);
		check_zero(buf + size, whole - size);
		/* The last block alone, and its last sector alone. */
		fill(buf, 4096, whole - 4096, i + 100);
		assert_int_equal(lc_store_write(s, buf, 4096, whole - 4096), 0);
		memset(buf, 0xee, 4096);
		assert_int_equal(lc_store_read(s, buf, 4096, whole - 4096), 0);
		check_filled(buf, size - (whole - 4096), whole - 4096, i + 100);
		check_zero(buf + (size - (whole - 4096)), whole - size);
		if (s->block_bytes == 512) {
			u64 last = (size - 1) / 512 * 512;

			fill(buf, 512, last, i + 200);
			assert_int_equal(lc_store_write(s, buf, 512, last), 0);
			memset(buf, 0xee, 512);
			assert_int_equal(lc_store_read(s, buf, 512, last), 0);
			check_filled(buf, size - last, last, i + 200);
			check_zero(buf + (size - last), last + 512 - size);
		}
		assert_int_equal(lc_store_flush(s), 0);
		lc_store_close(s);
		assert_int_equal(size_of(path), size);
		p = fopen(path, "r");
		assert_int_equal(fread(raw, 1, sizeof(raw), p), size);
		fclose(p);
	}
	lc_free(buf, 32768);
}

/* Neighbours on both sides of the border between O_DIRECT and page cache keep their content. */
static void tail_coherent(void **state)
{
	const u64 size = 4096 * 3 + 17;
	const char *path = make_file("tail", size);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(16384);

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		fill(buf, 4096, 12288, round);
		assert_int_equal(lc_store_write(s, buf, 4096, 12288), 0);
		fill(buf, 4096, 8192, round + 1);
		assert_int_equal(lc_store_write(s, buf, 4096, 8192), 0);
		if (round % 7 == 0)
			assert_int_equal(lc_store_flush(s), 0);
		assert_int_equal(lc_store_read(s, buf, 8192, 8192), 0);
		check_filled(buf, 4096, 8192, round + 1);
		check_filled(buf + 4096, 17, 12288, round);
		check_zero(buf + 4096 + 17, 4096 - 17);
	}
	lc_free(buf, 16384);
	lc_store_close(s);
	assert_int_equal(size_of(path), size);
}

static void shrunk_file(void **state)
{
	const char *path = make_file("shrunk", 1 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(8192);

	(void)state;
	assert_int_equal(truncate(path, 65536 + 100), 0);
	assert_int_equal(lc_store_read(s, buf, 8192, 65536), -EIO);
	assert_non_null(strstr(log_text, "it shrank"));
	assert_int_equal(lc_store_read(s, buf, 8192, 131072), -EIO);
	/* Once for each store, not for each I/O. */
	assert_null(strstr(strstr(log_text, "it shrank") + 1, "it shrank"));
	lc_free(buf, 8192);
	lc_store_close(s);
}

/* --- exclusive use --- */

static int expect_busy(void *arg)
{
	struct lc_error err = {0};
	struct lc_store *s;

	if (lc_file_open(arg, 0, &s, &err) != -EBUSY)
		return 1;
	return strstr(err.text, "in use") && strstr(err.text, arg) ? 0 : 2;
}

static int expect_free(void *arg)
{
	struct lc_store *s;

	return lc_file_open(arg, 0, &s, NULL) == 0 ? 0 : 1;
}

static void exclusive(void **state)
{
	const char *path = make_file("excl", 65536), *other = make_file("excl2", 65536);
	struct lc_store *s = open_store(path), *t;
	struct lc_error err = {0};
	char link_path[600];

	(void)state;
	assert_int_equal(lc_file_open(path, 0, &t, &err), -EBUSY);
	assert_non_null(strstr(err.text, "this same server"));
	assert_int_equal(in_child(expect_busy, (void *)path), 0);

	snprintf(link_path, sizeof(link_path), "%s.link", path);
	assert_int_equal(symlink(path, link_path), 0);
	assert_int_equal(lc_file_same_path(path, link_path), 1);
	assert_int_equal(lc_file_same_path(path, other), 0);
	assert_int_equal(lc_file_same_path(path, "/nonexistent/x"), -ENOENT);
	t = open_store(other);
	assert_false(lc_file_same(s, t));
	assert_true(lc_file_same(s, s));
	lc_store_close(t);
	lc_store_close(s);
	assert_int_equal(in_child(expect_free, (void *)path), 0);
}

/* nbdkit forks after the stores are open, and the parent exits: the child still has the lock. */
static void lock_survives_fork(void **state)
{
	const char *path = make_file("fork", 65536);
	struct lc_store *s = open_store(path);
	int go[2], status;
	char c;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		/* Holds the store until the parent says so. */
		_exit(read(go[0], &c, 1) == 0 ? 0 : 1);
	}
	close(go[0]);
	lc_store_close(s);
	assert_int_equal(expect_busy((void *)path), 0);
	close(go[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(in_child(expect_free, (void *)path), 0);
}

/* --- refusals --- */

static void refused(const char *path, int code, const char *word)
{
	struct lc_error err = {0};
	struct lc_store *s;
	int rc = lc_file_open(path, 0, &s, &err);

	if (rc != code)
		fail_msg("%s: %d instead of %d: %s", path, rc, code, err.text);
	if (!strstr(err.text, path) || !strstr(err.text, word))
		fail_msg("%s: '%s' does not say '%s'", path, err.text, word);
}

static int refused_permission(void *arg)
{
	struct lc_error err = {0};
	struct lc_store *s;

	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	return lc_file_open(arg, 0, &s, &err) == -EACCES && strstr(err.text, "permission") ? 0 : 2;
}

static void refusals(void **state)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	const char *path;
	int fd;

	(void)state;
	refused(path_of("missing"), -ENOENT, "does not exist");
	refused(dir, -EISDIR, "directory");
	refused("/dev/null", -ENOTBLK, "character device");
	refused(make_file("empty", 0), -ENODATA, "empty");
	refused("nbd://host/export", -EOPNOTSUPP, "nbd-client");
	refused("nbd+unix:///e?socket=/x", -EOPNOTSUPP, "nbd-client");
	refused("nbds://host", -EOPNOTSUPP, "nbd-client");
	refused("https://host/x", -EOPNOTSUPP, "URI");
	path = path_of("fifo");
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(path, -ENOTBLK, "neither");

	path = path_of("sock");
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	refused(path, -ENOTBLK, "socket");
	close(fd);

	if (geteuid() == 0) {
		path = make_file("secret", 4096);
		assert_int_equal(chmod(path, 0600), 0);
		assert_int_equal(chmod(dir, 0755), 0);
		assert_int_equal(in_child(refused_permission, (void *)path), 0);
	}
}

/* --- file systems that are full, read-only, or without O_DIRECT --- */

static void read_only_fs(void **state)
{
	char path[400];
	FILE *p;

	(void)state;
	if (!mount_fs("tmpfs", "tmpfs", "size=1m"))
		SKIP("cannot mount a tmpfs");
	snprintf(path, sizeof(path), "%s/x", mount_point);
	p = fopen(path, "w");
	assert_non_null(p);
	fputs("data", p);
	fclose(p);
	assert_int_equal(mount(NULL, mount_point, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	refused(path, -EROFS, "read-only");
	assert_int_equal(umount(mount_point), 0);
}

static void create_no_space(void **state)
{
	struct lc_error err = {0};
	char path[400];

	(void)state;
	if (!mount_fs("tmpfs", "tmpfs", "size=2m"))
		SKIP("cannot mount a tmpfs");
	snprintf(path, sizeof(path), "%s/cache", mount_point);
	assert_int_equal(lc_file_create(path, 8 << 20, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "8.0 MiB"));
	assert_non_null(strstr(err.text, "6.0 MiB are missing"));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(lc_file_create(path, 1 << 20, &err), 0);
	assert_int_equal(umount(mount_point), 0);
}

/* ramfs has no O_DIRECT: everything works through the page cache, and says so. */
static void without_direct(void **state)
{
	const u64 size = 4096 * 3 + 17;
	u8 *buf = lc_alloc(16384);
	struct lc_store *s;
	char path[400];

	(void)state;
	if (!mount_fs("ramfs", "ramfs", NULL)) {
		lc_free(buf, 16384);
		SKIP("cannot mount a ramfs");
	}
	snprintf(path, sizeof(path), "%s/x", mount_point);
	assert_int_equal(lc_file_create(path, size, NULL), 0);
	s = open_store(path);
	assert_non_null(strstr(log_text, "refuses O_DIRECT"));
	assert_null(strstr(strstr(log_text, "refuses O_DIRECT") + 1, "refuses O_DIRECT"));
	assert_int_equal(s->block_bytes, 512);
	fill(buf, 16384, 0, 1);
	assert_int_equal(lc_store_write(s, buf, 16384, 0), 0);
	assert_int_equal(lc_store_flush(s), 0);
	memset(buf, 0xee, 16384);
	assert_int_equal(lc_store_read(s, buf, 16384, 0), 0);
	check_filled(buf, size, 0, 1);
	check_zero(buf + size, 16384 - size);
	lc_store_close(s);
	assert_int_equal(size_of(path), size);
	assert_int_equal(umount(mount_point), 0);
	lc_free(buf, 16384);
}

/* --- creation --- */

static int create_beyond_limit(void *arg)
{
	struct rlimit limit = {1 << 20, 1 << 20};
	struct lc_error err = {0};

	signal(SIGXFSZ, SIG_IGN);
	if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
		return 1;
	if (lc_file_create(arg, 8 << 20, &err) != -EFBIG)
		return 2;
	return access(arg, F_OK) < 0 && strstr(err.text, "ulimit") ? 0 : 3;
}

static void create(void **state)
{
	static const u64 sizes[] = {10 << 20, 5000, 511, (4 << 20) + 4096 + 1};
	struct lc_error err = {0};

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const char *path = path_of("created");
		struct lc_store *s;
		struct stat st;

		log_text[0] = '\0';
		if (lc_file_create(path, sizes[i], &err))
			fail_msg("%s", err.text);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, sizes[i]);
		assert_int_equal(st.st_mode & 0777, 0600);
		assert_true((u64)st.st_blocks * 512 >= sizes[i]);
		assert_int_equal(lc_file_open(path, 0, &s, &err), 0);
		lc_file_warn_cache(s);
		lc_store_close(s);
		assert_null(strstr(log_text, "sparse"));
		assert_null(strstr(log_text, "never written"));
		assert_non_null(strstr(log_text, "created cache file"));
		assert_int_equal(lc_file_create(path, 4096, &err), -EEXIST);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(lc_file_create(path_of("none/x"), 4096, &err), -ENOENT);
	assert_int_equal(lc_file_create(path_of("x"), 0, &err), -EINVAL);
	assert_int_equal(in_child(create_beyond_limit, (void *)path_of("limited")), 0);
}

static void warn_sparse(void **state)
{
	const char *path = make_file("holes", 0);
	struct fiemap map = {.fm_length = 1 << 20};
	struct lc_store *s;
	int fd;

	(void)state;
	assert_int_equal(truncate(path, 1 << 20), 0);
	assert_int_equal(lc_file_open(path, 0, &s, NULL), 0);
	assert_null(strstr(log_text, "sparse")); /* a backing store may be */
	lc_file_warn_cache(s);
	lc_store_close(s);
	assert_non_null(strstr(log_text, "sparse"));
	assert_non_null(strstr(log_text, "cache-size="));

	log_text[0] = '\0';
	fd = open(path, O_RDWR);
	if (fallocate(fd, 0, 0, 1 << 20) == 0) {
		assert_int_equal(lc_file_open(path, 0, &s, NULL), 0);
		lc_file_warn_cache(s);
		lc_store_close(s);
		assert_null(strstr(log_text, "sparse"));
		/* Not every file system tells (tmpfs). */
		if (ioctl(fd, FS_IOC_FIEMAP, &map) == 0)
			assert_non_null(strstr(log_text, "never written"));
	}
	close(fd);
}

/* --- blank check --- */

static void poke(const char *path, u64 offset, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, data, n, (off_t)offset), n);
	close(fd);
}

static void check_blank(const char *path, int expected, const char *word)
{
	struct lc_store *s = open_store(path);
	struct lc_error err = {0};
	char what[256] = "";
	int rc = lc_blank_check(s, what, sizeof(what), &err);

	if (rc != expected)
		fail_msg("%d instead of %d: %s%s", rc, expected, what, err.text);
	if (word && !strstr(what, word))
		fail_msg("'%s' does not say '%s'", what, word);
	lc_store_close(s);
}

static void blank(void **state)
{
	static const u8 mbr[66] = {[4] = 0x83, [12] = 8, [64] = 0x55, [65] = 0xaa};
	const char *path = make_file("blank", 0);
	char cmd[700];

	(void)state;
	assert_int_equal(truncate(path, (80 << 20) + 17), 0);
	check_blank(path, 1, NULL);
	poke(path, 5000000, "x", 1);
	check_blank(path, 0, "at byte 5000000");
	poke(path, 5000000, "", 1);
	poke(path, (80 << 20) + 16, "x", 1);
	check_blank(path, 0, "at byte 83886096");
	poke(path, (80 << 20) + 16, "", 1);
	/* 48 MiB between have 12288 blocks; the samples see each twelfth. */
	for (u64 i = 0; i < 16; i++)
		poke(path, (40 << 20) + i * 4096 + 9, "x", 1);
	check_blank(path, 0, "not zero");

	path = make_file("tiny", 511);
	check_blank(path, 1, NULL);
	poke(path, 510, "x", 1);
	check_blank(path, 0, "at byte 510");

	path = make_file("mbr", 32 << 20);
	poke(path, 446, mbr, sizeof(mbr));
	check_blank(path, 0, "a partition table (dos)");

	path = make_file("ext4", 16 << 20);
	snprintf(cmd, sizeof(cmd),
		 "PATH=$PATH:/sbin:/usr/sbin; mkfs.ext4 -q -L home '%s' 2>/dev/null", path);
	if (system(cmd) == 0)
		check_blank(path, 0, "an ext4 file system labelled 'home'");
	path = make_file("swap", 16 << 20);
	snprintf(cmd, sizeof(cmd),
		 "PATH=$PATH:/sbin:/usr/sbin; chmod 600 '%s'; mkswap '%s' >/dev/null 2>&1", path,
		 path);
	if (system(cmd) == 0)
		check_blank(path, 0, "swap");
}

/* --- a block device: a loop device with sectors of 4096 bytes --- */

static void loop_device(void **state)
{
	const char *path = make_file("loop", 8 << 20);
	char dev[64], node[300];
	struct lc_store *s, *t;
	struct lc_error err = {0};
	struct stat st;
	u8 *buf = lc_alloc(8192);
	int rc;

	(void)state;
	if (!attach_loop(path, 4096, dev)) {
		lc_free(buf, 8192);
		SKIP("no loop devices");
	}
	s = open_store(dev);
	assert_int_equal(s->block_bytes, 4096);
	assert_int_equal(s->size_bytes, 8 << 20);
	/* Each look takes as long as our patience with a server that was just killed. */
	assert_int_equal(in_child(expect_busy, dev), 0);
	/* Another node of the same device. */
	assert_int_equal(stat(dev, &st), 0);
	snprintf(node, sizeof(node), "%s/node", dir);
	if (mknod(node, S_IFBLK | 0600, st.st_rdev) == 0) {
		assert_int_equal(lc_file_same_path(dev, node), 1);
		rc = lc_file_open(node, 0, &t, &err);
		if (rc != -EACCES) { /* a folder mounted nodev */
			assert_int_equal(rc, -EBUSY);
			assert_non_null(strstr(err.text, "in use"));
		}
	}
	fill(buf, 8192, 4096, 3);
	assert_int_equal(lc_store_write(s, buf, 8192, 4096), 0);
	assert_int_equal(lc_store_flush(s), 0);
	memset(buf, 0, 8192);
	assert_int_equal(lc_store_read(s, buf, 8192, 4096), 0);
	check_filled(buf, 8192, 4096, 3);
	lc_store_close(s);
	check_blank(dev, 0, "at byte 4096");
	if (shell("blockdev --setro %s", dev))
		refused(dev, -EROFS, "read-only");
	/* The flag stays with the device number, and would surprise its next user. */
	assert_true(shell("blockdev --setrw %s", dev));
	detach_loop(dev);
	lc_free(buf, 8192);
}

#define TEST(f) cmocka_unit_test_setup(f, test_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rt_threads),    TEST(rt_memory),	       TEST(rt_log_and_random),
		TEST(account),	     TEST(round_trip),	       TEST(odd_sizes),
		TEST(tail_coherent), TEST(shrunk_file),	       TEST(exclusive),
		TEST(refusals),	     TEST(lock_survives_fork), TEST(read_only_fs),
		TEST(create),	     TEST(create_no_space),    TEST(warn_sparse),
		TEST(blank),	     TEST(loop_device),	       TEST(without_direct),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
