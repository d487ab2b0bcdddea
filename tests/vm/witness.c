/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * witness.c - work on a file system, say what has been made durable, and check it after a crash.
 *
 *	logcache-witness work DIR TAG SEED	until it is killed; records go to standard output
 *	logcache-witness check DIR RECORDS	with the records of one DIR: 0, or 1 and what is wrong
 *
 * DIR must not exist for "work". A record is one line, written with one write(): "TAG KIND THREAD FILE NUMBER [...]".
 * Whoever reads them (the host of a virtual machine) has a record when write() returns. A record in capitals says
 * what is about to begin, one in small letters what is durable: fsync has returned, and where a name is concerned
 * that of the folder, too.
 *
 *	a T F LENGTH		append file: so many bytes are durable
 *	R T F VERSION SIZE	file about to be replaced (written beside it and renamed); SIZE -1: to be removed
 *	r T F VERSION
 *	P T PAGE VERSION	page about to be overwritten in place
 *	p T PAGE VERSION
 *
 * What may be there after a crash follows: an append file has at least LENGTH bytes, and those are right; a replaced
 * file is exactly one of the versions from the last durable to the last begun; so is each sector of a page.
 *
 * Content is a function of who wrote it, so a sector in the wrong place, of another file, or torn, shows.
 * Each thread has its own files: what one thread did is in order.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 4
#define APPEND_FILES 2
#define REPLACE_FILES 4
#define PAGES 64
#define PAGE_BYTES 4096
#define SECTOR_BYTES 512
#define REPLACE_MAX_BYTES 40000
#define APPEND_MAX_BYTES 12000
#define APPEND_FILE_MAX_BYTES (2 << 20)
#define REMOVED (-1L)

static int dir_fd;
static const char *tag;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

/* --- content --- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* LEN bytes from OFFSET of the file FILE of THREAD, version VERSION. (By words: this runs on emulated CPUs.) */
static void fill(uint8_t *buf, size_t len, unsigned thread, char kind, unsigned file,
		 uint64_t version, uint64_t offset)
{
	uint64_t who = mix(mix(((uint64_t)thread << 32) | ((uint64_t)kind << 16) | file) + version);

	while (len > 0) {
		uint64_t word = mix(who + offset / 8);
		size_t skip = offset % 8, nr = len < 8 - skip ? len : 8 - skip;

		memcpy(buf, (uint8_t *)&word + skip, nr);
		buf += nr;
		len -= nr;
		offset += nr;
	}
}

/* A sector of a page says which version it is of. */
static void fill_page(uint8_t *buf, unsigned thread, unsigned page, uint64_t version)
{
	fill(buf, PAGE_BYTES, thread, 'p', page, version, 0);
	for (unsigned s = 0; s < PAGE_BYTES; s += SECTOR_BYTES)
		memcpy(buf + s, &version, sizeof(version));
}

static void name_of(char name[32], char kind, unsigned thread, unsigned file)
{
	snprintf(name, 32, "%c-%u-%u", kind, thread, file);
}

/* --- work --- */

static void __attribute__((format(printf, 1, 2))) record(const char *format, ...)
{
	char line[128];
	int tag_len = snprintf(line, sizeof(line), "%s ", tag);
	va_list ap;
	int len;

	va_start(ap, format);
	len = tag_len + vsnprintf(line + tag_len, sizeof(line) - (size_t)tag_len - 1, format, ap);
	va_end(ap);
	line[len++] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)len) != len)
		die("record");
}

static void write_all(int fd, const uint8_t *buf, size_t len, off_t offset)
{
	while (len > 0) {
		ssize_t got = pwrite(fd, buf, len, offset);

		if (got <= 0)
			die("pwrite");
		buf += got;
		len -= (size_t)got;
		offset += got;
	}
}

static void sync_fd(int fd)
{
	if (fsync(fd) < 0)
		die("fsync");
}

struct worker {
	unsigned thread;
	uint64_t random;
	uint64_t version; /* of the next change */
	int append_fd[APPEND_FILES];
	uint64_t append_len[APPEND_FILES];
	int pages_fd;
	uint8_t buf[REPLACE_MAX_BYTES];
};

static uint64_t draw(struct worker *w, uint64_t below)
{
	w->random = mix(w->random);
	return w->random % below;
}

static int create(char kind, unsigned thread, unsigned file, int flags)
{
	char name[32];
	int fd;

	name_of(name, kind, thread, file);
	fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | flags, 0600);
	if (fd < 0)
		die(name);
	return fd;
}

static void append(struct worker *w)
{
	unsigned f = (unsigned)draw(w, APPEND_FILES);
	size_t len = 1 + draw(w, APPEND_MAX_BYTES);
	uint64_t at = w->append_len[f];

	if (at + len > APPEND_FILE_MAX_BYTES)
		return;
	fill(w->buf, len, w->thread, 'a', f, 0, at);
	write_all(w->append_fd[f], w->buf, len, (off_t)at);
	if (fdatasync(w->append_fd[f]) < 0)
		die("fdatasync");
	w->append_len[f] += len;
	record("a %u %u %llu", w->thread, f, (unsigned long long)w->append_len[f]);
}

static void replace(struct worker *w)
{
	unsigned f = (unsigned)draw(w, REPLACE_FILES);
	uint64_t version = w->version++;
	long size = draw(w, 8) == 0 ? REMOVED : (long)draw(w, REPLACE_MAX_BYTES);
	char name[32], beside[32];

	name_of(name, 'r', w->thread, f);
	name_of(beside, 't', w->thread, f);
	record("R %u %u %llu %ld", w->thread, f, (unsigned long long)version, size);
	if (size == REMOVED) {
		if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
			die(name);
	} else {
		int fd = openat(dir_fd, beside, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (fd < 0)
			die(beside);
		fill(w->buf, (size_t)size, w->thread, 'r', f, version, 0);
		write_all(fd, w->buf, (size_t)size, 0);
		sync_fd(fd);
		close(fd);
		if (renameat(dir_fd, beside, dir_fd, name) < 0)
			die(name);
	}
	sync_fd(dir_fd);
	record("r %u %u %llu", w->thread, f, (unsigned long long)version);
}

static void overwrite(struct worker *w)
{
	unsigned first = (unsigned)draw(w, PAGES), nr = 1 + (unsigned)draw(w, 4);
	uint64_t version = w->version++;

	if (first + nr > PAGES)
		nr = PAGES - first;
	for (unsigned p = first; p < first + nr; p++) {
		record("P %u %u %llu", w->thread, p, (unsigned long long)version);
		fill_page(w->buf, w->thread, p, version);
		write_all(w->pages_fd, w->buf, PAGE_BYTES, (off_t)p * PAGE_BYTES);
	}
	if (fdatasync(w->pages_fd) < 0)
		die("fdatasync");
	for (unsigned p = first; p < first + nr; p++)
		record("p %u %u %llu", w->thread, p, (unsigned long long)version);
}

static void prepare(struct worker *w)
{
	for (unsigned f = 0; f < APPEND_FILES; f++)
		w->append_fd[f] = create('a', w->thread, f, 0);
	w->pages_fd = create('p', w->thread, 0, 0);
	for (unsigned p = 0; p < PAGES; p++) {
		fill_page(w->buf, w->thread, p, 0);
		write_all(w->pages_fd, w->buf, PAGE_BYTES, (off_t)p * PAGE_BYTES);
	}
	sync_fd(w->pages_fd);
	w->version = 1;
}

static void *work_thread(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		switch (draw(w, 3)) {
		case 0:
			append(w);
			break;
		case 1:
			replace(w);
			break;
		default:
			overwrite(w);
		}
	}
	return NULL;
}

static int work(uint64_t seed)
{
	static struct worker workers[THREADS];
	pthread_t threads[THREADS];

	for (unsigned t = 0; t < THREADS; t++) {
		workers[t].thread = t;
		workers[t].random = mix(seed + t);
		prepare(&workers[t]);
	}
	sync_fd(dir_fd);
	record("ready 0 0");
	for (unsigned t = 0; t < THREADS; t++) {
		if (pthread_create(&threads[t], NULL, work_thread, &workers[t]) != 0)
			die("pthread_create");
	}
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	return 0;
}

/* --- check --- */

/* Versions of one thing, from the last that is durable to the last begun. */
struct versions {
	uint64_t durable, begun;
};

/* Which sizes a replaced file had, by version; versions are few enough. */
#define VERSIONS_MAX 65536

struct expected {
	uint64_t append_len[APPEND_FILES];
	struct versions replaced[REPLACE_FILES];
	struct versions pages[PAGES];
	bool is_of[REPLACE_FILES][VERSIONS_MAX]; /* this version is one of this file */
	int32_t size[VERSIONS_MAX];
};

static struct expected expected[THREADS];
static unsigned nr_wrong, nr_checked;

static void __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	nr_wrong++;
}

static void read_record(const char *line)
{
	char kind[16];
	unsigned thread, number;
	unsigned long long value = 0;
	long size = 0;
	struct expected *e;

	if (sscanf(line, "%*s %15s %u %u %llu %ld", kind, &thread, &number, &value, &size) < 3 ||
	    thread >= THREADS || number >= PAGES) {
		fprintf(stderr, "not a record: %s", line);
		exit(2);
	}
	e = &expected[thread];
	switch (kind[0]) {
	case 'a':
		assert(number < APPEND_FILES);
		e->append_len[number] = value;
		break;
	case 'R':
		assert(number < REPLACE_FILES && value < VERSIONS_MAX);
		e->replaced[number].begun = value;
		e->is_of[number][value] = true;
		e->size[value] = (int32_t)size;
		break;
	case 'r':
		e->replaced[number].durable = value;
		break;
	case 'P':
		e->pages[number].begun = value;
		break;
	case 'p':
		if (strcmp(kind, "p") == 0)
			e->pages[number].durable = value;
		break;
	default: /* ready */
		break;
	}
}

/* The whole of a file of at most MAX bytes; -1 if it is not there. */
static ssize_t read_file(const char *name, uint8_t *buf, size_t max)
{
	int fd = openat(dir_fd, name, O_RDONLY);
	size_t len = 0;
	ssize_t got;

	if (fd < 0) {
		if (errno != ENOENT)
			wrong("%s: %m", name);
		return -1;
	}
	while (len < max && (got = read(fd, buf + len, max - len)) != 0) {
		if (got < 0) {
			wrong("%s: read at %zu: %m", name, len);
			break;
		}
		len += (size_t)got;
	}
	close(fd);
	return (ssize_t)len;
}

static void check_append(unsigned thread, unsigned file)
{
	static uint8_t buf[APPEND_FILE_MAX_BYTES], right[APPEND_FILE_MAX_BYTES];
	uint64_t want = expected[thread].append_len[file];
	char name[32];
	ssize_t len;

	name_of(name, 'a', thread, file);
	len = read_file(name, buf, sizeof(buf));
	if (len < (ssize_t)want) {
		wrong("%s: %zd bytes, %llu were durable", name, len, (unsigned long long)want);
		return;
	}
	fill(right, want, thread, 'a', file, 0, 0);
	for (uint64_t i = 0; i < want; i++) {
		if (buf[i] != right[i]) {
			wrong("%s: wrong at %llu of %llu", name, (unsigned long long)i,
			      (unsigned long long)want);
			return;
		}
	}
	nr_checked++;
}

static bool is_version(const uint8_t *buf, ssize_t len, unsigned thread, unsigned file,
		       uint64_t version)
{
	static uint8_t right[REPLACE_MAX_BYTES];
	int32_t size = expected[thread].size[version];

	if (size == REMOVED)
		return len < 0;
	if (len != size)
		return false;
	fill(right, (size_t)len, thread, 'r', file, version, 0);
	return memcmp(buf, right, (size_t)len) == 0;
}

static void check_replaced(unsigned thread, unsigned file)
{
	static uint8_t buf[REPLACE_MAX_BYTES + 1];
	struct expected *e = &expected[thread];
	struct versions v = e->replaced[file];
	char name[32];
	ssize_t len;

	name_of(name, 'r', thread, file);
	len = read_file(name, buf, sizeof(buf));
	nr_checked++;
	if (v.durable == 0 && len < 0)
		return; /* never finished, and not there */
	for (uint64_t i = v.begun; i > 0 && i >= v.durable; i--) {
		if (e->is_of[file][i] && is_version(buf, len, thread, file, i))
			return;
	}
	wrong("%s: %zd bytes, no version from %llu to %llu", name, len,
	      (unsigned long long)v.durable, (unsigned long long)v.begun);
}

static void check_pages(unsigned thread)
{
	static uint8_t buf[PAGES * PAGE_BYTES];
	uint8_t want[PAGE_BYTES];
	char name[32];
	ssize_t len;

	name_of(name, 'p', thread, 0);
	len = read_file(name, buf, sizeof(buf));
	if (len != sizeof(buf)) {
		wrong("%s: %zd bytes", name, len);
		return;
	}
	for (size_t at = 0; at < sizeof(buf); at += SECTOR_BYTES) {
		unsigned page = (unsigned)(at / PAGE_BYTES);
		struct versions v = expected[thread].pages[page];
		uint64_t version;

		memcpy(&version, buf + at, sizeof(version));
		fill_page(want, thread, page, version);
		if (memcmp(want + at % PAGE_BYTES, buf + at, SECTOR_BYTES) != 0)
			wrong("%s: nobody wrote what is at %zu", name, at);
		else if (version < v.durable || version > v.begun)
			wrong("%s: version %llu at %zu, not one from %llu to %llu", name,
			      (unsigned long long)version, at, (unsigned long long)v.durable,
			      (unsigned long long)v.begun);
		nr_checked++;
	}
}

static int check(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[256];

	if (!f)
		die(path);
	while (fgets(line, sizeof(line), f))
		read_record(line);
	fclose(f);
	for (unsigned t = 0; t < THREADS; t++) {
		for (unsigned i = 0; i < APPEND_FILES; i++)
			check_append(t, i);
		for (unsigned i = 0; i < REPLACE_FILES; i++)
			check_replaced(t, i);
		check_pages(t);
	}
	printf("%u wrong, %u right\n", nr_wrong, nr_checked);
	return nr_wrong > 0;
}

int main(int argc, char **argv)
{
	bool working = argc == 5 && strcmp(argv[1], "work") == 0;

	if (!working && !(argc == 4 && strcmp(argv[1], "check") == 0)) {
		fprintf(stderr, "usage: %s work DIR TAG SEED | check DIR RECORDS\n", argv[0]);
		return 2;
	}
	if (working && mkdir(argv[2], 0700) < 0)
		die(argv[2]);
	dir_fd = open(argv[2], O_RDONLY | O_DIRECTORY);
	if (dir_fd < 0)
		die(argv[2]);
	if (!working)
		return check(argv[3]);
	tag = argv[3];
	/* The folder itself must survive, too. */
	int parent = openat(dir_fd, "..", O_RDONLY | O_DIRECTORY);

	if (parent < 0)
		die("..");
	sync_fd(parent);
	close(parent);
	return work(strtoull(argv[4], NULL, 0));
}
