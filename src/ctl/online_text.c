/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * online_text.c - members of answers, and numbers as people read them.
 */
#include <stdio.h>
#include <string.h>

#include "online.h"

json_t *member(const json_t *o, const char *path)
{
	char name[64];

	while (o && *path) {
		size_t n = strcspn(path, ".");

		snprintf(name, sizeof name, "%.*s", (int)n, path);
		o = json_object_get(o, name);
		path += n + (path[n] == '.');
	}
	return (json_t *)o;
}

double number_of(const json_t *o, const char *path)
{
	return json_number_value(member(o, path));
}

const char *text_of(const json_t *o, const char *path)
{
	const char *text = json_string_value(member(o, path));

	return text ? text : "";
}

/* Three digits and one of the UNITS, each STEP times the one before. */
static const char *scaled(char text[TEXT_BYTES], double n, double step, const char *const *units)
{
	unsigned i = 0;

	while (n >= 999.5 && units[i + 1]) {
		n /= step;
		i++;
	}
	snprintf(text, TEXT_BYTES, "%.*f%s", i == 0 || n >= 99.95 ? 0 : 1, n, units[i]);
	return text;
}

const char *bytes_text(char text[TEXT_BYTES], double bytes)
{
	static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", NULL};

	return scaled(text, bytes, 1024, units);
}

const char *amount_text(char text[TEXT_BYTES], double n)
{
	static const char *const units[] = {"", "k", "M", "G", "T", NULL};

	return scaled(text, n, 1000, units);
}

const char *latency_text(char text[TEXT_BYTES], double ns)
{
	static const char *const units[] = {" ns", " us", " ms", " s", NULL};

	if (ns <= 0)
		return strcpy(text, "-");
	return scaled(text, ns, 1000, units);
}

const char *duration_text(char text[TEXT_BYTES], double seconds)
{
	u64 s = seconds;

	if (s < 60)
		snprintf(text, TEXT_BYTES, "%u s", (unsigned)s);
	else if (s < 3600)
		snprintf(text, TEXT_BYTES, "%u min %u s", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(text, TEXT_BYTES, "%u h %u min", (unsigned)(s / 3600),
			 (unsigned)(s / 60 % 60));
	else
		snprintf(text, TEXT_BYTES, "%llu d %u h", (unsigned long long)(s / 86400),
			 (unsigned)(s / 3600 % 24));
	return text;
}
