/*
 * Statistics as text: what a mount says of itself may be anybody's words, and must not reach the terminal as they are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/stats_print.h"

#define CONTROL "\xc2\x9b" /* U+009B, which begins a terminal's commands */

static void fill(struct statistics *s)
{
    *s = (struct statistics){.process = 1, .mirror_count = 1, .waiting_count = 1};
    strcpy(s->source, CONTROL "source");
    strcpy(s->mirrors[0].mirror, CONTROL "mirror");
    strcpy(s->mirrors[0].reason, CONTROL "because");
    strcpy(s->waiting[0].what, CONTROL "block");
    strcpy(s->waiting[0].mirror, CONTROL "asked");
    strcpy(s->waiting[0].reason, CONTROL "why");
}

static void check(const char *text, const char *const *words)
{
    assert_null(strstr(text, CONTROL));
    for (; *words; words++) {
        char escaped[40];

        snprintf(escaped, sizeof(escaped), "\\x9b%s", *words);
        if (!strstr(text, escaped))
            fail_msg("no %s in: %s", escaped, text);
    }
}

static void control_characters_are_escaped(void **state)
{
    static const char *const all[] = {"source", "mirror", "because", "block", "asked", "why", NULL};
    const struct stats_look look = {.utf8 = true};
    struct statistics *s = malloc(2 * sizeof(*s));
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    (void)state;
    fill(&s[0]);
    fill(&s[1]);
    stats_print(to, &s[1], &s[0], 1000, &look, "\n");
    fclose(to);
    check(text, all);
    free(text);

    to = open_memstream(&text, &size);
    stats_print_brief(to, &s[1], &s[0], 1000);
    fclose(to);
    check(text, all + 3);
    free(text);
    free(s);
}

static void a_mirror_in_use_has_had_its_fault_before(void **state)
{
    static const char *const lines[] = {"mirror    here, in use, its last fault: it was away\n",
                                        "mirror    here, unreachable: it was away\n"};
    const struct stats_look look = {.utf8 = true};
    struct statistics *s = calloc(1, sizeof(*s));

    (void)state;
    s->mirror_count = 1;
    strcpy(s->mirrors[0].mirror, "here");
    strcpy(s->mirrors[0].reason, "it was away");
    for (unsigned i = 0; i < 2; i++) {
        char *text = NULL;
        size_t size;
        FILE *to = open_memstream(&text, &size);

        strcpy(s->mirrors[0].state, i ? "unreachable" : "in use");
        stats_print(to, s, NULL, 1000, &look, "\n");
        fclose(to);
        if (!strstr(text, lines[i]))
            fail_msg("no %s in: %s", lines[i], text);
        free(text);
    }
    free(s);
}

/* A mirror's line of times. */
static void check_times(uint64_t slow_us, const char *expected)
{
    const struct stats_look look = {.utf8 = true};
    struct statistics *s = calloc(1, sizeof(*s));
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    s->mirror_count = 1;
    s->mirrors[0].first_byte_us = 900;
    s->mirrors[0].slow_us = slow_us;
    s->mirrors[0].rate = MIB;
    stats_print(to, s, NULL, 1000, &look, "\n");
    fclose(to);
    if (!strstr(text, expected))
        fail_msg("no %s in: %s", expected, text);
    free(text);
    free(s);
}

static void what_is_not_measured_yet_is_not_told(void **state)
{
    (void)state;
    check_times(3000, "first byte after 900 us, 95 % within 3 ms, 1.0 MiB a second");
    check_times(0, "first byte after 900 us, 1.0 MiB a second");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mirror_in_use_has_had_its_fault_before),
        cmocka_unit_test(control_characters_are_escaped),
        cmocka_unit_test(what_is_not_measured_yet_is_not_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
