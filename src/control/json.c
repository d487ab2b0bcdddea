/* SPDX-License-Identifier: BSD-3-Clause */
/* json.c - see json.h. */
#include "json.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

json_t *json_text(const char *text)
{
	json_t *json = json_string(text);
	char *plain;

	if (json)
		return json;
	plain = strdup(text);
	for (char *p = plain; p && *p; p++)
		if ((unsigned char)*p > 0x7f)
			*p = '?';
	json = plain ? json_string(plain) : NULL;
	free(plain);
	return json;
}

json_t *json_wall_time(int64_t seconds)
{
	char text[32];
	time_t t = seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return json_null();
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

const char *json_stranger(json_t *object, const char *const *names)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		unsigned i = 0;

		while (names[i] && strcmp(names[i], key) != 0)
			i++;
		if (!names[i])
			return key;
	}
	return NULL;
}
