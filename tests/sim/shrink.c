/* SPDX-License-Identifier: BSD-3-Clause */
/* shrink.c - look for a smaller history that fails by the same rule; shrink.h says how. */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shrink.h"

#define SALTS 400u
#define HISTORY_SECONDS 5u /* a candidate that takes longer has not failed */

static double monotonic_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

bool same_rule(const char *a, const char *b)
{
	while (*a == *b && *a && !isdigit((unsigned char)*a)) {
		a++;
		b++;
	}
	return *a == *b || (isdigit((unsigned char)*a) && isdigit((unsigned char)*b));
}

/* Runs in a child until a history fails; sim_report_and_exit() ends it then. */
static void try_salts(struct history *h, u64 seed, u32 *salt, double deadline)
{
	int null = open("/dev/null", O_WRONLY);

	dup2(null, STDERR_FILENO);
	dup2(null, STDOUT_FILENO);
	sim_tracing = false;
	for (*salt = 0; *salt < SALTS && monotonic_s() < deadline; ++*salt) {
		h->limits.salt = *salt;
		alarm(HISTORY_SECONDS);
		history_run(h, seed);
	}
	_exit(0);
}

/* Does some history within the limits fail by the rule? Then the salt is filled in. */
static bool fails(struct history *h, u64 seed, struct limits *l, const char *rule, u32 *salt,
		  double deadline)
{
	int status;
	pid_t p;

	h->limits = *l;
	sim_failure[0] = 0;
	fflush(NULL);
	p = fork();
	if (p < 0)
		return false;
	if (!p)
		try_salts(h, seed, salt, deadline);
	waitpid(p, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 || !same_rule(sim_failure, rule))
		return false;
	l->salt = *salt;
	return true;
}

struct limits shrink(struct history *h, u64 seed, const char *rule, double seconds)
{
	static const size_t fields[] = {offsetof(struct limits, lives),
					offsetof(struct limits, clients),
					offsetof(struct limits, ops),
					offsetof(struct limits, sectors)};
	struct limits best = LIMITS_NONE;
	double deadline = monotonic_s() + seconds;
	u32 *salt = mmap(NULL, sizeof(*salt), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);
	bool smaller = true;
	size_t i;

	if (salt == MAP_FAILED)
		return best;
	while (smaller && monotonic_s() < deadline) {
		smaller = false;
		for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
			u32 *at = (u32 *)((char *)&best + fields[i]), step = *at / 2;

			/* Half of it, or else a quarter less, an eighth, ... one less. */
			for (; step && monotonic_s() < deadline; step /= 2) {
				struct limits l = best;

				*(u32 *)((char *)&l + fields[i]) -= step;
				if (!fails(h, seed, &l, rule, salt, deadline))
					continue;
				best = l;
				smaller = true;
				break;
			}
		}
	}
	munmap(salt, sizeof(*salt));
	return best;
}
