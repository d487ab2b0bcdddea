/* SPDX-License-Identifier: BSD-3-Clause */
#include "json.h"

#include <stdio.h>

#include "name.h"

static void put_text(const char *text)
{
	bool utf8 = name_is_text(text);

	putchar('"');
	for (const u8 *p = (const u8 *)text; *p; p++) {
		if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && !utf8))
			printf("\\u%04x", *p);
		else
			putchar(*p);
	}
	putchar('"');
}

static void begin(struct json *j, const char *key)
{
	if (j->comma)
		putchar(',');
	if (j->depth)
		printf("\n%*s", (int)j->depth * 2, "");
	if (key) {
		put_text(key);
		printf(": ");
	}
	j->comma = true;
}

void json_open(struct json *j, const char *key, char bracket)
{
	begin(j, key);
	putchar(bracket);
	j->depth++;
	j->comma = false;
}

void json_close(struct json *j, char bracket)
{
	j->depth--;
	if (j->comma)
		printf("\n%*s", (int)j->depth * 2, "");
	putchar(bracket);
	j->comma = true;
	if (!j->depth)
		putchar('\n');
}

void json_number(struct json *j, const char *key, u64 value)
{
	begin(j, key);
	printf("%llu", (unsigned long long)value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	begin(j, key);
	printf(value ? "true" : "false");
}

void json_text(struct json *j, const char *key, const char *value)
{
	begin(j, key);
	put_text(value);
}
