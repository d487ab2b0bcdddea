/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_attach.c - a cache comes and goes while clients work.
 *
 * Each client thread owns a part of the volume, of which it keeps a copy, and reads, writes, zeroes, trims and flushes it at
 * random; beside that all write to a common part, whose sectors say who wrote them whole. Meanwhile the cache is attached and
 * detached, over and over. In the end the backing store alone is the volume.
 */
#include "mem_store.h"

#include "logcache/logcache.h"

#define MIB (1u << 20)
#define NR_CLIENTS 4u
#define PART_BYTES (256u << 10)
#define STEP_MAX (40u << 10)

static struct mem_store ssd, other_ssd, disk;
static struct lc_settings settings;
static struct lc_error error;
static struct lc_cache *cache;

struct client {
	struct lc_thread thread;
	unsigned nr;
	u64 seed;
	u8 *copy, *buf;
	u64 ops;
};

static struct lc_mutex stop_lock;
static bool stop;

static bool stopped(void)
{
	bool s;

	lc_mutex_lock(&stop_lock);
	s = stop;
	lc_mutex_unlock(&stop_lock);
	return s;
}

static void must(int err, const char *what)
{
	if (err) { /* not cmocka: this may be another thread */
		fprintf(stderr, "%s: %s\n", what, strerror(-err));
		abort();
	}
}

static void format(struct mem_store *s)
{
	must(lc_cache_format(&s->store, &(struct lc_format_options){.segment_bytes = 32768}, &error),
	     "format");
}

static int setup(void **state)
{
	struct lc_volume_spec spec = {"", &disk.store};
	u64 seed = 11;

	(void)state;
	mem_open(&ssd, "/dev/fast", 4 * MIB);
	mem_open(&other_ssd, "/dev/fast2", 4 * MIB);
	mem_open(&disk, "/dev/slow", NR_CLIENTS * PART_BYTES + 512);
	rnd_fill(&seed, disk.data, NR_CLIENTS * PART_BYTES + 512);
	lc_settings_init(&settings);
	settings.nr_buffers = 8;
	settings.idle_ms = 5;
	settings.flush_interval_ms = 10;
	settings.retry_ms = 5;
	format(&ssd);
	format(&other_ssd);
	must(lc_cache_open(NULL, &spec, 1, &settings, &cache, &error), "open");
	must(lc_cache_start(cache, &error), "start");
	lc_mutex_init(&stop_lock);
	stop = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lc_mutex_destroy(&stop_lock);
	lc_store_close(&ssd.store);
	lc_store_close(&other_ssd.store);
	lc_store_close(&disk.store);
	return 0;
}

/* One random request in the client's own part. */
static void step(struct client *c)
{
	struct lc_volume *v = lc_cache_volume(cache, 0);
	u64 base = (u64)c->nr * PART_BYTES;
	u32 len = 1 + rnd_below(&c->seed, rnd_below(&c->seed, 2) ? 600 : STEP_MAX);
	u32 at = rnd_below(&c->seed, PART_BYTES - len);

	if (rnd_below(&c->seed, 2)) { /* mostly aligned, as real clients are */
		len = (len + 511) / 512 * 512;
		at = at / 512 * 512;
		if (at + len > PART_BYTES)
			len = PART_BYTES - at;
	}
	switch (rnd_below(&c->seed, 8)) {
	case 0:
	case 1:
	case 2:
		rnd_fill(&c->seed, c->copy + at, len);
		must(lc_write(v, c->copy + at, len, base + at, rnd_below(&c->seed, 8) ? 0 : LC_FUA),
		     "write");
		break;
	case 3:
		memset(c->copy + at, 0, len);
		must(lc_zero(v, len, base + at, rnd_below(&c->seed, 2) ? LC_MAY_TRIM : 0), "zero");
		break;
	case 4:
		must(lc_flush(v), "flush");
		break;
	default:
		must(lc_read(v, c->buf, len, base + at), "read");
		if (memcmp(c->buf, c->copy + at, len)) {
			fprintf(stderr, "client %u: %u bytes at %u differ after %llu requests\n",
				c->nr, len, at, (unsigned long long)c->ops);
			abort();
		}
	}
	c->ops++;
}

static void client_main(void *arg)
{
	struct client *c = arg;

	while (!stopped())
		step(c);
}

static void start_clients(struct client *clients)
{
	for (unsigned i = 0; i < NR_CLIENTS; i++) {
		clients[i] = (struct client){.nr = i, .seed = 100 + i};
		clients[i].copy = malloc(PART_BYTES);
		clients[i].buf = malloc(PART_BYTES);
		must(lc_read(lc_cache_volume(cache, 0), clients[i].copy, PART_BYTES,
			     (u64)i * PART_BYTES),
		     "read");
		must(lc_thread_start(&clients[i].thread, "client", client_main, &clients[i]),
		     "thread");
	}
}

/* They stop, and the backing store alone has what they wrote. */
static void stop_clients(struct client *clients, bool compare)
{
	lc_mutex_lock(&stop_lock);
	stop = true;
	lc_mutex_unlock(&stop_lock);
	for (unsigned i = 0; i < NR_CLIENTS; i++) {
		lc_thread_join(&clients[i].thread);
		assert_true(clients[i].ops > 0);
		if (compare)
			assert_memory_equal(clients[i].copy, disk.data + (size_t)i * PART_BYTES,
					    PART_BYTES);
		free(clients[i].copy);
		free(clients[i].buf);
	}
}

static void a_cache_comes_and_goes_under_load(void **state)
{
	struct client clients[NR_CLIENTS];
	u64 until_ns = lc_now_ns() + 3 * LC_NS_PER_S;
	struct lc_stats st = {0};
	unsigned rounds = 0;

	(void)state;
	start_clients(clients);
	/* On a busy machine it may take many rounds until a client happens to write in one. */
	while (lc_now_ns() < until_ns || rounds < 3 ||
	       (!st.writeback_blocks && lc_now_ns() < until_ns + 30 * LC_NS_PER_S)) {
		struct mem_store *s = rounds % 3 ? &ssd : &other_ssd;
		struct timespec pause = {.tv_nsec = rounds % 5 * 4 * (long)LC_NS_PER_MS};

		must(lc_cache_attach(cache, &s->store, &error), error.text);
		(void)nanosleep(&pause, NULL); /* the clients' */
		must(lc_cache_detach(cache, &error), error.text);
		lc_cache_stats(cache, &st);
		rounds++;
	}
	stop_clients(clients, true);
	assert_int_equal(st.state, LC_CACHE_NONE);
	assert_true(st.records > 0 && st.writeback_blocks > 0);
	must(lc_cache_close(cache), "close");
	assert_true(rounds >= 3);
}

static void what_was_detached_counts_no_more(void **state)
{
	struct lc_volume_spec spec = {"", &disk.store};
	struct lc_volume *v = lc_cache_volume(cache, 0);
	u8 buf[LC_BLOCK], old[LC_BLOCK], new[LC_BLOCK];
	u64 block = 37; /* no sample of the fingerprint */

	(void)state;
	memset(old, 1, sizeof old);
	memset(new, 2, sizeof new);
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	must(lc_write(v, old, LC_BLOCK, block * LC_BLOCK, 0), "write");
	must(lc_cache_detach(cache, &error), error.text);
	assert_memory_equal(disk.data + block * LC_BLOCK, old, LC_BLOCK);
	must(lc_write(v, new, LC_BLOCK, block * LC_BLOCK, 0), "write");
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	must(lc_read(v, buf, LC_BLOCK, block * LC_BLOCK), "read");
	assert_memory_equal(buf, new, LC_BLOCK);
	must(lc_cache_detach(cache, &error), error.text);
	must(lc_cache_close(cache), "close");
	/* Nor when it is given at the start. */
	must(lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error), error.text);
	must(lc_cache_start(cache, &error), error.text);
	must(lc_read(lc_cache_volume(cache, 0), buf, LC_BLOCK, block * LC_BLOCK), "read");
	assert_memory_equal(buf, new, LC_BLOCK);
	must(lc_cache_close(cache), "close");
}

static void a_dirty_cache_is_not_attached(void **state)
{
	struct lc_volume_spec spec = {"", &disk.store};
	u8 buf[LC_BLOCK] = {7};

	(void)state;
	must(lc_cache_close(cache), "close");
	settings.writeback = false;
	must(lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error), error.text);
	must(lc_cache_start(cache, &error), error.text);
	must(lc_write(lc_cache_volume(cache, 0), buf, LC_BLOCK, 0, LC_FUA), "write");
	must(lc_cache_close(cache), "close");
	must(lc_cache_open(NULL, &spec, 1, &settings, &cache, &error), "open");
	mem_forget(&ssd);
	assert_int_equal(lc_cache_attach(cache, &ssd.store, &error), -EBUSY);
	assert_says(&error, "1 blocks for volume (default)");
	assert_int_equal(ssd.nr_trace, 1); /* what was read is durable */
	assert_int_equal(ssd.trace[0].op, LC_IO_FLUSH);
	must(lc_write(lc_cache_volume(cache, 0), buf, LC_BLOCK, 0, LC_FUA), "write");
	must(lc_cache_close(cache), "close");
}

static void only_one_at_a_time(void **state)
{
	(void)state;
	assert_int_equal(lc_cache_detach(cache, &error), -EBUSY);
	assert_says(&error, "there is no cache");
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	assert_int_equal(lc_cache_attach(cache, &other_ssd.store, &error), -EBUSY);
	assert_says(&error, "already");
	must(lc_cache_close(cache), "close");
}

static void a_backing_store_that_fails_keeps_the_cache(void **state)
{
	struct lc_volume *v = lc_cache_volume(cache, 0);
	u8 buf[LC_BLOCK] = {9}, read[LC_BLOCK];

	(void)state;
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	must(lc_write(v, buf, LC_BLOCK, 0, 0), "write");
	disk.write_error = -EIO;
	assert_int_equal(lc_cache_detach(cache, &error), -EIO);
	assert_says(&error, "volume (default), /dev/slow: Input/output error; the cache stays");
	must(lc_write(v, buf, LC_BLOCK, LC_BLOCK, 0), "write");
	must(lc_read(v, read, LC_BLOCK, LC_BLOCK), "read");
	assert_memory_equal(buf, read, LC_BLOCK);
	disk.write_error = 0;
	must(lc_cache_detach(cache, &error), error.text);
	assert_memory_equal(disk.data, buf, LC_BLOCK);
	assert_memory_equal(disk.data + LC_BLOCK, buf, LC_BLOCK);
	must(lc_cache_close(cache), "close");
}

/* --- what a review found --- */

/* The copy of a block of X bytes on the SSD rots. */
static void rot(u8 x)
{
	unsigned found = 0;

	for (u64 block = 256; block < 4 * MIB / LC_BLOCK; block++) {
		u8 *p = mem_block(&ssd, block);

		if (p[0] == x && p[LC_BLOCK - 1] == x && !memcmp(p, p + 1, LC_BLOCK - 1)) {
			p[100] ^= 1;
			found++;
		}
	}
	assert_int_equal(found, 1);
}

/* I10: a lost block never turns into what the backing store has of it. */
static void lost_blocks_keep_the_cache(void **state)
{
	struct lc_volume_spec spec = {"", &disk.store};
	u8 buf[LC_BLOCK];

	(void)state;
	must(lc_cache_close(cache), "close");
	settings.writeback = false;
	must(lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error), error.text);
	must(lc_cache_start(cache, &error), error.text);
	memset(buf, 0x22, sizeof buf);
	must(lc_write(lc_cache_volume(cache, 0), buf, LC_BLOCK, 37 * LC_BLOCK, LC_FUA), "write");
	must(lc_cache_close(cache), "close");
	rot(0x22);
	must(lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error), error.text);
	must(lc_cache_start(cache, &error), error.text);
	must(lc_cache_drain(cache), "drain");
	assert_int_equal(lc_cache_detach(cache, &error), -EUCLEAN);
	assert_says(&error, "are lost");
	assert_int_equal(lc_read(lc_cache_volume(cache, 0), buf, LC_BLOCK, 37 * LC_BLOCK), -EIO);
	/* Once it is overwritten, nothing is lost any more; nor is what is written without the cache. */
	memset(buf, 0x33, sizeof buf);
	must(lc_write(lc_cache_volume(cache, 0), buf, LC_BLOCK, 37 * LC_BLOCK, 0), "write");
	must(lc_cache_detach(cache, &error), error.text);
	assert_memory_equal(disk.data + 37 * LC_BLOCK, buf, LC_BLOCK);
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	must(lc_read(lc_cache_volume(cache, 0), buf, LC_BLOCK, 37 * LC_BLOCK), "read");
	must(lc_cache_close(cache), "close");
}

/*
 * A flush that fails while attaching may have lost what clients wrote: each of them has to hear of it. (Once the first one to ask
 * heard of it alone, even if it was a write with FUA, which is durable.)
 */
static void a_failed_flush_is_not_swallowed(void **state)
{
	struct lc_volume *v = lc_cache_volume(cache, 0);
	struct lc_client clients[2], next;
	u8 buf[LC_BLOCK] = {4};

	(void)state;
	lc_client_begin(v, &clients[0]);
	lc_client_begin(v, &clients[1]);
	must(lc_write(v, buf, LC_BLOCK, 0, 0), "write");
	disk.flush_error = -EIO;
	assert_int_equal(lc_cache_attach(cache, &ssd.store, &error), -EIO);
	assert_says(&error, "flush fails");
	assert_false(lc_cache_has_ssd(cache));
	disk.flush_error = 0;
	must(lc_write(v, buf, LC_BLOCK, LC_BLOCK, LC_FUA), "write with FUA");
	lc_client_begin(v, &next); /* perhaps one of them, on another connection */
	assert_int_equal(lc_client_flush(v, &clients[0]), -EIO);
	must(lc_client_flush(v, &clients[0]), "flush");
	assert_int_equal(lc_client_flush(v, &next), -EIO);
	must(lc_client_flush(v, &next), "flush");
	lc_client_begin(v, &next);
	must(lc_client_flush(v, &next), "flush");
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	/* Attaching has made durable what was written since then, and nothing of what was lost. */
	assert_int_equal(lc_client_flush(v, &clients[1]), -EIO);
	must(lc_client_flush(v, &clients[1]), "flush");
	must(lc_cache_close(cache), "close");
}

/* The fingerprint counts again when a detach has failed halfway through the volume table. */
static void a_failed_detach_keeps_the_fingerprint(void **state)
{
	struct lc_volume_spec spec = {"", &disk.store};
	struct lc_volume *v = lc_cache_volume(cache, 0);
	u8 buf[LC_BLOCK];

	(void)state;
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	memset(buf, 7, sizeof buf);
	must(lc_write(v, buf, LC_BLOCK, 37 * LC_BLOCK, 0), "write");
	must(lc_cache_drain(cache), "drain");
	ssd.write_error = -EIO;
	assert_true(lc_cache_detach(cache, &error) < 0);
	ssd.write_error = 0;
	while (lc_flush(v)) /* until the log is written again */
		(void)stopped();
	must(lc_cache_close(cache), "close");
	/* Somebody changes the disk: every sample, and the block that is cached. */
	memset(disk.data, 9, NR_CLIENTS * PART_BYTES);
	must(lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error), error.text);
	must(lc_cache_start(cache, &error), error.text);
	must(lc_read(lc_cache_volume(cache, 0), buf, LC_BLOCK, 37 * LC_BLOCK), "read");
	assert_int_equal(buf[0], 9);
	must(lc_cache_close(cache), "close");
}

/*
 * A disk takes long to flush. That is done before writers are held, and not again for a volume that nobody has
 * written since. (It once was, for each volume, while all writers waited.)
 */
static void nobody_waits_for_a_slow_flush(void **state)
{
	struct lc_volume *v = lc_cache_volume(cache, 0);
	u8 buf[LC_BLOCK] = {4};
	struct lc_stats st;

	(void)state;
	must(lc_write(v, buf, LC_BLOCK, 0, 0), "write");
	mem_forget(&disk);
	disk.flush_ms = 400;
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	lc_cache_stats(cache, &st);
	assert_int_equal(disk.flushes, 1);
	assert_in_range(st.held_ns, 1, 200 * LC_NS_PER_MS);
	disk.flush_ms = 0;
	must(lc_cache_close(cache), "close");
}

/*
 * A client's flush begins while a cache is being attached, after the last one that attaching needs, and takes longer than that. If
 * the disk loses something meanwhile, this flush is told, and the next one is not: so write-back of this volume has to wait for it.
 * (Its own flush was told that all was well.) That of another volume does not.
 */
static struct mem_store other_disk, third_disk;
static const struct lc_store_ops *disk_ops, *ssd_ops;
static struct lc_thread straggler;
static bool begun, may_end;
static int told;

static bool is_set(const bool *b)
{
	return __atomic_load_n(b, __ATOMIC_ACQUIRE);
}

static bool disk_has_flushed(void)
{
	bool has;

	lc_mutex_lock(&disk.lock);
	has = disk.flushes;
	lc_mutex_unlock(&disk.lock);
	return has;
}

static int flush_late(struct lc_store *s)
{
	if (!disk_has_flushed() || __atomic_exchange_n(&begun, true, __ATOMIC_ACQ_REL))
		return disk_ops->flush(s);
	while (!is_set(&may_end))
		(void)stopped();
	return -EIO;
}

static void straggle(void *arg)
{
	told = lc_flush(arg);
}

static u64 writes_of(struct mem_store *s)
{
	u64 nr;

	lc_mutex_lock(&s->lock);
	nr = s->writes;
	lc_mutex_unlock(&s->lock);
	return nr;
}

/* A drain in a thread of its own: what it returned, and what the disk had been given by then. */
static struct drainer {
	struct lc_thread thread;
	int err;
	u64 writes, took_ns;
} drainer;

static void drain_main(void *arg)
{
	u64 began_ns = lc_now_ns();

	drainer.err = lc_cache_drain(arg);
	drainer.took_ns = lc_now_ns() - began_ns;
	drainer.writes = writes_of(&disk);
}

static void start_drain(void)
{
	must(lc_thread_start(&drainer.thread, "drainer", drain_main, cache), "thread");
}

static int flush_ssd_then_straggle(struct lc_store *s)
{
	if (!is_set(&begun) && disk_has_flushed()) {
		must(lc_thread_start(&straggler, "straggler", straggle, lc_cache_volume(cache, 0)),
		     "thread");
		while (!is_set(&begun))
			(void)stopped();
	}
	return ssd_ops->flush(s);
}

static void dirty(unsigned volume)
{
	static const u8 buf[LC_BLOCK] = {4};

	must(lc_write(lc_cache_volume(cache, volume), buf, LC_BLOCK, 0, LC_FUA), "write");
}

/* Three volumes get a cache; of the first one, which has something dirty then, a flush is under way. */
static void attach_during_a_flush(void)
{
	static struct lc_store_ops late_disk, late_ssd; /* until the stores are closed */
	struct lc_volume_spec specs[] = {{"", &disk.store},
					 {"other", &other_disk.store},
					 {"third", &third_disk.store}};

	must(lc_cache_close(cache), "close");
	mem_open(&other_disk, "/dev/slow2", MIB);
	mem_open(&third_disk, "/dev/slow3", MIB);
	must(lc_cache_open(NULL, specs, 3, &settings, &cache, &error), "open");
	must(lc_cache_start(cache, &error), "start");
	disk.flushes = 0;
	begun = may_end = false;
	disk_ops = disk.store.ops;
	ssd_ops = ssd.store.ops;
	late_disk = *disk_ops;
	late_ssd = *ssd_ops;
	late_disk.flush = flush_late;
	late_ssd.flush = flush_ssd_then_straggle;
	disk.store.ops = &late_disk;
	ssd.store.ops = &late_ssd;
	must(lc_cache_attach(cache, &ssd.store, &error), error.text);
	assert_true(is_set(&begun));
	dirty(0);
}

static void end_flush(void)
{
	__atomic_store_n(&may_end, true, __ATOMIC_RELEASE);
	lc_thread_join(&straggler);
	if (told != -EIO)
		must(-EPROTO, "the flush has to be told");
}

static void close_all(void)
{
	must(lc_cache_close(cache), "close");
	lc_store_close(&other_disk.store);
	lc_store_close(&third_disk.store);
}

static void pause_ms(u32 ms)
{
	(void)nanosleep(&(struct timespec){.tv_nsec = ms * (long)LC_NS_PER_MS}, NULL);
}

static void write_back_waits_for_a_flush_from_before(void **state)
{
	(void)state;
	attach_during_a_flush();
	dirty(1);
	start_drain();
	while (!writes_of(&other_disk))
		pause_ms(5);
	pause_ms(100);
	assert_int_equal(writes_of(&disk), 0);
	end_flush();
	lc_thread_join(&drainer.thread);
	must(drainer.err, "drain");
	assert_int_equal(disk.writes, 1);
	close_all();
}

/* The other volume fails. Who drains hears of it when the one that is being flushed has been written back, too. */
static void a_volume_that_is_being_flushed_is_not_done(void **state)
{
	(void)state;
	attach_during_a_flush();
	dirty(1);
	other_disk.write_error = -EIO;
	start_drain();
	while (!lc_store_errors(&other_disk.store))
		pause_ms(1);
	dirty(2);      /* in the open segment: it has turns that change nothing */
	pause_ms(100); /* many attempts */
	end_flush();
	lc_thread_join(&drainer.thread);
	assert_int_equal(drainer.err, -EIO);
	assert_int_equal(drainer.writes, 1);
	other_disk.write_error = 0;
	close_all();
}

/*
 * The flush ends when write-back has just seen that it has not, and is about to sleep. (It once slept then until it would
 * have looked for an idle client.)
 */
static bool end_before_sleep;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
struct lc_sweep;
void __real_lc_sweep_forgive(struct lc_sweep *sw);
void __wrap_lc_sweep_forgive(struct lc_sweep *sw);

void __wrap_lc_sweep_forgive(struct lc_sweep *sw)
{
	if (__atomic_exchange_n(&end_before_sleep, false, __ATOMIC_ACQ_REL))
		end_flush();
	__real_lc_sweep_forgive(sw);
}
/* NOLINTEND(bugprone-reserved-identifier) */

static void the_end_of_a_flush_is_not_missed(void **state)
{
	(void)state;
	settings.idle_ms = 20000;
	attach_during_a_flush();
	__atomic_store_n(&end_before_sleep, true, __ATOMIC_RELEASE);
	start_drain();
	lc_thread_join(&drainer.thread);
	must(drainer.err, "drain");
	assert_false(is_set(&end_before_sleep));
	assert_in_range(drainer.took_ns, 0, 10 * LC_NS_PER_S);
	close_all();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_cache_comes_and_goes_under_load),
		T(what_was_detached_counts_no_more),
		T(a_dirty_cache_is_not_attached),
		T(only_one_at_a_time),
		T(a_backing_store_that_fails_keeps_the_cache),
		T(lost_blocks_keep_the_cache),
		T(a_failed_flush_is_not_swallowed),
		T(a_failed_detach_keeps_the_fingerprint),
		T(nobody_waits_for_a_slow_flush),
		T(write_back_waits_for_a_flush_from_before),
		T(a_volume_that_is_being_flushed_is_not_done),
		T(the_end_of_a_flush_is_not_missed),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
