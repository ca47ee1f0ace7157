/* Presence bits with ranks: where in a map's file a page lies, in constant time. */
#include <stdlib.h>

#include "format/map.h"

#define WORDS_A_RANK 8 /* one 64-bit rank for 512 bits */

struct map_presence {
    uint64_t page_count;
    uint64_t pages_offset;
    uint64_t stored;
    uint64_t word_count;
    uint64_t *words;
    uint64_t *ranks; /* ranks[i]: bits set in all words before word 8 i */
};

static void fill(struct map_presence *presence, const uint8_t *bits)
{
    for (uint64_t i = 0; i < presence->word_count; i++) {
        uint64_t word = load_le64(bits + 8 * i);
        uint64_t left = presence->page_count - 64 * i;

        /* Padding says nothing about any page: unset it, lest it be counted. */
        if (left < 64)
            word &= (UINT64_C(1) << left) - 1;
        if (i % WORDS_A_RANK == 0)
            presence->ranks[i / WORDS_A_RANK] = presence->stored;
        presence->words[i] = word;
        presence->stored += (uint64_t)__builtin_popcountll(word);
    }
}

struct map_presence *map_presence_create(const struct map *map, const uint8_t *bits)
{
    struct map_presence *presence = calloc(1, sizeof(*presence));

    if (!presence)
        return NULL;
    presence->page_count = map->page_count;
    presence->pages_offset = map_pages_offset(map);
    presence->word_count = divide_up(map->page_count, 64);
    presence->words = calloc(presence->word_count, sizeof(presence->words[0]));
    presence->ranks = calloc(divide_up(presence->word_count, WORDS_A_RANK), sizeof(presence->ranks[0]));
    if (!presence->words || !presence->ranks) {
        map_presence_destroy(presence);
        return NULL;
    }
    fill(presence, bits);
    return presence;
}

void map_presence_destroy(struct map_presence *presence)
{
    if (!presence)
        return;
    free(presence->words);
    free(presence->ranks);
    free(presence);
}

bool map_presence_find(const struct map_presence *presence, uint64_t page, uint64_t *offset_out)
{
    uint64_t word = page / 64, bit = UINT64_C(1) << (page % 64);
    uint64_t rank;

    if (page >= presence->page_count || !(presence->words[word] & bit))
        return false;
    rank = presence->ranks[word / WORDS_A_RANK];
    for (uint64_t i = word - word % WORDS_A_RANK; i < word; i++)
        rank += (uint64_t)__builtin_popcountll(presence->words[i]);
    rank += (uint64_t)__builtin_popcountll(presence->words[word] & (bit - 1));
    *offset_out = presence->pages_offset + rank * MAP_PAGE_SIZE;
    return true;
}

uint64_t map_presence_file_size(const struct map_presence *presence)
{
    return presence->pages_offset + presence->stored * MAP_PAGE_SIZE;
}
