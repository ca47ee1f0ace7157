/* What a misspelt word was probably meant to be. */
#include <string.h>

#include "cmd/options.h"

#define WORD_MAX 40

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned smallest = a < b ? a : b;

    return smallest < c ? smallest : c;
}

/* Letters to change, add, drop or swap with their neighbour (optimal string alignment). */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];
    size_t a_length = strlen(a), b_length = strlen(b);

    if (a_length > WORD_MAX || b_length > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *higher = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            row[j] = least(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && higher[j - 2] + 1 < row[j])
                row[j] = higher[j - 2] + 1;
        }
    }
    return rows[a_length % 3][b_length];
}

const char *suggest(const char *word, const char *const *candidates, size_t count)
{
    size_t length = strlen(word);
    unsigned nearest = length <= 2 ? 2 : length <= 6 ? 3 : 4; /* one more than is taken for a slip */
    const char *found = NULL;

    for (size_t i = 0; i < count; i++) {
        unsigned here = distance(word, candidates[i]);

        if (here > 1 && length >= 3 && !strncmp(word, candidates[i], length))
            here = 1; /* an abbreviation */
        if (here < nearest) {
            nearest = here;
            found = candidates[i];
        }
    }
    return found;
}
